// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors_cases.hpp"
#include "mor/io/safetensors_set.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <vector>

using namespace mor::test;
using mor::DType;
using mor::ErrorCode;
using mor::Index;
using mor::io::parse_safetensors_index;
using mor::io::read_file;
using mor::io::SafetensorsSet;
using mor::io::SafetensorsSetOptions;
using mor::io::TensorCopy;
using mor::io::write_file;
using mor::io::write_safetensors_set;

namespace {

/// An index of these entries: `"a": "file"`.
std::string index_of(std::string const& entries) {
  return "{\"metadata\": {\"total_size\": 4}, \"weight_map\": {" + entries + "}}";
}

/// Two shards: a and b in the first, c in the second.
void write_shards(TemporaryFolder const& folder) {
  write_file(folder / "1.safetensors", file_of("{" + tensor("a", 0, 2) + "," + tensor("b", 2, 3) + "}", 3));
  write_file(folder / "2.safetensors", file_of("{" + tensor("c", 0, 1) + "}", 1));
}

struct MalformedIndex {
  std::string text;
  std::string message;  ///< after the file's name
  ErrorCode code = ErrorCode::MalformedFile;
};

std::vector<float> numbers(Index count, float first) {
  std::vector<float> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), first);
  return values;
}

mor::io::TensorToWrite floats(std::string name, std::vector<Index> shape, std::vector<float> const& values) {
  return {std::move(name), DType::F32, std::move(shape), std::as_bytes(std::span<float const>(values))};
}

}  // namespace

TEST_CASE("shards are one set of tensors, wherever each lies, in pieces and whole") {
  TemporaryFolder const folder;
  auto const many = numbers(5000, 0.0F), few = numbers(6, 0.5F);
  mor::io::write_safetensors(folder / "x.safetensors", {floats("many", {50, 100}, many)});
  mor::io::write_safetensors(folder / "y.safetensors", {floats("few", {2, 3}, few), floats("more", {2, 3}, few)});
  write_file(folder / "model.safetensors.index.json",
             index_of(R"("many": "x.safetensors", "few": "y.safetensors", "more": "y.safetensors")"));
  for (auto const access : {mor::io::FileAccess::Map, mor::io::FileAccess::Read}) {
    SafetensorsSet const set(folder / "model.safetensors.index.json", access);
    REQUIRE(set.names() == std::vector<std::string>{"few", "many", "more"});
    REQUIRE(set.facts("many").shape == std::vector<Index>{50, 100});
    REQUIRE(set.files().size() == 2);
    std::vector<float> part(77);
    for (Index const first : {Index{0}, Index{4000}, Index{4923}}) {
      set.read("many", first, part);
      REQUIRE(std::equal(part.begin(), part.end(), many.begin() + first));
      set.release("many");
    }
    REQUIRE(set.same_bits("few", "more"));
    REQUIRE_FALSE(set.same_bits("few", "many"));
    REQUIRE_FALSE(set.contains("none"));
    REQUIRE(set.where("few").find("y.safetensors: tensor \"few\"") != std::string::npos);
    REQUIRE(fails_with(
        ErrorCode::ShapeMismatch, [&] { (void)set.facts("none"); },
        "index.json: tensor \"none\": the tensor is missing"));
    std::vector<float> seven(7);
    REQUIRE(fails_with(
        ErrorCode::ShapeMismatch, [&] { set.read("few", 0, seven); }, "tensor \"few\"", "6 elements"));
  }
}

TEST_CASE("a shard that lacks a tensor, holds one too many or one of another shard's is refused by name") {
  TemporaryFolder const folder;
  write_shards(folder);
  auto const refused = [&](std::string const& entries, auto const&... parts) {
    write_file(folder / "i.json", index_of(entries));
    return fails_with(
        ErrorCode::MalformedFile, [&] { SafetensorsSet const set(folder / "i.json"); }, parts...);
  };
  std::string const good = R"("a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors")";
  REQUIRE_FALSE(refused(good));
  REQUIRE(refused(good + R"(, "d": "2.safetensors")", "i.json: field weight_map, tensor \"d\"",
                  "does not hold a tensor", "2.safetensors"));
  REQUIRE(refused(R"("a": "1.safetensors", "c": "2.safetensors")", "1.safetensors: byte 61: tensor \"b\"",
                  "expected a tensor of the index, got one that it does not name"));
  write_file(folder / "2.safetensors", file_of("{" + tensor("c", 0, 1) + "," + tensor("b", 1, 2) + "}", 2));
  REQUIRE(
      refused(good, "2.safetensors: byte 61: tensor \"b\"", "the tensor in \"1.safetensors\" alone, got a second one"));
  write_file(folder / "2.safetensors", file_of("{" + tensor("c", 0, 1) + "}", 2));
  REQUIRE(refused(good, "2.safetensors: byte ", "bytes after the last tensor"));
  write_file(folder / "i.json", index_of(R"("a": "3.safetensors")"));
  REQUIRE(fails_with(
      ErrorCode::IoFailure, [&] { SafetensorsSet const set(folder / "i.json"); }, "3.safetensors", "cannot open"));
}

