// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the example programs' command lines have in common: the model's options, exit codes and messages.
#pragma once

#include "common/presets.hpp"
#include "mor/core/config.hpp"

#include <CLI/CLI.hpp>

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace examples {

/// The model as the command line gives it: a preset, and what differs from it.
struct ModelFlags {
  std::optional<std::string> preset;
  std::optional<std::string> router, router_network, router_activation, gating, sampling, balancing, cache, sharing;
  std::optional<double> alpha, temperature, aux_coefficient, balance_coefficient, bias_update_rate, z_coefficient;
  std::vector<double> capacities;
  bool random_router = false, paper_eq2 = false, untied = false;
  std::optional<mor::Index> recursions, layers, prelude, coda;
  std::optional<mor::Index> hidden_size, heads, kv_heads, head_dim, ffn, context;
};

/// Adds an option for each field of `flags`. `default_preset` is named in the help only.
void add_model_options(CLI::App& app, ModelFlags& flags, std::string const& default_preset);

/// `base` with the values given on the command line. What was not given follows: head_dim and ffn the hidden size,
/// prelude and coda the sharing strategy, router, cache and recursions a strategy that allows one choice only. The
/// result is not checked.
[[nodiscard]] mor::ModelConfig apply_model_flags(mor::ModelConfig base, ModelFlags const& flags);

/// The names of the fields in which two configurations differ: "hidden_size (64, now 32)"; empty when they are the
/// same.
[[nodiscard]] std::string config_difference(mor::ModelConfig const& saved, mor::ModelConfig const& wanted);

/// Parses the command line and runs `body`. Errors are one line on standard error.
/// @return 0 after success and --help, 2 after bad input, 1 where memory ran out, numbers ceased to be finite or a
///         device failed
[[nodiscard]] int run_program(CLI::App& app, int argc, char const* const* argv, std::function<void()> const& body);

/// As above with the arguments as a list; `app` has its name already.
[[nodiscard]] int run_program(CLI::App& app, std::vector<std::string> arguments, std::function<void()> const& body);

}  // namespace examples
