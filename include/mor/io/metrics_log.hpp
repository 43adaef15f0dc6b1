// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reads the log of a training run, `metrics.jsonl`: one JSON object a line, a training or a validation row each.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/io/file.hpp"
#include "mor/io/json.hpp"

#include <cstddef>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mor::io {

/// One training step. A value that the row does not hold is absent; one that was not finite is NaN or infinite.
struct TrainingRow {
  Index step = 0;
  std::optional<double> loss, grad_norm, learning_rate, ms, tokens_per_second, tokens, mean_depth;
  std::vector<double> depth_share;  ///< [i]: share of tokens that took i + 1 recursions; empty when not recorded
};

/// One evaluation on held-out data.
struct ValidationRow {
  Index step = 0;
  double loss = 0.0;
};

struct MetricsLog {
  std::vector<TrainingRow> training;      ///< steps strictly increasing
  std::vector<ValidationRow> validation;  ///< steps strictly increasing
  std::vector<Index>
      unreadable_lines;  ///< numbers, from 1, of lines that are not a row; a torn last line is not counted
};

namespace detail {

/// A number, or the text "nan", "inf", "-inf" (or null) that a log writes where JSON has no number.
[[nodiscard]] inline std::optional<double> metric(JsonObject& row, std::string const& key) {
  nlohmann::json const* const value = row.find(key);
  if (value == nullptr) return std::nullopt;
  constexpr double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  if (value->is_null()) return nan;
  if (!value->is_string()) return json_number(*value, row.where(key));
  std::string text = value->get<std::string>();
  for (char& symbol : text) symbol = symbol >= 'A' && symbol <= 'Z' ? static_cast<char>(symbol + 'a' - 'A') : symbol;
  if (text == "nan" || text == "-nan") return nan;
  if (text == "inf" || text == "infinity") return infinity;
  if (text == "-inf" || text == "-infinity") return -infinity;
  fail(ErrorCode::MalformedFile, "wrong type", row.where(key), "a number, \"nan\" or \"inf\"", describe(*value));
}

/// A run that resumed from a checkpoint logs some steps again: the later row counts.
template <class Row>
void append_row(std::vector<Row>& rows, Row row) {
  while (!rows.empty() && rows.back().step >= row.step) rows.pop_back();
  rows.push_back(std::move(row));
}

inline void read_row(std::string_view line, std::string const& where, MetricsLog& log) {
  nlohmann::json const value = parse_json(line, where);
  JsonObject row(value, where);
  Index const step = row.integer("step", 0);
  if (auto const loss = metric(row, "validation_loss")) append_row(log.validation, ValidationRow{step, *loss});
  if (!row.contains("loss")) return;
  TrainingRow training;
  training.step = step;
  training.loss = metric(row, "loss");
  training.grad_norm = metric(row, "grad_norm");
  training.learning_rate = metric(row, "learning_rate");
  training.ms = metric(row, "ms");
  training.tokens_per_second = metric(row, "tokens_per_second");
  training.tokens = metric(row, "tokens");
  training.mean_depth = metric(row, "mean_depth");
  if (row.has_value("depth_share")) {
    for (nlohmann::json const& share : row.array("depth_share")) {
      training.depth_share.push_back(json_number(share, row.where("depth_share")));
    }
  }
  append_row(log.training, std::move(training));
}

}  // namespace detail

/// Reads the text of a log. Unknown fields are ignored; a last line without its newline that cannot be read is what a
/// killed run leaves, and is ignored too; other unreadable lines are skipped and their numbers kept.
/// @param file  the name that errors carry
/// @throws mor::error MalformedFile when no line at all can be read
[[nodiscard]] inline MetricsLog parse_metrics(std::string_view text, std::string const& file) {
  MetricsLog log;
  Index number = 0, readable = 0;
  std::string first_problem;
  for (std::size_t begin = 0; begin < text.size();) {
    ++number;
    std::size_t const newline = text.find('\n', begin);
    std::string_view const line = text.substr(begin, newline == std::string_view::npos ? newline : newline - begin);
    begin = newline == std::string_view::npos ? text.size() : newline + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    try {
      detail::read_row(line, file + ": line " + std::to_string(number), log);
      ++readable;
    } catch (error const& problem) {
      if (first_problem.empty()) first_problem = problem.what();
      if (newline != std::string_view::npos) log.unreadable_lines.push_back(number);
    }
  }
  if (readable == 0) {
    fail(ErrorCode::MalformedFile, "no metrics in the file" + (first_problem.empty() ? "" : "; " + first_problem),
         file);
  }
  return log;
}

/// Reads a log from its file. @throws mor::error as `parse_metrics`, and IoFailure
[[nodiscard]] inline MetricsLog read_metrics(std::filesystem::path const& path) {
  return parse_metrics(read_file(path), path.string());
}

}  // namespace mor::io
