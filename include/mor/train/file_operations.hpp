// SPDX-License-Identifier: Apache-2.0
/// @file
/// `FileOperations`: every system call that a checkpoint or a log makes, behind one seam, so that tests can let any of
/// them fail, run out of disk or lose power. Thin on purpose: results and `errno` are those of POSIX.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace mor::train {

/// What a name refers to, not following symbolic links.
struct FileStatus {
  enum class Kind { RegularFile, Directory, Other };
  Kind kind = Kind::Other;
  std::uint64_t size = 0;  ///< bytes
};

/// The calls. Each returns what its POSIX namesake returns: -1 with `errno` set when it failed.
class FileOperations {
 public:
  using Path = std::filesystem::path;

  virtual ~FileOperations() = default;

  virtual int open(Path const& path, int flags, mode_t mode) = 0;
  virtual ssize_t read(int descriptor, void* bytes, std::size_t size) = 0;
  virtual ssize_t write(int descriptor, void const* bytes, std::size_t size) = 0;
  virtual int sync(int descriptor) = 0;
  virtual int truncate(int descriptor, std::uint64_t size) = 0;
  virtual int close(int descriptor) = 0;
  virtual int status(Path const& path, FileStatus& status) = 0;
  virtual int list(Path const& directory, std::vector<std::string>& names) = 0;
  virtual int make_directory(Path const& path) = 0;
  virtual int remove_file(Path const& path) = 0;
  virtual int remove_directory(Path const& path) = 0;
  virtual int rename(Path const& from, Path const& to) = 0;
  /// Swaps two names in one step. ENOSYS where the system or file system cannot.
  virtual int exchange(Path const& first, Path const& second) = 0;

 protected:
  FileOperations() = default;
  FileOperations(FileOperations const&) = default;
  FileOperations& operator=(FileOperations const&) = default;
};

/// The operating system's calls.
class SystemFileOperations final : public FileOperations {
 public:
  int open(Path const& path, int flags, mode_t mode) override { return ::open(path.c_str(), flags | O_CLOEXEC, mode); }
  ssize_t read(int descriptor, void* bytes, std::size_t size) override { return ::read(descriptor, bytes, size); }
  ssize_t write(int descriptor, void const* bytes, std::size_t size) override {
    return ::write(descriptor, bytes, size);
  }
  int sync(int descriptor) override { return ::fsync(descriptor); }
  int truncate(int descriptor, std::uint64_t size) override {
    return ::ftruncate(descriptor, static_cast<off_t>(size));
  }
  int close(int descriptor) override { return ::close(descriptor); }

  int status(Path const& path, FileStatus& status) override {
    struct stat raw {};
    if (::lstat(path.c_str(), &raw) != 0) return -1;
    status.kind = S_ISREG(raw.st_mode)   ? FileStatus::Kind::RegularFile
                  : S_ISDIR(raw.st_mode) ? FileStatus::Kind::Directory
                                         : FileStatus::Kind::Other;
    status.size = static_cast<std::uint64_t>(raw.st_size);
    return 0;
  }

  int list(Path const& directory, std::vector<std::string>& names) override {
    names.clear();
    DIR* const stream = ::opendir(directory.c_str());
    if (stream == nullptr) return -1;
    errno = 0;
    while (dirent const* const entry = ::readdir(stream)) {
      std::string_view const name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
      errno = 0;
    }
    int const reason = errno;
    ::closedir(stream);
    errno = reason;
    return reason == 0 ? 0 : -1;
  }

  int make_directory(Path const& path) override { return ::mkdir(path.c_str(), 0777); }
  int remove_file(Path const& path) override { return ::unlink(path.c_str()); }
  int remove_directory(Path const& path) override { return ::rmdir(path.c_str()); }
  int rename(Path const& from, Path const& to) override { return ::rename(from.c_str(), to.c_str()); }

  int exchange(Path const& first, Path const& second) override {
#if defined(RENAME_EXCHANGE)
    int const result = ::renameat2(AT_FDCWD, first.c_str(), AT_FDCWD, second.c_str(), RENAME_EXCHANGE);
    if (result != 0 && errno == EINVAL) errno = ENOSYS;  // what a file system says that cannot
    return result;
#else
    static_cast<void>(first);
    static_cast<void>(second);
    errno = ENOSYS;
    return -1;
#endif
  }
};

/// The system's calls, for everyone who needs no seam.
[[nodiscard]] inline FileOperations& system_file_operations() {
  static SystemFileOperations operations;
  return operations;
}

}  // namespace mor::train
