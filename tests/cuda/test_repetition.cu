// SPDX-License-Identifier: Apache-2.0
#include "cuda/device_present.hpp"

#include "mor/backend/cuda/backend.cuh"

#include <cmath>
#include <numeric>
#include <vector>

using namespace mor;

namespace {

using B = cuda::Backend<float>;

/// Uploads rows, gathers values by them, and doubles the result: out[i] = 2 values[rows[i]].
struct GatherTwice {
  B& backend;
  std::span<float const> values;
  std::span<float> out;

  void operator()(std::vector<Row> const& rows) const {
    backend.arena().reset();
    auto const target = out.first(rows.size());
    backend.gather_values(values, backend.upload(rows), target);
    View<float> const all(target.data(), 1, static_cast<Index>(rows.size()));
    backend.add(all, all);
  }
};

}  // namespace

TEST_CASE("work that repeats is captured, and computes with the data of each run", "[cuda]") {
  test::require_device();
  B backend;
  std::vector<float> host(100);
  std::iota(host.begin(), host.end(), 1.0F);
  Buffer<float> const values(backend.memory(), 100), out(backend.memory(), 100);
  backend.store(host, values.span());
  GatherTwice const gather{backend, values.span(), out.span()};
  cuda::Repetition repetition;
  for (int run = 0; run < 12; ++run) {
    // Ten rows, then twenty from run 6 on: the graph of ten must not be launched for twenty.
    std::vector<Row> rows;
    for (Row i = 0; i < (run < 6 ? 10 : 20); ++i) rows.push_back((i * 7 + run) % 100);
    backend.repeat(repetition, [&] { gather(rows); });
    CAPTURE(run);
    REQUIRE(repetition.captured() == ((run >= 2 && run < 6) || run >= 8));
    std::vector<float> got(rows.size());
    backend.download(std::span<float const>(out.span()).first(rows.size()), got);
    for (std::size_t i = 0; i < rows.size(); ++i) REQUIRE(got[i] == 2.0F * static_cast<float>(rows[i] + 1));
  }
}

TEST_CASE("work that waits for the device is never captured", "[cuda]") {
  test::require_device();
  B backend;
  Buffer<float> const values(backend.memory(), 4);
  cuda::Repetition repetition;
  for (int run = 0; run < 5; ++run) {
    double sum = 0.0;
    backend.repeat(repetition, [&] {
      backend.fill(View<float>(values.data(), 1, 4), static_cast<double>(run));
      sum = backend.sum(values.span());
    });
    REQUIRE(sum == 4.0 * run);
    REQUIRE_FALSE(repetition.captured());
  }
}

TEST_CASE("backends on two devices take turns in one thread", "[cuda]") {
  test::require_device();
  if (cuda::device_count() < 2) SKIP("one CUDA device");
  cuda::BackendOptions second;
  second.device = 1;
  B first_backend, second_backend(second);
  std::vector<float> const host(100, 3.0F);
  std::vector<Row> rows(100);
  std::iota(rows.begin(), rows.end(), Row{0});
  cuda::Repetition repetitions[2];
  Buffer<float> const values[] = {Buffer<float>(first_backend.memory(), 100), Buffer<float>(second_backend.memory(), 100)};
  Buffer<float> const out[] = {Buffer<float>(first_backend.memory(), 100), Buffer<float>(second_backend.memory(), 100)};
  for (int run = 0; run < 8; ++run) {
    for (std::size_t i = 0; i < 2; ++i) {
      B& backend = i == 0 ? first_backend : second_backend;
      backend.store(host, values[i].span());
      GatherTwice const gather{backend, values[i].span(), out[i].span()};
      backend.repeat(repetitions[i], [&] { gather(rows); });
      REQUIRE(repetitions[i].captured() == (run >= 2));
      REQUIRE(backend.sum(out[i].span()) == 600.0);
    }
  }
}

TEST_CASE("an error in repeated work leaves the backend usable", "[cuda]") {
  test::require_device();
  B backend;
  Buffer<float> const values(backend.memory(), 4);
  cuda::Repetition repetition;
  int run = 0;
  auto const work = [&] {
    backend.fill(View<float>(values.data(), 1, 4), 3.0);
    if (run == 2 || run == 4) fail(ErrorCode::InvalidArgument, "on purpose", "test");
  };
  for (; run < 8; ++run) {
    if (run == 2 || run == 4) {
      REQUIRE_THROWS_AS(backend.repeat(repetition, work), mor::error);
    } else {
      backend.repeat(repetition, work);
      REQUIRE(backend.sum(values.span()) == 12.0);
    }
  }
}

TEST_CASE("a product of another shape in the run that is captured searches its algorithm first", "[cuda]") {
  test::require_device();
  cuda::BackendOptions options;
  options.blas.search = true;
  B backend(options);
  constexpr Index size = 1024;
  Buffer<float> const x(backend.memory(), size * size), weights(backend.memory(), size * size), out(backend.memory(), size * size);
  View<float> const to(out.data(), size, size);
  backend.fill(View<float>(x.data(), size, size), 1.0);
  backend.fill(View<float>(weights.data(), size, size), 1.0 / static_cast<double>(size));
  cuda::Repetition repetition;
  for (int run = 0; run < 10; ++run) {
    Index const rows = run < 2 || run == 7 ? size : 768;
    backend.fill(to, 0.0);
    backend.repeat(repetition, [&] {
      backend.linear(View<float const>(x.data(), rows, size), View<float const>(weights.data(), size, size), to.row_range(0, rows));
    });
    CAPTURE(run);
    REQUIRE(repetition.captured() == (run >= 4 && run < 7));
    REQUIRE(backend.sum(out.span()) == static_cast<double>(rows * size));
  }
}

