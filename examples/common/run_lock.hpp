// SPDX-License-Identifier: Apache-2.0
/// @file
/// Keeps two processes from training in one folder.
#pragma once

#include "mor/io/file.hpp"

#include <filesystem>

namespace examples {

inline constexpr char lock_file[] = "run.lock";

/// While it lives, no one else has a lock on the folder; it ends with the process, however that ends. The file stays.
class RunLock {
 public:
  /// @throws mor::error InvalidArgument when another process has the folder
  explicit RunLock(std::filesystem::path const& folder);

 private:
  mor::io::FileDescriptor file_;
};

}  // namespace examples
