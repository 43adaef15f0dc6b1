// SPDX-License-Identifier: Apache-2.0
#include "common/token_lines.hpp"

#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/io/file.hpp"

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <system_error>

namespace examples {

namespace {

constexpr std::string_view blanks = " \t\r\n";

mor::Token parse_id(std::string_view word, std::string const& where, mor::Index vocab_size) {
  auto const refuse = [&](char const* what) {
    mor::fail(mor::ErrorCode::MalformedFile, what, where, "0 to " + mor::text_of(vocab_size - 1), mor::printable(word));
  };
  mor::Index id = -1;
  auto const [end, problem] = std::from_chars(word.data(), word.data() + word.size(), id);
  if (problem == std::errc::invalid_argument || end != word.data() + word.size()) refuse("not a token id");
  if (problem != std::errc{} || id < 0 || id >= vocab_size) refuse("a token id outside the vocabulary");
  return static_cast<mor::Token>(id);
}

}  // namespace

std::vector<mor::Token> parse_token_ids(std::string_view text, std::string const& where, mor::Index vocab_size) {
  std::vector<mor::Token> ids;
  for (;;) {
    text.remove_prefix(std::min(text.find_first_not_of(blanks), text.size()));
    if (text.empty()) return ids;
    auto const word = text.substr(0, text.find_first_of(blanks));
    ids.push_back(parse_id(word, where, vocab_size));
    text.remove_prefix(word.size());
  }
}

std::vector<std::vector<mor::Token>> read_token_lines(std::filesystem::path const& path, mor::Index vocab_size) {
  std::string const text = mor::io::read_file(path);
  std::vector<std::vector<mor::Token>> sequences;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t const end = std::min(text.find('\n', begin), text.size());
    std::string_view const line(text.data() + begin, end - begin);
    begin = end + 1;
    std::string const where = path.string() + ": line " + std::to_string(sequences.size() + 1);
    sequences.push_back(parse_token_ids(line, where, vocab_size));
    if (sequences.back().empty())
      mor::fail(mor::ErrorCode::MalformedFile, "a sequence without tokens", where, "token ids", "a blank line");
  }
  if (sequences.empty()) {
    mor::fail(mor::ErrorCode::MalformedFile, "no sequences in the file", path.string(), "a line of token ids",
              "an empty file");
  }
  return sequences;
}

}  // namespace examples
