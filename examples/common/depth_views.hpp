// SPDX-License-Identifier: Apache-2.0
/// @file
/// A generated text with the recursions that each token took: coloured in a terminal, as a page, as a table.
#pragma once

#include "mor/core/types.hpp"
#include "mor/infer/generate.hpp"
#include "mor/io/depth_html.hpp"
#include "mor/io/tokenizer.hpp"

#include <filesystem>
#include <iosfwd>
#include <string>
#include <vector>

namespace examples {

enum class ColorChoice { Always, Auto, Never };

/// @throws mor::error InvalidConfig for another word than always, auto, never
[[nodiscard]] ColorChoice parse_color(std::string const& name);

/// Tokens with their texts and depths. A stop string and what follows it are not part of it.
class DepthText {
 public:
  DepthText(std::vector<mor::infer::GeneratedToken> const& tokens, mor::io::Tokenizer const& tokenizer,
            std::vector<std::string> const& stop, int num_recursions);

  /// The text and a legend. `Auto` colours where standard output is a terminal (not a dumb one) and NO_COLOR
  /// is not set or empty.
  void print(std::ostream& out, ColorChoice color, bool with_prompt) const;

  /// One page that needs no other file.
  void write_html(std::filesystem::path const& path) const;

  /// Columns: index, token, depth, prompt (0 or 1), log_probability, text (quoted).
  void write_csv(std::filesystem::path const& path) const;

 private:
  std::vector<mor::infer::GeneratedToken> tokens_;
  std::vector<mor::io::DepthToken> texts_;
  int num_recursions_;
};

}  // namespace examples
