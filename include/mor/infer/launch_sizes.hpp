// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sizes of an engine's launches, few of them since each is captured by itself, and the keys that name captured work.
#pragma once

#include "mor/core/types.hpp"

#include <algorithm>
#include <cstdint>

namespace mor::infer {

/// The smallest launch size for `rows`: powers of two, from 16 on one between each two, and from 512 on three.
[[nodiscard]] constexpr Index launch_size(Index rows) {
  Index size = 1;
  while (size < rows) size *= 2;
  if (size < 16) return size;
  Index const step = size / (size <= 512 ? 4 : 8);
  return (rows + step - 1) / step * step;
}

/// The smallest bound of keys of a list for `keys`: attention skips what is not there.
[[nodiscard]] constexpr Index launch_keys(Index keys) {
  Index size = 256;
  while (size < keys) size *= 2;
  return size;
}

/// Sizes of the stages of a launch.
struct LaunchSizes {
  bool padded = false;  ///< only those above
  Index few_rows = 64;  ///< so many are never worth a smaller launch

  [[nodiscard]] constexpr Index rows(Index count) const { return count == 0 || !padded ? count : launch_size(count); }
  [[nodiscard]] constexpr Index keys(Index longest) const { return padded ? launch_keys(longest) : longest; }
  /// Rows for the coda of a tick, of at most `most`: somewhat more than are expected; who finds no room goes next time.
  [[nodiscard]] constexpr Index coda(Index most, Index expected) const {
    if (most <= few_rows) return most;
    return std::min(most, std::max(rows(few_rows), rows(expected + expected / 8 + 8)));
  }
  /// Whether a launch of as many rows as there may be would have so many that are not there that it is better to wait for the last
  /// report, which comes while the prelude runs, and know them. @param loose  of the rows, those that may have left
  [[nodiscard]] constexpr bool too_loose(Index rows, Index decoding, Index loose) const { return rows > few_rows && loose > decoding / 4; }
  /// Rows that make a token, of so many finished ones and at most `room`: where rows are few, all may.
  [[nodiscard]] constexpr Index drawn(Index finished, Index samples, Index room) const {
    if (!padded || samples == 0 || finished > few_rows) return rows(samples);
    return std::min(finished, room);
  }
};

/// What is captured.
enum class LaunchKind : std::uint64_t {
  Tick,
  Recursion,
  Finish,
  Enter,
  Ticks,      ///< as many as the device goes on for
  TickOfNone  ///< a recursion alone, and its report
};

namespace detail {
inline constexpr int kKindBits = 3, kFlagBits = 1, kRowBits = 18, kKeyBits = 23;
}
/// Rows of a launch, and keys of a list, at most.
inline constexpr Index kMostLaunchRows = (Index{1} << detail::kRowBits) - 1;
inline constexpr Index kMostListKeys = (Index{1} << detail::kKeyBits) - 1;

/// Work of a kind depends on two sizes, on the keys of a list at most and on whether no text has more than one row in it, alone.
[[nodiscard]] constexpr std::uint64_t launch_key(LaunchKind kind, Index a, Index b, Index longest, bool rows_apart) {
  using detail::kKindBits, detail::kFlagBits, detail::kRowBits;
  constexpr int kSizes = kKindBits + kFlagBits;
  static_assert(kSizes + 2 * kRowBits + detail::kKeyBits <= 64);
  return static_cast<std::uint64_t>(kind) | (static_cast<std::uint64_t>(rows_apart) << kKindBits) | (static_cast<std::uint64_t>(a) << kSizes) |
         (static_cast<std::uint64_t>(b) << (kSizes + kRowBits)) |
         (static_cast<std::uint64_t>(longest) << (kSizes + 2 * kRowBits));
}

}  // namespace mor::infer
