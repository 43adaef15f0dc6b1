// SPDX-License-Identifier: Apache-2.0
/// @file
/// `metrics.jsonl`: one JSON object a line, one line a step, in the order they happened, without duplicates after a
/// resume.
///
/// Training rows: `step` (0-based), `loss` (nats a token), `grad_norm` (before clipping), `learning_rate`, `ms`,
/// `tokens_per_second`, `tokens` (trained on so far), `mean_depth` (recursions a token), `depth_share` (share of tokens
/// whose depth is 1, 2, ...), and where the model has them `aux_loss` and `balance_loss`. Validation rows: `step`,
/// `validation_loss` and `routing`. A value that is not finite is the string "nan", "inf" or "-inf": a log never hides
/// one.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/train/durable_files.hpp"
#include "mor/train/file_operations.hpp"
#include "mor/train/number_text.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace mor::train {

/// What one training step shows.
struct TrainingRow {
  Index step = 0;
  double loss = 0.0;
  double gradient_norm = 0.0;
  double learning_rate = 0.0;
  double milliseconds = 0.0;
  double tokens_per_second = 0.0;
  Index tokens = 0;
  double mean_depth = 0.0;
  std::span<double const> depth_share{};
  std::optional<double> aux_loss{};
  std::optional<double> balance_loss{};
};

/// What one validation shows.
struct ValidationRow {
  Index step = 0;
  double validation_loss = 0.0;
  std::string_view routing{};  ///< how depths were decided: topk, threshold, aux_router, full_depth
};

/// The row's JSON object, without a line break.
[[nodiscard]] inline std::string to_json(TrainingRow const& row) {
  using detail::json_number_text;
  std::string text = "{\"step\": " + std::to_string(row.step) + ", \"loss\": " + json_number_text(row.loss) +
                     ", \"grad_norm\": " + json_number_text(row.gradient_norm) +
                     ", \"learning_rate\": " + json_number_text(row.learning_rate) +
                     ", \"ms\": " + json_number_text(row.milliseconds) +
                     ", \"tokens_per_second\": " + json_number_text(row.tokens_per_second) +
                     ", \"tokens\": " + std::to_string(row.tokens) +
                     ", \"mean_depth\": " + json_number_text(row.mean_depth) + ", \"depth_share\": [";
  for (std::size_t i = 0; i < row.depth_share.size(); ++i) {
    text += (i == 0 ? "" : ", ") + json_number_text(row.depth_share[i]);
  }
  text += "]";
  if (row.aux_loss) text += ", \"aux_loss\": " + json_number_text(*row.aux_loss);
  if (row.balance_loss) text += ", \"balance_loss\": " + json_number_text(*row.balance_loss);
  return text + "}";
}

/// @throws mor::error InvalidArgument for a routing name with characters other than letters, digits, '_' and '-'
[[nodiscard]] inline std::string to_json(ValidationRow const& row) {
  for (char const c : row.routing) {
    bool const letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter && !(c >= '0' && c <= '9') && c != '_' && c != '-') {
      fail(ErrorCode::InvalidArgument, "not a routing name", "ValidationRow: routing", "letters, digits, '_' and '-'",
           std::string(row.routing));
    }
  }
  return "{\"step\": " + std::to_string(row.step) +
         ", \"validation_loss\": " + detail::json_number_text(row.validation_loss) + ", \"routing\": \"" +
         std::string(row.routing) + "\"}";
}

/// The writer. Each row reaches the operating system when `append` returns, so a killed process loses none.
class MetricsLog {
 public:
  /// Opens the log for appending, or creates it. A last line without an end, left by a crash, is cut off.
  /// @param offset  bytes to keep, from the state that a run resumes from (0 starts the log anew); rows after it belong
  ///                to steps that will be done again. Nothing: keep all. A log shorter than `offset` (its tail was
  ///                lost in a power cut) is continued where it ends.
  /// @throws mor::error MalformedFile when `offset` is not the end of a line, IoFailure
  explicit MetricsLog(std::filesystem::path path, std::optional<Index> offset = std::nullopt,
                      FileOperations& operations = system_file_operations())
      : path_(std::move(path)), files_(operations), file_(files_.open(path_, O_RDWR | O_CREAT | O_APPEND)) {
    if (offset && *offset < 0) {
      fail(ErrorCode::InvalidArgument, "negative offset", path_.string(), "0 or more", text_of(*offset));
    }
    std::uint64_t const limit = static_cast<std::uint64_t>(offset.value_or(std::numeric_limits<Index>::max()));
    Extent const found = measure(limit);
    if (offset && found.whole_lines != found.bytes && found.bytes == limit) {
      fail(ErrorCode::MalformedFile, "the metrics log is not the one this state was saved with", path_.string(),
           "the end of a line at byte " + text_of(limit), "the line begun at byte " + text_of(found.whole_lines));
    }
    size_ = found.whole_lines;
    files_.truncate(file_, path_, size_);
  }

  void append(TrainingRow const& row) { append_line(to_json(row)); }
  void append(ValidationRow const& row) { append_line(to_json(row)); }

  /// Bytes of all rows so far: the offset to keep in the training state.
  [[nodiscard]] Index offset() const { return static_cast<Index>(size_); }

  /// Waits until all rows are on disk; call it before a checkpoint that records `offset`.
  void sync() { files_.sync(file_, path_); }

 private:
  struct Extent {
    std::uint64_t bytes = 0;        ///< length, at most the limit
    std::uint64_t whole_lines = 0;  ///< length up to the last line end in it
  };

  [[nodiscard]] Extent measure(std::uint64_t limit) const {
    Extent extent;
    files_.read_pieces(path_, [&](std::span<std::byte const> bytes) {
      bytes = bytes.first(static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), limit - extent.bytes)));
      for (std::size_t i = bytes.size(); i-- > 0;) {
        if (bytes[i] != std::byte{'\n'}) continue;
        extent.whole_lines = extent.bytes + i + 1;
        break;
      }
      extent.bytes += bytes.size();
      return extent.bytes < limit;
    });
    return extent;
  }

  void append_line(std::string line) {
    line += '\n';
    try {
      files_.write(file_, path_, line);
    } catch (...) {
      // A full disk may have taken half the line; the next row must not be glued to it.
      truncate_quietly();
      throw;
    }
    size_ += line.size();
  }

  void truncate_quietly() noexcept {
    try {
      files_.truncate(file_, path_, size_);
    } catch (...) {  // the failed write is the error to report
    }
  }

  std::filesystem::path path_;
  DurableFiles files_;
  OpenFile file_;
  std::uint64_t size_ = 0;
};

}  // namespace mor::train
