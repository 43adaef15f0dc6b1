// SPDX-License-Identifier: Apache-2.0
// Sampling on the device draws the very tokens of the host's law, whatever else is in the batch.
#include "cuda/device.cuh"
#include "support/sample_cases.hpp"

#include "mor/backend/cuda/graph.cuh"
#include "mor/backend/cuda/ops/sampling.cuh"
#include "mor/math/sample_row.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>
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
  DeviceArray(Device& device, std::vector<T> const& values)
      : buffer_(device.memory(), static_cast<Index>(values.size())) {
    cuda::check(cudaMemcpy(buffer_.data(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
                "cudaMemcpy");
    cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  [[nodiscard]] std::span<T const> read() const { return buffer_.span(); }

 private:
  Buffer<T> buffer_;
};

/// With `padding` elements between rows; of the first `count` rows alone, unless that is negative. Tokens that are not
/// drawn are -7.
template <class Arch>
Drawn draw_on_device(Device& device, SampleCases const& cases, Index padding = 0, Row count = -1) {
  std::vector<double> const values(cases.logits.begin(), cases.logits.end());
  DeviceMatrix<float> const logits(device, cases.rows, cases.columns, values, padding);
  DeviceArray<SamplingRule> const rules(device, cases.rules);
  DeviceRows const history(device, cases.history);
  DeviceRows const tokens(device, std::vector<Row>(static_cast<std::size_t>(cases.rows), -7));
  DeviceMatrix<float> const log_probabilities(device, cases.rows, 1);
  DeviceRows const counts(device, {count});
  cuda::sample<Arch>(device.context(), logits.read(), rules.read(), history.read(), tokens.span(),
                     log_probabilities.span(), count < 0 ? nullptr : counts.read().data());
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
    if (got.log_probabilities[i] == log_probability) continue;  // -infinity, too
    REQUIRE(std::abs(got.log_probabilities[i] - log_probability) <= 1e-6F * (1.0F + std::abs(log_probability)));
  }
}

}  // namespace

TEST_CASE("the device draws the host's tokens from short rows", "[cuda][quick]") {
  Device device;
  for (Index const columns : {1, 2, 3, 17, 33, 100, 512, 513, 1000, 1024, 1025, 3000}) {
    auto const cases = sample_cases(60, columns, static_cast<unsigned>(columns));
    auto const expected = draw_on_host(cases);
    require_same(draw_on_device<cuda::Sm90>(device, cases), expected, cases);
    require_same(draw_on_device<cuda::Sm90>(device, cases, 3), expected, cases);
    require_same(draw_on_device<cuda::Sm80>(device, cases), expected, cases);
  }
}

TEST_CASE("the device draws the host's tokens from rows as long as vocabularies", "[cuda]") {
  Device device;
  for (Index const columns : {32000, 49152, 50257, 128256, 151936}) {
    auto const cases = sample_cases(100, columns, static_cast<unsigned>(columns));
    auto const expected = draw_on_host(cases);
    require_same(draw_on_device<cuda::Sm90>(device, cases), expected, cases);
    require_same(draw_on_device<cuda::Sm80>(device, cases), expected, cases);  // long rows: read in every pass
  }
  // Where 32 bits stop to hold a block's sums, a real vocabulary beyond, and longer than the shared memory of a cluster.
  for (Index const columns : {262143, 262144, 262208, 500000}) {
    auto const cases = sample_cases(24, columns, 1);
    auto const expected = draw_on_host(cases);
    require_same(draw_on_device<cuda::Sm90>(device, cases), expected, cases);
    require_same(draw_on_device<cuda::Sm80>(device, cases), expected, cases);
  }
}

