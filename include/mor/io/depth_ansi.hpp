// SPDX-License-Identifier: Apache-2.0
/// @file
/// The colours of depths in a terminal with 256 colours.
#pragma once

#include "mor/core/types.hpp"
#include "mor/core/visible_text.hpp"
#include "mor/io/html_text.hpp"
#include "mor/io/palette.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace mor::io {

namespace detail {

/// The colour as the terminal will show it, which decides whether black or white reads better on it.
[[nodiscard]] inline Rgb terminal_rgb(int number) {
  static constexpr int levels[] = {0, 95, 135, 175, 215, 255};
  int const cube = number - 16;
  return {levels[cube / 36], levels[cube / 6 % 6], levels[cube % 6]};
}

[[nodiscard]] inline std::string ansi_start(int depth, int max_depth) {
  int const background = terminal_colour(depth_colour(depth, max_depth, Theme::Dark));
  int const text = text_on(terminal_rgb(background)) == Rgb{0, 0, 0} ? 16 : 231;
  return "\x1b[48;5;" + std::to_string(background) + ";38;5;" + std::to_string(text) + "m";
}

inline constexpr std::string_view ansi_end = "\x1b[0m";

}  // namespace detail

/// The text on the colour of its depth. Line breaks stay uncoloured, or terminals would paint to their right edge. What
/// is not text becomes visible as in `visible_text`.
/// @throws mor::error InvalidArgument for a depth outside 0..max_depth
[[nodiscard]] inline std::string ansi_depth(std::string_view text, int depth, int max_depth) {
  std::string const start = detail::ansi_start(depth, max_depth);
  std::string out;
  bool coloured = false;
  auto const colour = [&](bool on) {
    if (on != coloured) out += on ? std::string_view(start) : detail::ansi_end;
    coloured = on;
  };
  for (char const symbol : visible_text(text)) {
    colour(symbol != '\n');
    out += symbol;
  }
  colour(false);
  return out;
}

/// One line that explains the colours: each depth with its count and share, and the mean depth. Without a line break.
/// @param counts  [i]: tokens of depth i + 1, one entry for each recursion of the model
[[nodiscard]] inline std::string ansi_depth_legend(std::vector<Index> const& counts) {
  double total = 0, depths = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    total += static_cast<double>(counts[i]);
    depths += static_cast<double>(counts[i]) * static_cast<double>(i + 1);
  }
  std::string out;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    int const depth = static_cast<int>(i) + 1;
    out += detail::ansi_start(depth, static_cast<int>(counts.size())) + " depth " + std::to_string(depth) + " " +
           std::string(detail::ansi_end) + " " + grouped(counts[i]) +
           (total > 0 ? " (" + percent(static_cast<double>(counts[i]) / total) + ")" : "") + "  ";
  }
  return out + "mean depth " + fixed(total > 0 ? depths / total : 0.0, 3);
}

}  // namespace mor::io
