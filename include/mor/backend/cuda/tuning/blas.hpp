// SPDX-License-Identifier: Apache-2.0
/// @file
/// Memory that cuBLASLt is given. Plain C++.
#pragma once

#include "mor/core/types.hpp"

namespace mor::cuda::tuning {

/// A backend holds this much as long as it lives, for sums of split products.
inline constexpr Index kBlasWorkspaceBytes = Index{64} << 20;

}  // namespace mor::cuda::tuning
