// SPDX-License-Identifier: Apache-2.0
/// @file
/// Architecture tags: which instructions a kernel variant is built from. Plain C++, so that g++ can test tile sizes.
#pragma once

namespace mor::cuda {

/// mma.sync and cp.async: runs on every device from compute capability 8.0 on.
struct Sm80 {
  static constexpr int capability = 80;
  static constexpr char const* name = "sm_80";
};

/// wgmma, TMA and mbarrier: Hopper only, built for sm_90a.
struct Sm90 {
  static constexpr int capability = 90;
  static constexpr char const* name = "sm_90a";
};

}  // namespace mor::cuda
