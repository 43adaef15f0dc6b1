// SPDX-License-Identifier: Apache-2.0
/// @file
/// Fuzzing of `config.json`: any text is a configuration that has been checked, or a mor::error. What is accepted is
/// read back equal after writing, with no field that means nothing.
#include "mor/core/config_check.hpp"
#include "mor/io/config_json.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  mor::ModelConfig config;
  try {
    config = mor::io::parse_config(std::string_view(reinterpret_cast<char const*>(data), size), "fuzz");
  } catch (mor::error const&) {
    return 0;
  }
  mor::check(config, "accepted");
  auto const again = mor::io::read_config(mor::io::to_config_json(config), "again");
  if (!(again.config == config) || !again.ignored.empty()) std::abort();
  return 0;
}
