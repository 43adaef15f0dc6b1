// SPDX-License-Identifier: Apache-2.0
/// @file
/// How far a preparation of token shards is: what a killed one needs to go on, and afterwards a record of what the
/// shards hold. Kept in `prepare.json` beside them.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/io/file.hpp"
#include "mor/io/json.hpp"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mor::train {

inline constexpr char kPreparationFile[] = "prepare.json";

/// The name of a shard: `train_000000.bin`, `val_000000.bin` and so on.
[[nodiscard]] inline std::string shard_name(bool validation, Index number) {
  std::string digits = std::to_string(number);
  digits.insert(0, digits.size() < 6 ? 6 - digits.size() : 0, '0');
  return (validation ? "val_" : "train_") + digits + ".bin";
}

/// Where a shard ended, in the middle of a document as a rule.
struct PreparationPlace {
  Index input = 0;     ///< which file
  Index byte = 0;      ///< where in it the document begins
  Index document = 0;  ///< its number, over all files
  Index skip = 0;      ///< tokens of it that are in shards
  bool operator==(PreparationPlace const&) const = default;
};

/// Training or validation data. `documents` and `bytes` count what lies before `next`.
struct PreparedSplit {
  std::vector<Index> shards;  ///< tokens of each
  Index documents = 0;
  Index bytes = 0;  ///< of text
  PreparationPlace next;

  [[nodiscard]] Index tokens() const { return std::accumulate(shards.begin(), shards.end(), Index{0}); }
  bool operator==(PreparedSplit const&) const = default;
};

struct PreparationState {
  nlohmann::ordered_json settings;  ///< everything that decides the bytes of the shards
  PreparedSplit training, validation;
  bool finished = false;

  [[nodiscard]] bool has_shards() const { return !training.shards.empty() || !validation.shards.empty(); }
  [[nodiscard]] PreparedSplit& split(bool for_validation) { return for_validation ? validation : training; }
};

namespace detail {

[[nodiscard]] inline nlohmann::ordered_json json_of(PreparedSplit const& split, bool finished) {
  nlohmann::ordered_json value;
  value["tokens"] = split.tokens();
  value["documents"] = split.documents;
  value["bytes"] = split.bytes;
  value["shards"] = split.shards;
  if (finished) return value;
  auto const& next = split.next;
  value["next"] = {{"input", next.input}, {"byte", next.byte}, {"document", next.document}, {"skip", next.skip}};
  return value;
}

[[nodiscard]] inline PreparedSplit read_split(io::JsonObject object, bool finished) {
  PreparedSplit split;
  Index const tokens = object.integer("tokens", 0);
  split.documents = object.integer("documents", 0);
  split.bytes = object.integer("bytes", 0);
  for (auto const& count : object.array("shards")) {
    split.shards.push_back(io::json_integer(count, object.where("shards"), 1));
  }
  if (split.tokens() != tokens) {
    fail(ErrorCode::MalformedFile, "the shards do not add up", object.where("tokens"), text_of(split.tokens()),
         text_of(tokens));
  }
  if (!finished) {
    auto next = object.object("next");
    split.next = {next.integer("input", 0), next.integer("byte", 0), next.integer("document", 0),
                  next.integer("skip", 0)};
    next.reject_unknown();
  }
  object.reject_unknown();
  return split;
}

}  // namespace detail

/// Replaces the state in one step.
inline void save_preparation(std::filesystem::path const& folder, PreparationState const& state) {
  nlohmann::ordered_json value;
  value["finished"] = state.finished;
  value["train"] = detail::json_of(state.training, state.finished);
  value["val"] = detail::json_of(state.validation, state.finished);
  value["settings"] = state.settings;
  io::write_file(folder / kPreparationFile, value.dump(2) + "\n");
}

/// The state in a folder, if there is one. @throws mor::error MalformedFile with the file and the field
[[nodiscard]] inline std::optional<PreparationState> load_preparation(std::filesystem::path const& folder) {
  auto const path = folder / kPreparationFile;
  if (!std::filesystem::exists(path)) return std::nullopt;
  auto const value = io::parse_json(io::read_file(path), path.string());
  io::JsonObject object(value, path.string());
  PreparationState state;
  state.finished = object.boolean("finished");
  state.training = detail::read_split(object.object("train"), state.finished);
  state.validation = detail::read_split(object.object("val"), state.finished);
  static_cast<void>(object.object("settings"));
  state.settings = nlohmann::ordered_json(object.at("settings"));
  object.reject_unknown();
  return state;
}

/// The settings in which two states differ, as `KEY`; empty where they are the same.
[[nodiscard]] inline std::string settings_difference(nlohmann::ordered_json const& saved,
                                                     nlohmann::ordered_json const& wanted) {
  std::string names;
  for (auto const& item : wanted.items()) {
    auto const place = saved.find(item.key());
    // A file read back is a JSON object without an order; compared as such.
    bool const same = place != saved.end() && nlohmann::json(*place) == nlohmann::json(item.value());
    if (!same) names += (names.empty() ? "" : ", ") + item.key();
  }
  return names.empty() && saved.size() != wanted.size() ? "their number" : names;
}

}  // namespace mor::train
