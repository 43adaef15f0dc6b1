// SPDX-License-Identifier: Apache-2.0
#include "common/run_lock.hpp"

#include "mor/core/error.hpp"

#include <sys/file.h>

#include <cerrno>

namespace examples {

RunLock::RunLock(std::filesystem::path const& folder)
    : file_(mor::io::open_file(folder / lock_file, O_RDWR | O_CREAT)) {
  int result = 0;
  do {
    result = ::flock(file_.get(), LOCK_EX | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  // Other failures are of file systems that know no locks; a run there goes without.
  if (result != 0 && errno == EWOULDBLOCK) {
    mor::fail(mor::ErrorCode::InvalidArgument, "another process is training in this folder", folder.string(),
              "its end (Ctrl-C makes it save first), or another --out", "a run that goes on");
  }
}

}  // namespace examples
