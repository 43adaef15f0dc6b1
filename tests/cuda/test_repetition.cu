// SPDX-License-Identifier: Apache-2.0
#include "cuda/device_present.hpp"

#include "mor/backend/cuda/backend.cuh"

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
