// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reading the JSON files that training itself writes: every field of an object is known, present once, and of its
/// type. Numbers that JSON tools may round (64-bit seeds, losses) are strings of decimal digits.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/finite.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/types.hpp"
#include "mor/io/json_scanner.hpp"
#include "mor/train/number_text.hpp"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace mor::train::detail {

using Scanner = io::detail::JsonScanner;

/// The scanner of a whole file of ours.
[[nodiscard]] inline Scanner scan_fields(std::string_view text, std::string const& file) {
  return Scanner(text, file, 0, "field");
}

/// One field: its name, and what reads its value.
struct Field {
  std::string_view name;
  std::function<void(Scanner&)> read;
};

/// Longest string value accepted, in bytes.
inline constexpr std::size_t kLongestField = 4096;

[[nodiscard]] inline std::string read_text(Scanner& scanner) { return scanner.read_string("the value", kLongestField); }

/// A string that `parse` must understand.
template <class Parse>
[[nodiscard]] auto read_parsed(Scanner& scanner, char const* expected, Parse const& parse) {
  std::size_t const begin = scanner.at();
  std::string const text = read_text(scanner);
  auto const value = parse(std::string_view(text));
  if (!value) scanner.refuse_at(begin, "the value cannot be read", expected, printable(text));
  return *value;
}

/// The whole text as a number, or nothing.
template <class Number>
[[nodiscard]] std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  auto const [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  bool const whole = problem == std::errc{} && end == text.data() + text.size();
  return whole ? std::optional<Number>(value) : std::nullopt;
}

/// @name Fields by type
/// The destination must outlive the reading.
/// @{
[[nodiscard]] inline Field integer_field(std::string_view name, Index& into) {
  return {name, [&into](Scanner& scanner) { into = static_cast<Index>(scanner.read_integer("the value")); }};
}
[[nodiscard]] inline Field text_field(std::string_view name, std::string& into) {
  return {name, [&into](Scanner& scanner) { into = read_text(scanner); }};
}
[[nodiscard]] inline Field seed_field(std::string_view name, std::uint64_t& into) {
  return {name, [&into](Scanner& scanner) {
            into = read_parsed(scanner, "a string of the digits of a 64-bit number", parse_number<std::uint64_t>);
          }};
}
/// A finite number.
[[nodiscard]] inline Field number_field(std::string_view name, double& into) {
  return {name, [&into](Scanner& scanner) {
            into = read_parsed(scanner, "a string of the digits of a finite number", [](std::string_view text) {
              std::optional<double> const value = parse_number<double>(text);
              return value && is_finite(*value) ? value : std::nullopt;
            });
          }};
}
/// A value that can only be one: the format's name, its version.
[[nodiscard]] inline Field constant_field(std::string_view name, std::string expected) {
  return {name, [expected = std::move(expected)](Scanner& scanner) {
            std::size_t const begin = scanner.at();
            std::string const found = read_text(scanner);
            if (found != expected) scanner.refuse_at(begin, "not the expected format", expected, printable(found));
          }};
}
/// @}

/// Reads one object with exactly these fields, in any order.
/// @param what  names the object in errors
/// @throws mor::error MalformedFile naming the file, the byte and the field
inline void read_fields(Scanner& scanner, std::string const& what, std::vector<Field> const& fields) {
  std::string_view const outer = scanner.subject;
  std::vector<bool> seen(fields.size(), false);
  scanner.object(what, 64, [&](std::string const& key, std::size_t key_at) {
    std::size_t place = 0;
    while (place < fields.size() && fields[place].name != key) ++place;
    if (place == fields.size()) {
      std::string known;
      for (Field const& field : fields) known += (known.empty() ? "" : ", ") + std::string(field.name);
      scanner.refuse_at(key_at, "unknown field in " + what, "one of " + known, printable(key));
    }
    scanner.subject = fields[place].name;
    if (seen[place]) scanner.refuse_at(key_at, "the field is repeated in " + what, "it once", "it again");
    seen[place] = true;
    scanner.skip_space();
    fields[place].read(scanner);
    scanner.subject = outer;
  });
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (seen[i]) continue;
    scanner.subject = fields[i].name;
    scanner.refuse("the field is missing in " + what, "the field", "an object without it");
  }
}

}  // namespace mor::train::detail
