// SPDX-License-Identifier: Apache-2.0
// The law of sampling against its plainest form: sort everything, walk down the list.
#include "support/catch.hpp"
#include "support/sample_cases.hpp"

#include "mor/backend/host/backend.hpp"
#include "mor/backend/host/scratch_size.hpp"
#include "mor/backend/trace/backend.hpp"
#include "mor/math/sample_row.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

using namespace mor;
using test::SampleCases;

namespace {

struct Reference {
  std::vector<double> values;        ///< under the penalty
  std::vector<Token> kept;           ///< ascending
  std::vector<std::uint64_t> weights;  ///< of the kept

  Reference(float const* row, Index columns, SamplingRule const& rule, std::vector<Token> const& history) {
    std::vector<float> logits(row, row + columns);
    std::vector<Token> seen(history.begin() + rule.history_begin, history.begin() + rule.history_begin + rule.history_length);
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    for (Token const token : seen) {
      if (token < 0 || token >= columns) continue;
      float& logit = logits[static_cast<std::size_t>(token)];
      logit = logit > 0.0F ? logit / rule.repetition_penalty : logit * rule.repetition_penalty;
    }
    values.assign(logits.begin(), logits.end());
    std::vector<Token> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](Token a, Token b) { return value(a) > value(b); });
    if (!(rule.temperature > 0.0F)) {
      kept = {order.front()};
      weights = {1};
      return;
    }
    auto const scale = static_cast<float>(std::min(1.4426950408889634 / static_cast<double>(rule.temperature), 1e38));
    double const largest = value(order.front());
    auto const weight = [&](Token token) {
      double const below = value(token) == largest ? 0.0 : value(token) - largest;
      return math::sample_weight(static_cast<float>(below) * scale);
    };
    if (rule.top_k > 0) order.resize(std::min(order.size(), static_cast<std::size_t>(rule.top_k)));
    if (rule.top_p < 1.0F) {
      std::uint64_t total = 0, sum = 0;
      for (Token const token : order) total += weight(token);
      std::size_t count = 0;
      do sum += weight(order[count++]);
      while (static_cast<double>(sum) < static_cast<double>(rule.top_p) * static_cast<double>(total) && count < order.size());
      order.resize(count);
    }
    std::sort(order.begin(), order.end());
    for (Token const token : order) {
      if (static_cast<double>(weight(token)) < static_cast<double>(rule.min_p) * 1099511627776.0) continue;
      kept.push_back(token);
      weights.push_back(weight(token));
    }
  }
  [[nodiscard]] double value(Token token) const { return values[static_cast<std::size_t>(token)]; }
  /// By whole numbers of 128 bits in long double's place: the random number's share of the sum.
  [[nodiscard]] Token draw(SamplingRule const& rule) const {
    if (kept.size() == 1) return kept.front();
    std::uint64_t const total = std::accumulate(weights.begin(), weights.end(), std::uint64_t{0});
    auto const bits = Philox{stream_key(rule.seed, 0x5a4d)}.block(rule.counter);
    __extension__ using Wide = unsigned __int128;
    auto const place = static_cast<std::uint64_t>((Wide{bits[0]} << 32U | bits[1]) * total >> 64U);
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < kept.size(); ++i) {
      sum += weights[i];
      if (sum > place) return kept[i];
    }
    return -1;
  }
};

double log_softmax(float const* row, Index columns, Token token) {
  double const largest = *std::max_element(row, row + columns);
  double sum = 0.0;
  for (Index j = 0; j < columns; ++j) sum += std::exp(static_cast<double>(row[j]) - largest);
  return static_cast<double>(row[token]) - largest - std::log(sum);
}

template <class T>
struct Drawn {
  std::vector<Token> tokens;
  std::vector<T> log_probabilities;
};

/// The host's verb on all rows.
template <class T>
Drawn<T> draw(SampleCases const& cases, int threads = 2) {
  host::Backend<T> backend(threads);
  std::vector<T> const logits(cases.logits.begin(), cases.logits.end());
  Drawn<T> drawn{std::vector<Token>(cases.rules.size()), std::vector<T>(cases.rules.size())};
  backend.sample({logits.data(), cases.rows, cases.columns}, cases.rules, cases.history, drawn.tokens,
                 drawn.log_probabilities);
  return drawn;
}

}  // namespace

TEST_CASE("a row's token is the one that sorting and walking down the list gives") {
  for (Index const columns : {1, 2, 33, 257, 2000}) {
    auto const cases = test::sample_cases(400, columns, static_cast<unsigned>(columns));
    auto const drawn = draw<float>(cases);
    for (Index i = 0; i < cases.rows; ++i) {
      auto const at = static_cast<std::size_t>(i);
      auto const& rule = cases.rules[at];
      CAPTURE(columns, i, rule.temperature, rule.top_k, rule.top_p, rule.min_p, rule.repetition_penalty);
      REQUIRE(drawn.tokens[at] == Reference(cases.row(i), columns, rule, cases.history).draw(rule));
      double const expected = log_softmax(cases.row(i), columns, drawn.tokens[at]);
      REQUIRE(std::abs(static_cast<double>(drawn.log_probabilities[at]) - expected) < 2e-6 + 2e-6 * std::abs(expected));
    }
  }
}

