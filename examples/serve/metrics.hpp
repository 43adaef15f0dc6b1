// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the server has done so far, in the text format of Prometheus.
#pragma once

#include "common/any_engine.hpp"
#include "mor/core/types.hpp"
#include "serve/limits.hpp"

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

namespace examples::serve {

/// Counts and times, from any thread.
class Metrics {
 public:
  explicit Metrics(mor::Index recursions) : tokens_by_depth_(static_cast<std::size_t>(recursions) + 1, 0) {}

  void count_answer(std::string const& method, std::string const& path, int status);
  void count_prompt(std::size_t tokens);
  void count_token(mor::Row depth);
  void observe_first_token(Seconds time);
  /// @param outcome  stop, length, cancelled (the client went away), timeout or failed
  void count_generation(std::string const& outcome, Seconds time);

  /// @param inside  generations running or queued
  [[nodiscard]] std::string text(mor::Index inside, std::vector<EngineFigure> const& figures) const;

 private:
  struct Histogram {
    static constexpr std::array<double, 12> bounds{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30, 120};
    std::array<std::uint64_t, bounds.size() + 1> counts{};
    double sum = 0.0;

    void add(double value);
    [[nodiscard]] std::string text(std::string const& name, std::string const& help) const;
  };

  mutable std::mutex mutex_;
  std::map<std::tuple<std::string, std::string, int>, std::uint64_t> answers_;
  std::map<std::string, std::uint64_t> generations_;
  std::uint64_t prompt_tokens_ = 0;
  std::vector<std::uint64_t> tokens_by_depth_;
  Histogram first_token_, whole_;
};

}  // namespace examples::serve
