// SPDX-License-Identifier: Apache-2.0
#include "mor/train/checkpoint_manifest.hpp"

#include "support/catch.hpp"
#include "support/failure.hpp"

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

using mor::ErrorCode;
using mor::train::CheckpointManifest;
using mor::train::parse_manifest;

CheckpointManifest sample() {
  return {.step = 1200, .files = {{"config.json", {612, 0x0a1b2c3d}}, {"model.safetensors", {0, 0}}}};
}

std::string changed(std::string text, std::string_view from, std::string_view to) {
  std::size_t const at = text.find(from);
  if (at == std::string::npos) throw std::runtime_error("no such text: " + std::string(from));
  return text.replace(at, from.size(), to);
}

TEST_CASE("a manifest reads back as it was written, and its text is this") {
  std::string const text = to_json(sample());
  REQUIRE(parse_manifest(text, "manifest.json") == sample());
  REQUIRE(text.starts_with("{\n"
                           "  \"format\": \"mor-checkpoint-1\",\n"
                           "  \"step\": 1200,\n"
                           "  \"files\": [\n"
                           "    {\"name\": \"config.json\", \"size\": 612, \"crc32c\": \"0a1b2c3d\"},\n"
                           "    {\"name\": \"model.safetensors\", \"size\": 0, \"crc32c\": \"00000000\"}\n"
                           "  ],\n"
                           "  \"crc32c\": \""));
}

TEST_CASE("a manifest in another layout is the same manifest") {
  std::string text = to_json(sample());
  std::erase_if(text, [](char c) { return c == ' ' || c == '\n'; });
  REQUIRE(parse_manifest(text, "manifest.json") == sample());
}

TEST_CASE("a malformed manifest is refused with its file and field") {
  std::string const good = to_json(sample());
  struct Case {
    std::string from, to;
    std::vector<std::string> parts;
  };
  std::string const first = "{\"name\": \"config.json\", \"size\": 612, \"crc32c\": \"0a1b2c3d\"}";
  std::vector<Case> const cases = {
      {"mor-checkpoint-1", "mor-checkpoint-2", {"format", "mor-checkpoint-1"}},
      {"\"mor-checkpoint-1\"", "1", {"format"}},
      {"  \"format\": \"mor-checkpoint-1\",\n", "", {"missing", "format"}},
      {"  \"step\": 1200,\n", "", {"missing", "step"}},
      {"1200", "1201", {"checksum"}},
      {"1200", "-1", {"step"}},
      {"1200", "1200.5", {"step"}},
      {"1200", "012", {"step"}},
      {"1200", "\"1200\"", {"step"}},
      {"1200", "9223372036854775808", {"step", "out of range"}},
      {"1200", "null", {"step"}},
      {"\"step\"", "\"steps\"", {"unknown field", "one of format, step, files, crc32c"}},
      {"\"step\": 1200", "\"step\": 1200, \"step\": 1200", {"repeated"}},
      {first, "", {"a file of the manifest"}},
      {first, first + ", " + first, {"listed twice", "config.json"}},
      {first + ",\n", "", {"checksum"}},
      {"612", "613", {"checksum"}},
      {"612", "-612", {"size"}},
      {"612", "6e2", {"size"}},
      {"\"size\": 612, ", "", {"missing", "size"}},
      {"\"size\": 612", "\"size\": 612, \"mode\": 6", {"unknown field", "mode"}},
      {"0a1b2c3d", "0A1b2c3d", {"crc32c", "lower-case"}},
      {"0a1b2c3d", "a1b2c3d", {"crc32c"}},
      {"0a1b2c3d", "00a1b2c3d", {"crc32c"}},
      {"0a1b2c3d", "0a1b2c3e", {"checksum"}},
      {"\"0a1b2c3d\"", "169552957", {"crc32c"}},
      {"config.json", "../config.json", {"name", "plain file name"}},
      {"config.json", "/etc/passwd", {"name"}},
      {"config.json", "", {"name"}},
      {"config.json", ".config", {"name"}},
      {"config.json", "manifest.json", {"name"}},
      {"config.json", "config\\u0000.json", {"name"}},
      {"config.json", "konfig.json", {"checksum"}},
      {"[", "{", {"files"}},
      {first, "7", {"a file of the manifest"}},
      {"{\n", "[\n", {}},
  };
  for (Case const& test : cases) {
    INFO(test.from << " -> " << test.to);
    std::string const bad = changed(good, test.from, test.to);
    auto const failure = mor::test::failure_of([&] { static_cast<void>(parse_manifest(bad, "dir/manifest.json")); });
    REQUIRE(failure);
    INFO(failure->message);
    CHECK(failure->code == ErrorCode::MalformedFile);
    CHECK(failure->message.find("dir/manifest.json") != std::string::npos);
    for (std::string const& part : test.parts) CHECK(failure->message.find(part) != std::string::npos);
  }
}

TEST_CASE("cut, empty, prefixed and continued manifests are refused") {
  std::string const good = to_json(sample());
  std::vector<std::string> texts = {"", " ", "null", "\xEF\xBB\xBF" + good, good + "x", good + good, "[" + good + "]",
                                    std::string(100000, '['), std::string(good.size(), '\0')};
  for (std::size_t length = 0; length + 1 < good.size(); ++length) texts.push_back(good.substr(0, length));
  for (std::string const& text : texts) {
    REQUIRE(mor::test::fails_with(ErrorCode::MalformedFile,
                                  [&] { static_cast<void>(parse_manifest(text, "manifest.json")); }));
  }
}

}  // namespace
