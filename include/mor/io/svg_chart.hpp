// SPDX-License-Identifier: Apache-2.0
/// @file
/// Line and stacked-area charts as inline SVG. Colours are CSS variables (`--series-1`, `--depth-1`, ...), so that the
/// page decides how they look on light and dark; the numbers travel along for the page's tooltips.
#pragma once

#include "mor/io/html_text.hpp"
#include "mor/io/svg_scale.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

namespace mor::io {

/// One point of a line. A `y` that is not finite leaves a gap and is marked at the top edge.
struct ChartPoint {
  double x = 0.0, y = 0.0;
};

enum class LineStyle {
  Plain,  ///< a line
  Faint,  ///< a pale line, for raw data behind a smoothed line
  Dotted  ///< a line with a dot on every point, for few points
};

struct ChartSeries {
  std::string name;
  int colour = 1;  ///< n of `--series-n`
  LineStyle style = LineStyle::Plain;
  std::vector<ChartPoint> points;  ///< x ascending
};

struct LineChart {
  std::string title, y_label;
  std::vector<ChartSeries> series;
  double x_low = 0.0, x_high = 1.0;  ///< the horizontal axis
  bool from_zero = false;            ///< the vertical axis begins at 0
  bool logarithmic = false;          ///< the vertical axis is logarithmic; values <= 0 are then left out
  bool wide = false;                 ///< the full width of the page
  double settled_from =
      0.0;  ///< the vertical axis need only hold values from this x on; an earlier line may come in from above
};

/// Shares that add up to 1, stacked.
struct AreaChart {
  std::string title, y_label;
  std::vector<std::string> names;           ///< of the layers, bottom first; layer n has colour `--depth-n`
  double x_low = 0.0, x_high = 1.0;         ///< the horizontal axis
  std::vector<double> x;                    ///< ascending
  std::vector<std::vector<double>> shares;  ///< [point][layer]
};

namespace detail {

/// Where things are on the page, in the units of the SVG's view box.
struct ChartFrame {
  double width, height;
  double left = 52, right, top = 26, bottom;
  AxisScale x, y;

