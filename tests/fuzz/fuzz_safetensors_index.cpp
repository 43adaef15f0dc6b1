// SPDX-License-Identifier: Apache-2.0
/// @file
/// Fuzzing of `model.safetensors.index.json`: any text is an index, or a mor::error. What is accepted names shards that
/// lie beside it, and is read back equal after writing.
#include "mor/io/safetensors_index.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  mor::io::SafetensorsIndex index;
  try {
    index = mor::io::parse_safetensors_index(std::string_view(reinterpret_cast<char const*>(data), size), "fuzz");
  } catch (mor::error const&) {
    return 0;
  }
  for (std::string const& shard : index.shards()) {
    if (shard.find('/') != std::string::npos || shard.empty() || shard.front() == '.') std::abort();
  }
  auto const again = mor::io::parse_safetensors_index(mor::io::to_index_json(index), "again");
  if (again.shard_of != index.shard_of) std::abort();
  return 0;
}
