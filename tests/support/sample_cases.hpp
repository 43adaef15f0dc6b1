// SPDX-License-Identifier: Apache-2.0
/// @file
/// Random rows of logits with ties, holes and rules of every kind, for tests of sampling.
#pragma once

#include "mor/core/sampling.hpp"
#include "mor/core/types.hpp"

#include <limits>
#include <random>
#include <vector>

namespace mor::test {

/// Logits [rows, columns] with a rule for each row, and the lists that the rules name.
struct SampleCases {
  Index rows = 0, columns = 0;
  std::vector<float> logits;
  std::vector<SamplingRule> rules;
  std::vector<Token> history;

  [[nodiscard]] float const* row(Index i) const { return logits.data() + i * columns; }
};

/// One of the values.
template <class T>
[[nodiscard]] T one_of(std::mt19937& engine, std::vector<T> const& values) {
  return values[std::uniform_int_distribution<std::size_t>(0, values.size() - 1)(engine)];
}

/// Rows are normally distributed, flat, coarse (many equal logits), peaked, or mostly -infinity.
inline void fill_row(std::mt19937& engine, float* row, Index columns) {
  int const kind = std::uniform_int_distribution<int>(0, 4)(engine);
  std::normal_distribution<float> normal(0.0F, kind == 1 ? 0.01F : 3.0F);
  for (Index j = 0; j < columns; ++j) {
    row[j] = normal(engine);
    if (kind == 2) row[j] = static_cast<float>(static_cast<int>(row[j]));
    if (kind == 3) row[j] *= 8.0F;
    if (kind == 4 && engine() % 4 != 0) row[j] = -std::numeric_limits<float>::infinity();
  }
  if (kind == 4) row[engine() % static_cast<unsigned>(columns)] = 1.0F;  // never all of them
}

[[nodiscard]] inline SampleCases sample_cases(Index rows, Index columns, unsigned seed) {
  std::mt19937 engine(seed);
  SampleCases cases;
  cases.rows = rows;
  cases.columns = columns;
  cases.logits.resize(static_cast<std::size_t>(rows * columns));
  auto const whole = static_cast<Row>(columns);
  for (Index i = 0; i < rows; ++i) {
    fill_row(engine, cases.logits.data() + i * columns, columns);
    SamplingRule rule;
    rule.seed = engine();
    rule.counter = engine() % 1000;
    rule.temperature = one_of<float>(engine, {0.0F, 1.0F, 1.0F, 0.7F, 2.5F, 0.01F, 100.0F, 1e-30F});
    rule.top_k = one_of<Row>(engine, {0, 0, 1, 2, 7, 50, whole / 2, whole - 1, whole, whole + 5});
    rule.top_p = one_of<float>(engine, {1.0F, 1.0F, 0.9F, 0.5F, 0.999F, 1e-6F, 0.0F});
    rule.min_p = one_of<float>(engine, {0.0F, 0.0F, 0.05F, 0.5F, 1.0F});
    rule.repetition_penalty = one_of<float>(engine, {1.0F, 1.0F, 1.2F, 5.0F, 0.8F});
    rule.history_begin = static_cast<Row>(cases.history.size());
    rule.history_length = one_of<Row>(engine, {0, 1, 40});
    for (Row n = 0; n < rule.history_length; ++n) {
      cases.history.push_back(static_cast<Token>(engine() % static_cast<unsigned>(columns + 3)) - 1);  // some outside
    }
    cases.rules.push_back(rule);
  }
  return cases;
}

}  // namespace mor::test