TEST_CASE("a malformed index is refused with an error of its own") {
  std::string const long_name(1025, 'n');
  std::string const name_rule = "expected a file name that ends with .safetensors, without folders, got ";
  std::string const at_a = R"(: field weight_map, tensor "a": )",
                    shard = at_a + "not the name of a shard (" + name_rule;
  std::vector<MalformedIndex> const cases{
      {"", ": byte 0: not valid JSON: syntax error while parsing value - unexpected end of input"},
      {"[]", ": wrong type (expected an object, got an array of 0)"},
      {"{}", ": field weight_map: required field is missing"},
      {"\xEF\xBB\xBF{}", ": byte 0: not valid JSON: begins with a byte order mark"},
      {R"({"weight_map": null})", ": field weight_map: wrong type (expected an object, got null)"},
      {R"({"weight_map": []})", ": field weight_map: wrong type (expected an object, got an array of 0)"},
      {R"({"weight_map": {}})", ": field weight_map: a number of tensors that cannot be (expected 1 to 100000, got 0)"},
      {index_of(R"("a": 1)"), at_a + "wrong type (expected a string, got 1)"},
      {index_of(R"("a": null)"), at_a + "wrong type (expected a string, got null)"},
      {index_of(R"("a": ["x.safetensors"])"), at_a + "wrong type (expected a string, got an array of 1)"},
      {index_of(R"("a": "")"), shard + "\"\")"},
      {index_of(R"("a": "x.bin")"), shard + "\"x.bin\")"},
      {index_of(R"("a": "../x.safetensors")"), shard + "\"../x.safetensors\")"},
      {index_of(R"("a": "/x.safetensors")"), shard + "\"/x.safetensors\")"},
      {index_of(R"("a": "x/y.safetensors")"), shard + "\"x/y.safetensors\")"},
      {index_of(R"("a": "x\\y.safetensors")"), shard + "\"x\\\\y.safetensors\")"},
      {index_of(R"("a": ".safetensors")"), shard + "\".safetensors\")"},
      {index_of(R"("a": "x\u0000.safetensors")"), shard + "\"x\\x00.safetensors\")"},
      {index_of(R"("a": "x.safetensors", "a": "x.safetensors")"), ": the object repeats the key \"a\""},
      {index_of(R"("a": "x.safetensors", "\u0061": "y.safetensors")"), "repeats the key \"a\""},
      {index_of(R"("": "x.safetensors")"), "field weight_map, tensor \"\": not a name for a tensor"},
      {index_of(R"("__metadata__": "x.safetensors")"), "tensor \"__metadata__\": not a name for a tensor"},
      {index_of(R"("a\u0000": "x.safetensors")"), "tensor \"a\\x00\": not a name for a tensor"},
      {index_of("\"" + long_name + "\": \"x.safetensors\""), "1 to 1024 bytes without NUL"},
      {R"({"metadata": 1, "weight_map": {"a": "x.safetensors"}})",
       ": field metadata: wrong type (expected an object, got 1)"},
      {R"({"metadata": {"total_size": "1"}, "weight_map": {"a": "x.safetensors"}})",
       ": field metadata.total_size: wrong type (expected a finite number, got the string \"1\")"},
      {R"({"metadata": {"total_size": -1}, "weight_map": {"a": "x.safetensors"}})",
       ": field metadata.total_size: out of range (expected a number of bytes, got -1)"},
      {R"({"metadata": {"total_size": 1e300}, "weight_map": {"a": "x.safetensors"}})", "got 1e+300)"},
      {R"({"weight_map": {"a": "x.safetensors"}, "weights": 1})", ": unknown field", ErrorCode::InvalidConfig},
      {index_of("\"a\": \"x.safetensors\"") + "x", "not valid JSON"}};
  for (MalformedIndex const& item : cases) {
    CAPTURE(item.text);
    auto const failure = failure_of([&] { (void)parse_safetensors_index(item.text, "i.json"); });
    REQUIRE(failure);
    CHECK(failure->message.starts_with("i.json"));
    CHECK(failure->message.find(item.message) != std::string::npos);
    CHECK(failure->code == item.code);
  }
}

