// SPDX-License-Identifier: Apache-2.0
/// @file
/// A training run on one HTML page: final values, losses, learning rate, speed, gradient norm, and how deep tokens
/// went.
#pragma once

#include "mor/io/file.hpp"
#include "mor/io/html_text.hpp"
#include "mor/io/metrics_log.hpp"
#include "mor/io/page_style.hpp"
#include "mor/io/report_style.hpp"
#include "mor/io/svg_chart.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mor::io {

namespace detail {

/// The values of one field over the run; rows without it are left out.
[[nodiscard]] inline std::vector<ChartPoint> points_of(std::vector<TrainingRow> const& rows,
                                                       std::optional<double> TrainingRow::*field) {
  std::vector<ChartPoint> points;
  for (TrainingRow const& row : rows) {
    if (row.*field) points.push_back({static_cast<double>(row.step), *(row.*field)});
  }
  return points;
}

/// Exponential moving average over about a fiftieth of the points, and over fewer at the start, where a loss falls too
/// fast for that. Values that are not finite do not enter it, and leave the same gap in both lines.
[[nodiscard]] inline std::vector<ChartPoint> smoothed(std::vector<ChartPoint> points) {
  double const longest = std::max(5.0, static_cast<double>(points.size()) / 50.0);
  double sum = 0, weight = 0, seen = 0;
  for (ChartPoint& point : points) {
    if (!std::isfinite(point.y)) continue;
    double const keep = 1.0 - 1.0 / std::clamp(++seen / 16.0, 1.0, longest);
    sum = keep * sum + point.y;
    weight = keep * weight + 1.0;
    point.y = sum / weight;
  }
  return points;
}

[[nodiscard]] inline std::vector<double> finite_values(std::vector<ChartPoint> const& points) {
  std::vector<double> values;
  for (ChartPoint const& point : points) {
    if (std::isfinite(point.y)) values.push_back(point.y);
  }
  return values;
}

[[nodiscard]] inline double median(std::vector<double> values) {
  auto const middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// `1 h 5 min`, `12 min 3 s`, `4.2 s`.
[[nodiscard]] inline std::string duration(double seconds) {
  if (seconds < 60) return fixed(seconds, 1) + " s";
  auto const whole = static_cast<Index>(std::llround(seconds));
  if (whole < 3600) return std::to_string(whole / 60) + " min " + std::to_string(whole % 60) + " s";
  return grouped(whole / 3600) + " h " + std::to_string(whole % 3600 / 60) + " min";
}

/// The table of final values at the top.
class ReportFacts {
 public:
  explicit ReportFacts(MetricsLog const& log) : log_(log) {}

  [[nodiscard]] std::string html() {
    add_losses();
    add_amounts();
    add_depth();
    return "<dl class=\"facts card\">" + rows_ + "</dl>\n";
  }

 private:
  void add(std::string const& name, std::string const& value, std::string const& note = "") {
    rows_ +=
        "<div><dt>" + name + "</dt><dd>" + value + (note.empty() ? "" : "<small>" + note + "</small>") + "</dd></div>";
  }

  void add_losses() {
    if (!log_.training.empty()) add("Steps", grouped(log_.training.back().step + 1));
    std::vector<ChartPoint> const losses = points_of(log_.training, &TrainingRow::loss);
    if (!losses.empty()) {
      add("Training loss", fixed(smoothed(losses).back().y, 4), "smoothed; last step " + fixed(losses.back().y, 4));
    }
    if (log_.validation.empty()) return;
    ValidationRow const last = log_.validation.back();
    ValidationRow best = last;
    for (ValidationRow const& row : log_.validation) {
      if (std::isfinite(row.loss) && !(row.loss >= best.loss)) best = row;
    }
    add("Validation loss", fixed(last.loss, 4), "best " + fixed(best.loss, 4) + " at step " + grouped(best.step));
    if (std::isfinite(last.loss)) add("Perplexity", significant(std::exp(last.loss), 4), "e to the validation loss");
  }

  void add_amounts() {
    auto const last = [&](std::optional<double> TrainingRow::*field) { return points_of(log_.training, field); };
    if (auto const tokens = last(&TrainingRow::tokens); !tokens.empty()) {
      add("Tokens", short_count(tokens.back().y), grouped_count(tokens.back().y));
    }
    auto const speeds = finite_values(last(&TrainingRow::tokens_per_second));
    if (!speeds.empty()) add("Tokens a second", short_count(median(speeds)), "median");
    auto const times = finite_values(last(&TrainingRow::ms));
    double total = 0;
    for (double const ms : times) total += ms;
    if (!times.empty())
      add("Step time", significant(median(times), 4) + " ms", "median; in all " + duration(total / 1000));
    if (auto const rates = last(&TrainingRow::learning_rate); !rates.empty()) {
      add("Learning rate", significant(rates.back().y, 3), "last step");
    }
    if (auto const norms = last(&TrainingRow::grad_norm); !norms.empty()) {
      auto const finite = finite_values(norms);
      add("Gradient norm", significant(norms.back().y, 3),
          finite.empty() ? "" : "median " + significant(median(finite), 3));
    }
  }

  void add_depth() {
    auto const depths = points_of(log_.training, &TrainingRow::mean_depth);
    if (depths.empty()) return;
    std::string shares;
    for (double const share : log_.training.back().depth_share)
      shares += (shares.empty() ? "" : " / ") + percent(share);
    add("Mean depth", fixed(depths.back().y, 3), shares.empty() ? "recursions a token" : shares);
  }

  [[nodiscard]] static std::string grouped_count(double value) {
    return std::isfinite(value) && std::abs(value) < 9e18 ? grouped(static_cast<Index>(value)) : non_finite_text(value);
  }

  MetricsLog const& log_;
  std::string rows_;
};

/// What a reader must not overlook: values that were not finite, lines that could not be read.
[[nodiscard]] inline std::string report_notices(MetricsLog const& log) {
  auto const listed = [](std::vector<Index> const& numbers) {
    std::string text;
    for (std::size_t i = 0; i < numbers.size() && i < 8; ++i) text += (i == 0 ? "" : ", ") + grouped(numbers[i]);
    return text + (numbers.size() > 8 ? ", ..." : "");
  };
  auto const notice = [&](std::vector<Index> const& numbers, std::string const& one, std::string const& many) {
    if (numbers.empty()) return std::string();
    return "<p>" + grouped(static_cast<Index>(numbers.size())) + " " + (numbers.size() == 1 ? one : many) + ": " +
           listed(numbers) + "</p>\n";
  };
  std::vector<Index> training, norms, validation;
  for (TrainingRow const& row : log.training) {
    if (row.loss && !std::isfinite(*row.loss)) training.push_back(row.step);
    if (row.grad_norm && !std::isfinite(*row.grad_norm)) norms.push_back(row.step);
  }
  for (ValidationRow const& row : log.validation) {
    if (!std::isfinite(row.loss)) validation.push_back(row.step);
  }
  std::string const text =
      notice(training, "step with a training loss that is not finite",
             "steps with a training loss that is not finite") +
      notice(norms, "step with a gradient norm that is not finite", "steps with a gradient norm that is not finite") +
      notice(validation, "validation loss that is not finite, at step",
             "validation losses that are not finite, at steps") +
      notice(log.unreadable_lines, "line of the log could not be read", "lines of the log could not be read");
  return text.empty() ? text : "<div class=\"notice\" role=\"alert\">" + text + "</div>\n";
}

/// First and last step of the run; all charts share this axis. It begins at 0 unless the log begins much later.
struct RunRange {
  double low = 0.0, high = 1.0;

  explicit RunRange(MetricsLog const& log) {
    auto const first = [](auto const& rows) { return rows.empty() ? 1e300 : static_cast<double>(rows.front().step); };
    auto const last = [](auto const& rows) { return rows.empty() ? 0.0 : static_cast<double>(rows.back().step); };
    low = std::min(first(log.training), first(log.validation));
    high = std::max({last(log.training), last(log.validation), 1.0});
    if (low <= 0.2 * high) low = 0;
  }

  /// Where the steep beginning of a loss is over.
  [[nodiscard]] double settled() const { return low + 0.06 * (high - low); }
};

[[nodiscard]] inline LineChart chart_of(std::string title, std::string y_label, RunRange const& range) {
  LineChart chart;
  chart.title = std::move(title);
  chart.y_label = std::move(y_label);
  chart.x_low = range.low;
  chart.x_high = range.high;
  return chart;
}

[[nodiscard]] inline std::string loss_charts(MetricsLog const& log, RunRange const& range) {
  std::string out;
  std::vector<ChartPoint> const losses = points_of(log.training, &TrainingRow::loss);
  std::vector<ChartPoint> validation;
  for (ValidationRow const& row : log.validation) validation.push_back({static_cast<double>(row.step), row.loss});
  if (!losses.empty()) {
    LineChart chart = chart_of("Training loss", "nats a token", range);
    chart.wide = true;
    chart.settled_from = range.settled();
    chart.series.push_back({"each step", 1, LineStyle::Faint, losses});
    chart.series.push_back({"smoothed", 1, LineStyle::Plain, smoothed(losses)});
    if (!validation.empty()) chart.series.push_back({"validation", 2, LineStyle::Dotted, validation});
    out += line_chart(chart);
  }
  if (!validation.empty()) {
    LineChart chart = chart_of("Validation loss", "nats a token", range);
    chart.settled_from = range.settled();
    chart.series.push_back({"validation loss", 2, LineStyle::Dotted, validation});
    out += line_chart(chart);
  }
  return out;
}

/// How the chart of one field looks.
struct FieldChart {
  std::string title, unit;
  std::optional<double> TrainingRow::*field;
  int colour;
  bool noisy;               ///< drawn pale, with a smoothed line over it
  bool may_be_logarithmic;  ///< over more than two decades the axis is logarithmic
};

/// One chart of one field, or nothing when no row has it.
[[nodiscard]] inline std::string field_chart(MetricsLog const& log, RunRange const& range, FieldChart const& look) {
  std::vector<ChartPoint> const points = points_of(log.training, look.field);
  if (points.empty()) return {};
  std::vector<double> const values = finite_values(points);
  LineChart chart = chart_of(look.title, look.unit, range);
  chart.from_zero = true;
  if (look.may_be_logarithmic && !values.empty()) {
    auto const [low, high] = std::minmax_element(values.begin(), values.end());
    chart.logarithmic = *low > 0 && *high > 100 * *low;
  }
  if (look.noisy) chart.series.push_back({"each step", look.colour, LineStyle::Faint, points});
  chart.series.push_back(
      {look.noisy ? "smoothed" : "each step", look.colour, LineStyle::Plain, look.noisy ? smoothed(points) : points});
  return line_chart(chart);
}

[[nodiscard]] inline std::string depth_chart(MetricsLog const& log, RunRange const& range, int max_depth) {
  AreaChart chart;
  chart.title = "Share of tokens at each depth";
  chart.y_label = "share of tokens";
  chart.x_low = range.low;
  chart.x_high = range.high;
  for (int depth = 1; depth <= max_depth; ++depth) {
    chart.names.push_back(std::to_string(depth) + (depth == 1 ? " recursion" : " recursions"));
  }
  for (TrainingRow const& row : log.training) {
    if (row.depth_share.empty()) continue;
    chart.x.push_back(static_cast<double>(row.step));
    chart.shares.push_back(row.depth_share);
  }
  return area_chart(chart);
}

}  // namespace detail

/// The page for a log; `source` is named in the footer.
[[nodiscard]] inline std::string report_page(MetricsLog const& log, std::string const& title,
                                             std::string const& source) {
  std::size_t max_depth = 0;
  for (TrainingRow const& row : log.training) max_depth = std::max(max_depth, row.depth_share.size());
  // Colours exist up to a depth of 64, the most recursions a model may have.
  int const depths = static_cast<int>(std::min<std::size_t>(max_depth, 64));
  std::string page = detail::page_start(title, detail::report_css, std::max(1, depths));
  page += "<p class=\"sub\">Training report</p>\n";
  page += detail::report_notices(log);
  page += detail::ReportFacts(log).html();
  detail::RunRange const range(log);
  page += "<div class=\"charts\">\n" + detail::loss_charts(log, range);
  for (detail::FieldChart const& look :
       {detail::FieldChart{"Learning rate", "learning rate", &TrainingRow::learning_rate, 3, false, false},
        detail::FieldChart{"Gradient norm", "L2 norm before clipping", &TrainingRow::grad_norm, 4, true, true},
        detail::FieldChart{"Throughput", "tokens a second", &TrainingRow::tokens_per_second, 1, true, false}}) {
    page += detail::field_chart(log, range, look);
  }
  if (depths > 0) page += detail::depth_chart(log, range, depths);
  page += "</div>\n<footer>" + html_escape(source) + ": " + grouped(static_cast<Index>(log.training.size())) +
          " training rows, " + grouped(static_cast<Index>(log.validation.size())) + " validation rows.</footer>\n";
  return page + std::string(detail::report_script) + std::string(detail::page_end);
}

/// Reads `metrics.jsonl` and writes the report beside nothing else: one file that needs no other.
/// @throws mor::error IoFailure, MalformedFile when the log holds no row
inline void write_report(std::filesystem::path const& metrics_jsonl, std::filesystem::path const& html,
                         std::string const& title) {
  write_file(html, report_page(read_metrics(metrics_jsonl), title, metrics_jsonl.filename().string()));
}

}  // namespace mor::io
