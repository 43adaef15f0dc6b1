// SPDX-License-Identifier: Apache-2.0
/// @file
/// Opens the weights of a model in any form that is read: a folder with `config.json` and safetensors (whole or in
/// shards), a checkpoint of a training run, an official Mixture-of-Recursions checkpoint, a llama2.c file.
#pragma once

#include "mor/core/config.hpp"
#include "mor/core/tensor_source.hpp"

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace examples {

inline constexpr char config_file[] = "config.json";
inline constexpr char weights_file[] = "model.safetensors";
inline constexpr char index_file[] = "model.safetensors.index.json";
inline constexpr char tokenizer_file[] = "tokenizer.json";

/// A model's configuration and its tensors, not yet compared with each other.
struct ModelFiles {
  mor::ModelConfig config;
  std::unique_ptr<mor::TensorSource> tensors;
  std::optional<std::filesystem::path> folder;  ///< where a tokenizer and other companions may lie
  std::string kind;                             ///< in words
};

/// The weights of a folder: `model.safetensors`, or the index of its shards.
/// @throws mor::error IoFailure where there is neither; Unsupported where there is a pickle file, which could run code
[[nodiscard]] std::filesystem::path weights_path(std::filesystem::path const& folder);

/// Opens a folder, a safetensors file or index (with the `config.json` beside it, if there is one), or a llama2.c file.
///
/// Where `config.json` does not say how layers recur, the tensors' names do, and where there is none at all, their
/// shapes; a checkpoint of a training run is verified. Fields of `config.json` that have no meaning here are named on
/// standard error, in one line.
/// @param head_dim  for a model without `config.json`; the published models have 64
[[nodiscard]] ModelFiles open_model_files(std::filesystem::path const& path, std::optional<mor::Index> head_dim = {});

}  // namespace examples