TEST_CASE("the device draws the host's tokens from a vocabulary whose tokens all weigh the most", "[cuda]") {
  Device device;
  for (Index const columns : {262144, 262208, 522240}) {  // the last is all that one block takes
    SampleCases cases;
    cases.rows = 8;
    cases.columns = columns;
    cases.logits.assign(static_cast<std::size_t>(cases.rows * columns), 1.5F);
    for (Index i = 0; i < cases.rows; ++i) {
      SamplingRule rule;
      rule.seed = static_cast<std::uint64_t>(i);
      rule.temperature = i == 0 ? 0.0F : 0.9F;
      rule.top_k = i < 4 ? 0 : static_cast<Row>(columns - i);
      rule.top_p = i % 4 == 1 ? 1.0F : i % 4 == 2 ? 0.5F : 0.999F;
      cases.rules.push_back(rule);
    }
    auto const expected = draw_on_host(cases);
    require_same(draw_on_device<cuda::Sm80>(device, cases), expected, cases);
    require_same(draw_on_device<cuda::Sm90>(device, cases), expected, cases);
  }
}

TEST_CASE("a vocabulary that is too large for one block is refused where a row has only one", "[cuda][quick]") {
  Device device;
  SampleCases cases;
  cases.rows = 1;
  cases.columns = Index{1} << 19;
  cases.logits.assign(static_cast<std::size_t>(cases.columns), 0.5F);
  cases.rules.emplace_back();
  REQUIRE_THROWS_AS(draw_on_device<cuda::Sm80>(device, cases), mor::error);
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

TEST_CASE("the device draws the host's tokens whatever number of likeliest tokens decides", "[cuda]") {
  Device device;
  std::mt19937 engine(3);
  std::normal_distribution<float> normal(0.0F, 3.0F);
  SampleCases cases;
  cases.columns = 49152;
  for (int kind = 0; kind < 4; ++kind) {
    for (auto const& [top_k, top_p] : {std::pair<Row, float>{50, 1.0F},
                                       {129, 1.0F},
                                       {700, 1.0F},
                                       {5000, 1.0F},
                                       {0, 0.9F},
                                       {0, 0.95F},
                                       {0, 0.999F},
                                       {64, 0.9F},
                                       {600, 0.99F},
                                       {20000, 0.9F}}) {
      for (float const temperature : {0.05F, 0.8F, 3.0F}) {
        for (Index j = 0; j < cases.columns; ++j) {
          float const value = normal(engine);
          // Spread; in steps of a half, with ties on every cut; all the same; likely ones among the first ids only.
          float const values[] = {value, std::round(2.0F * value) / 2.0F, 1.5F, value - (j < 2000 ? 0.0F : 15.0F)};
          cases.logits.push_back(values[kind]);
        }
        SamplingRule rule;
        rule.seed = engine();
        rule.temperature = temperature;
        rule.top_k = top_k;
        rule.top_p = top_p;
        rule.min_p = cases.rules.size() % 3 == 0 ? 0.01F : 0.0F;
        cases.rules.push_back(rule);
      }
    }
  }
  cases.rows = static_cast<Index>(cases.rules.size());
  auto const expected = draw_on_host(cases);
  require_same(draw_on_device<cuda::Sm90>(device, cases), expected, cases);
  require_same(draw_on_device<cuda::Sm80>(device, cases), expected, cases);
  for (Index i = 0; i < cases.rows; ++i) {  // with more blocks a row
    auto const at = static_cast<std::size_t>(i);
    SampleCases const one{1, cases.columns, {cases.row(i), cases.row(i) + cases.columns}, {cases.rules[at]}, {}};
    require_same(draw_on_device<cuda::Sm90>(device, one), {{expected.tokens[at]}, {expected.log_probabilities[at]}},
                 one);
  }
}

TEST_CASE("a penalty that makes logits infinite leaves the device the host's law", "[cuda][quick]") {
  Device device;
  float const infinity = std::numeric_limits<float>::infinity();
  for (Index const columns : {1, 3000, 500000}) {
    SampleCases cases;
    cases.rows = 8;
    cases.columns = columns;
    cases.logits.resize(static_cast<std::size_t>(8 * columns), -infinity);  // but for one or two of a row
    for (Index i = 0; i < 8; ++i) {
      float* const row = cases.logits.data() + i * columns;
      row[columns / 2] = i % 2 == 0 ? 3e38F : -3e38F;
      row[columns - 1] = i % 2 == 0 ? 2e38F : -2e38F;
      SamplingRule rule;
      rule.seed = static_cast<std::uint64_t>(i);
      rule.temperature = i < 2 ? 0.0F : 0.7F;
      rule.top_k = i < 6 ? 0 : 2;
      rule.top_p = i < 4 ? 1.0F : 0.9F;
      rule.repetition_penalty = i % 2 == 0 ? 0.25F : 4.0F;
      rule.history_begin = 2 * static_cast<Row>(i);
      rule.history_length = 2;
      cases.history.push_back(static_cast<Token>(columns - 1));
      cases.history.push_back(i < 4 ? static_cast<Token>(columns / 2) : -5);
      cases.rules.push_back(rule);
    }
    auto const expected = draw_on_host(cases);
    require_same(draw_on_device<cuda::Sm90>(device, cases), expected, cases);
    require_same(draw_on_device<cuda::Sm80>(device, cases), expected, cases);
  }
}

TEST_CASE("the device draws from as many rows as a number in its memory says", "[cuda][quick]") {
  Device device;
  for (Index const columns : {700, 49152}) {
    auto const cases = sample_cases(40, columns, 6);
    auto const expected = draw_on_host(cases);
    for (Row const count : {40, 41, 17, 1, 0}) {
      auto const got = draw_on_device<cuda::Sm90>(device, cases, 0, count);
      for (std::size_t i = 0; i < 40; ++i) {
        if (i < static_cast<std::size_t>(count)) {
          CHECK(got.tokens[i] == expected.tokens[i]);
          CHECK(!std::isnan(got.log_probabilities[i]));
        } else {
          CHECK(got.tokens[i] == -7);
          CHECK(std::isnan(got.log_probabilities[i]));  // as it was
        }
      }
    }
  }
}

TEST_CASE("600 rows are drawn as one by one on the device", "[cuda]") {
  Device device;
  auto const cases = sample_cases(600, 4100, 8);
  require_same(draw_on_device<cuda::Sm90>(device, cases), draw_on_host(cases), cases);
}

TEST_CASE("sampling is captured in a graph, and draws by what is in device memory when that runs", "[cuda][quick]") {
  Device device;
  auto const first = sample_cases(5, 5000, 9), second = sample_cases(5, 5000, 10);
  DeviceArray<SamplingRule> const rules(device, second.rules);
  DeviceRows const history(device, second.history), tokens(device, std::vector<Row>(5, -7));
  DeviceMatrix<float> const logits(device, 5, 5000, {first.logits.begin(), first.logits.end()});
  DeviceMatrix<float> const other(device, 5, 5000, {second.logits.begin(), second.logits.end()});
  DeviceMatrix<float> const log_probabilities(device, 5, 1);
  cudaStream_t const stream = device.context().stream;
  auto const copy = [&] {
    cuda::check(cudaMemcpyAsync(logits.view().data, other.view().data, second.logits.size() * sizeof(float),
                                cudaMemcpyDeviceToDevice, stream),
                "cudaMemcpyAsync");
  };
  cuda::Graph graph;
  REQUIRE(graph.capture(stream, [&] {
    for (int i = 0; i < 2; ++i) {  // the second waits for the first
      cuda::sample<cuda::Sm90>(device.context(), logits.read(), rules.read(), history.read(), tokens.span(),
                               log_probabilities.span());
    }
  }));
  copy();
  graph.launch(stream);
  device.synchronize();
  CHECK(tokens.values() == draw_on_host(second).tokens);
}

TEST_CASE("no rows draw nothing on the device", "[cuda][quick]") {
  Device device;
  cuda::sample<cuda::Sm90>(device.context(), View<float const>(nullptr, 0, 100), {}, {}, {}, {});
  device.synchronize();
  CHECK(cudaGetLastError() == cudaSuccess);
}
