// SPDX-License-Identifier: Apache-2.0
/// @file
/// JSON lines: one JSON object a line. Blank lines are skipped; errors name the file and the line.
#pragma once

#include "mor/io/json.hpp"

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace mor::io {

/// Calls `visit(JsonObject&)` for each line's object, in order. The object names `FILE: line N` in its errors and lives
/// until `visit` returns.
/// @param file  the name that errors carry
/// @throws mor::error MalformedFile for a line that is not strict JSON, or not an object
template <class Visit>
void for_each_json_line(std::string_view text, std::string const& file, Visit&& visit) {
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t const end = std::min(text.find('\n', begin), text.size());
    std::string_view const line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    std::string const where = file + ": line " + std::to_string(number);
    nlohmann::json const value = parse_json(line, where);
    JsonObject object(value, where);
    visit(object);
  }
}

}  // namespace mor::io
