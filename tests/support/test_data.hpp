// SPDX-License-Identifier: Apache-2.0
/// @file
/// Where data files for tests lie, if they are there at all: a test that needs one skips without it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <system_error>

namespace mor::test {

/// The folder named by the environment variable MOR_TEST_DATA, else `../shared/data` beside the project's root; nothing
/// when neither exists.
[[nodiscard]] inline std::optional<std::filesystem::path> test_data() {
  std::error_code ignored;
  if (char const* const named = std::getenv("MOR_TEST_DATA"); named != nullptr && *named != '\0') {
    if (std::filesystem::is_directory(named, ignored)) return std::filesystem::path(named);
    return std::nullopt;
  }
#ifdef MOR_SOURCE_DIR
  std::filesystem::path const beside = std::filesystem::path(MOR_SOURCE_DIR) / ".." / "shared" / "data";
  if (std::filesystem::is_directory(beside, ignored)) return beside;
#endif
  return std::nullopt;
}

}  // namespace mor::test
