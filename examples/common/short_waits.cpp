// SPDX-License-Identifier: Apache-2.0
#include "common/short_waits.hpp"

#include "mor/backend/host/parallel.hpp"

#include <sys/auxv.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

namespace examples {

void shorten_waits(char** argv) {
#if defined(_OPENMP) && defined(__GNUC__) && !defined(__clang__)
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  if (mor::host::resolve_threads(0) < 2) return;
  // Without an interpreter to load it, this is a static program, or one that ld.so was told to run: then the file is
  // that of ld.so.
  if (::getauxval(AT_BASE) == 0) return;
  // By its name, not as /proc/self/exe, so that ps and pkill go on knowing the program by it.
  std::error_code problem;
  auto const program = std::filesystem::read_symlink("/proc/self/exe", problem);
  if (problem || ::setenv("GOMP_SPINCOUNT", "2000", 0) != 0) return;
  ::execv(program.c_str(), argv);
  // No one can start it again; then it goes on as it is.
#else
  static_cast<void>(argv);
#endif
}

}  // namespace examples
