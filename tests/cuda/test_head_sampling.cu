// SPDX-License-Identifier: Apache-2.0
// Norm, head and sampling in one launch: the logits are the product's, and the tokens those that `sample` draws from them.
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"
#include "support/sample_cases.hpp"

#include "mor/backend/cuda/graph.cuh"
#include "mor/backend/cuda/ops/few_rows.cuh"
#include "mor/backend/cuda/ops/head_sampling.cuh"
#include "mor/backend/cuda/ops/sampling.cuh"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <vector>

using namespace mor;
using cuda::Sm90;
using test::DeviceMatrix;
using test::DeviceRows;
using test::HopperDevice;

namespace {

constexpr double kEps = 1e-5;
constexpr Index kMostRows = cuda::tuning::HeadSampling::most_rows;

/// What a launch leaves.
struct Drawn {
  std::vector<Token> tokens;
  std::vector<float> log_probabilities, logits;
};

[[nodiscard]] bool same_bits(float const* a, float const* b, Index count) {
  return std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(float)) == 0;
}

/// A head, rows of which logits spread over some units, and a rule for each row.
class Head {
 public:
  Head(test::Device& device, Index columns, Index vocabulary, Index padding = 0)
      : device_(&device), columns_(columns), vocabulary_(vocabulary), x_values_(noise(kMostRows * columns, 2.0, 1)),
        norm_values_(noise(columns, 1.0, 2)), weight_values_(noise(vocabulary * columns, 8.0 / std::sqrt(static_cast<double>(columns)), 3)),
        x_(device, kMostRows, columns, x_values_, padding), norm_(device, 1, columns, norm_values_),
        weights_(device, vocabulary, columns, weight_values_, padding), order_(device, order()) {
    auto const cases = test::sample_cases(kMostRows, vocabulary, static_cast<unsigned>(vocabulary));
    rules_ = Buffer<SamplingRule>(device.memory(), kMostRows);
    cuda::check(cudaMemcpy(rules_.data(), cases.rules.data(), cases.rules.size() * sizeof(SamplingRule), cudaMemcpyHostToDevice), "cudaMemcpy");
    history_.emplace(device, cases.history);
    sampler_.emplace(device, columns, vocabulary);
    device.synchronize();
  }

  [[nodiscard]] bool takes(Index rows) const { return sampler_->takes(rows, std::span<bfloat16 const>(norm_.span()), weights_.read()); }
  [[nodiscard]] Index vocabulary() const { return vocabulary_; }

