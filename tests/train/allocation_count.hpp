// SPDX-License-Identifier: Apache-2.0
/// @file
/// How often this test program has allocated memory with `new`, in any of its files.
#pragma once

namespace mor::test {

[[nodiscard]] long allocation_count();

}  // namespace mor::test
