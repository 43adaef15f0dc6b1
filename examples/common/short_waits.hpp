// SPDX-License-Identifier: Apache-2.0
/// @file
/// How long the threads of a program wait for each other before they sleep.
#pragma once

namespace examples {

/// Starts the program anew with GOMP_SPINCOUNT=2000. Call it first in `main`.
///
/// GCC's OpenMP spins about ten milliseconds at each barrier by default, so that on a machine with other work a step
/// takes fifty times as long; and it reads the variable only while it is loaded. Does nothing where GOMP_SPINCOUNT or
/// OMP_WAIT_POLICY is set (so it happens once), where there is one thread or another OpenMP, and where the program's
/// own file cannot be told.
void shorten_waits(char** argv);

}  // namespace examples
