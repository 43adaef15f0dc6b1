// SPDX-License-Identifier: Apache-2.0
/// @file
/// A model as a folder: `config.json`, `model.safetensors`, `tokenizer.json`.
#pragma once

#include "common/any_model.hpp"
#include "common/command_line.hpp"
#include "common/device_choice.hpp"
#include "common/model_files.hpp"
#include "mor/io/file.hpp"
#include "mor/io/tokenizer.hpp"

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace examples {

/// Writes the weights in float32, each tensor once under the name that the layout gives it.
/// @param official_names  write every alias too, as official checkpoints do
/// @param mode            InPlace inside a folder that is renamed as a whole
void save_weights(std::filesystem::path const& path, AnyModel const& model, bool official_names,
                  mor::io::WriteMode mode = mor::io::WriteMode::Replace);

/// Reads the weights (F32, F16, BF16 or F64), under the model's own names or the official ones (mor::StoredModel).
/// @throws mor::error naming the file, the tensor, what was expected and what is there
void load_weights(mor::TensorSource const& source, AnyModel& model);

/// The same from a safetensors file, or from an index and its shards.
void load_weights(std::filesystem::path const& path, AnyModel& model);

/// The folder's tokenizer. @throws mor::error also when it has ids that the model does not know
[[nodiscard]] mor::io::Tokenizer load_tokenizer(std::filesystem::path const& folder, mor::ModelConfig const& config);

/// The bytes of a token; U+FFFD for ids between the tokenizer's vocabulary and the model's.
[[nodiscard]] std::string token_text(mor::io::Tokenizer const& tokenizer, Token token);

/// What a program that reads models works on.
struct OpenModel {
  std::unique_ptr<AnyModel> model;
  mor::io::Tokenizer tokenizer;
};

/// With a folder: its model and, where `with_tokenizer`, its tokenizer; model options on the command line replace
/// settings of its `config.json` (another cache, say), and weights that no longer fit are refused by name. Without a
/// folder: the preset with random weights and the byte tokenizer, to try an architecture.
[[nodiscard]] OpenModel open_model(std::optional<std::string> const& folder, ModelFlags const& flags,
                                   DeviceChoice const& device, bool with_tokenizer);

}  // namespace examples
