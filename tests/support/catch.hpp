// SPDX-License-Identifier: Apache-2.0
/// @file
/// The one way tests include Catch2: version 2.13 or 3, whichever is installed, under the names of version 3.
///
/// Same with both: TEST_CASE, SECTION, GENERATE, REQUIRE..., INFO, CAPTURE, Approx, Catch::Matchers::{WithinAbs, WithinRel,
/// ContainsSubstring, StartsWith, EndsWith, Message}, and SKIP("reason " << value), which ctest counts as skipped.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)

#include <catch2/catch_all.hpp>

using Catch::Approx;

#else

#include <catch2/catch.hpp>

#include <sstream>
#include <string>

namespace Catch {
using Detail::Approx;
namespace Matchers {
inline auto ContainsSubstring(std::string const& text, CaseSensitive::Choice sensitivity = CaseSensitive::Yes) {
  return Contains(text, sensitivity);
}
}  // namespace Matchers
}  // namespace Catch

namespace mor::test {

/// How often a test of this program ended in SKIP; the program's main function reads it.
inline int skip_count = 0;

/// Ends the running test without a failure. Version 2 has no such notion, but lets a test end through this exception
/// without counting it.
[[noreturn]] inline void skip(std::string const& reason) {
  ++skip_count;
  WARN("SKIPPED: " << reason);
  throw Catch::TestFailureException();
}

}  // namespace mor::test

#define SKIP(...)                              \
  do {                                         \
    std::ostringstream mor_test_reason;        \
    mor_test_reason << __VA_ARGS__;            \
    mor::test::skip(mor_test_reason.str());    \
  } while (false)

#endif