  ChartFrame(bool wide, double x_low, double x_high, AxisScale y_range)
      : width(wide ? 1080 : 528), height(wide ? 330 : 250), right(width - 14), bottom(height - 42), y(y_range) {
    if (!(x_high > x_low)) {  // a run of one step
      double const margin = std::max(1.0, 1e-6 * std::abs(x_high));
      x_low = x_high - margin;
      x_high += margin;
    }
    x = {x_low, x_high, left, right, false};
    y.start = bottom;
    y.end = top;
  }
};

[[nodiscard]] inline std::string coordinate(double value) {
  return fixed(value, 1);
}

/// A step number; beyond what a double counts exactly, only its size.
[[nodiscard]] inline std::string step_text(double step) {
  return std::abs(step) < 9e15 ? grouped(static_cast<Index>(step)) : significant(step, 6);
}

/// At most about `columns` points, without losing what the eye would see: of each column the first, lowest, highest and
/// last. Points that are not finite are all kept.
[[nodiscard]] inline std::vector<ChartPoint> thin_out(std::vector<ChartPoint> const& points, std::size_t columns) {
  if (points.size() <= 2 * columns) return points;
  std::vector<ChartPoint> kept;
  for (std::size_t column = 0; column < columns; ++column) {
    std::size_t const begin = column * points.size() / columns, end = (column + 1) * points.size() / columns;
    std::size_t low = end, high = end;
    std::vector<std::size_t> chosen{begin, end - 1};
    for (std::size_t i = begin; i < end; ++i) {
      if (!std::isfinite(points[i].y)) {
        chosen.push_back(i);
        continue;
      }
      if (low == end || points[i].y < points[low].y) low = i;
      if (high == end || points[i].y > points[high].y) high = i;
    }
    if (low != end) chosen.insert(chosen.end(), {low, high});
    std::sort(chosen.begin(), chosen.end());
    chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
    for (std::size_t const i : chosen) kept.push_back(points[i]);
  }
  return kept;
}

inline void append_axes(std::string& out, ChartFrame const& frame, std::string const& y_label, bool y_is_share) {
  std::string const left = coordinate(frame.left), right = coordinate(frame.right), bottom = coordinate(frame.bottom);
  out += "<g class=\"grid\">";
  std::string labels;
  for (Tick const& tick : axis_ticks(frame.y, 5)) {
    std::string const y = coordinate(frame.y.place(tick.value));
    out += "<line x1=\"" + left + "\" x2=\"" + right + "\" y1=\"" + y + "\" y2=\"" + y + "\"/>";
    labels += "<text class=\"y\" x=\"" + coordinate(frame.left - 8) + "\" y=\"" + y + "\" dy=\"0.32em\">" +
              (y_is_share ? fixed(100 * tick.value, 0) + "%" : tick.label) + "</text>";
  }
  out +=
      "</g><line class=\"axis\" x1=\"" + left + "\" x2=\"" + right + "\" y1=\"" + bottom + "\" y2=\"" + bottom + "\"/>";
  for (Tick const& tick : axis_ticks(frame.x, frame.width > 800 ? 10 : 5)) {
    std::string const x = coordinate(frame.x.place(tick.value));
    labels += "<text class=\"x\" x=\"" + x + "\" y=\"" + coordinate(frame.bottom + 17) + "\">" + tick.label + "</text>";
    out += "<line class=\"axis\" x1=\"" + x + "\" x2=\"" + x + "\" y1=\"" + bottom + "\" y2=\"" +
           coordinate(frame.bottom + 4) + "\"/>";
  }
  out += labels;
  out += "<text class=\"x name\" x=\"" + coordinate((frame.left + frame.right) / 2) + "\" y=\"" +
         coordinate(frame.height - 6) + "\">training step</text>";
  out += "<text class=\"name\" x=\"2\" y=\"11\">" + html_escape(y_label) + "</text>";
}

/// The value as the tooltip shows it; what JSON cannot hold becomes text.
[[nodiscard]] inline std::string json_value(double value) {
  return std::isfinite(value) ? significant(value, 6) : "\"" + non_finite_text(value) + "\"";
}

/// The numbers behind the picture, for the script of the page.
struct ChartData {
  std::string series;

  void append(std::string const& name, std::string const& colour, std::vector<ChartPoint> const& points) {
    std::string x, y;
    for (ChartPoint const& point : points) {
      x += (x.empty() ? "" : ",") + json_value(point.x);
      y += (y.empty() ? "" : ",") + json_value(point.y);
    }
    series += std::string(series.empty() ? "" : ",") + "{\"name\":\"" + html_escape(name) + "\",\"colour\":\"" +
              colour + "\",\"x\":[" + x + "],\"y\":[" + y + "]}";
  }

