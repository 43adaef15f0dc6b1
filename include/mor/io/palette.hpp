// SPDX-License-Identifier: Apache-2.0
/// @file
/// Colours for depths: an ordered scale in which equal steps of depth look like equal steps, for light and dark pages
/// and for terminals, always with a text colour that can be read on it (contrast at least 4.5, WCAG 2.1 AA).
#pragma once

#include "mor/core/error.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>

namespace mor::io {

/// A colour as a screen shows it, each part 0..255.
struct Rgb {
  int red = 0, green = 0, blue = 0;
  bool operator==(Rgb const&) const = default;
};

enum class Theme { Light, Dark };

/// `#rrggbb`.
[[nodiscard]] inline std::string css_colour(Rgb colour) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text = "#";
  for (int const part : {colour.red, colour.green, colour.blue}) text += {digits[part / 16], digits[part % 16]};
  return text;
}

/// Relative luminance, 0 black to 1 white (WCAG 2.1).
[[nodiscard]] inline double luminance(Rgb colour) {
  auto const linear = [](int part) {
    double const value = part / 255.0;
    return value <= 0.04045 ? value / 12.92 : std::pow((value + 0.055) / 1.055, 2.4);
  };
  return 0.2126 * linear(colour.red) + 0.7152 * linear(colour.green) + 0.0722 * linear(colour.blue);
}

/// Contrast ratio of two colours, 1 to 21 (WCAG 2.1).
[[nodiscard]] inline double contrast(Rgb a, Rgb b) {
  double const high = std::max(luminance(a), luminance(b)), low = std::min(luminance(a), luminance(b));
  return (high + 0.05) / (low + 0.05);
}

/// Black or white, whichever reads better on the colour; the better one always reaches 4.5.
[[nodiscard]] inline Rgb text_on(Rgb background) {
  Rgb const black{0, 0, 0}, white{255, 255, 255};
  return contrast(background, black) >= contrast(background, white) ? black : white;
}

namespace detail {

/// OKLCH (lightness 0..1, chroma, hue in degrees) to linear sRGB, which may lie outside 0..1. Constants: B. Ottosson,
/// OKLab.
[[nodiscard]] inline std::array<double, 3> oklch_to_linear(double lightness, double chroma, double hue) {
  double const angle = hue * 3.14159265358979323846 / 180.0;
  double const a = chroma * std::cos(angle), b = chroma * std::sin(angle);
  auto const cube = [](double value) { return value * value * value; };
  double const l = cube(lightness + 0.3963377774 * a + 0.2158037573 * b);
  double const m = cube(lightness - 0.1055613458 * a - 0.0638541728 * b);
  double const s = cube(lightness - 0.0894841775 * a - 1.2914855480 * b);
  return {4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
          -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
          -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s};
}

}  // namespace detail

/// The nearest displayable colour of that lightness and hue: chroma is what gives way.
[[nodiscard]] inline Rgb from_oklch(double lightness, double chroma, double hue) {
  auto const inside = [](std::array<double, 3> const& parts) {
    return std::all_of(parts.begin(), parts.end(), [](double part) { return part > -1e-4 && part < 1.0 + 1e-4; });
  };
  while (chroma > 0 && !inside(detail::oklch_to_linear(lightness, chroma, hue))) chroma = std::max(0.0, chroma - 0.005);
  std::array<int, 3> parts{};
  std::array<double, 3> const linear = detail::oklch_to_linear(lightness, chroma, hue);
  for (std::size_t i = 0; i < 3; ++i) {
    double const value = std::clamp(linear[i], 0.0, 1.0);
    double const encoded = value <= 0.0031308 ? 12.92 * value : 1.055 * std::pow(value, 1.0 / 2.4) - 0.055;
    parts[i] = static_cast<int>(std::lround(255.0 * encoded));
  }
  return {parts[0], parts[1], parts[2]};
}

/// The colour of a depth, 1..max_depth; deeper is further from the page: darker on light pages, brighter on dark ones.
/// Depth 0 (no recursion at all) is grey.
/// @throws mor::error InvalidArgument for a depth outside 0..max_depth
[[nodiscard]] inline Rgb depth_colour(int depth, int max_depth, Theme theme) {
  if (max_depth < 1 || depth < 0 || depth > max_depth) {
    fail(ErrorCode::InvalidArgument, "depth out of range", "depth colour", "0 to " + std::to_string(max_depth),
         std::to_string(depth));
  }
  bool const light = theme == Theme::Light;
  if (depth == 0) return from_oklch(light ? 0.93 : 0.27, 0.0, 0.0);
  double const share = max_depth == 1 ? 0.35 : (depth - 1.0) / (max_depth - 1.0);
  auto const between = [share](double first, double last) { return first + (last - first) * share; };
  return light ? from_oklch(between(0.965, 0.66), between(0.055, 0.125), between(112.0, 264.0))  // lime, teal, blue
               : from_oklch(between(0.31, 0.82), between(0.06, 0.13), between(274.0, 130.0));    // indigo, teal, lime
}

/// The nearest colour of the 256-colour terminal palette's 6 x 6 x 6 cube, as its number (16..231).
[[nodiscard]] inline int terminal_colour(Rgb colour) {
  auto const level = [](int part) {
    static constexpr std::array<int, 6> levels{0, 95, 135, 175, 215, 255};
    int best = 0;
    for (int i = 1; i < 6; ++i) {
      auto const distance = [&](int l) { return std::abs(levels[static_cast<std::size_t>(l)] - part); };
      if (distance(i) < distance(best)) best = i;
    }
    return best;
  };
  return 16 + 36 * level(colour.red) + 6 * level(colour.green) + level(colour.blue);
}

}  // namespace mor::io
