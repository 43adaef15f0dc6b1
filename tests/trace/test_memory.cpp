// SPDX-License-Identifier: Apache-2.0
#include "mor/backend/trace/backend.hpp"
#include "mor/backend/trace/counting_memory.hpp"

#include "support/catch.hpp"

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace trace = mor::trace;
using mor::Index;

TEST_CASE("counted addresses are distinct, aligned and never null") {
  trace::CountingMemory memory(1), other(2);
  auto const address = [](void const* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); };
  std::uintptr_t last_end = 0;
  for (Index const bytes : {Index{0}, Index{1}, Index{255}, Index{256}, Index{257}, Index{1} << 40}) {
    auto const begin = address(memory.take(bytes));
    CHECK(begin != 0);
    CHECK(begin % mor::kAlignment == 0);
    CHECK(begin > last_end);
    last_end = begin + static_cast<std::uintptr_t>(bytes);
  }
  CHECK(address(other.take(1)) > last_end);
  CHECK(memory.live_bytes() == 1 + 255 + 256 + 257 + (Index{1} << 40));
  CHECK(memory.allocations() == 6);
  CHECK_FALSE(memory.resource().addressable);
}

TEST_CASE("a trace that runs out of addresses says so") {
  trace::CountingMemory memory(15);
  static_cast<void>(memory.take(Index{1} << 42));
  try {
    static_cast<void>(memory.take(Index{1} << 42));
    FAIL("no error");
  } catch (mor::error const& failure) {
    CHECK(failure.code() == mor::ErrorCode::OutOfMemory);
  }
  CHECK_THROWS_AS(memory.take(std::numeric_limits<Index>::max() - mor::kAlignment), mor::error);
  CHECK(memory.live_bytes() == Index{1} << 42);
  CHECK_THROWS_AS(trace::CountingMemory(0), mor::error);
  CHECK_THROWS_AS(trace::CountingMemory(16), mor::error);
}

TEST_CASE("buffers count as persistent memory until they end") {
  trace::Backend<float, float> backend;
  CHECK(backend.persistent_bytes() == 0);
  {
    mor::Buffer<float> weights(backend.memory(), 100);
    mor::Buffer<double> moments(backend.memory(), 10);
    CHECK(weights.data() != nullptr);
    CHECK(backend.persistent_bytes() == 480);
    mor::Buffer<float> moved = std::move(weights);
    CHECK(backend.persistent_bytes() == 480);
  }
  CHECK(backend.persistent_bytes() == 0);
  CHECK(backend.persistent_peak_bytes() == 480);
  CHECK(backend.arena().peak_bytes() == 0);
}

TEST_CASE("the arena's peak is what was held at once, in whole alignment units") {
  trace::Backend<float, float> backend;
  auto const mark = backend.arena().mark();
  auto const a = backend.arena().matrix<float>(10, 100);  // 4000 bytes: 4096
  auto const b = backend.arena().allocate<float>(1);      // 256
  CHECK(reinterpret_cast<std::uintptr_t>(b.data()) - reinterpret_cast<std::uintptr_t>(a.data) == 4096);
  backend.arena().release(mark);
  static_cast<void>(backend.arena().allocate<float>(1024));  // 4096
  CHECK(backend.arena().peak_bytes() == 4352);
  CHECK(backend.persistent_bytes() == 0);
  static_cast<void>(backend.arena().allocate<float>(Index{1} << 30));  // 4 GiB that nobody has to own
  CHECK(backend.arena().peak_bytes() == 4096 + (Index{4} << 30));
}

TEST_CASE("a verb's own scratch raises the arena's peak and is gone afterwards") {
  trace::Options options;
  options.scratch_bytes = [](trace::Operation const& operation) {
    return operation.name == "add" ? operation.shapes[0].rows * 1000 : Index{0};
  };
  trace::Backend<float, float> backend(options);
  auto const x = backend.arena().matrix<float>(8, 8);
  backend.fill(x, 0.0);
  CHECK(backend.arena().peak_bytes() == 256);
  backend.add(x, x);
  CHECK(backend.arena().peak_bytes() == 256 + 8192);
  CHECK(backend.arena().in_use_bytes() == 256);
  CHECK(backend.operations().back().scratch_bytes == 8000);
}

TEST_CASE("uploads take arena memory only where the real backend copies") {
  std::vector<mor::Row> const host(100, 7);
  trace::Backend<float, float> like_host;
  auto const rows = like_host.upload(host);
  CHECK(rows.size() == 100);
  CHECK(rows.data() != host.data());
  CHECK(like_host.arena().peak_bytes() == 0);
  trace::Options options;
  options.upload_uses_arena = true;
  trace::Backend<float, float> like_device(options);
  static_cast<void>(like_device.upload(host));
  CHECK(like_device.arena().in_use_bytes() == 512);
  CHECK(like_device.operations().back().bytes_read == 400);
}

TEST_CASE("downloads give zeros, sums are numbers, clear forgets operations only") {
  trace::Backend<float, double> backend;
  auto const x = backend.arena().allocate<double>(3);
  auto const rows = backend.arena().allocate<mor::Row>(2);
  std::vector<double> host(3, 5.0);
  std::vector<mor::Row> host_rows(2, 5);
  backend.download(x, host);
  backend.download(rows, host_rows);
  CHECK(host == std::vector<double>(3, 0.0));
  CHECK(host_rows == std::vector<mor::Row>(2, 0));
  CHECK(backend.sum(x) == 0.0);
  CHECK(backend.total_bytes() == 2 * 24 + 2 * 8 + 24);
  CHECK(backend.operations().size() == 3);
  backend.clear();
  CHECK(backend.operations().empty());
  CHECK(backend.arena().in_use_bytes() == 512);
}