TEST_CASE("odd but valid indices are read") {
  for (char const* text :
       {R"({"weight_map": {"a": "x.safetensors"}})", R"({"metadata": {}, "weight_map": {"a": "x.safetensors"}})",
        R"({"metadata": {"total_size": 12.0}, "weight_map": {"a": "x.safetensors"}})",
        R"({"metadata": {"total_size": null, "note": [1]}, "weight_map": {"a": "x.safetensors"}})",
        R"({"weight_map": {"a": "x y-00001.safetensors"}})", R"({"weight_map": {"../a": "x.safetensors"}})"}) {
    REQUIRE(parse_safetensors_index(text, "i.json").shard_of.size() == 1);
  }
}

TEST_CASE("a set is written whole or in shards of a size, and written again as the same bytes") {
  TemporaryFolder const folder;
  auto const values = numbers(600, -3.25F);
  mor::io::write_safetensors(folder / "source.safetensors",
                             {floats("a", {10, 10}, std::vector<float>(values.begin(), values.begin() + 100)),
                              floats("b", {600}, values), floats("c", {}, {7.0F}), floats("none", {0, 4}, {})});
  SafetensorsSet const source(folder / "source.safetensors");
  std::vector<TensorCopy> const copies{{"a", "a"}, {"b", "b"}, {"again", "b"}, {"c", "c"}, {"none", "none"}};
  SafetensorsSetOptions options;
  REQUIRE(write_safetensors_set(folder.path(), "whole", copies, source) ==
          std::vector<std::string>{"whole.safetensors"});
  for (std::uint64_t const limit : {std::uint64_t{1}, std::uint64_t{2404}, std::uint64_t{2800}, std::uint64_t{4804}}) {
    CAPTURE(limit);
    TemporaryFolder const first, second;
    options.shard_bytes = limit;
    auto const files = write_safetensors_set(first.path(), "model", copies, source, options);
    REQUIRE(files.size() == (limit == 1 ? 6U : limit == 2404 ? 4U : 3U));
    REQUIRE(files.back() == "model.safetensors.index.json");
    SafetensorsSet const shards(first / files.back());
    REQUIRE(shards.names() == std::vector<std::string>{"a", "again", "b", "c", "none"});
    for (auto const& file : shards.files()) {
      std::uint64_t bytes = 0;
      for (auto const& entry : file.entries()) bytes += entry.info.end - entry.info.begin;
      REQUIRE((bytes <= limit || file.entries().size() == 1));
    }
    std::vector<TensorCopy> same;
    for (auto const& copy : copies) same.push_back({copy.name, copy.name});
    write_safetensors_set(second.path(), "model", same, shards, options);
    for (auto const& file : files) REQUIRE(read_file(first / file) == read_file(second / file));
    TemporaryFolder const joined;
    write_safetensors_set(joined.path(), "whole", same, shards);
    REQUIRE(read_file(joined / "whole.safetensors") == read_file(folder / "whole.safetensors"));
  }
}

TEST_CASE("weights are narrowed to nearest, and a number that a type cannot hold is refused by name") {
  TemporaryFolder const folder;
  float const infinity = std::numeric_limits<float>::infinity();
  std::vector<float> const values{1.0F, 1.00390625F, -65504.0F, infinity};
  mor::io::write_safetensors(folder / "s.safetensors", {floats("w", {4}, values), floats("large", {1}, {65520.0F})});
  SafetensorsSet const source(folder / "s.safetensors");
  SafetensorsSetOptions options;
  options.dtype = DType::BF16;
  write_safetensors_set(folder.path(), "narrow", {{"w", "w"}, {"large", "large"}}, source, options);
  SafetensorsSet const narrow(folder / "narrow.safetensors");
  REQUIRE(narrow.facts("w").dtype == DType::BF16);
  std::vector<float> read(4);
  narrow.read("w", 0, read);
  REQUIRE(read == std::vector<float>{1.0F, 1.0F, -65536.0F, infinity});
  options.dtype = DType::F16;
  REQUIRE(fails_with(
      ErrorCode::NonFinite,
      [&] {
        write_safetensors_set(folder.path(), "half", {{"large", "large"}}, source, options);
      },
      "s.safetensors: tensor \"large\"", "expected at most 65504, got 65520"));
  REQUIRE_FALSE(std::filesystem::exists(folder / "half.safetensors"));
  options.dtype = DType::I8;
  REQUIRE(fails_with(
      ErrorCode::InvalidArgument,
      [&] {
        write_safetensors_set(folder.path(), "half", {{"w", "w"}}, source, options);
      },
      "expected F32, F16 or BF16, got I8"));
}
