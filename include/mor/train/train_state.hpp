// SPDX-License-Identifier: Apache-2.0
/// @file
/// `TrainState`: everything beside weights and optimizer moments that a run needs to go on bit for bit, as plain data,
/// and its JSON file `state.json`.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/finite.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/types.hpp"
#include "mor/train/data_loader.hpp"
#include "mor/train/non_finite_guard.hpp"
#include "mor/train/number_text.hpp"
#include "mor/train/strict_fields.hpp"

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace mor::train {

/// Random numbers are counter-based, so that seeds and counts are the state of every stream.
struct TrainState {
  Index step = 0;             ///< steps done, skipped updates included; the next step has this number
  Index optimizer_steps = 0;  ///< updates applied: the optimizer's bias correction counts these
  Index micro_steps = 0;      ///< forward and backward passes done: capacity warm-up and router noise count these
  Index tokens = 0;           ///< tokens trained on
  std::uint64_t seed = 0;         ///< of initialisation, router noise and everything else that has no own seed
  std::uint64_t sample_seed = 0;  ///< of the texts generated during training
  LoaderState loader;
  NonFiniteState guard;
  std::optional<double> best_validation_loss;  ///< nats a token; nothing before the first validation
  Index best_validation_step = 0;
  Index metrics_offset = 0;  ///< length of metrics.jsonl in bytes; what follows was written by a run that died
  std::string backend;       ///< where the run was, e.g. "host float": bits are promised on the same one only
  bool operator==(TrainState const&) const = default;
};

namespace detail {

[[nodiscard]] inline std::string quoted(std::string const& text) { return "\"" + text + "\""; }

/// A finite number as the string that `number_field` reads.
[[nodiscard]] inline std::string number_string(char const* field, double value) {
  if (!is_finite(value)) {
    fail(ErrorCode::NonFinite, "a training state must be finite", std::string("TrainState: field ") + field,
         "a finite number", text_of(value));
  }
  return quoted(json_number_text(value));
}

[[nodiscard]] inline std::string to_json(LoaderState const& state) {
  return "{\"epoch\": " + std::to_string(state.epoch) + ", \"position\": " + std::to_string(state.position) +
         ", \"seed\": " + quoted(std::to_string(state.seed)) + ", \"rows\": " + std::to_string(state.rows) +
         ", \"context\": " + std::to_string(state.context) + ", \"order\": " +
         quoted(state.shuffle ? "shuffled" : "stored") + "}";
}

[[nodiscard]] inline std::string to_json(NonFiniteState const& state) {
  return "{\"skips_in_row\": " + std::to_string(state.skips_in_row) +
         ", \"skips_in_all\": " + std::to_string(state.skips_in_all) +
         ", \"accepted\": " + std::to_string(state.accepted) +
         ", \"mean_loss\": " + number_string("mean_loss", state.mean_loss) + "}";
}

inline void read_loader_state(Scanner& scanner, LoaderState& state) {
  Field const order = {"order", [&state](Scanner& from) {
                         state.shuffle = read_parsed(from, "shuffled or stored", [](std::string_view text) {
                           bool const known = text == "shuffled" || text == "stored";
                           return known ? std::optional<bool>(text == "shuffled") : std::nullopt;
                         });
                       }};
  read_fields(scanner, "the loader's state",
              {integer_field("epoch", state.epoch), integer_field("position", state.position),
               seed_field("seed", state.seed), integer_field("rows", state.rows),
               integer_field("context", state.context), order});
}

inline void read_guard_state(Scanner& scanner, NonFiniteState& state) {
  read_fields(scanner, "the guard's state",
              {integer_field("skips_in_row", state.skips_in_row), integer_field("skips_in_all", state.skips_in_all),
               integer_field("accepted", state.accepted), number_field("mean_loss", state.mean_loss)});
}

/// `"none"` or a finite number.
inline void read_best_loss(Scanner& scanner, std::optional<double>& loss) {
  double const value = read_parsed(scanner, "\"none\" or a string of the digits of a finite number",
                                   [](std::string_view text) -> std::optional<double> {
                                     if (text == "none") return std::numeric_limits<double>::infinity();
                                     std::optional<double> const number = parse_number<double>(text);
                                     return number && is_finite(*number) ? number : std::nullopt;
                                   });
  loss = is_finite(value) ? std::optional<double>(value) : std::nullopt;
}

inline void check_not_above(std::string const& file, char const* field, Index value, Index most) {
  if (value <= most) return;
  fail(ErrorCode::MalformedFile, "the training state contradicts itself", file + ": field " + field,
       "at most step = " + text_of(most), text_of(value));
}

}  // namespace detail

/// The state as JSON text; every number survives the way there and back bit for bit.
/// @throws mor::error NonFinite for a mean or best loss that is not finite (a healthy run has none), InvalidArgument
///         for a backend name with quotes, backslashes or anything but printable ASCII
[[nodiscard]] inline std::string to_json(TrainState const& state) {
  if (printable(state.backend, detail::kLongestField) != detail::quoted(state.backend)) {
    fail(ErrorCode::InvalidArgument, "not a backend name", "TrainState: field backend", "printable ASCII",
         printable(state.backend));
  }
  auto const line = [](char const* name, std::string const& value) {
    return ",\n  \"" + std::string(name) + "\": " + value;
  };
  auto const integer = [&](char const* name, Index value) { return line(name, std::to_string(value)); };
  std::string const best = state.best_validation_loss
                               ? detail::number_string("best_validation_loss", *state.best_validation_loss)
                               : "\"none\"";
  return "{\n  \"format\": \"mor-train-state-1\"" + integer("step", state.step) +
         integer("optimizer_steps", state.optimizer_steps) + integer("micro_steps", state.micro_steps) +
         integer("tokens", state.tokens) + line("seed", detail::quoted(std::to_string(state.seed))) +
         line("sample_seed", detail::quoted(std::to_string(state.sample_seed))) +
         line("loader", detail::to_json(state.loader)) + line("guard", detail::to_json(state.guard)) +
         line("best_validation_loss", best) + integer("best_validation_step", state.best_validation_step) +
         integer("metrics_offset", state.metrics_offset) + line("backend", detail::quoted(state.backend)) + "\n}\n";
}

/// Reads a state, strictly: every field present once, of its type and in range, and no other field.
/// @param file  the name that errors carry
/// @throws mor::error MalformedFile naming the byte and the field
[[nodiscard]] inline TrainState parse_train_state(std::string_view text, std::string const& file) {
  using namespace detail;
  Scanner scanner = scan_fields(text, file);
  TrainState state;
  read_fields(scanner, "the training state",
              {constant_field("format", "mor-train-state-1"), integer_field("step", state.step),
               integer_field("optimizer_steps", state.optimizer_steps), integer_field("micro_steps", state.micro_steps),
               integer_field("tokens", state.tokens), seed_field("seed", state.seed),
               seed_field("sample_seed", state.sample_seed),
               {"loader", [&](Scanner& from) { read_loader_state(from, state.loader); }},
               {"guard", [&](Scanner& from) { read_guard_state(from, state.guard); }},
               {"best_validation_loss", [&](Scanner& from) { read_best_loss(from, state.best_validation_loss); }},
               integer_field("best_validation_step", state.best_validation_step),
               integer_field("metrics_offset", state.metrics_offset), text_field("backend", state.backend)});
  scanner.expect_end("the training state");
  check_not_above(file, "optimizer_steps", state.optimizer_steps, state.step);
  check_not_above(file, "best_validation_step", state.best_validation_step, state.step);
  return state;
}

}  // namespace mor::train
