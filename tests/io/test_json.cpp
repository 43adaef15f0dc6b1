// SPDX-License-Identifier: Apache-2.0
#include "mor/io/json.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"

#include <string>

using mor::ErrorCode;
using mor::Index;
using mor::io::JsonObject;
using mor::io::parse_json;
using mor::test::fails_with;

namespace {

/// True when parsing is refused with the file's name, that byte offset, and the text.
bool refused(std::string const& text, int byte, std::string const& part) {
  return fails_with(
      ErrorCode::MalformedFile, [&] { (void)parse_json(text, "x.json"); }, "x.json: byte " + std::to_string(byte),
      part);
}

}  // namespace

TEST_CASE("valid JSON is parsed with its types and values") {
  auto const json = parse_json(R"( {"a": [1, -2, 2.5, true, null], "b": {"\u00e9\n": "\ud83d\ude00"}, "": ""} )", "x");
  REQUIRE(json["a"][0].is_number_unsigned());
  REQUIRE(json["a"][1] == -2);
  REQUIRE(json["a"][2] == 2.5);
  REQUIRE(json["a"][3] == true);
  REQUIRE(json["a"][4].is_null());
  REQUIRE(json["b"]["\xC3\xA9\n"] == "\xF0\x9F\x98\x80");
  REQUIRE(json[""] == "");
  REQUIRE(parse_json("17", "x") == 17);
}

TEST_CASE("what JSON leaves to chance is refused, with the byte") {
  REQUIRE(refused(R"({"a":1,"a":2})", 10, "repeats the key \"a\""));
  REQUIRE(refused(R"({"a":1,"\u0061":2})", 15, "repeats the key \"a\""));
  REQUIRE(refused(R"({"b":[{"k":1,"k":1}]})", 16, "repeats the key \"k\""));
  REQUIRE(refused("\xEF\xBB\xBF{}", 0, "byte order mark"));
  REQUIRE(refused("{} {}", 4, "not valid JSON"));
  REQUIRE(refused("{}x", 3, "not valid JSON"));
  REQUIRE(refused("", 0, "not valid JSON"));
  REQUIRE(refused("{\"a\":\"\xFF\"}", 7, "UTF-8"));
  REQUIRE(refused("{\"\xC0\x80\":1}", 3, "UTF-8"));
  REQUIRE(refused("[\"\\ud800\"]", 9, "surrogate"));
  REQUIRE(refused("[1,]", 4, "not valid JSON"));
  REQUIRE(refused("{\"a\":1,}", 8, "not valid JSON"));
  REQUIRE(refused("[NaN]", 2, "not valid JSON"));
  REQUIRE(refused("[01]", 4, "not valid JSON"));
  REQUIRE(refused("[1e999]", 7, "overflow"));
  REQUIRE(refused("[1] // comment", 5, "not valid JSON"));
  REQUIRE(refused("[\"a\nb\"]", 4, "control character"));
  REQUIRE(refused("[\"abc", 5, "missing closing quote"));
}

TEST_CASE("nesting is accepted up to 64 levels and refused beyond, without recursion") {
  auto const nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  REQUIRE_NOTHROW(parse_json(nested(64), "x"));
  REQUIRE(refused(nested(65), 65, "too deeply"));
  REQUIRE(refused(std::string(1000000, '['), 65, "too deeply"));
  std::string objects;
  for (int i = 0; i < 65; ++i) objects += "{\"a\":";
  REQUIRE(refused(objects, 321, "too deeply"));
}

TEST_CASE("messages never repeat raw bytes of the file") {
  auto const failure = mor::test::failure_of([] { (void)parse_json("{\"a\x1b[31m\xff\": tru\x07}", "x"); });
  REQUIRE(failure);
  for (char const symbol : failure->message) REQUIRE((symbol >= 0x20 && symbol < 0x7f));
}

