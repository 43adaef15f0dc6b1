// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a run trains on: text files, tokenised here, or token shards.
#pragma once

#include "mor/core/types.hpp"
#include "mor/io/tokenizer.hpp"
#include "mor/train/token_source.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace examples {

/// Which tokenizer a run uses.
struct TokenizerChoice {
  std::string name;                               ///< "byte", "bpe", or the path of a tokenizer.json
  bool given = false;                             ///< `name` was asked for, and is not the preset's
  mor::Index vocab_size = 0;                      ///< of a BPE to be trained; of shards without a tokenizer
  std::optional<std::filesystem::path> existing;  ///< of the run's own folder or of --init: used whatever `name` says
};

struct TrainingData {
  mor::train::TokenSource tokens;
  std::optional<mor::train::TokenSource> validation;  ///< held out by whoever made the shards
  std::optional<mor::io::Tokenizer> tokenizer;  ///< nothing: shards without one, so no text can be shown
  mor::Index vocab_size = 0;                    ///< of the tokenizer, or as given
  mor::Index text_bytes = 0;                    ///< 0 for shards
  bool trained_tokenizer = false;
};

/// Reads text files (joined by `<|endoftext|>`), shard files (recognised by their magic number), or a folder of shards
/// `*.bin`. Texts and shards do not mix. Shards take the tokenizer of the choice's path, or the `tokenizer.json` beside
/// them, where there is one; those named `val_*` or `*_val_*` are for validation if there are others.
/// @throws mor::error for a missing or empty file, a damaged shard, a bad tokenizer
[[nodiscard]] TrainingData load_training_data(std::vector<std::string> const& paths, TokenizerChoice const& choice);

/// The shards' own split, else the last `fraction` of the tokens for validation.
[[nodiscard]] mor::train::TokenSplit split_data(TrainingData const& data, double fraction);

/// Bytes of text that the targets of a validation stand for; special tokens count none.
[[nodiscard]] mor::Index target_bytes(mor::io::Tokenizer const& tokenizer, std::span<mor::Token const> targets);

}  // namespace examples