  [[nodiscard]] std::string element(ChartFrame const& frame, bool share) const {
    return "<script type=\"application/json\">{\"width\":" + json_value(frame.width) +
           ",\"left\":" + json_value(frame.left) + ",\"right\":" + json_value(frame.right) +
           ",\"x0\":" + json_value(frame.x.low) + ",\"x1\":" + json_value(frame.x.high) +
           ",\"share\":" + (share ? "true" : "false") + ",\"series\":[" + series + "]}</script>";
  }
};

[[nodiscard]] inline std::string figure(std::string const& title, std::string const& legend, ChartFrame const& frame,
                                        std::string const& drawing, std::string const& data) {
  std::string const kind = frame.width > 800 ? "chart wide" : "chart";
  return "<figure class=\"" + kind + "\"><figcaption><h2>" + html_escape(title) + "</h2>" + legend +
         "</figcaption><div class=\"plot\"><svg viewBox=\"0 0 " + coordinate(frame.width) + " " +
         coordinate(frame.height) + "\" role=\"img\" aria-label=\"" + html_escape(title) + "\">" + drawing +
         "<line class=\"cross\" y1=\"" + coordinate(frame.top) + "\" y2=\"" + coordinate(frame.bottom) +
         "\" visibility=\"hidden\"/></svg></div><div class=\"tip\" hidden></div>" + data + "</figure>\n";
}

/// Lines cut at the top of the frame; at its other sides there is room for dots and line ends.
[[nodiscard]] inline std::string clipped(ChartFrame const& frame, std::string const& lines) {
  std::string const x = coordinate(frame.left - 6), y = coordinate(frame.top - 1);
  std::string const width = coordinate(frame.right - frame.left + 12),
                    height = coordinate(frame.bottom - frame.top + 6);
  return "<svg x=\"" + x + "\" y=\"" + y + "\" width=\"" + width + "\" height=\"" + height + "\" viewBox=\"" + x + " " +
         y + " " + width + " " + height + "\">" + lines + "</svg>";
}

[[nodiscard]] inline std::string legend_entry(std::string const& name, std::string const& colour,
                                              std::string const& kind) {
  return "<li><i class=\"" + kind + "\" style=\"--c:var(" + colour + ")\"></i>" + html_escape(name) + "</li>";
}

/// A mark at the top edge for a value that the axis cannot show.
inline void append_mark(std::string& out, ChartFrame const& frame, ChartPoint const& point, std::string const& name) {
  std::string const x = coordinate(frame.x.place(point.x)), y = coordinate(frame.top);
  bool const finite = std::isfinite(point.y);
  out += "<path class=\"" + std::string(finite ? "beyond" : "bad") + "\" d=\"M" + x + " " + y +
         (finite ? "l-4 7h8z" : "l-5 -6h10z") + "\"><title>" + html_escape(name) + " at step " + step_text(point.x) +
         ": " + significant(point.y, 5) + "</title></path>";
  if (finite) return;
  out += "<line class=\"bad\" x1=\"" + x + "\" x2=\"" + x + "\" y1=\"" + y + "\" y2=\"" + coordinate(frame.bottom) +
         "\"/>";
}

/// A line, broken where a value is not finite; a value with no neighbour to connect to gets a dot, as do all when
/// Dotted.
inline void append_series(std::string& out, ChartFrame const& frame, ChartSeries const& series,
                          std::vector<ChartPoint> const& points) {
  auto const drawable = [&](std::size_t i) {
    return i < points.size() && std::isfinite(points[i].y) && !(frame.y.logarithmic && points[i].y <= 0);
  };
  // What is far outside would only make the numbers long; the frame cuts the line anyway.
  double const far_up = frame.top - 3 * (frame.bottom - frame.top),
               far_down = frame.bottom + 3 * (frame.bottom - frame.top);
  std::string path, dots;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (!drawable(i)) continue;
    bool const connected = i > 0 && drawable(i - 1);
    std::string const x = coordinate(frame.x.place(points[i].x));
    std::string const y = coordinate(std::clamp(frame.y.place(points[i].y), far_up, far_down));
    path += (connected ? "L" : "M") + x + " " + y;
    if (series.style == LineStyle::Dotted || (!connected && !drawable(i + 1))) {
      dots += "<circle cx=\"" + x + "\" cy=\"" + y + "\" r=\"3\"><title>step " + step_text(points[i].x) + ": " +
              significant(points[i].y, 5) + "</title></circle>";
    }
  }
  out += "<g style=\"--c:var(--series-" + std::to_string(series.colour) + ")\"><path class=\"line" +
         (series.style == LineStyle::Faint ? " faint" : "") + "\" d=\"" + path + "\"/>" + dots + "</g>";
}

/// Marks for all values of a series that the axis cannot show: not finite, or above it after the run has settled.
inline void append_marks(std::string& out, ChartFrame const& frame, LineChart const& chart, ChartSeries const& series) {
  for (ChartPoint const& point : series.points) {
    bool const above = point.y > frame.y.high && point.x >= chart.settled_from;
    if (!std::isfinite(point.y) || above) append_mark(out, frame, point, series.name);
  }
}

/// The values that decide the vertical axis.
[[nodiscard]] inline std::vector<double> deciding_values(LineChart const& chart) {
  std::vector<double> values;
  for (double const from : {chart.settled_from, -std::numeric_limits<double>::infinity()}) {
    for (ChartSeries const& series : chart.series) {
      for (ChartPoint const& point : series.points) {
        bool const shown = std::isfinite(point.y) && (!chart.logarithmic || point.y > 0);
        if (shown && point.x >= from) values.push_back(point.y);
      }
    }
    if (!values.empty()) break;
  }
  return values;
}

}  // namespace detail

