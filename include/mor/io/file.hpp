// SPDX-License-Identifier: Apache-2.0
/// @file
/// Whole files in and out through POSIX calls whose every result is checked: a file that was written is either the old
/// one or the complete new one, on disk, whatever kills the process in between.
#pragma once

#include "mor/core/error.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace mor::io {

namespace detail {

/// Throws IoFailure for a system call that set `errno`.
[[noreturn]] inline void fail_errno(std::string const& what, std::filesystem::path const& path, int errno_value) {
  fail(ErrorCode::IoFailure, what + ": " + std::generic_category().message(errno_value), path.string());
}

}  // namespace detail

/// An open file descriptor, closed when the object goes.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int descriptor) noexcept : descriptor_(descriptor) {}
  FileDescriptor(FileDescriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    if (this != &other) {
      discard();
      descriptor_ = std::exchange(other.descriptor_, -1);
    }
    return *this;
  }
  FileDescriptor(FileDescriptor const&) = delete;
  FileDescriptor& operator=(FileDescriptor const&) = delete;
  ~FileDescriptor() { discard(); }

  [[nodiscard]] bool is_open() const noexcept { return descriptor_ >= 0; }
  [[nodiscard]] int get() const noexcept { return descriptor_; }

  /// Closes and reports a failure: on some file systems an earlier write error only appears here.
  void close(std::filesystem::path const& path) {
    if (descriptor_ < 0) return;
    int const result = ::close(std::exchange(descriptor_, -1));
    // After EINTR the descriptor is gone on Linux, and a second close could hit a stranger's file.
    if (result != 0 && errno != EINTR) detail::fail_errno("cannot close the file", path, errno);
  }

 private:
  void discard() noexcept {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
  }

  int descriptor_ = -1;
};

/// Opens a file, restarting after signals; the descriptor does not leak into child processes.
/// @throws mor::error IoFailure with the path and the system's reason
[[nodiscard]] inline FileDescriptor open_file(std::filesystem::path const& path, int flags, mode_t mode = 0666) {
  for (;;) {
    int const descriptor = ::open(path.c_str(), flags | O_CLOEXEC, mode);
    if (descriptor >= 0) return FileDescriptor(descriptor);
    if (errno == EINTR) continue;
    bool const writes = (flags & O_ACCMODE) != O_RDONLY;
    detail::fail_errno(writes ? "cannot open the file for writing" : "cannot open the file for reading", path, errno);
  }
}

/// Size in bytes of an open regular file; anything else (folder, pipe, device) is refused.
[[nodiscard]] inline std::uint64_t regular_file_size(FileDescriptor const& file, std::filesystem::path const& path) {
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) detail::fail_errno("cannot query the file", path, errno);
  if (!S_ISREG(status.st_mode)) fail(ErrorCode::IoFailure, "not a regular file", path.string());
  return static_cast<std::uint64_t>(status.st_size);
}

/// Reads up to `into.size()` bytes, fewer only at the end of the file. Returns the number of bytes read.
[[nodiscard]] inline std::size_t read_some(FileDescriptor const& file, std::filesystem::path const& path,
                                           std::span<std::byte> into) {
  std::size_t done = 0;
  while (done < into.size()) {
    ssize_t const count = ::read(file.get(), into.data() + done, into.size() - done);
    if (count == 0) break;
    if (count > 0) done += static_cast<std::size_t>(count);
    if (count < 0 && errno != EINTR) detail::fail_errno("cannot read the file", path, errno);
  }
  return done;
}

/// Writes all of `bytes`, restarting after short writes and signals.
inline void write_all(FileDescriptor const& file, std::filesystem::path const& path, std::span<std::byte const> bytes) {
  while (!bytes.empty()) {
    ssize_t const count = ::write(file.get(), bytes.data(), bytes.size());
    if (count > 0) bytes = bytes.subspan(static_cast<std::size_t>(count));
    if (count == 0) detail::fail_errno("cannot write the file", path, EIO);
    if (count < 0 && errno != EINTR) detail::fail_errno("cannot write the file", path, errno);
  }
}

/// Waits until the file's bytes are on disk.
inline void sync_file(FileDescriptor const& file, std::filesystem::path const& path) {
  while (::fsync(file.get()) != 0) {
    if (errno != EINTR) detail::fail_errno("cannot flush the file to disk", path, errno);
  }
}

