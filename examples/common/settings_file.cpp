// SPDX-License-Identifier: Apache-2.0
#include "common/settings_file.hpp"

#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/io/json_scanner.hpp"
#include "mor/train/strict_fields.hpp"

#include <algorithm>
#include <istream>
#include <iterator>
#include <string_view>
#include <utility>

namespace examples {

namespace {

/// Letters, digits and what numbers, names and words have besides: text that needs no quotes.
bool is_bare(char symbol) {
  auto const byte = static_cast<unsigned char>(symbol);
  return byte > 0x20 && byte < 0x7f && std::string_view("\"'#=,[]\\").find(symbol) == std::string_view::npos;
}

/// A value as TOML: numbers and `true` as they are, the rest as a string on one line.
std::string written(std::string const& value) {
  if (value == "true" || value == "false" || mor::train::detail::parse_number<double>(value)) return value;
  static constexpr char digits[] = "0123456789abcdef";
  std::string out = "\"";
  for (char const symbol : value) {
    auto const byte = static_cast<unsigned char>(symbol);
    if (symbol == '\n') {
      out += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      out += {'\\', 'u', '0', '0', digits[byte >> 4], digits[byte & 15]};
    } else {
      if (symbol == '"' || symbol == '\\') out += '\\';
      out += symbol;
    }
  }
  return out + "\"";
}

/// Reads settings from front to back. All refusals are MalformedFile and name the file and the line.
class SettingsReader {
 public:
  SettingsReader(std::string_view text, std::string file) : text_(text), file_(std::move(file)) {}

  [[noreturn]] void refuse(std::string what, std::string expected, std::string got) const {
    auto const line = 1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at_), '\n');
    mor::fail(mor::ErrorCode::MalformedFile, std::move(what), file_ + ": line " + std::to_string(line),
              std::move(expected), std::move(got));
  }

  /// Goes to the next setting. @return false at the end
  bool next() {
    skip(true);
    return at_ < text_.size();
  }

  std::string key() {
    if (peek() == '[') refuse("a section, and there are none", "key = value", upcoming());
    std::string name = bare();
    skip(false);
    if (name.empty() || peek() != '=') refuse("not a setting", "key = value", upcoming());
    ++at_;
    return name;
  }

  std::vector<std::string> values() {
    skip(false);
    std::vector<std::string> list;
    if (peek() != '[') {
      list.push_back(value());
    } else {
      ++at_;
      for (skip(true); peek() != ']'; skip(true)) {
        list.push_back(value());
        skip(true);
        if (peek() == ',') {
          ++at_;
        } else if (peek() != ']') {
          refuse("a list that does not end", ", or ]", upcoming());
        }
      }
      ++at_;
    }
    skip(false);
    if (at_ < text_.size() && peek() != '\n') {
      refuse("more than one value", "quotes around text, [ ] around a list", upcoming());
    }
    return list;
  }

 private:
  [[nodiscard]] char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  [[nodiscard]] std::string upcoming() const {
    return at_ < text_.size() ? mor::printable(text_.substr(at_), 20) : "the end of the file";
  }

  /// Spaces and comments, and line breaks where `lines`.
  void skip(bool lines) {
    for (; at_ < text_.size(); ++at_) {
      char const symbol = text_[at_];
      if (symbol == '#') at_ = std::min(text_.find('\n', at_), text_.size());
      if (at_ == text_.size() || (text_[at_] == '\n' && !lines)) return;
      if (std::string_view(" \t\r\n").find(text_[at_]) == std::string_view::npos) return;
    }
  }

  std::string bare() {
    std::size_t const begin = at_;
    while (at_ < text_.size() && is_bare(text_[at_])) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  std::string value() {
    char const quote = peek();
    if (quote != '"' && quote != '\'') {
      std::string word = bare();
      if (word.empty()) refuse("not a value", "a number, a word or text in quotes", upcoming());
      return word;
    }
    ++at_;
    std::string out;
    while (peek() != quote || at_ == text_.size()) {
      auto const byte = static_cast<unsigned char>(peek());
      if (at_ == text_.size() || peek() == '\n') {
        refuse("text without a closing quote", std::string(1, quote), upcoming());
      }
      if ((byte < 0x20 && peek() != '\t') || byte == 0x7f) {
        refuse("a control character in a text", "an escape", upcoming());
      }
      if (quote == '"' && peek() == '\\') {
        escape(out);
      } else {
        out += text_[at_++];
      }
    }
    ++at_;
    return out;
  }

  void escape(std::string& out) {
    static constexpr std::string_view letters = "\"\\bfnrt", meanings = "\"\\\b\f\n\r\t";
    char const letter = at_ + 1 < text_.size() ? text_[at_ + 1] : '\0';
    auto const place = letters.find(letter);
    if (letter != '\0' && place != std::string_view::npos) {
      out += meanings[place];
      at_ += 2;
      return;
    }
    std::string const hex(text_.substr(std::min(at_ + 2, text_.size()), 4));
    bool const whole = hex.size() == 4 && hex.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
    auto const code = letter == 'u' && whole ? static_cast<char32_t>(std::stoul(hex, nullptr, 16)) : char32_t{0};
    if (code == 0 || (code >= 0xd800 && code < 0xe000)) refuse("unknown escape in a text", "one of TOML", upcoming());
    mor::io::detail::append_utf8(out, code);
    at_ += 6;
  }

  std::string_view text_;
  std::string file_;
  std::size_t at_ = 0;
};

}  // namespace

std::string SettingsFormat::to_config(CLI::App const* app, bool, bool, std::string prefix) const {
  std::string out;
  for (auto const* const option : app->get_options({})) {
    auto const results = option->get_configurable() ? option->reduced_results() : std::vector<std::string>();
    if (results.empty()) continue;
    std::string values;
    for (auto const& value : results) values += (values.empty() ? "" : ", ") + written(value);
    out += prefix + option->get_single_name() + " = " + (results.size() > 1 ? "[" + values + "]" : values) + "\n";
  }
  return out;
}

std::vector<CLI::ConfigItem> SettingsFormat::from_config(std::istream& input) const {
  std::string const text{std::istreambuf_iterator<char>(input), std::istreambuf_iterator<char>()};
  SettingsReader reader(text, app_.get_config_ptr()->as<std::string>());
  std::vector<CLI::ConfigItem> found;
  while (reader.next()) {
    CLI::ConfigItem item;
    item.name = reader.key();
    auto const* const option = app_.get_option_no_throw("--" + item.name);
    if (option == nullptr || !option->get_configurable()) {
      reader.refuse("unknown setting", "an option of " + app_.get_name() + " --help, without its dashes",
                    mor::printable(item.name));
    }
    bool const again =
        std::any_of(found.begin(), found.end(), [&](CLI::ConfigItem const& other) { return other.name == item.name; });
    if (again) reader.refuse("a setting that is there twice", "each once", mor::printable(item.name));
    item.inputs = reader.values();
    found.push_back(std::move(item));
  }
  return found;
}

}  // namespace examples
