// SPDX-License-Identifier: Apache-2.0
#include "mor/train/document_reader.hpp"

#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"
#include "train/file_bytes.hpp"

#include <string>
#include <utility>
#include <vector>

namespace {

using mor::ErrorCode;
using mor::Index;
using mor::test::fails_with;
using mor::train::DocumentFormat;
using mor::train::DocumentReader;
using mor::train::DocumentRules;

struct File {
  mor::test::TemporaryFolder folder;
  std::filesystem::path path;
  explicit File(std::string const& bytes, std::string const& name = "a.txt") : path(folder / name) {
    mor::test::write_bytes(path, bytes);
  }
};

std::vector<std::string> documents(DocumentReader& reader) {
  std::vector<std::string> found;
  while (auto const document = reader.next()) found.push_back(reader.content(*document));
  return found;
}

std::vector<std::string> documents(std::string const& bytes, DocumentRules const& rules = {},
                                   std::string const& name = "a.txt") {
  File const file(bytes, name);
  DocumentReader reader(file.path, rules);
  return documents(reader);
}

DocumentRules as(DocumentFormat format) { return {format, "<|endoftext|>", "text"}; }

using Documents = std::vector<std::string>;

TEST_CASE("a line that is the separator parts two documents and is part of neither") {
  CHECK(documents("a\nb\n<|endoftext|>\nc\n") == Documents{"a\nb", "c\n"});
  CHECK(documents("<|endoftext|>\na\n<|endoftext|>\n<|endoftext|>\n \n<|endoftext|>") == Documents{"a"});
  CHECK(documents("a <|endoftext|>\n<|endoftext|> b\nc") == Documents{"a <|endoftext|>\n<|endoftext|> b\nc"});
  CHECK(documents("a\r\n<|endoftext|>\r\nb\r\n") == Documents{"a", "b\r\n"});
  CHECK(documents("one text\nof two lines\n") == Documents{"one text\nof two lines\n"});
  CHECK(documents("").empty());
  CHECK(documents("x\n--\ny", {std::nullopt, "--", "text"}) == Documents{"x", "y"});
}

TEST_CASE("a document is a line, or a whole file, where that is asked for") {
  CHECK(documents("a\n\n  \nb \r\nc", as(DocumentFormat::Lines)) == Documents{"a", "b ", "c"});
  CHECK(documents("a\n<|endoftext|>\nb\n", as(DocumentFormat::Whole)) == Documents{"a\n<|endoftext|>\nb\n"});
  CHECK(documents(" \n", as(DocumentFormat::Whole)).empty());
}

TEST_CASE("JSON lines give the text of a field") {
  std::string const lines = "{\"text\": \"a\\nb\", \"id\": [1, {}]}\n\n{\"text\": \"\\u00e9\"}";
  CHECK(documents(lines, {}, "a.jsonl") == Documents{"a\nb", "\xc3\xa9"});
  CHECK(documents(lines, {}, "a.ndjson") == Documents{"a\nb", "\xc3\xa9"});
  CHECK(documents("{\"body\": \"x\"}\n", {DocumentFormat::JsonLines, "-", "body"}) == Documents{"x"});
}

TEST_CASE("a bad line of JSON is refused with its place") {
  for (auto const& [line, part] : std::vector<std::pair<std::string, std::string>>{
           {"{\"text\": 5}", "field text"}, {"{\"body\": \"x\"}", "field text"}, {"{\"text\": \"x\"", "not valid JSON"},
           {"\"x\"", "an object"}}) {
    INFO(line);
    CHECK(fails_with(ErrorCode::MalformedFile,
                     [&, &text = line] { (void)documents("{\"text\": \"ok\"}\n" + text, {}, "a.jsonl"); },
                     "a.jsonl: line at byte 15", part));
  }
}

TEST_CASE("reading goes on at any document's first byte") {
  for (auto const format : {DocumentFormat::Separated, DocumentFormat::Lines, DocumentFormat::JsonLines}) {
    std::string bytes;
    for (int i = 0; i < 9; ++i) {
      std::string const number(static_cast<std::size_t>(i + 1), static_cast<char>('0' + i));
      bytes += format == DocumentFormat::JsonLines ? "{\"text\": \"" + number + "\"}\n" : number + "\n";
      if (format == DocumentFormat::Separated) bytes += i % 2 == 0 ? "<|endoftext|>\n" : "\n<|endoftext|>\n";
    }
    File const file(bytes);
    DocumentReader all(file.path, as(format)), again(file.path, as(format));
    auto const expected = documents(all);
    REQUIRE(expected.size() == 9);
    all.seek(0);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      auto const document = all.next();
      REQUIRE(document);
      again.seek(document->begin);
      REQUIRE(documents(again) == Documents(expected.begin() + static_cast<std::ptrdiff_t>(i), expected.end()));
    }
    CHECK(fails_with(ErrorCode::InvalidArgument, [&] { all.seek(all.size() + 1); }, "outside the file"));
  }
}

TEST_CASE("rules that cannot work are refused") {
  File const file("a");
  for (std::string const bad : {"", "a\n"}) {
    CHECK(fails_with(ErrorCode::InvalidArgument, [&] { DocumentReader(file.path, {std::nullopt, bad, "t"}); },
                     "separator"));
  }
  CHECK(fails_with(ErrorCode::IoFailure, [&] { DocumentReader(file.folder / "none", {}); }, "none"));
  CHECK(fails_with(ErrorCode::InvalidArgument, [] { (void)mor::train::parse_document_format("xml"); }, "jsonl", "xml"));
}

}  // namespace