TEST_CASE("work that waits only in the run that would be captured runs as usual, and is captured later", "[cuda]") {
  test::require_device();
  B backend;
  std::vector<float> const host(100, 3.0F);
  Buffer<float> const values(backend.memory(), 100), out(backend.memory(), 100);
  backend.store(host, values.span());
  GatherTwice const gather{backend, values.span(), out.span()};
  cuda::Repetition repetition;
  for (int run = 0; run < 8; ++run) {
    std::vector<Row> rows(100);
    std::iota(rows.begin(), rows.end(), Row{0});
    double inside = 0.0;
    backend.fill(View<float>(out.data(), 1, 100), 0.0);
    backend.repeat(repetition, [&] {
      gather(rows);
      if (run == 2) inside = backend.sum(out.span());
    });
    CAPTURE(run);
    REQUIRE(repetition.captured() == (run >= 5));
    REQUIRE(inside == (run == 2 ? 600.0 : 0.0));
    REQUIRE(backend.sum(out.span()) == 600.0);
  }
}

TEST_CASE("repeated work is captured anew where a number inside a kernel's argument changes", "[cuda]") {
  test::require_device();
  B backend;
  Buffer<float> const values(backend.memory(), 100);
  cuda::Repetition repetition;
  for (int run = 0; run < 12; ++run) {
    double const value = run < 5 ? 2.0 : run < 9 ? 3.0 : static_cast<double>(run);
    backend.repeat(repetition, [&] { backend.fill(View<float>(values.data(), 10, 10), value); });
    CAPTURE(run);
    REQUIRE(repetition.captured() == ((run >= 2 && run < 5) || run == 7 || run == 8));
    REQUIRE(backend.sum(values.span()) == 100.0 * value);
  }
}

TEST_CASE("repeated work reads and writes the buffers of each run", "[cuda]") {
  test::require_device();
  B backend;
  Buffer<float> const first(backend.memory(), 100), second(backend.memory(), 100), out(backend.memory(), 100);
  auto const view = [](Buffer<float> const& of) { return View<float>(of.data(), 10, 10); };
  backend.fill(view(first), 1.0);
  backend.fill(view(second), 2.0);
  cuda::Repetition alternating, settled;
  for (int run = 0; run < 10; ++run) {
    Buffer<float> const& from = run % 2 == 0 ? first : second;
    backend.repeat(alternating, [&] { backend.copy(view(from), view(out)); });
    CAPTURE(run);
    REQUIRE_FALSE(alternating.captured());
    REQUIRE(backend.sum(out.span()) == (run % 2 == 0 ? 100.0 : 200.0));
    Buffer<float> const& later = run < 6 ? first : second;
    backend.repeat(settled, [&] { backend.copy(view(later), view(out)); });
    REQUIRE(settled.captured() == ((run >= 2 && run < 6) || run >= 8));
    REQUIRE(backend.sum(out.span()) == (run < 6 ? 100.0 : 200.0));
  }
}

TEST_CASE("repeated attention sees its scale and its operands", "[cuda]") {
  test::require_device();
  cuda::Backend<bfloat16> backend;
  constexpr Index rows = 64, dim = 64;
  Buffer<bfloat16> const q(backend.memory(), rows * dim), k(backend.memory(), rows * dim), ones(backend.memory(), rows * dim),
      twos(backend.memory(), rows * dim), out(backend.memory(), rows * dim);
  Buffer<float> const lse(backend.memory(), rows);
  auto const view = [](Buffer<bfloat16> const& of) { return View<bfloat16>(of.data(), rows, dim); };
  backend.fill(view(q), 0.5);
  backend.fill(view(k), 0.5);
  backend.fill(view(ones), 1.0);
  backend.fill(view(twos), 2.0);
  std::vector<Row> const offsets{0, static_cast<Row>(rows)}, begin{0}, limits(rows, static_cast<Row>(rows));
  cuda::Repetition repetition;
  for (int run = 0; run < 16; ++run) {
    Buffer<bfloat16> const& v = run < 5 ? ones : twos;
    double const scale = run < 10 ? 0.125 : 0.25;
    backend.repeat(repetition, [&] {
      backend.arena().reset();
      KeyList keys;
      keys.num_sequences = 1;
      keys.num_queries = rows;
      keys.max_limit = rows;
      keys.query_offsets = backend.upload(std::span<Row const>(offsets));
      keys.host_query_offsets = offsets;
      keys.key_begin = backend.upload(std::span<Row const>(begin));
      keys.limits = backend.upload(std::span<Row const>(limits));
      backend.attention(view(q), view(k), view(v), keys, {1, 1, dim, scale}, view(out), View<float>(lse.data(), rows, 1));
    });
    CAPTURE(run);
    REQUIRE(repetition.captured() == ((run >= 2 && run < 5) || (run >= 7 && run < 10) || run >= 12));
    // All keys are alike: each has a share of one in `rows`, and a score of 16 times the scale.
    std::vector<float> got(rows);
    backend.download(std::span<float const>(lse.span()), got);
    for (float const value : got) REQUIRE(std::abs(value - static_cast<float>(16.0 * scale + std::log(64.0))) < 1e-3F);
    bfloat16 result;
    cuda::check(cudaMemcpy(&result, out.data(), sizeof(result), cudaMemcpyDeviceToHost), "cudaMemcpy");  // downloads have waited
    REQUIRE(std::abs(static_cast<float>(result) - (run < 5 ? 1.0F : 2.0F)) < 0.02F);
  }
}
