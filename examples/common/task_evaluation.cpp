// SPDX-License-Identifier: Apache-2.0
#include "common/task_evaluation.hpp"

#include "mor/core/config_text.hpp"
#include "mor/core/error.hpp"
#include "mor/eval/scoring.hpp"
#include "mor/io/file.hpp"
#include "mor/train/number_text.hpp"

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <iostream>
#include <utility>

namespace examples {

namespace {

using mor::eval::ContinuationScore;
using mor::eval::ScoreRequest;
using mor::eval::Task;
using mor::eval::TaskKind;
using mor::train::detail::fixed_text;

/// A task ready to be scored.
struct PreparedTask {
  Task task;
  std::string file;
  std::vector<std::vector<Index>> shots;  ///< for each example
  std::vector<ScoreRequest> requests;     ///< options of all examples, in order
};

PreparedTask prepare(std::string const& file, mor::io::Tokenizer const& tokenizer, TaskSettings const& settings,
                     Index max_context) {
  PreparedTask prepared{mor::eval::read_task(file, settings.kind), file, {}, {}};
  auto& examples = prepared.task.examples;
  auto const own = static_cast<Index>(examples.size());
  Index const wanted = std::min(settings.limit.value_or(own), own);
  Task other;
  if (settings.shots_file) other = mor::eval::read_task(*settings.shots_file, prepared.task.kind);
  auto const& pool = settings.shots_file ? other.examples : examples;
  for (Index i = 0; i < wanted; ++i) {
    auto const exclude = settings.shots_file ? std::nullopt : std::optional(i);
    auto const& shots = prepared.shots.emplace_back(
        mor::eval::choose_shots(settings.prompt, static_cast<Index>(pool.size()), i, exclude));
    auto const solved = mor::eval::shots_text(pool, shots, settings.prompt);
    for (auto const& option : examples[static_cast<std::size_t>(i)].options) {
      auto request = mor::eval::make_request(tokenizer, solved, option, settings.prompt);
      auto const scored = static_cast<Index>(request.tokens.size()) - request.context_tokens;
      if (scored > max_context) {
        mor::fail(mor::ErrorCode::InvalidArgument, "the continuation is longer than the model's context",
                  file + ": example " + mor::text_of(i), "at most " + mor::text_of(max_context) + " tokens",
                  mor::text_of(scored));
      }
      prepared.requests.push_back(std::move(request));
    }
  }
  examples.resize(static_cast<std::size_t>(wanted));
  return prepared;
}

/// Adds an object a line to the file of `--examples`.
void write_example(mor::io::FileWriter& writer, TaskResult const& result, Index number, PreparedTask const& prepared,
                   std::span<ContinuationScore const> scores, mor::eval::Verdict const& verdict) {
  auto const& example = prepared.task.examples[static_cast<std::size_t>(number)];
  nlohmann::ordered_json row;
  row["task"] = result.name;
  row["routing"] = mor::to_text(result.routing);
  row["example"] = number;
  row["shots"] = prepared.shots[static_cast<std::size_t>(number)];
  row["correct"] = verdict.correct;
  if (result.kind == TaskKind::LastWord) {
    row["log_likelihood"] = scores.front().log_likelihood;
    row["tokens"] = scores.front().tokens;
  } else {
    row["gold"] = example.gold;
    row["chosen"] = verdict.chosen;
    if (result.kind == TaskKind::MultipleChoice) row["chosen_normalized"] = verdict.chosen_normalized;
    row["log_likelihood"] = nlohmann::ordered_json::array();
    row["tokens"] = nlohmann::ordered_json::array();
    for (auto const& score : scores) {
      row["log_likelihood"].push_back(score.log_likelihood);
      row["tokens"].push_back(score.tokens);
    }
  }
  Index dropped = 0;
  for (auto const& score : scores) dropped = std::max(dropped, score.dropped);
  row["dropped"] = dropped;
  writer.write(row.dump() + "\n");
}

/// On a terminal, how far a task is; nothing elsewhere.
class TaskProgress {
 public:
  void show(TaskResult const& result, Index done, Index all) {
    if (!terminal_) return;
    std::cerr << "\r\x1b[K" << result.name << ", routing " << mor::to_text(result.routing) << ": " << done << "/" << all
              << std::flush;
  }
  void clear() const {
    if (terminal_) std::cerr << "\r\x1b[K" << std::flush;
  }

