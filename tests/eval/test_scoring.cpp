// SPDX-License-Identifier: Apache-2.0
#include "mor/eval/scoring.hpp"

#include "mor/eval/metrics.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"

#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace {

using mor::Batch;
using mor::ErrorCode;
using mor::Index;
using mor::Row;
using mor::Token;
using mor::eval::BatchScorer;
using mor::eval::ContinuationScore;
using mor::eval::judge;
using mor::eval::ScoreRequest;
using mor::eval::TaskExample;
using mor::eval::TaskKind;
using mor::test::fails_with;

constexpr Index vocab = 5;

/// A model whose logits for a row are a function of the row's token and position.
float logit(Token token, Row position, Index entry) {
  return static_cast<float>(std::sin(1.3 * token + 0.7 * position + 2.1 * static_cast<double>(entry)));
}

double log_probability(Token token, Row position, Token target) {
  double sum = 0.0;
  for (Index v = 0; v < vocab; ++v) sum += std::exp(static_cast<double>(logit(token, position, v)));
  return static_cast<double>(logit(token, position, target)) - std::log(sum);
}

struct Model {
  std::vector<float> values;
  std::vector<Row> offsets;
  mor::View<float const> operator()(Batch const& batch, std::span<Row const> rows) {
    batch.check(vocab, "test");
    offsets.assign(batch.sequence_offsets.begin(), batch.sequence_offsets.end());
    values.clear();
    for (Row const row : rows) {
      auto const i = static_cast<std::size_t>(row);
      for (Index v = 0; v < vocab; ++v) values.push_back(logit(batch.tokens[i], batch.positions[i], v));
    }
    return {values.data(), static_cast<Index>(rows.size()), vocab};
  }
};

std::vector<float> losses(Batch const& batch, std::span<Token const> targets, std::span<Row const> rows) {
  std::vector<float> values;
  for (std::size_t n = 0; n < rows.size(); ++n) {
    auto const i = static_cast<std::size_t>(rows[n]);
    values.push_back(static_cast<float>(-log_probability(batch.tokens[i], batch.positions[i], targets[n])));
  }
  return values;
}

TEST_CASE("a continuation's log-likelihood is the sum over its tokens, given all before") {
  std::vector<ScoreRequest> const requests = {{{1, 2, 3, 4}, 2}, {{4, 0}, 1}, {{2, 2, 2, 1, 0}, 1}};
  Model model;
  BatchScorer scorer(16);
  auto const greedy = scorer.score_greedy(requests, model);
  CHECK(model.offsets == std::vector<Row>{0, 3, 4, 8});
  auto const plain = scorer.score(requests, losses);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    auto const& [tokens, split] = requests[i];
    double expected = 0.0;
    for (auto at = static_cast<std::size_t>(split); at < tokens.size(); ++at) {
      expected += log_probability(tokens[at - 1], static_cast<Row>(at - 1), tokens[at]);
    }
    CHECK(greedy[i].log_likelihood == Approx(expected).epsilon(1e-12));
    CHECK(plain[i].log_likelihood == Approx(expected).epsilon(1e-6));
    CHECK(greedy[i].tokens == static_cast<Index>(tokens.size()) - split);
    CHECK(plain[i].tokens == greedy[i].tokens);
    CHECK(greedy[i].dropped == 0);
  }
}

TEST_CASE("greedy means that every token is the likeliest, of equals the first") {
  auto const flat = [](std::vector<float> row) {
    return [row](Batch const&, std::span<Row const> rows) {
      static std::vector<float> values;
      values.clear();
      for (std::size_t i = 0; i < rows.size(); ++i) values.insert(values.end(), row.begin(), row.end());
      return mor::View<float const>(values.data(), static_cast<Index>(rows.size()), static_cast<Index>(row.size()));
    };
  };
  BatchScorer scorer(16);
  std::vector<ScoreRequest> const requests = {{{0, 1, 1}, 1}, {{0, 2, 1}, 1}, {{0, 1, 2}, 2}, {{0, 2, 1}, 2}};
  auto const scores = scorer.score_greedy(requests, flat({0.0F, 2.0F, 2.0F, -1.0F}));
  CHECK(scores[0].greedy);
  CHECK_FALSE(scores[1].greedy);
  CHECK_FALSE(scores[2].greedy);
  CHECK(scores[3].greedy);
  CHECK(scores[3].log_likelihood == Approx(2.0 - std::log(1.0 + 2.0 * std::exp(2.0) + std::exp(-1.0))));
}

