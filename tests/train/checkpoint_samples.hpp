// SPDX-License-Identifier: Apache-2.0
/// @file
/// Small checkpoints whose content is known, for the tests of saving and loading.
#pragma once

#include "mor/core/types.hpp"
#include "mor/train/checkpoint_store.hpp"
#include "mor/train/durable_files.hpp"
#include "mor/train/file_operations.hpp"

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace mor::test {

inline std::vector<std::string> const sample_names = {"config.json", "model.safetensors", "optimizer.safetensors",
                                                      "state.json"};

/// The content of one file of step `step`; `variant` tells two savings of the same step apart.
inline std::string sample_content(std::string const& name, Index step, int variant = 0, std::size_t size = 90) {
  std::string text = name + " of step " + std::to_string(step) + " variant " + std::to_string(variant) + ": ";
  for (std::size_t i = text.size(); i < size; ++i) text += static_cast<char>('a' + (i * 7 + std::size_t(step)) % 26);
  return text;
}

/// Files that write their content through `operations` in two pieces and leave flushing to the store.
inline std::vector<train::CheckpointFile> sample_files(train::FileOperations& operations, Index step, int variant = 0,
                                                       std::size_t size = 90) {
  std::vector<train::CheckpointFile> files;
  for (std::string const& name : sample_names) {
    files.push_back({name, [&operations, name, step, variant, size](std::filesystem::path const& path) {
                       train::DurableFiles const durable(operations);
                       std::string const text = sample_content(name, step, variant, size);
                       train::OpenFile file = durable.open(path, O_WRONLY | O_CREAT | O_TRUNC);
                       durable.write(file, path, std::string_view(text).substr(0, size / 3));
                       durable.write(file, path, std::string_view(text).substr(size / 3));
                       durable.close(file, path);
                     }});
  }
  return files;
}

/// Whether every file of a verified checkpoint is what `sample_files` wrote.
inline bool holds_samples(train::Checkpoint const& checkpoint, train::FileOperations& operations, int variant = 0,
                          std::size_t size = 90) {
  train::DurableFiles const durable(operations);
  for (std::string const& name : sample_names) {
    std::string const expected = sample_content(name, checkpoint.step(), variant, size);
    if (durable.read_file(checkpoint.path(name), size + 100) != expected) return false;
  }
  return true;
}

}  // namespace mor::test