  /// Rows [first, first + rows). What is not drawn is -7 and NaN.
  [[nodiscard]] Drawn draw(Index first, Index rows, Row count = -1, Index padding = 0) const {
    DeviceMatrix<float> const logits(*device_, rows, vocabulary_, padding), log_probabilities(*device_, rows, 1);
    DeviceRows const tokens(*device_, std::vector<Row>(static_cast<std::size_t>(rows), -7)), counts(*device_, {count});
    enqueue(first, rows, count < 0 ? std::span<Row const>() : counts.read(), logits.view(), tokens.span(), log_probabilities.span());
    device_->synchronize();
    REQUIRE(logits.intact());
    REQUIRE(log_probabilities.intact());
    return {tokens.values(), log_probabilities.raw_values(), logits.raw_values()};
  }
  void enqueue(Index first, Index rows, std::span<Row const> count, View<float> logits, std::span<Token> tokens, std::span<float> log_probabilities) const {
    // An even number of rows comes from a table by their numbers.
    TableRows<bfloat16 const> const few{x_.read().row_range(first, rows)}, of_table{x_.read(), order_.read().subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows))};
    sampler_->run(device_->context(), rows % 2 == 0 ? of_table : few, std::span<bfloat16 const>(norm_.span()), kEps, weights_.read(), count,
                  rules_of(first, rows), history_->read(), logits, tokens, log_probabilities);
  }

  /// By the kernels that do one step each: logits, and draws from given ones.
  [[nodiscard]] std::vector<double> logits_of_steps(Index first, Index rows) const {
    DeviceMatrix<float> const logits(*device_, rows, vocabulary_);
    cuda::few_rows_norm_linear<Sm90, bfloat16, float>(device_->context(), x_.read().row_range(first, rows), std::span<bfloat16 const>(norm_.span()), kEps,
                                                      weights_.read(), logits.view());
    device_->synchronize();
    return logits.values();
  }
  [[nodiscard]] Drawn draw_from(std::vector<float> const& values, Index first, Index rows) const {
    DeviceMatrix<float> const logits(*device_, rows, vocabulary_, {values.begin(), values.end()}), log_probabilities(*device_, rows, 1);
    DeviceRows const tokens(*device_, std::vector<Row>(static_cast<std::size_t>(rows), -7));
    cuda::sample<Sm90>(device_->context(), logits.read(), rules_of(first, rows), history_->read(), tokens.span(), log_probabilities.span());
    device_->synchronize();
    return {tokens.values(), log_probabilities.raw_values(), {}};
  }
  [[nodiscard]] std::vector<double> logits_of_oracle(Index rows) const {
    test::Oracle oracle;
    std::vector<double> const x(x_values_.begin(), x_values_.begin() + rows * columns_);
    std::vector<double> normed(x.size()), rstd(static_cast<std::size_t>(rows)), logits(static_cast<std::size_t>(rows * vocabulary_));
    oracle.rms_norm({x.data(), rows, columns_}, norm_values_, kEps, {normed.data(), rows, columns_}, rstd);
    oracle.linear_logits({normed.data(), rows, columns_}, {weight_values_.data(), vocabulary_, columns_}, 1.0, {logits.data(), rows, vocabulary_});
    return logits;
  }

 private:
  [[nodiscard]] static std::vector<Row> order() {
    std::vector<Row> all(static_cast<std::size_t>(kMostRows));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }
  [[nodiscard]] static std::vector<double> noise(Index count, double size, std::uint64_t seed) {
    auto values = test::random_values<bfloat16>(count, seed);
    for (double& value : values) value *= size;
    return test::rounded<bfloat16>(std::move(values));
  }
  [[nodiscard]] std::span<SamplingRule const> rules_of(Index first, Index rows) const {
    return rules_.span().subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows));
  }

  test::Device* device_;
  Index columns_, vocabulary_;
  std::vector<double> x_values_, norm_values_, weight_values_;
  DeviceMatrix<bfloat16> x_, norm_, weights_;
  DeviceRows order_;
  Buffer<SamplingRule> rules_;
  std::optional<DeviceRows> history_;
  std::optional<cuda::HeadSampler<Sm90>> sampler_;
};

/// The draws are those of `sample` from the same logits, bit for bit.
void require_law(Head const& head, Drawn const& got, Index first, Index rows) {
  auto const expected = head.draw_from(got.logits, first, rows);
  for (std::size_t i = 0; i < static_cast<std::size_t>(rows); ++i) {
    CAPTURE(head.vocabulary(), rows, i);
    REQUIRE(got.tokens[i] == expected.tokens[i]);
    REQUIRE(same_bits(&got.log_probabilities[i], &expected.log_probabilities[i], 1));
  }
}

[[nodiscard]] std::vector<double> widened(std::vector<float> const& values) { return {values.begin(), values.end()}; }

}  // namespace

TEST_CASE("a head's launch makes the logits of the product and draws the tokens of the law", "[cuda]") {
  HopperDevice device;
  for (auto const& [columns, vocabulary] : {std::pair<Index, Index>{960, 49152}, {96, 50257}, {64, 1000}, {512, 32000}, {72, 61}, {1024, 4096}}) {
    Head const head(device, columns, vocabulary, columns == 512 ? 8 : 0);
    auto const all = head.draw(0, kMostRows);
    CHECK(test::relative_error(widened(all.logits), head.logits_of_steps(0, kMostRows)) < test::kTolerance<bfloat16>);
    require_law(head, all, 0, kMostRows);
    for (Index const rows : {1, 2, 8, 14, 16, 31, 32, 33}) {
      REQUIRE(head.takes(rows));
      for (Index const first : {Index{0}, kMostRows - rows}) {
        auto const got = head.draw(first, rows, -1, rows == 16 ? 3 : 0);
        auto const from = static_cast<std::size_t>(first);
        CAPTURE(columns, vocabulary, rows, first);
        REQUIRE(same_bits(got.logits.data(), all.logits.data() + first * vocabulary, rows * vocabulary));
        for (std::size_t i = 0; i < static_cast<std::size_t>(rows); ++i) {
          REQUIRE(got.tokens[i] == all.tokens[from + i]);
          REQUIRE(same_bits(&got.log_probabilities[i], &all.log_probabilities[from + i], 1));
        }
      }
    }
  }
}

