// SPDX-License-Identifier: Apache-2.0
/// @file
/// Few-shot tasks as data: examples with one or more options, each a context and a continuation, read from JSON lines.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/types.hpp"
#include "mor/io/file.hpp"
#include "mor/io/json_lines.hpp"

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mor::eval {

/// What a task asks of a model.
enum class TaskKind {
  LastWord,       ///< is the continuation the model's greedy one? (LAMBADA)
  MultipleChoice, ///< which continuation of one context is likeliest? (HellaSwag, PIQA, ARC, MMLU by answer text)
  PartialScoring  ///< after which context is one continuation likeliest? (WinoGrande)
};

/// A kind's name on a command line and in results.
[[nodiscard]] constexpr std::string_view to_text(TaskKind kind) noexcept {
  switch (kind) {
    case TaskKind::LastWord: return "last_word";
    case TaskKind::MultipleChoice: return "multiple_choice";
    case TaskKind::PartialScoring: return "partial_scoring";
  }
  return "unknown";
}

/// @throws mor::error InvalidArgument listing the known names
[[nodiscard]] inline TaskKind parse_task_kind(std::string_view text, std::string const& where = "task kind") {
  for (TaskKind const kind : {TaskKind::LastWord, TaskKind::MultipleChoice, TaskKind::PartialScoring}) {
    if (text == to_text(kind)) return kind;
  }
  fail(ErrorCode::InvalidArgument, "unknown value", where, "last_word, multiple_choice or partial_scoring",
       printable(text));
}

/// One way to complete an example.
struct TaskOption {
  std::string context, continuation;
  bool operator==(TaskOption const&) const = default;
};

struct TaskExample {
  std::vector<TaskOption> options;  ///< one for LastWord, two or more otherwise
  Index gold = 0;                   ///< the right one
  bool operator==(TaskExample const&) const = default;
};

struct Task {
  std::string name;
  TaskKind kind = TaskKind::LastWord;
  std::vector<TaskExample> examples;
};

namespace detail {

/// The kind that an object's fields spell.
[[nodiscard]] inline TaskKind recognise_task(io::JsonObject& object) {
  if (object.contains("choices")) return TaskKind::MultipleChoice;
  if (object.contains("context_options")) return TaskKind::PartialScoring;
  if (object.contains("context") && object.contains("continuation")) return TaskKind::LastWord;
  fail(ErrorCode::MalformedFile, "no task has these fields", object.file(),
       "context and continuation; query, choices and gold; or context_options, continuation and gold");
}

/// Two or more strings.
[[nodiscard]] inline std::vector<std::string> read_options(io::JsonObject& object, std::string const& key) {
  std::vector<std::string> texts;
  for (auto const& value : object.array(key)) texts.push_back(io::json_string(value, object.where(key)));
  if (texts.size() < 2) {
    fail(ErrorCode::MalformedFile, "nothing to choose from", object.where(key), "at least 2 strings",
         text_of(texts.size()));
  }
  return texts;
}

[[nodiscard]] inline TaskExample read_example(io::JsonObject& object, TaskKind kind) {
  TaskExample example;
  switch (kind) {
    case TaskKind::LastWord:
      example.options.push_back({object.string("context"), object.string("continuation")});
      return example;
    case TaskKind::MultipleChoice:
      for (auto& choice : read_options(object, "choices")) {
        example.options.push_back({object.string("query"), std::move(choice)});
      }
      break;
    case TaskKind::PartialScoring:
      for (auto& context : read_options(object, "context_options")) {
        example.options.push_back({std::move(context), object.string("continuation")});
      }
      break;
  }
  example.gold = object.integer("gold", 0, static_cast<Index>(example.options.size()) - 1);
  return example;
}

}  // namespace detail

/// Reads a task from JSON lines. Fields: `context` and `continuation`; or `query`, `choices` and `gold` (the index of
/// the right choice, from 0); or `context_options`, `continuation` and `gold`. Other fields are ignored.
/// @param kind  nothing: recognised by the fields of the first line
/// @throws mor::error MalformedFile with the file, the line and the field; also for a file without examples
[[nodiscard]] inline Task parse_task(std::string_view text, std::string const& file,
                                     std::optional<TaskKind> kind = std::nullopt) {
  Task task;
  io::for_each_json_line(text, file, [&](io::JsonObject& object) {
    if (!kind) kind = detail::recognise_task(object);
    task.examples.push_back(detail::read_example(object, *kind));
    for (TaskOption const& option : task.examples.back().options) {
      if (option.continuation.find_first_not_of(" \t\r\n") != std::string::npos) continue;
      fail(ErrorCode::MalformedFile, "an empty continuation cannot be scored", object.file());
    }
  });
  if (task.examples.empty()) fail(ErrorCode::MalformedFile, "no examples in the file", file, "JSON lines");
  task.name = std::filesystem::path(file).stem().string();
  task.kind = *kind;
  return task;
}

/// The same from a file; the task has the file's name. @throws mor::error IoFailure too
[[nodiscard]] inline Task read_task(std::filesystem::path const& path, std::optional<TaskKind> kind = std::nullopt) {
  return parse_task(io::read_file(path), path.string(), kind);
}

}  // namespace mor::eval