 private:
  bool terminal_ = ::isatty(STDERR_FILENO) != 0;
};

std::vector<ContinuationScore> score(AnyModel& model, mor::eval::BatchScorer& scorer, TaskResult const& result,
                                     std::span<ScoreRequest const> requests) {
  if (result.kind == TaskKind::LastWord) {
    return scorer.score_greedy(requests, [&](mor::Batch const& batch, std::span<Row const> rows) {
      return model.forward(batch, result.routing, rows);
    });
  }
  auto const losses = [&](mor::Batch const& batch, std::span<Token const> targets, std::span<Row const> rows) {
    return model.losses(batch, targets, result.routing, rows);
  };
  return scorer.score(requests, losses);
}

TaskResult run_task(AnyModel& model, PreparedTask const& prepared, TaskSettings const& settings, mor::RoutingMode mode,
                    mor::io::FileWriter* writer) {
  auto const& [task, file, shots, requests] = prepared;
  TaskResult result{task.name, file, task.kind, mode, settings.prompt.shots, mor::eval::TaskMetrics(task.kind), 0.0};
  mor::eval::BatchScorer scorer(model.config().transformer.max_position_embeddings);
  TaskProgress progress;
  auto const all = static_cast<Index>(task.examples.size());
  double depths = 0.0, rows = 0.0;
  std::size_t begin = 0;
  for (Index first = 0; first < all; first += settings.batch_size) {
    Index const last = std::min(all, first + settings.batch_size);
    std::size_t count = 0;
    for (Index i = first; i < last; ++i) count += task.examples[static_cast<std::size_t>(i)].options.size();
    auto const scores = score(model, scorer, result, std::span(requests).subspan(begin, count));
    begin += count;
    for (Row const depth : model.depths()) {
      depths += static_cast<double>(depth);
      rows += 1.0;
    }
    std::span<ContinuationScore const> rest(scores);
    for (Index i = first; i < last; ++i) {
      auto const& example = task.examples[static_cast<std::size_t>(i)];
      auto const own = rest.first(example.options.size());
      rest = rest.subspan(own.size());
      auto const verdict = mor::eval::judge(task.kind, example, own);
      result.metrics.add(example, own, verdict);
      if (writer != nullptr) write_example(*writer, result, i, prepared, own, verdict);
    }
    progress.show(result, last, all);
  }
  progress.clear();
  result.mean_depth = depths / rows;
  return result;
}

/// Name, value and, for an accuracy, standard error.
struct Figure {
  char const* name;
  double value;
  std::optional<double> error;
};

std::vector<Figure> figures(mor::eval::TaskMetrics const& metrics) {
  std::vector<Figure> list;
  auto const add = [&](char const* name, double accuracy) {
    list.push_back({name, accuracy, metrics.standard_error(accuracy)});
  };
  add("acc", metrics.accuracy());
  if (auto const normalized = metrics.accuracy_normalized()) add("acc_norm", *normalized);
  if (auto const perplexity = metrics.perplexity()) list.push_back({"perplexity", *perplexity, std::nullopt});
  return list;
}

std::string wide(std::string text, std::size_t width) {
  if (text.size() < width) text.append(width - text.size(), ' ');
  return text;
}

}  // namespace

std::vector<TaskResult> evaluate_tasks(AnyModel& model, mor::io::Tokenizer const& tokenizer,
                                       TaskSettings const& settings, std::span<mor::RoutingMode const> modes) {
  std::vector<PreparedTask> tasks;
  for (auto const& file : settings.files) {
    tasks.push_back(prepare(file, tokenizer, settings, model.config().transformer.max_position_embeddings));
  }
  std::optional<mor::io::FileWriter> writer;
  if (settings.examples_file) writer.emplace(*settings.examples_file);
  std::vector<TaskResult> results;
  for (auto const& task : tasks) {
    for (auto const mode : modes) {
      results.push_back(run_task(model, task, settings, mode, writer ? &*writer : nullptr));
    }
  }
  if (writer) writer->commit();
  return results;
}

void print_tasks(std::ostream& out, std::span<TaskResult const> results) {
  std::size_t width = 4;
  for (auto const& result : results) width = std::max(width, result.name.size());
  out << wide("task", width) << "  routing     shots  examples  metric         value  std.err  mean depth\n";
  for (auto const& result : results) {
    for (auto const& [name, value, error] : figures(result.metrics)) {
      using mor::train::detail::padded, mor::train::detail::scientific_text;
      std::string const plain = fixed_text(value, error ? 4 : 2);
      out << wide(result.name, width) << "  " << wide(std::string(mor::to_text(result.routing)), 10) << "  "
          << padded(std::to_string(result.shots), 5) << "  " << padded(std::to_string(result.metrics.examples()), 8)
          << "  " << wide(name, 10) << "  " << padded(value < 1e5 ? plain : scientific_text(value, 2), 8) << "  "
          << padded(error ? fixed_text(*error, 4) : "", 7) << "  " << padded(fixed_text(result.mean_depth, 3), 10)
          << '\n';
    }
    if (result.metrics.shortened() > 0) {
      out << "  contexts that did not fit and lost their beginning: " << result.metrics.shortened() << '\n';
    }
  }
}

nlohmann::ordered_json json_of(std::span<TaskResult const> results, TaskSettings const& settings) {
  auto rows = nlohmann::ordered_json::array();
  for (auto const& result : results) {
    nlohmann::ordered_json row;
    row["task"] = result.name;
    row["file"] = result.file;
    row["kind"] = mor::eval::to_text(result.kind);
    row["routing"] = mor::to_text(result.routing);
    row["shots"] = result.shots;
    if (result.shots > 0) row["seed"] = settings.prompt.seed;
    row["examples"] = result.metrics.examples();
    row["shortened"] = result.metrics.shortened();
    row["mean_depth"] = result.mean_depth;
    for (auto const& [name, value, error] : figures(result.metrics)) {
      row[name] = value;
      if (error) row[std::string(name) + "_stderr"] = *error;
    }
    rows.push_back(std::move(row));
  }
  return {{"results", std::move(rows)}};
}

}  // namespace examples
