// SPDX-License-Identifier: Apache-2.0
/// @file
/// Strict JSON: a parser that refuses what JSON leaves to chance (repeated keys, byte order marks, broken UTF-8,
/// trailing text, bottomless nesting), and typed access that never converts one type into another. Every refusal
/// names the file, the field or byte, what was expected and what was found.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/types.hpp"

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mor::io {

/// Deepest nesting of arrays and objects that `parse_json` accepts.
inline constexpr int max_json_depth = 64;

namespace detail {

/// A JSON value in a few words, for the `got` part of an error.
[[nodiscard]] inline std::string describe(nlohmann::json const& value) {
  if (value.is_string()) return "the string " + printable(value.get_ref<std::string const&>());
  if (value.is_array()) return "an array of " + std::to_string(value.size());
  if (value.is_object()) return "an object";
  return value.dump();
}

/// Reads the text byte by byte and keeps count, so that the handler below knows where it is.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = char const*;
  using reference = char const&;

  CountingIterator(char const* at, char const** progress) : at_(at), progress_(progress) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    *progress_ = ++at_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator const before = *this;
    ++*this;
    return before;
  }
  friend bool operator==(CountingIterator const& a, CountingIterator const& b) { return a.at_ == b.at_; }

 private:
  char const* at_;
  char const** progress_;
};

/// Builds a DOM from nlohmann's event parser, and adds the checks that the library's own builder does not make.
class StrictBuilder : public nlohmann::json_sax<nlohmann::json> {
 public:
  using Json = nlohmann::json;

  StrictBuilder(std::string_view text, std::string const& file) : text_(text), file_(file), progress_(text.data()) {}

  [[nodiscard]] Json run() {
    CountingIterator const first(text_.data(), &progress_), last(text_.data() + text_.size(), &progress_);
    Json::sax_parse(first, last, this);
    return std::move(root_);
  }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(std::int64_t value) override { return add(value); }
  bool number_unsigned(std::uint64_t value) override { return add(value); }
  bool number_float(double value, std::string const&) override { return add(value); }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(Json::binary_t&) override { return refuse("binary data in JSON text"); }
  bool start_object(std::size_t) override { return enter(Json::object()); }
  bool start_array(std::size_t) override { return enter(Json::array()); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }

  bool key(std::string& name) override {
    auto const [place, is_new] = open_.back()->get_ref<Json::object_t&>().emplace(name, nullptr);
    if (!is_new) return refuse("the object repeats the key " + printable(name));
    slot_ = &place->second;
    return true;
  }

  bool parse_error(std::size_t, std::string const& last_token, nlohmann::detail::exception const& reason) override {
    std::string_view message = reason.what();
    // The head is "[json.exception...]", perhaps with a line and column; we name the byte.
    std::size_t const cut = message.find("syntax error");
    message.remove_prefix(cut != std::string_view::npos ? cut : message.find("] ") + 2);
    // The tail repeats the raw token, whose bytes may be anything; it goes into `got`, escaped.
    message = message.substr(0, message.find("; last read"));
    fail(ErrorCode::MalformedFile, "not valid JSON: " + std::string(message), place(), {}, printable(last_token));
  }

 private:
  template <class Value>
  bool add(Value&& value) {
    store(Json(std::forward<Value>(value)));
    return true;
  }

  Json* store(Json&& value) {
    if (open_.empty()) return &(root_ = std::move(value));
    if (open_.back()->is_array()) {
      open_.back()->push_back(std::move(value));
      return &open_.back()->back();
    }
    return &(*slot_ = std::move(value));
  }

  bool enter(Json&& container) {
    if (open_.size() >= static_cast<std::size_t>(max_json_depth)) {
      fail(ErrorCode::MalformedFile, "JSON nested too deeply", place(), "at most " + std::to_string(max_json_depth),
           "more");
    }
    // A vector that grows moves its elements, but only the innermost open array grows, and none of its elements is
    // open.
    open_.push_back(store(std::move(container)));
    return true;
  }

