// SPDX-License-Identifier: Apache-2.0
/// @file
/// Normally distributed numbers from Philox: initial weights, the same in a new model and in a converted one.
#pragma once

#include "mor/core/philox.hpp"
#include "mor/core/types.hpp"

#include <cmath>
#include <cstdint>
#include <numbers>
#include <span>

namespace mor {

/// Fills `into` with the numbers `first`, `first` + 1, ... of a stream of N(0, standard_deviation^2): a pure function
/// of generator and place (Box-Muller, two numbers a block).
template <class Real>
void fill_normal(Philox const& generator, double standard_deviation, Index first, std::span<Real> into) {
  for (std::size_t n = 0; n < into.size();) {
    auto const place = static_cast<std::uint64_t>(first) + n;
    auto const bits = generator.block(place / 2);
    double const radius = std::sqrt(-2.0 * std::log(uniform01(bits[0])));
    double const angle = 2.0 * std::numbers::pi * uniform01(bits[1]);
    if (place % 2 == 0) into[n++] = static_cast<Real>(standard_deviation * radius * std::cos(angle));
    if (n < into.size()) into[n++] = static_cast<Real>(standard_deviation * radius * std::sin(angle));
  }
}

}  // namespace mor
