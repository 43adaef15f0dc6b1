// SPDX-License-Identifier: Apache-2.0
/// @file
/// Finds the depth threshold of a request at which a trained router spends the recursions of its capacities.
#pragma once

#include "mor/core/capacity.hpp"

#include <cmath>
#include <cstdio>
#include <string>

namespace mor::bench {

/// Recursions of a token on average if every recursion kept its capacity: 1.5, 2 and 2.5 for MoR-2, 3 and 4.
[[nodiscard]] inline double capacity_depth(RecursionConfig const& recursion) {
  double depth = 0.0;
  for (Index r = 0; r < recursion.num_recursions; ++r) depth += capacity(recursion, r);
  return depth;
}

struct DepthCalibration {
  double target = 0.0;     ///< mean depth that was wanted
  double own_depth = 0.0;  ///< at threshold 0, as trained
  double threshold = 0.0;  ///< the best that was found
  double depth = 0.0;      ///< there
  bool reached = false;    ///< within `tolerance`
  std::string remark = {}; ///< why not, where it was not
  static constexpr double tolerance = 0.02;
};

/// Bisection between thresholds that are too deep and too shallow. `depth_at(threshold)` serves a seeded list of requests and
/// returns the mean depth, which falls as the threshold rises: not strictly, since another depth gives another text.
template <class Measure>
[[nodiscard]] DepthCalibration calibrate_depth(double target, Measure const& depth_at) {
  DepthCalibration result;
  result.target = target;
  result.own_depth = result.depth = depth_at(0.0);
  auto const close = [&](double depth) { return std::abs(depth - target) <= DepthCalibration::tolerance; };
  auto const try_at = [&](double threshold) {
    double const depth = depth_at(threshold);
    if (std::abs(depth - target) < std::abs(result.depth - target)) {
      result.depth = depth;
      result.threshold = threshold;
    }
    return depth;
  };
  // Outwards until the target is passed. Logits have no scale of their own.
  bool const too_deep = result.own_depth > target;
  double near = 0.0, near_depth = result.own_depth, far = 0.0, far_depth = result.own_depth;
  for (double step = 0.25; !close(result.depth) && (far_depth > target) == too_deep && step <= 256.0; step *= 4.0) {
    near = far;
    near_depth = far_depth;
    far = too_deep ? step : -step;
    far_depth = try_at(far);
  }
  bool const passed = (far_depth > target) != too_deep;
  for (int halving = 0; passed && !close(result.depth) && halving < 16; ++halving) {
    double const middle = 0.5 * (near + far), depth = try_at(middle);
    bool const on_near_side = (depth > target) == too_deep;
    (on_near_side ? near : far) = middle;
    (on_near_side ? near_depth : far_depth) = depth;
  }
  result.reached = close(result.depth);
  if (result.reached) return result;
  char text[160];
  if (passed) {
    std::snprintf(text, sizeof text, "scores tie or saturate: depth %.2f at threshold %.4g, %.2f at %.4g", near_depth, near,
                  far_depth, far);
  } else {
    std::snprintf(text, sizeof text, "depth is %.2f even at threshold %.4g", far_depth, far);
  }
  result.remark = text;
  return result;
}

}  // namespace mor::bench
