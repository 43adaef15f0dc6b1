// SPDX-License-Identifier: Apache-2.0
/// @file
/// `PreparationOptions`: what a preparation of token shards is to do, and what of it decides the bytes of the shards.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/io/mapped_file.hpp"
#include "mor/io/tokenizer.hpp"
#include "mor/train/crc32c.hpp"
#include "mor/train/document_reader.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace mor::train {

struct PreparationOptions {
  std::vector<std::filesystem::path> inputs;
  std::vector<std::filesystem::path> validation_inputs;  ///< their documents are for validation, all of them
  std::filesystem::path out;                             ///< folder of the shards
  DocumentRules rules;
  double validation_fraction = 0.0;  ///< share of the documents of `inputs` that is drawn for validation
  std::uint64_t seed = 1;            ///< of that draw
  Index shard_tokens = 50'000'000;   ///< of every shard but the last; 4 bytes each are held in memory
  std::vector<Token> begin, end;     ///< tokens before and after every document
  io::SpecialInput special = io::SpecialInput::PlainText;
  int threads = 1;
  bool overwrite = false;  ///< first delete what an earlier preparation made in `out`; not before all else is checked
};

namespace detail {

/// Size and checksum of a file's two ends: enough to notice that an input is not the one of before.
[[nodiscard]] inline nlohmann::ordered_json input_identity(std::filesystem::path const& path, bool validation) {
  io::MappedFile const file(path);
  constexpr std::size_t part = 1U << 20U;
  auto const bytes = file.bytes();
  Crc32c checksum;
  checksum.update(bytes.first(std::min(part, bytes.size())));
  checksum.update(bytes.last(std::min(part, bytes.size())));
  return {{"name", path.filename().string()},
          {"bytes", bytes.size()},
          {"crc32c_of_ends", checksum.value()},
          {"validation", validation}};
}

/// Everything that decides the bytes of the shards.
[[nodiscard]] inline nlohmann::ordered_json preparation_settings(io::Tokenizer const& tokenizer,
                                                                 PreparationOptions const& options) {
  std::string const model = io::format_tokenizer_json(tokenizer.model());
  Crc32c checksum;
  checksum.update(std::as_bytes(std::span<char const>(model)));
  auto inputs = nlohmann::ordered_json::array();
  for (auto const& path : options.inputs) inputs.push_back(input_identity(path, false));
  for (auto const& path : options.validation_inputs) inputs.push_back(input_identity(path, true));
  nlohmann::ordered_json settings;
  settings["vocab_size"] = tokenizer.vocab_size();
  settings["tokenizer_crc32c"] = checksum.value();
  settings["format"] = options.rules.format ? static_cast<int>(*options.rules.format) : -1;
  settings["separator"] = options.rules.separator;
  settings["field"] = options.rules.field;
  settings["begin"] = options.begin;
  settings["end"] = options.end;
  settings["parse_special"] = options.special == io::SpecialInput::Parse;
  settings["shard_tokens"] = options.shard_tokens;
  settings["validation_fraction"] = options.validation_fraction;
  settings["seed"] = options.seed;
  settings["inputs"] = std::move(inputs);
  return settings;
}

inline void check_preparation(PreparationOptions const& options) {
  auto const refuse = [](char const* what, char const* where, char const* expected, std::string got) {
    fail(ErrorCode::InvalidArgument, what, where, expected, std::move(got));
  };
  options.rules.check();
  if (options.out.empty()) refuse("no folder for the shards", "out", "a name", "an empty one");
  if (options.inputs.empty()) refuse("no texts", "inputs", "at least one file", "none");
  if (options.shard_tokens < 1 || options.shard_tokens > 2147483647) {
    refuse("out of range", "shard tokens", "1 to 2147483647", text_of(options.shard_tokens));
  }
  if (!(options.validation_fraction >= 0.0 && options.validation_fraction < 1.0)) {
    refuse("out of range", "validation fraction", "0 or more, less than 1", text_of(options.validation_fraction));
  }
  if (options.threads < 1 || options.threads > 1024) {
    refuse("out of range", "threads", "1 to 1024", text_of(options.threads));
  }
}

}  // namespace detail
}  // namespace mor::train
