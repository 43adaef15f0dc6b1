// SPDX-License-Identifier: Apache-2.0
/// @file
/// The name under which these tests use the host's scratch sizes.
#pragma once

#include "mor/backend/host/scratch_size.hpp"

namespace mor::test {

template <class T>
using HostScratch = host::ScratchSize<T>;

}  // namespace mor::test
