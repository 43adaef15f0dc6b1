// SPDX-License-Identifier: Apache-2.0
/// @file
/// Files of token ids as text: one sequence a line, ids separated by spaces or tabs.
#pragma once

#include "mor/core/types.hpp"

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace examples {

/// The ids of a text, separated by white space; none for a blank text.
/// @param where  the place that errors name
/// @throws mor::error MalformedFile for something that is not a number, or an id outside [0, vocab_size)
[[nodiscard]] std::vector<mor::Token> parse_token_ids(std::string_view text, std::string const& where,
                                                      mor::Index vocab_size);

/// The sequences of a file. A line break after the last line is optional.
/// @throws mor::error MalformedFile naming the line, for a blank line, something that is not a number, or an id outside
///         [0, vocab_size); also for a file without lines
[[nodiscard]] std::vector<std::vector<mor::Token>> read_token_lines(std::filesystem::path const& path,
                                                                    mor::Index vocab_size);

}  // namespace examples
