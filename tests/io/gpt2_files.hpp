// SPDX-License-Identifier: Apache-2.0
/// @file
/// The tokenizer.json that GPT-2's original two files, encoder.json and vocab.bpe, amount to.
#pragma once

#include "io/tokenizer_json_cases.hpp"
#include "mor/io/file.hpp"
#include "mor/io/json.hpp"
#include "mor/io/tokenizer_json.hpp"

#include <filesystem>
#include <sstream>
#include <string>

namespace mor::test {

[[nodiscard]] inline io::TokenizerModel gpt2_model(std::filesystem::path const& folder) {
  nlohmann::json file = tokenizer_json_cases::valid_file();
  file["pre_tokenizer"] = tokenizer_json_cases::byte_level;
  file["added_tokens"] = {{{"id", 50256}, {"content", "<|endoftext|>"}, {"special", true}, {"normalized", true}}};
  file["model"] = {{"vocab", io::parse_json(io::read_file(folder / "encoder.json"), "encoder.json")}};
  std::istringstream lines(io::read_file(folder / "vocab.bpe"));
  std::string line;
  std::getline(lines, line);  // the version
  nlohmann::json& merges = file["model"]["merges"] = nlohmann::json::array();
  while (std::getline(lines, line)) merges.push_back(line);
  return io::parse_tokenizer_json(file.dump(), "gpt2");
}

}  // namespace mor::test
