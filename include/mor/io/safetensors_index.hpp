// SPDX-License-Identifier: Apache-2.0
/// @file
/// The index of a model whose tensors are spread over several safetensors files (`model.safetensors.index.json`): which
/// file holds which tensor.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/io/file.hpp"
#include "mor/io/json.hpp"
#include "mor/io/safetensors_header.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace mor::io {

/// @name What an index may hold
/// @{
inline constexpr std::size_t max_index_bytes = 32'000'000;
inline constexpr std::size_t max_shards = 10'000;
/// @}

/// Which shard holds each tensor.
struct SafetensorsIndex {
  std::map<std::string, std::string, std::less<>> shard_of;  ///< tensor name -> file name
  std::uint64_t total_size = 0;                              ///< bytes of all tensors, as a writer states it

  /// The shards, sorted.
  [[nodiscard]] std::vector<std::string> shards() const {
    std::map<std::string_view, int> seen;
    for (auto const& [name, shard] : shard_of) seen.emplace(shard, 0);
    std::vector<std::string> files;
    for (auto const& [shard, unused] : seen) files.emplace_back(shard);
    return files;
  }
};

namespace detail {

/// A shard is a file beside the index: its name must not lead anywhere else.
inline void check_shard_name(std::string const& name, std::string const& where) {
  bool const plain = !name.empty() && name.size() <= 255 && name.find('/') == std::string::npos &&
                     name.find('\\') == std::string::npos && name.find('\0') == std::string::npos && name[0] != '.';
  if (!plain || !name.ends_with(".safetensors")) {
    fail(ErrorCode::MalformedFile, "not the name of a shard", where,
         "a file name that ends with .safetensors, without folders", printable(name));
  }
}

}  // namespace detail

/// Reads an index strictly: an object `weight_map` of file names under tensor names, and perhaps `metadata`, whose
/// content other programs use as they like. Other fields are refused.
/// @param file  the name that errors carry
/// @throws mor::error MalformedFile with the file and the field, InvalidConfig for an unknown field
[[nodiscard]] inline SafetensorsIndex parse_safetensors_index(std::string_view text, std::string const& file) {
  if (text.size() > max_index_bytes) {
    fail(ErrorCode::MalformedFile, "the index is too long", file,
         "at most " + std::to_string(max_index_bytes) + " bytes", std::to_string(text.size()));
  }
  nlohmann::json const document = parse_json(text, file);
  JsonObject root(document, file);
  SafetensorsIndex index;
  if (root.contains("metadata")) {
    JsonObject metadata = root.object("metadata");
    // Published indices count tied tensors in different ways, so the number says nothing that could be checked.
    if (metadata.has_value("total_size")) {
      double const size = metadata.number("total_size");
      if (!(size >= 0 && size < 0x1p63)) {
        fail(ErrorCode::MalformedFile, "out of range", metadata.where("total_size"), "a number of bytes",
             text_of(size));
      }
      index.total_size = static_cast<std::uint64_t>(size);
    }
  }
  nlohmann::json const& map = root.at("weight_map");
  if (!map.is_object()) {
    fail(ErrorCode::MalformedFile, "wrong type", root.where("weight_map"), "an object", detail::describe(map));
  }
  if (map.empty() || map.size() > max_safetensors_tensors) {
    fail(ErrorCode::MalformedFile, "a number of tensors that cannot be", root.where("weight_map"),
         "1 to " + std::to_string(max_safetensors_tensors), std::to_string(map.size()));
  }
  for (auto const& item : map.items()) {
    std::string const where = root.where("weight_map") + ", tensor " + printable(item.key());
    bool const named = !item.key().empty() && item.key().size() <= max_safetensors_name_bytes &&
                       item.key() != safetensors_metadata_key && item.key().find('\0') == std::string::npos;
    if (!named) {
      fail(ErrorCode::MalformedFile, "not a name for a tensor", where,
           "1 to " + std::to_string(max_safetensors_name_bytes) + " bytes without NUL, not __metadata__",
           printable(item.key()));
    }
    std::string const& shard = json_string(item.value(), where);
    detail::check_shard_name(shard, where);
    index.shard_of.emplace(item.key(), shard);
  }
  if (std::size_t const count = index.shards().size(); count > max_shards) {
    fail(ErrorCode::MalformedFile, "too many shards", root.where("weight_map"), "at most " + std::to_string(max_shards),
         std::to_string(count));
  }
  root.reject_unknown();
  return index;
}

/// `parse_safetensors_index` of a file. @throws mor::error as it does, and IoFailure
[[nodiscard]] inline SafetensorsIndex load_safetensors_index(std::filesystem::path const& path) {
  return parse_safetensors_index(read_file(path), path.string());
}

/// The text of an index, as the format's Python programs lay it out: sorted, indented by two.
[[nodiscard]] inline std::string to_index_json(SafetensorsIndex const& index) {
  nlohmann::ordered_json root;
  root["metadata"]["total_size"] = index.total_size;
  auto& map = root["weight_map"] = nlohmann::ordered_json::object();
  for (auto const& [name, shard] : index.shard_of) map[name] = shard;
  return root.dump(2) + "\n";
}

}  // namespace mor::io