/// The chart as an HTML `figure`: caption with legend, picture, numbers.
[[nodiscard]] inline std::string line_chart(LineChart const& chart) {
  detail::ChartFrame const frame(chart.wide, chart.x_low, chart.x_high,
                                 value_range(detail::deciding_values(chart), chart.from_zero, chart.logarithmic));
  std::string drawing, lines, marks, legend;
  detail::ChartData data;
  detail::append_axes(drawing, frame, chart.y_label, false);
  bool marked = false;
  for (ChartSeries const& series : chart.series) {
    std::vector<ChartPoint> const points = detail::thin_out(series.points, chart.wide ? 900 : 450);
    std::string const colour = "--series-" + std::to_string(series.colour);
    detail::append_series(lines, frame, series, points);
    // A smoothed line repeats the gaps of the raw line before it; one mark is enough.
    if (!marked || series.style != LineStyle::Plain) detail::append_marks(marks, frame, chart, series);
    marked = marked || series.style == LineStyle::Faint;
    data.append(series.name, colour, points);
    legend += detail::legend_entry(series.name, colour, series.style == LineStyle::Faint ? "key faint" : "key");
  }
  drawing += detail::clipped(frame, lines) + marks;
  if (chart.series.size() > 1) legend = "<ul class=\"legend\">" + legend + "</ul>";
  return detail::figure(chart.title, chart.series.size() > 1 ? legend : std::string(), frame, drawing,
                        data.element(frame, false));
}

/// The chart as an HTML `figure`, as wide as the page.
[[nodiscard]] inline std::string area_chart(AreaChart const& chart) {
  std::size_t const layers = chart.names.size(), count = chart.x.size();
  AxisScale whole;  // 0 to 1
  detail::ChartFrame const frame(true, chart.x_low, chart.x_high, whole);
  // Averages over equal parts of the run: shares of neighbouring steps differ by noise that would only flicker.
  std::size_t const columns = std::min<std::size_t>(count, 300);
  std::vector<double> base(columns, 0.0);
  std::string drawing, legend;
  detail::ChartData data;
  for (std::size_t layer = 0; layer < layers; ++layer) {
    std::string upper, lower;
    std::vector<ChartPoint> points;
    for (std::size_t column = 0; column < columns; ++column) {
      std::size_t const begin = column * count / columns, end = (column + 1) * count / columns;
      double sum = 0;
      for (std::size_t i = begin; i < end; ++i) sum += layer < chart.shares[i].size() ? chart.shares[i][layer] : 0.0;
      double const share = sum / static_cast<double>(end - begin), x = chart.x[end - 1];
      // The first column begins where the axis does.
      std::string const place = detail::coordinate(frame.x.place(column == 0 ? chart.x.front() : x));
      lower.insert(0, "L" + place + " " + detail::coordinate(frame.y.place(base[column])));
      base[column] = std::min(1.0, base[column] + share);
      upper += (column == 0 ? "M" : "L") + place + " " + detail::coordinate(frame.y.place(base[column]));
      points.push_back({x, share});
    }
    std::string const colour = "--depth-" + std::to_string(layer + 1);
    drawing += "<path class=\"area\" style=\"--c:var(" + colour + ")\" d=\"" + upper + lower + "z\"><title>" +
               html_escape(chart.names[layer]) + "</title></path>";
    data.append(chart.names[layer], colour, points);
    legend += detail::legend_entry(chart.names[layer], colour, "key block");
  }
  detail::append_axes(drawing, frame, chart.y_label, true);
  return detail::figure(chart.title, "<ul class=\"legend\">" + legend + "</ul>", frame, drawing,
                        data.element(frame, true));
}

}  // namespace mor::io
