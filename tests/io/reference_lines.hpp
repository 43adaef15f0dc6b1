// SPDX-License-Identifier: Apache-2.0
/// @file
/// The texts of llama.cpp's vocabulary tests (`NAME.inp`, separated by lines) with the ids that are right (`NAME.out`).
#pragma once

#include "mor/core/types.hpp"
#include "mor/io/file.hpp"

#include <cstddef>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

namespace mor::test {

struct ReferenceLine {
  std::string text;
  std::vector<Token> ids;
};

/// @param name  the path of both files without .inp and .out
[[nodiscard]] inline std::vector<ReferenceLine> reference_lines(std::filesystem::path const& name) {
  std::string const texts = io::read_file(name.string() + ".inp");
  std::istringstream answers(io::read_file(name.string() + ".out"));
  std::string const separator = "\n__ggml_vocab_test__\n";
  std::vector<ReferenceLine> lines;
  std::string answer;
  for (std::size_t at = 0; std::getline(answers, answer);) {
    std::size_t const end = texts.find(separator, at);
    if (end == std::string::npos) break;
    ReferenceLine& line = lines.emplace_back();
    line.text = texts.substr(at, end - at);
    std::istringstream numbers(answer);
    for (Token id = 0; numbers >> id;) line.ids.push_back(id);
    at = end + separator.size();
  }
  return lines;
}

}  // namespace mor::test