TEST_CASE("a context that is too long loses its beginning, never its continuation") {
  Model model;
  BatchScorer scorer(3);
  std::vector<ScoreRequest> const requests = {{{0, 1, 2, 3, 4, 0}, 4}, {{1, 2, 3, 4}, 1}};
  auto const scores = scorer.score_greedy(requests, model);
  CHECK(model.offsets == std::vector<Row>{0, 3, 6});
  CHECK(scores[0].dropped == 2);
  CHECK(scores[0].log_likelihood == Approx(log_probability(3, 1, 4) + log_probability(4, 2, 0)).epsilon(1e-12));
  CHECK(scores[1].dropped == 0);
  std::vector<ScoreRequest> const long_one = {{{1, 2, 3, 4, 0}, 1}};
  CHECK(fails_with(ErrorCode::InvalidArgument, [&] { (void)scorer.score_greedy(long_one, model); }, "1 to 3", "got 4"));
}

TEST_CASE("logits that are not finite are an error, not a score") {
  BatchScorer scorer(8);
  std::vector<ScoreRequest> const requests = {{{0, 1}, 1}};
  for (float const bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    auto const broken = [&](Batch const&, std::span<Token const>, std::span<Row const>) { return std::vector{bad}; };
    CHECK(fails_with(ErrorCode::NonFinite, [&] { (void)scorer.score(requests, broken); }, "not finite"));
  }
}

ContinuationScore score(double log_likelihood, bool greedy = false) { return {log_likelihood, 1, 0, greedy}; }

TEST_CASE("acc takes the likeliest choice, acc_norm the likeliest for its bytes") {
  TaskExample const example{{{"q", "four"}, {"q", "a longer answer"}, {"q", "\xc3\xa9\xc3\xa9"}}, 1};
  std::vector<ContinuationScore> const scores = {score(-6.0), score(-7.0), score(-6.5)};
  auto const verdict = judge(TaskKind::MultipleChoice, example, scores);
  CHECK(verdict.chosen == 0);
  CHECK_FALSE(verdict.correct);
  CHECK(verdict.chosen_normalized == 1);  // -6/4, -7/15, -6.5/4 bytes of two letters
  CHECK(verdict.correct_normalized);
  auto const tie = judge(TaskKind::MultipleChoice, example, std::vector{score(-5.0), score(-5.0), score(-5.0)});
  CHECK(tie.chosen == 0);
}

TEST_CASE("metrics are shares of the examples with their standard errors") {
  TaskExample const example{{{"p", "c"}, {"q", "c"}}, 1};
  mor::eval::TaskMetrics partial(TaskKind::PartialScoring);
  for (int i = 0; i < 4; ++i) {
    std::vector<ContinuationScore> const scores = {score(-1.0), score(i == 0 ? -2.0 : -0.5)};
    partial.add(example, scores, judge(TaskKind::PartialScoring, example, scores));
  }
  CHECK(partial.accuracy() == 0.75);
  CHECK(partial.standard_error(0.75) == Approx(std::sqrt(0.75 * 0.25 / 3.0)));
  CHECK_FALSE(partial.accuracy_normalized());
  CHECK_FALSE(partial.perplexity());

  TaskExample const word{{{"p", "c"}}, 0};
  mor::eval::TaskMetrics last(TaskKind::LastWord);
  for (int i = 0; i < 2; ++i) {
    std::vector<ContinuationScore> const scores = {score(i == 0 ? -1.0 : -3.0, i == 0)};
    last.add(word, scores, judge(TaskKind::LastWord, word, scores));
  }
  CHECK(last.accuracy() == 0.5);
  CHECK(last.perplexity().value() == Approx(std::exp(2.0)));
}

}  // namespace
