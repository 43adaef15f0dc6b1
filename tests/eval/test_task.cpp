// SPDX-License-Identifier: Apache-2.0
#include "mor/eval/task.hpp"

#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/test_data.hpp"

#include <filesystem>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using mor::ErrorCode;
using mor::Index;
using mor::eval::parse_task;
using mor::eval::Task;
using mor::eval::TaskKind;
using mor::test::fails_with;

TEST_CASE("the three kinds of task are recognised by their fields") {
  Task const word = parse_task(R"({"context": "a b", "continuation": "c", "source": 7})", "dir/words.jsonl");
  CHECK(word.kind == TaskKind::LastWord);
  CHECK(word.name == "words");
  REQUIRE(word.examples.size() == 1);
  CHECK(word.examples[0].options == std::vector<mor::eval::TaskOption>{{"a b", "c"}});

  Task const choice = parse_task("{\"query\": \"q\", \"choices\": [\"x\", \"y\", \"z\"], \"gold\": 2}\n\n", "t");
  CHECK(choice.kind == TaskKind::MultipleChoice);
  CHECK(choice.examples[0].options == std::vector<mor::eval::TaskOption>{{"q", "x"}, {"q", "y"}, {"q", "z"}});
  CHECK(choice.examples[0].gold == 2);

  Task const partial =
      parse_task(R"({"context_options": ["p", "q"], "continuation": "c", "gold": 1})", "t");
  CHECK(partial.kind == TaskKind::PartialScoring);
  CHECK(partial.examples[0].options == std::vector<mor::eval::TaskOption>{{"p", "c"}, {"q", "c"}});
}

TEST_CASE("a kind that is asked for decides which fields are read") {
  std::string const both = R"({"context": "a", "continuation": "b", "query": "q", "choices": ["x", "y"], "gold": 0})";
  CHECK(parse_task(both, "t", TaskKind::LastWord).kind == TaskKind::LastWord);
  CHECK(parse_task(both, "t", TaskKind::MultipleChoice).kind == TaskKind::MultipleChoice);
  for (TaskKind const kind : {TaskKind::LastWord, TaskKind::MultipleChoice, TaskKind::PartialScoring}) {
    CHECK(mor::eval::parse_task_kind(to_text(kind)) == kind);
  }
  CHECK(fails_with(ErrorCode::InvalidArgument, [] { (void)mor::eval::parse_task_kind("cloze"); }, "last_word",
                   "cloze"));
}

TEST_CASE("a bad line of a task is refused with its number and field") {
  std::string const good = "{\"query\": \"q\", \"choices\": [\"x\", \"y\"], \"gold\": 0}\n";
  std::vector<std::pair<std::string, std::string>> const bad = {
      {"{\"query\": \"q\", \"choices\": [\"x\", \"y\"], \"gold\": 2}", "field gold"},
      {"{\"query\": \"q\", \"choices\": [\"x\", \"y\"], \"gold\": -1}", "field gold"},
      {"{\"query\": \"q\", \"choices\": [\"x\", \"y\"], \"gold\": \"0\"}", "field gold"},
      {"{\"query\": \"q\", \"choices\": [\"x\", \"y\"]}", "field gold"},
      {"{\"query\": \"q\", \"choices\": [\"x\"], \"gold\": 0}", "nothing to choose from"},
      {"{\"query\": \"q\", \"choices\": [\"x\", 3], \"gold\": 0}", "field choices"},
      {"{\"query\": \"q\", \"choices\": \"x\", \"gold\": 0}", "field choices"},
      {"{\"query\": \"q\", \"choices\": [\"x\", \" \"], \"gold\": 0}", "an empty continuation"},
      {"{\"choices\": [\"x\", \"y\"], \"gold\": 0}", "field query"},
      {"{\"context\": \"a\", \"continuation\": \"b\"}", "field choices"},
      {"[1]", "wrong type"},
      {"{\"query\": ", "not valid JSON"},
  };
  for (auto const& [line, part] : bad) {
    INFO(line);
    CHECK(fails_with(ErrorCode::MalformedFile, [&, &text = line] { (void)parse_task(good + text, "f.jsonl"); },
                     "f.jsonl: line 2", part));
  }
  CHECK(fails_with(ErrorCode::MalformedFile, [] { (void)parse_task("{\"text\": \"a\"}", "f"); }, "f: line 1",
                   "no task has these fields"));
  CHECK(fails_with(ErrorCode::MalformedFile, [] { (void)parse_task("\n", "f"); }, "f: no examples"));
}

TEST_CASE("published task files are read whole") {
  auto const data = mor::test::test_data();
  if (!data || !std::filesystem::exists(*data / "eval")) SKIP("no task files: set MOR_TEST_DATA");
  std::vector<std::tuple<char const*, TaskKind, std::size_t, std::size_t>> const files = {
      {"llmfoundry_arc_easy.jsonl", TaskKind::MultipleChoice, 2376, 0},
      {"llmfoundry_lambada_openai.jsonl", TaskKind::LastWord, 5153, 1},
      {"llmfoundry_piqa.jsonl", TaskKind::MultipleChoice, 1838, 2},
      {"llmfoundry_winogrande.jsonl", TaskKind::PartialScoring, 1267, 2}};
  for (auto const& [name, kind, count, options] : files) {
    INFO(name);
    Task const task = mor::eval::read_task(*data / "eval" / name);
    CHECK(task.kind == kind);
    CHECK(task.examples.size() == count);
    for (auto const& example : task.examples) {
      bool const counted = options == 0 ? example.options.size() >= 3 : example.options.size() == options;
      if (!counted) FAIL("an example with " << example.options.size() << " options");
    }
  }
}

}  // namespace
