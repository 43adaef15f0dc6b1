// SPDX-License-Identifier: Apache-2.0
// Sampling on the device draws the very tokens of the host's law, whatever else is in the batch.
#include "cuda/device.cuh"
#include "support/sample_cases.hpp"

#include "mor/backend/cuda/ops/sampling.cuh"
#include "mor/math/sample_row.hpp"

#include <cmath>
#include <limits>
#include <vector>

using namespace mor;
using namespace mor::test;

namespace {

struct Drawn {
  std::vector<Token> tokens;
  std::vector<float> log_probabilities;
};

/// An array on the device.
template <class T>
class DeviceArray {
 public:
  DeviceArray(Device& device, std::vector<T> const& values) : buffer_(device.memory(), static_cast<Index>(values.size())) {
    cuda::check(cudaMemcpy(buffer_.data(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
    cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  [[nodiscard]] std::span<T const> read() const { return buffer_.span(); }

 private:
  Buffer<T> buffer_;
};

/// With `padding` elements between rows.
template <class Arch>
Drawn draw_on_device(Device& device, SampleCases const& cases, Index padding = 0) {
  std::vector<double> const values(cases.logits.begin(), cases.logits.end());
  DeviceMatrix<float> const logits(device, cases.rows, cases.columns, values, padding);
  DeviceArray<SamplingRule> const rules(device, cases.rules);
  DeviceRows const history(device, cases.history);
  DeviceRows const tokens(device, std::vector<Row>(static_cast<std::size_t>(cases.rows), -7));
  DeviceMatrix<float> const log_probabilities(device, cases.rows, 1);
  cuda::sample<Arch>(device.context(), logits.read(), rules.read(), history.read(), tokens.span(), log_probabilities.span());
  device.synchronize();
  REQUIRE(log_probabilities.intact());
  return {tokens.values(), log_probabilities.raw_values()};
}

Drawn draw_on_host(SampleCases const& cases) {
  auto const columns = static_cast<std::size_t>(cases.columns);
  std::vector<float> values(columns);
  std::vector<Token> order(columns);
  Drawn drawn;
  for (Index i = 0; i < cases.rows; ++i) {
    auto const sampled = math::sample_row<float>({cases.row(i), columns}, cases.rules[static_cast<std::size_t>(i)],
                                                 cases.history, {values, order});
    drawn.tokens.push_back(sampled.token);
    drawn.log_probabilities.push_back(static_cast<float>(sampled.log_probability));
  }
  return drawn;
}

void require_same(Drawn const& got, Drawn const& expected, SampleCases const& cases) {
  for (std::size_t i = 0; i < expected.tokens.size(); ++i) {
    auto const& rule = cases.rules[i];
    CAPTURE(cases.columns, i, rule.temperature, rule.top_k, rule.top_p, rule.min_p, rule.repetition_penalty);
    REQUIRE(got.tokens[i] == expected.tokens[i]);
    float const log_probability = expected.log_probabilities[i];
    REQUIRE(std::abs(got.log_probabilities[i] - log_probability) <= 1e-6F * (1.0F + std::abs(log_probability)));
  }
}

}  // namespace

TEST_CASE("the device draws the host's tokens from short rows", "[cuda][quick]") {
  Device device;
  for (Index const columns : {1, 2, 3, 33, 100, 512, 513, 1000}) {
    auto const cases = sample_cases(60, columns, static_cast<unsigned>(columns));
    auto const expected = draw_on_host(cases);
    require_same(draw_on_device<cuda::Sm90>(device, cases), expected, cases);
    require_same(draw_on_device<cuda::Sm90>(device, cases, 3), expected, cases);
    require_same(draw_on_device<cuda::Sm80>(device, cases), expected, cases);
  }
}

TEST_CASE("the device draws the host's tokens from rows as long as vocabularies", "[cuda]") {
  Device device;
  for (Index const columns : {32000, 49152, 50257, 151936}) {
    auto const cases = sample_cases(100, columns, static_cast<unsigned>(columns));
    auto const expected = draw_on_host(cases);
    require_same(draw_on_device<cuda::Sm90>(device, cases), expected, cases);
    require_same(draw_on_device<cuda::Sm80>(device, cases), expected, cases);  // long rows: read in every pass
  }
  // Longer than the shared memory of a cluster.
  auto const cases = sample_cases(24, 500000, 1);
  require_same(draw_on_device<cuda::Sm90>(device, cases), draw_on_host(cases), cases);
}

TEST_CASE("the device's draws are the same bits in any batch", "[cuda]") {
  Device device;
  auto const cases = sample_cases(300, 20000, 2);  // many rows: few blocks a row
  auto const together = draw_on_device<cuda::Sm90>(device, cases);
  auto const again = draw_on_device<cuda::Sm90>(device, cases);
  CHECK(again.tokens == together.tokens);
  CHECK(again.log_probabilities == together.log_probabilities);
  for (Index i = 0; i < 60; ++i) {
    SampleCases one{1, cases.columns, {cases.row(i), cases.row(i) + cases.columns}, {}, cases.history};
    one.rules.push_back(cases.rules[static_cast<std::size_t>(i)]);
    auto const alone = draw_on_device<cuda::Sm90>(device, one);
    REQUIRE(alone.tokens.front() == together.tokens[static_cast<std::size_t>(i)]);
    REQUIRE(alone.log_probabilities.front() == together.log_probabilities[static_cast<std::size_t>(i)]);
  }
}

TEST_CASE("logits that are not numbers give no token on the device, and leave the other rows alone", "[cuda][quick]") {
  Device device;
  float const nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  SampleCases cases = sample_cases(6, 3000, 4);
  cases.logits[2500] = nan;
  cases.logits[3000 + 1] = infinity;
  for (std::size_t j = 0; j < 3000; ++j) cases.logits[6000 + j] = -infinity;
  auto const got = draw_on_device<cuda::Sm90>(device, cases), expected = draw_on_host(cases);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(got.tokens[i] == -1);
    CHECK(std::isnan(got.log_probabilities[i]));
  }
  for (std::size_t i = 3; i < 6; ++i) CHECK(got.tokens[i] == expected.tokens[i]);
}

TEST_CASE("no rows draw nothing on the device", "[cuda][quick]") {
  Device device;
  cuda::sample<cuda::Sm90>(device.context(), View<float const>(nullptr, 0, 100), {}, {}, {}, {});
  device.synchronize();
  CHECK(cudaGetLastError() == cudaSuccess);
}