TEST_CASE("the logits of a head's launch are the oracle's", "[cuda][quick]") {
  HopperDevice device;
  for (auto const& [columns, vocabulary] : {std::pair<Index, Index>{320, 777}, {40, 130}, {1000, 300}}) {
    Head const head(device, columns, vocabulary);
    CAPTURE(columns, vocabulary);
    auto const got = head.draw(0, 9);
    CHECK(test::relative_error(widened(got.logits), head.logits_of_oracle(9)) < test::kTolerance<bfloat16>);
    require_law(head, got, 0, 9);
  }
}

TEST_CASE("a head's launch takes a long vocabulary while a row fits the clusters that are left", "[cuda]") {
  HopperDevice device;
  Head const head(device, 64, 151936);
  REQUIRE(head.takes(16));
  CHECK(!head.takes(64));
  CHECK(!head.takes(0));
  CHECK(!head.takes(kMostRows + 1));
  for (Index const rows : {1, 9, 16}) require_law(head, head.draw(5, rows), 5, rows);
}

TEST_CASE("a head's launch takes no rows that the copy engine cannot bring, and none too wide for its shared memory", "[cuda][quick]") {
  HopperDevice device;
  for (Index const columns : {36, 2048}) CHECK(!Head(device, columns, 100).takes(1));
}

TEST_CASE("a head's launch leaves rows beyond a number in device memory alone", "[cuda][quick]") {
  HopperDevice device;
  Head const head(device, 128, 5000);
  auto const all = head.draw(0, kMostRows);
  for (Row const count : {0, 1, 0, 7, 40, 64, 65}) {
    auto const got = head.draw(0, kMostRows, count);
    Index const drawn = std::min<Index>(count, kMostRows);
    CHECK(same_bits(got.logits.data(), all.logits.data(), drawn * head.vocabulary()));
    CHECK(std::all_of(got.logits.begin() + drawn * head.vocabulary(), got.logits.end(), [](float value) { return std::isnan(value); }));
    for (std::size_t i = 0; i < static_cast<std::size_t>(kMostRows); ++i) {
      if (i < static_cast<std::size_t>(drawn)) {
        CHECK(got.tokens[i] == all.tokens[i]);
      } else {
        CHECK(got.tokens[i] == -7);
        CHECK(std::isnan(got.log_probabilities[i]));
      }
    }
  }
}

TEST_CASE("launches of a head follow one another, with other numbers of rows and in a graph", "[cuda]") {
  HopperDevice device;
  Head const head(device, 960, 49152);
  auto const all = head.draw(0, kMostRows);
  constexpr Index sizes[] = {1, 64, 32, 8, 20, 64};
  std::vector<DeviceMatrix<float>> logits, log_probabilities;
  std::vector<DeviceRows> tokens;
  for (Index const rows : sizes) {
    logits.emplace_back(device, rows, head.vocabulary());
    log_probabilities.emplace_back(device, rows, 1);
    tokens.emplace_back(device, std::vector<Row>(static_cast<std::size_t>(rows), -7));
  }
  cudaStream_t const stream = device.context().stream;
  cuda::Graph graph;
  REQUIRE(graph.capture(stream, [&] {
    for (std::size_t i = 0; i < std::size(sizes); ++i) {
      head.enqueue(0, sizes[i], {}, logits[i].view(), tokens[i].span(), log_probabilities[i].span());
    }
  }));
  for (int launch = 0; launch < 20; ++launch) {
    for (auto const& each : tokens) cuda::check(cudaMemsetAsync(each.span().data(), 0xff, each.span().size_bytes(), stream), "cudaMemsetAsync");
    graph.launch(stream);
    device.synchronize();
    for (std::size_t i = 0; i < std::size(sizes); ++i) {
      auto const got = tokens[i].values();
      REQUIRE(std::equal(got.begin(), got.end(), all.tokens.begin()));
      REQUIRE(same_bits(logits[i].raw_values().data(), all.logits.data(), sizes[i] * head.vocabulary()));
    }
  }
}
