// SPDX-License-Identifier: Apache-2.0
// The sampler draws from the distribution that its knobs describe, and repeats itself for a seed.
#include "support/catch.hpp"

#include "mor/infer/sampler.hpp"

#include <cmath>
#include <limits>
#include <map>

using namespace mor;
using infer::Sampler;
using infer::SamplingParams;

namespace {

std::vector<float> const logits{0.0F, 2.0F, 1.0F, -1.0F};

std::map<Token, double> frequencies(SamplingParams const& params, std::vector<Token> const& history = {}) {
  Sampler sampler(params);
  std::map<Token, double> seen;
  int const draws = 20000;
  for (int i = 0; i < draws; ++i) {
    seen[sampler(std::span<float const>(logits), std::span<Token const>(history), static_cast<std::uint64_t>(i)).token] +=
        1.0 / draws;
  }
  return seen;
}

double softmax(std::size_t i, double temperature = 1.0) {
  double sum = 0.0;
  for (float const logit : logits) sum += std::exp(static_cast<double>(logit) / temperature);
  return std::exp(static_cast<double>(logits[i]) / temperature) / sum;
}

}  // namespace

TEST_CASE("temperature 0 takes the likeliest token, the lowest id on a tie, and reports its log-probability") {
  Sampler sampler({.temperature = 0.0});
  auto const sample = sampler(std::span<float const>(logits), std::span<Token const>{}, 0);
  CHECK(sample.token == 1);
  CHECK(std::abs(sample.log_probability - std::log(softmax(1))) < 1e-6);
  std::vector<double> const tie{3.0, 5.0, 5.0};
  CHECK(sampler(std::span<double const>(tie), std::span<Token const>{}, 0).token == 1);
}

TEST_CASE("draws follow the softmax at the given temperature") {
  for (double const temperature : {1.0, 0.5, 2.0}) {
    auto const seen = frequencies({.temperature = temperature, .seed = 3});
    for (std::size_t i = 0; i < 4; ++i) {
      auto const found = seen.find(static_cast<Token>(i));
      CHECK(std::abs((found == seen.end() ? 0.0 : found->second) - softmax(i, temperature)) < 0.015);
    }
  }
}

TEST_CASE("top-k, top-p and min-p keep exactly the tokens they name") {
  auto const keys = [](SamplingParams const& params) {
    std::vector<Token> tokens;
    for (auto const& [token, share] : frequencies(params)) tokens.push_back(token);
    return tokens;
  };
  CHECK(keys({.top_k = 2}) == std::vector<Token>{1, 2});
  CHECK(keys({.top_k = 100}).size() == 4);
  CHECK(keys({.top_p = 0.6}) == std::vector<Token>{1});        // p(1) = 0.644
  CHECK(keys({.top_p = 0.7}) == std::vector<Token>{1, 2});     // 0.644 + 0.237
  CHECK(keys({.min_p = 0.3}) == std::vector<Token>{1, 2});     // exp(-1) = 0.37, exp(-2) = 0.14
  CHECK(keys({.min_p = 1.0}) == std::vector<Token>{1});
}

TEST_CASE("the repetition penalty divides positive and multiplies negative logits of seen tokens, once each") {
  Sampler sampler({.temperature = 0.0, .repetition_penalty = 3.0});
  std::vector<Token> const history{1, 1, 1};
  CHECK(sampler(std::span<float const>(logits), std::span<Token const>(history), 0).token == 2);  // 2/3 < 1
}

TEST_CASE("the same seed and counter give the same token; another seed another sequence") {
  auto const sequence = [](std::uint64_t seed) {
    Sampler sampler({.seed = seed});
    std::vector<Token> tokens;
    for (std::uint64_t i = 0; i < 50; ++i) {
      tokens.push_back(sampler(std::span<float const>(logits), std::span<Token const>{}, i).token);
    }
    return tokens;
  };
  CHECK(sequence(1) == sequence(1));
  CHECK(sequence(1) != sequence(2));
}

TEST_CASE("bad parameters are refused by name, and logits that are not numbers too") {
  CHECK_THROWS_WITH(Sampler({.temperature = -1.0}), Catch::Matchers::ContainsSubstring("temperature"));
  CHECK_THROWS_WITH(Sampler({.top_k = -1}), Catch::Matchers::ContainsSubstring("top_k"));
  CHECK_THROWS_WITH(Sampler({.top_p = 0.0}), Catch::Matchers::ContainsSubstring("top_p"));
  CHECK_THROWS_WITH(Sampler({.min_p = 1.5}), Catch::Matchers::ContainsSubstring("min_p"));
  CHECK_THROWS_WITH(Sampler({.repetition_penalty = 0.0}), Catch::Matchers::ContainsSubstring("repetition_penalty"));
  Sampler sampler({});
  std::vector<float> const bad{0.0F, std::numeric_limits<float>::quiet_NaN()};
  CHECK_THROWS_WITH(sampler(std::span<float const>(bad), std::span<Token const>{}, 0),
                    Catch::Matchers::ContainsSubstring("not numbers"));
}