/// Waits until a folder's entries (names created, renamed, removed) are on disk. An empty path is the current folder.
inline void sync_directory(std::filesystem::path const& directory) {
  std::filesystem::path const path = directory.empty() ? std::filesystem::path(".") : directory;
  FileDescriptor folder = open_file(path, O_RDONLY | O_DIRECTORY);
  // Some file systems cannot flush a folder and say EINVAL; there is nothing more to be done on them.
  while (::fsync(folder.get()) != 0) {
    if (errno == EINVAL) break;
    if (errno != EINTR) detail::fail_errno("cannot flush the folder to disk", path, errno);
  }
  folder.close(path);
}

/// How a FileWriter makes its bytes visible under the target's name.
enum class WriteMode {
  Replace,  ///< temporary file beside the target, renamed over it by `commit`; a reader sees old or new, never a part
  InPlace   ///< the target itself, created or truncated; for files inside a folder that is renamed as a whole
};

/// Writes one file piece by piece. Nothing counts until `commit` returns; without it, `Replace` leaves no trace.
class FileWriter {
 public:
  /// @throws mor::error IoFailure, also when the target exists and is not a regular file (a rename would destroy it)
  explicit FileWriter(std::filesystem::path target, WriteMode mode = WriteMode::Replace)
      : target_(std::move(target)), mode_(mode) {
    struct stat status {};
    if (::stat(target_.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) {
      fail(ErrorCode::IoFailure, "the target of a write is not a regular file", target_.string());
    }
    if (mode_ == WriteMode::InPlace) {
      open_path_ = target_;
      file_ = open_file(open_path_, O_WRONLY | O_CREAT | O_TRUNC);
    } else {
      open_temporary();
    }
  }

  FileWriter(FileWriter const&) = delete;
  FileWriter& operator=(FileWriter const&) = delete;
  ~FileWriter() {
    if (!committed_ && mode_ == WriteMode::Replace) ::unlink(open_path_.c_str());
  }

  void write(std::span<std::byte const> bytes) { write_all(file_, target_, bytes); }
  void write(std::string_view text) { write(std::as_bytes(std::span<char const>(text.data(), text.size()))); }

  /// Flushes to disk, closes and, with `Replace`, renames onto the target and flushes its folder.
  void commit() {
    sync_file(file_, target_);
    file_.close(target_);
    if (mode_ == WriteMode::Replace) {
      if (::rename(open_path_.c_str(), target_.c_str()) != 0) {
        detail::fail_errno("cannot rename the finished file into place", target_, errno);
      }
      committed_ = true;
      sync_directory(target_.parent_path());
    }
    committed_ = true;
  }

 private:
  /// A name no one else has: the process, a counter, and O_EXCL against a leftover of an earlier process.
  void open_temporary() {
    static std::atomic<unsigned> counter{0};
    for (;;) {
      open_path_ = target_.parent_path() / (".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter++));
      int const descriptor = ::open(open_path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (descriptor >= 0) {
        file_ = FileDescriptor(descriptor);
        return;
      }
      if (errno == EEXIST || errno == EINTR) continue;
      detail::fail_errno("cannot create a temporary file beside the target", target_, errno);
    }
  }

  std::filesystem::path target_;
  std::filesystem::path open_path_;
  WriteMode mode_;
  FileDescriptor file_;
  bool committed_ = false;
};

/// The whole content of a regular file.
/// @throws mor::error IoFailure with the path and the system's reason
[[nodiscard]] inline std::string read_file(std::filesystem::path const& path) {
  FileDescriptor file = open_file(path, O_RDONLY);
  std::uint64_t const size = regular_file_size(file, path);
  // One byte beyond the reported size shows the end of the file; files in /proc report 0 and are longer.
  std::string text(static_cast<std::size_t>(size) + 1, '\0');
  std::size_t length = 0;
  for (;;) {
    std::span<char> const rest(text.data() + length, text.size() - length);
    length += read_some(file, path, std::as_writable_bytes(rest));
    if (length < text.size()) break;
    text.resize(text.size() * 2 + 4096);
  }
  file.close(path);
  text.resize(length);
  return text;
}

/// Replaces a file's content in one step: after a crash at any time the file holds the old content or `text`, whole.
/// @throws mor::error IoFailure with the path and the system's reason; the old file is then untouched
inline void write_file(std::filesystem::path const& path, std::string_view text) {
  FileWriter writer(path);
  writer.write(text);
  writer.commit();
}

}  // namespace mor::io