TEST_CASE("typed access never converts silently") {
  auto const json =
      parse_json(R"({"float": 3.7, "whole_float": 3.0, "big": 18446744073709551615, "huge": 99999999999999999999,
    "negative": -1, "text": "5", "yes": true, "none": null, "list": [1], "object": {}, "int": 7})",
                 "x");
  JsonObject object(json, "config.json", "mor");
  auto const integer_fails = [&](char const* key, auto... parts) {
    return fails_with(
        ErrorCode::MalformedFile, [&] { (void)object.integer(key, 0, 100); },
        std::string("config.json: field mor.") + key, parts...);
  };
  REQUIRE(object.integer("int") == 7);
  REQUIRE(object.integer("negative") == -1);
  REQUIRE(integer_fails("float", "expected an integer", "got 3.7"));
  REQUIRE(integer_fails("whole_float", "got 3.0"));
  REQUIRE(integer_fails("big", "out of range", "[0, 100]", "got 18446744073709551615"));
  REQUIRE(integer_fails("huge", "expected an integer"));
  REQUIRE(integer_fails("negative", "[0, 100]", "got -1"));
  REQUIRE(integer_fails("text", "got the string \"5\""));
  REQUIRE(integer_fails("yes", "got true"));
  REQUIRE(integer_fails("none", "got null"));
  REQUIRE(integer_fails("list", "got an array of 1"));
  REQUIRE(integer_fails("absent", "missing"));
  auto const fails = [&](auto&& read) { return fails_with(ErrorCode::MalformedFile, read, "config.json: field mor."); };
  REQUIRE(object.number("int") == 7.0);
  REQUIRE(fails([&] { (void)object.number("text"); }));
  REQUIRE(fails([&] { (void)object.number("yes"); }));
  REQUIRE(fails([&] { (void)object.boolean("int"); }));
  REQUIRE(fails([&] { (void)object.string("int"); }));
  REQUIRE(fails([&] { (void)object.array("object"); }));
  REQUIRE(fails([&] { (void)object.object("list"); }));
  REQUIRE(fails([&] { (void)object.integer_or("none", 1); }));
}

TEST_CASE("integers of the whole 64-bit range arrive unchanged") {
  auto const json = parse_json(R"([9223372036854775807, -9223372036854775808, 9223372036854775808])", "x");
  REQUIRE(mor::io::json_integer(json[0], "x") == std::numeric_limits<Index>::max());
  REQUIRE(mor::io::json_integer(json[1], "x") == std::numeric_limits<Index>::min());
  REQUIRE(fails_with(
      ErrorCode::MalformedFile, [&] { (void)mor::io::json_integer(json[2], "x"); }, "out of range"));
}

TEST_CASE("optional fields fall back only when they are absent") {
  auto const json = parse_json(R"({"a": 1, "b": null})", "x");
  JsonObject object(json, "x");
  REQUIRE(object.integer_or("a", 5) == 1);
  REQUIRE(object.integer_or("c", 5) == 5);
  REQUIRE(object.number_or("c", 0.5) == 0.5);
  REQUIRE(object.boolean_or("c", true));
  REQUIRE(object.string_or("c", "d") == "d");
  REQUIRE(object.contains("b"));
  REQUIRE_FALSE(object.has_value("b"));
}

TEST_CASE("an unknown field is refused with the list of the known ones") {
  auto const json = parse_json(R"({"known": 1, "rooter": 2})", "x");
  JsonObject object(json, "config.json", "mor");
  (void)object.integer("known");
  (void)object.contains("router");
  REQUIRE(fails_with(
      ErrorCode::InvalidConfig, [&] { object.reject_unknown(); }, "config.json: field mor", "one of known, router",
      "\"rooter\""));
  (void)object.contains("rooter");
  REQUIRE_NOTHROW(object.reject_unknown());
}

TEST_CASE("an object is demanded where an object must be") {
  auto const json = parse_json("[1]", "x");
  REQUIRE(fails_with(
      ErrorCode::MalformedFile, [&] { JsonObject const object(json, "config.json"); }, "config.json",
      "expected an object", "an array of 1"));
}