TEST_CASE("float and double logits of the same numbers give the same tokens, where no penalty rounds") {
  auto cases = test::sample_cases(300, 500, 3);
  for (auto& rule : cases.rules) rule.repetition_penalty = 1.0F;
  CHECK(draw<float>(cases).tokens == draw<double>(cases).tokens);
}

TEST_CASE("a row's token does not depend on the other rows or the threads") {
  auto const cases = test::sample_cases(20, 300, 5);
  auto const together = draw<float>(cases, 3);
  for (Index i = 0; i < cases.rows; ++i) {
    SampleCases one{1, cases.columns, {cases.row(i), cases.row(i) + cases.columns}, {}, cases.history};
    one.rules = {cases.rules[static_cast<std::size_t>(i)]};
    auto const alone = draw<float>(one);
    CHECK(alone.tokens.front() == together.tokens[static_cast<std::size_t>(i)]);
    CHECK(alone.log_probabilities.front() == together.log_probabilities[static_cast<std::size_t>(i)]);
  }
}

TEST_CASE("tokens come as often as their probabilities say") {
  std::vector<float> const row{0.0F, 2.0F, 1.0F, -1.0F, 1.5F, -3.0F, 0.5F, 0.25F};
  auto const columns = static_cast<Index>(row.size());
  Index const draws = 40000;
  SampleCases cases{draws, columns, {}, {}, {}};
  SamplingRule rule;
  rule.seed = 11;
  rule.temperature = 0.8F;
  for (Index i = 0; i < draws; ++i) {
    cases.logits.insert(cases.logits.end(), row.begin(), row.end());
    rule.counter = static_cast<std::uint64_t>(i);
    cases.rules.push_back(rule);
  }
  std::vector<double> seen(row.size(), 0.0);
  for (Token const token : draw<float>(cases).tokens) seen[static_cast<std::size_t>(token)] += 1.0;
  double total = 0.0, statistic = 0.0;
  for (float const logit : row) total += std::exp(static_cast<double>(logit) / 0.8);
  for (std::size_t j = 0; j < row.size(); ++j) {
    double const expected = static_cast<double>(draws) * std::exp(static_cast<double>(row[j]) / 0.8) / total;
    statistic += (seen[j] - expected) * (seen[j] - expected) / expected;
  }
  CHECK(statistic < 24.3);  // chi-square of 7 degrees of freedom: one in a thousand is larger
}

TEST_CASE("logits that are not numbers give no token, and leave the other rows alone") {
  float const nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  SampleCases const cases{4, 3, {0, nan, 1, 0, infinity, 1, -infinity, -infinity, -infinity, 0, -infinity, -infinity},
                          std::vector<SamplingRule>(4), {}};
  auto const drawn = draw<float>(cases);
  CHECK(drawn.tokens == std::vector<Token>{-1, -1, -1, 0});
  CHECK(std::isnan(drawn.log_probabilities[1]));
  CHECK(drawn.log_probabilities[3] == 0.0F);
}

TEST_CASE("weights are powers of two to seven digits, exact for whole powers, and never grow on the way down") {
  CHECK(math::sample_weight(0.0F) == math::kLargestSampleWeight);
  for (int n = 1; n <= 40; ++n) CHECK(math::sample_weight(static_cast<float>(-n)) == math::kLargestSampleWeight >> n);
  CHECK(math::sample_weight(-std::numeric_limits<float>::infinity()) == 0);
  bool close = true;
  for (float power = 0.0F; power > -20.0F; power -= 0.00037F) {
    double const expected = std::exp2(static_cast<double>(power) + 40.0);
    close = close && std::abs(static_cast<double>(math::sample_weight(power)) - expected) < 1.5e-7 * expected + 1.0;
  }
  CHECK(close);
  CHECK(math::multiply_high(~std::uint64_t{0}, ~std::uint64_t{0}) == ~std::uint64_t{0} - 1);
  CHECK(math::multiply_high(std::uint64_t{1} << 63U, 10) == 5);
}

TEST_CASE("the host's scratch for sampling is known") {
  auto const cases = test::sample_cases(5, 70, 9);
  for (int const threads : {1, 3, 8}) {
    trace::Options options;
    options.scratch_bytes = host::ScratchSize<float>(threads);
    trace::Backend<float, float> traced(options);
    host::Backend<float> backend(threads);
    std::vector<Token> tokens(5);
    std::vector<float> log_probabilities(5);
    View<float const> const logits(cases.logits.data(), cases.rows, cases.columns);
    traced.sample(logits, cases.rules, cases.history, tokens, log_probabilities);
    backend.sample(logits, cases.rules, cases.history, tokens, log_probabilities);
    CHECK(traced.arena().peak_bytes() == backend.arena().peak_bytes());
    CHECK(backend.arena().in_use_bytes() == 0);
  }
}