  bool leave() {
    open_.pop_back();
    return true;
  }

  [[noreturn]] bool refuse(std::string what) const { fail(ErrorCode::MalformedFile, std::move(what), place()); }
  [[nodiscard]] std::string place() const { return file_ + ": byte " + std::to_string(progress_ - text_.data()); }

  std::string_view text_;
  std::string const& file_;
  char const* progress_;
  Json root_;
  std::vector<Json*> open_;  ///< the containers around the current position, outermost first
  Json* slot_ = nullptr;     ///< where the value of the key just read goes
};

}  // namespace detail

/// Parses one JSON text, strictly.
/// @param file  the name that errors carry
/// @throws mor::error MalformedFile with the file and the byte offset up to which the text was read
[[nodiscard]] inline nlohmann::json parse_json(std::string_view text, std::string const& file) {
  if (text.starts_with("\xEF\xBB\xBF")) {
    fail(ErrorCode::MalformedFile, "not valid JSON: begins with a byte order mark", file + ": byte 0");
  }
  return detail::StrictBuilder(text, file).run();
}

/// @name One value, with its place for the message
/// `where` reads like `FILE: field NAME`. All throw MalformedFile when the type, or an integer's range, is wrong.
/// @{

/// An integer written as one: neither 3.0 nor 1e3, and never wrapped around.
[[nodiscard]] inline Index json_integer(nlohmann::json const& value, std::string const& where,
                                        Index least = std::numeric_limits<Index>::min(),
                                        Index most = std::numeric_limits<Index>::max()) {
  bool const whole = value.is_number_integer();
  bool const fits = whole && (!value.is_number_unsigned() ||
                              value.get<std::uint64_t>() <= std::uint64_t(std::numeric_limits<Index>::max()));
  Index const number = fits ? value.get<Index>() : 0;
  if (!fits || number < least || number > most) {
    std::string expected = "an integer";
    if (whole) expected += " in [" + std::to_string(least) + ", " + std::to_string(most) + "]";
    fail(ErrorCode::MalformedFile, whole ? "integer out of range" : "wrong type", where, expected,
         detail::describe(value));
  }
  return number;
}

/// A finite number; an integer is accepted.
[[nodiscard]] inline double json_number(nlohmann::json const& value, std::string const& where) {
  if (!value.is_number() || !std::isfinite(value.get<double>())) {
    fail(ErrorCode::MalformedFile, "wrong type", where, "a finite number", detail::describe(value));
  }
  return value.get<double>();
}

[[nodiscard]] inline bool json_boolean(nlohmann::json const& value, std::string const& where) {
  if (!value.is_boolean()) {
    fail(ErrorCode::MalformedFile, "wrong type", where, "true or false", detail::describe(value));
  }
  return value.get<bool>();
}

[[nodiscard]] inline std::string const& json_string(nlohmann::json const& value, std::string const& where) {
  if (!value.is_string()) fail(ErrorCode::MalformedFile, "wrong type", where, "a string", detail::describe(value));
  return value.get_ref<std::string const&>();
}

[[nodiscard]] inline nlohmann::json const& json_array(nlohmann::json const& value, std::string const& where) {
  if (!value.is_array()) fail(ErrorCode::MalformedFile, "wrong type", where, "an array", detail::describe(value));
  return value;
}
/// @}

/// A JSON object being read field by field. It remembers which fields were asked for, so that `reject_unknown` can
/// list them; it refers to the parsed value, which must outlive it.
class JsonObject {
 public:
  /// @param path  the dotted path of this object in the file, empty for the root
  /// @throws mor::error MalformedFile when `value` is not an object
  JsonObject(nlohmann::json const& value, std::string file, std::string path = {})
      : value_(&value), file_(std::move(file)), path_(std::move(path)) {
    if (!value.is_object()) {
      fail(ErrorCode::MalformedFile, "wrong type", path_.empty() ? file_ : file_ + ": field " + path_, "an object",
           detail::describe(value));
    }
  }

