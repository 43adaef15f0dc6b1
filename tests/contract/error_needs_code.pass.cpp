// SPDX-License-Identifier: Apache-2.0
// A failure is reported with a code of the library, which programs can branch on.
#include "mor/core/error.hpp"

void report() { mor::fail(mor::ErrorCode::InvalidArgument, "negative", "size"); }
