// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a backend tells a profiler. Plain C++.
#pragma once

namespace mor::cuda::tuning {

/// Whether each verb is a named range on a profiler's time line (NVTX). Without a profiler a range is one comparison; with
/// `false` here it is nothing.
inline constexpr bool kProfilerRanges = true;

}  // namespace mor::cuda::tuning