  /// `FILE: field PATH.KEY`, the place that errors name.
  [[nodiscard]] std::string where(std::string const& key) const {
    return file_ + ": field " + (path_.empty() ? key : path_ + "." + key);
  }
  [[nodiscard]] std::string const& file() const { return file_; }

  /// The field's value, or nullptr when it is absent. A null counts as a value.
  [[nodiscard]] nlohmann::json const* find(std::string const& key) {
    known_.insert(key);
    auto const place = value_->find(key);
    return place == value_->end() ? nullptr : &*place;
  }
  [[nodiscard]] bool contains(std::string const& key) { return find(key) != nullptr; }

  /// True when the field is there and not null: for formats whose writers spell "absent" as null.
  [[nodiscard]] bool has_value(std::string const& key) {
    nlohmann::json const* const found = find(key);
    return found != nullptr && !found->is_null();
  }

  /// The field's value, whatever its type. @throws mor::error MalformedFile when it is absent
  [[nodiscard]] nlohmann::json const& at(std::string const& key) {
    nlohmann::json const* const found = find(key);
    if (found == nullptr) fail(ErrorCode::MalformedFile, "required field is missing", where(key));
    return *found;
  }

  [[nodiscard]] Index integer(std::string const& key, Index least = std::numeric_limits<Index>::min(),
                              Index most = std::numeric_limits<Index>::max()) {
    return json_integer(at(key), where(key), least, most);
  }
  [[nodiscard]] double number(std::string const& key) { return json_number(at(key), where(key)); }
  [[nodiscard]] bool boolean(std::string const& key) { return json_boolean(at(key), where(key)); }
  [[nodiscard]] std::string const& string(std::string const& key) { return json_string(at(key), where(key)); }
  [[nodiscard]] nlohmann::json const& array(std::string const& key) { return json_array(at(key), where(key)); }
  [[nodiscard]] JsonObject object(std::string const& key) {
    return JsonObject(at(key), file_, path_.empty() ? key : path_ + "." + key);
  }

  /// @name The same for fields that may be absent
  /// @{
  [[nodiscard]] Index integer_or(std::string const& key, Index fallback,
                                 Index least = std::numeric_limits<Index>::min(),
                                 Index most = std::numeric_limits<Index>::max()) {
    return contains(key) ? integer(key, least, most) : fallback;
  }
  [[nodiscard]] double number_or(std::string const& key, double fallback) {
    return contains(key) ? number(key) : fallback;
  }
  [[nodiscard]] bool boolean_or(std::string const& key, bool fallback) {
    return contains(key) ? boolean(key) : fallback;
  }
  [[nodiscard]] std::string string_or(std::string const& key, std::string fallback) {
    return contains(key) ? string(key) : std::move(fallback);
  }
  /// @}

  /// The fields that no one has asked for so far, in alphabetical order.
  [[nodiscard]] std::vector<std::string> unread() const {
    std::vector<std::string> names;
    for (auto const& item : value_->items()) {
      if (!known_.contains(item.key())) names.push_back(item.key());
    }
    return names;
  }

  /// Call after the last field: refuses fields that no one asked for.
  /// @throws mor::error InvalidConfig naming the unknown field and listing the known ones
  void reject_unknown() const {
    auto const unknown = unread();
    if (unknown.empty()) return;
    std::string names;
    for (std::string const& name : known_) names += (names.empty() ? "" : ", ") + name;
    fail(ErrorCode::InvalidConfig, "unknown field", path_.empty() ? file_ : file_ + ": field " + path_,
         "one of " + names, printable(unknown.front()));
  }

 private:
  nlohmann::json const* value_;
  std::string file_, path_;
  std::set<std::string> known_;
};

}  // namespace mor::io
