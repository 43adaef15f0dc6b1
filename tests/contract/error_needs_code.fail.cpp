// SPDX-License-Identifier: Apache-2.0
// A bare number is no error code.
// expected-error(gcc): cannot convert 'int' to 'mor::ErrorCode'
// expected-error(clang): cannot initialize a parameter of type 'mor::ErrorCode' with an rvalue of type 'int'
#include "mor/core/error.hpp"

void report() { mor::fail(2, "negative", "size"); }
