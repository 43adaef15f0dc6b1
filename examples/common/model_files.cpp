// SPDX-License-Identifier: Apache-2.0
#include "common/model_files.hpp"

#include "mor/core/config_check.hpp"
#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/io/config_json.hpp"
#include "mor/io/file.hpp"
#include "mor/io/llama2c.hpp"
#include "mor/io/safetensors_set.hpp"
#include "mor/model/detect_structure.hpp"
#include "mor/train/checkpoint.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <iostream>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace examples {

namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse_pickle(fs::path const& path) {
  mor::fail(mor::ErrorCode::Unsupported, "a pickle file can run code, so it is not read: save the model as safetensors",
            path.string(), weights_file, path.filename().string());
}

/// Whether the file begins as PyTorch's archives and older pickles do.
bool is_pickle(fs::path const& path) {
  std::array<std::byte, 4> start{};
  auto file = mor::io::open_file(path, O_RDONLY);
  static_cast<void>(mor::io::regular_file_size(file, path));
  auto const count = mor::io::read_some(file, path, start);
  std::string_view const text(reinterpret_cast<char const*>(start.data()), count);
  return text == "PK\x03\x04" || (text.size() >= 2 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5);
}

/// Says in one line which fields of a configuration had no effect.
void warn_of_ignored(std::vector<std::string> const& fields, fs::path const& path) {
  constexpr std::size_t shown = 12;
  if (fields.empty()) return;
  std::string names;
  for (std::size_t i = 0; i < std::min(shown, fields.size()); ++i) {
    names += (i == 0 ? "" : ", ") + mor::printable(fields[i]);
  }
  if (fields.size() > shown) names += " and " + std::to_string(fields.size() - shown) + " more";
  std::cerr << "warning: " << path.string() << ": these fields mean nothing here and are ignored: " << names << '\n';
}

ModelFiles open_safetensors(fs::path const& path, std::optional<mor::Index> head_dim) {
  ModelFiles files;
  files.folder = path.parent_path();
  files.tensors = std::make_unique<mor::io::SafetensorsSet>(path);
  auto const config_path = *files.folder / config_file;
  if (!fs::exists(config_path)) {
    files.kind = "safetensors without config.json";
    files.config = mor::detect_structure(*files.tensors, head_dim.value_or(mor::published_head_dim));
    mor::check(files.config, path.string());
    return files;
  }
  auto const reading = mor::io::read_config(mor::io::read_file(config_path), config_path.string());
  warn_of_ignored(reading.ignored, config_path);
  files.config = reading.config;
  files.kind = files.config.recursion == mor::RecursionConfig{} ? "a Transformer" : "a recursive model";
  if (!reading.has_recursion) {
    auto const detected = mor::detect_recursion(*files.tensors, files.config);
    if (!(detected == files.config)) files.kind = "an official checkpoint";
    files.config = detected;
    mor::check(files.config, path.string());
  }
  return files;
}

}  // namespace

fs::path weights_path(fs::path const& folder) {
  for (char const* name : {weights_file, index_file}) {
    if (fs::exists(folder / name)) return folder / name;
  }
  for (char const* name : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (fs::exists(folder / name)) refuse_pickle(folder / name);
  }
  mor::fail(mor::ErrorCode::IoFailure, "no weights in the folder", folder.string(),
            std::string(weights_file) + " or " + index_file, "neither");
}

ModelFiles open_model_files(fs::path const& path, std::optional<mor::Index> head_dim) {
  if (!fs::exists(path)) mor::fail(mor::ErrorCode::IoFailure, "cannot open: no such file or folder", path.string());
  if (fs::is_directory(path)) {
    if (fs::exists(path / mor::train::kManifestName)) static_cast<void>(mor::train::Checkpoint::open(path));
    return open_safetensors(weights_path(path), head_dim);
  }
  bool const is_index = path.filename().string().ends_with(".index.json");
  if (path.extension() == ".safetensors" || is_index) return open_safetensors(path, head_dim);
  if (is_pickle(path)) refuse_pickle(path);
  if (path.extension() != ".bin") {
    mor::fail(mor::ErrorCode::InvalidArgument, "the name is of no kind of model file that is read", path.string(),
              "a folder, *.safetensors, *.index.json, or *.bin of llama2.c", path.filename().string());
  }
  auto file = std::make_unique<mor::io::Llama2cFile>(path);
  ModelFiles files{file->config(), nullptr, std::nullopt, "a llama2.c model"};
  files.tensors = std::move(file);
  return files;
}

}  // namespace examples
