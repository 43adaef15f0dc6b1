// SPDX-License-Identifier: Apache-2.0
/// @file
/// Philox4x32-10, a counter-based random generator: the state of a stream is two integers, so every random
/// choice can be repeated, resumed and computed in parallel. Source: Salmon, Moraes, Dror, Shaw, "Parallel random
/// numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include "mor/core/types.hpp"

#include <array>
#include <cstdint>

namespace mor {

/// One keyed generator. `block(counter)` is a pure function: 128 random bits for each 128-bit counter.
struct Philox {
  std::uint64_t key = 0;

  [[nodiscard]] constexpr std::array<std::uint32_t, 4> block(std::uint64_t counter_low,
                                                             std::uint64_t counter_high = 0) const {
    auto const low = [](std::uint64_t value) { return static_cast<std::uint32_t>(value & 0xffffffffULL); };
    auto const high = [](std::uint64_t value) { return static_cast<std::uint32_t>(value >> 32U); };
    std::uint32_t c0 = low(counter_low), c1 = high(counter_low), c2 = low(counter_high), c3 = high(counter_high);
    std::uint32_t k0 = low(key), k1 = high(key);
    for (int round = 0; round < 10; ++round) {
      std::uint64_t const p0 = 0xD2511F53ULL * c0;
      std::uint64_t const p1 = 0xCD9E8D57ULL * c2;
      std::uint32_t const n0 = high(p1) ^ c1 ^ k0;
      std::uint32_t const n2 = high(p0) ^ c3 ^ k1;
      c1 = low(p1);
      c3 = low(p0);
      c0 = n0;
      c2 = n2;
      k0 += 0x9E3779B9U;
      k1 += 0xBB67AE85U;
    }
    return {c0, c1, c2, c3};
  }
};

/// Random 32 bits to a double in the open interval (0, 1); never 0, so that its logarithm is finite.
[[nodiscard]] constexpr double uniform01(std::uint32_t bits) {
  return (static_cast<double>(bits) + 0.5) * (1.0 / 4294967296.0);
}

/// Mixes a seed and a purpose into a Philox key, so that two purposes never share a stream (SplitMix64 finaliser).
[[nodiscard]] constexpr std::uint64_t stream_key(std::uint64_t seed, std::uint64_t purpose) {
  std::uint64_t mixed = seed + 0x9E3779B97F4A7C15ULL * (purpose + 1);
  mixed = (mixed ^ (mixed >> 30U)) * 0xBF58476D1CE4E5B9ULL;
  mixed = (mixed ^ (mixed >> 27U)) * 0x94D049BB133111EBULL;
  return mixed ^ (mixed >> 31U);
}

}  // namespace mor
