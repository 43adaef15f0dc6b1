// SPDX-License-Identifier: Apache-2.0
/// @file
/// `DurableFiles`: the steps of a crash-safe protocol on top of `FileOperations`, with every result checked, signals
/// and short writes handled, and failures turned into `mor::error`.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/train/crc32c.hpp"
#include "mor/train/file_operations.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

namespace mor::train {

/// Size and checksum of a file's content.
struct FileDigest {
  std::uint64_t size = 0;  ///< bytes
  std::uint32_t crc32c = 0;
  bool operator==(FileDigest const&) const = default;
};

/// An open file of a `FileOperations`, closed when the object goes.
class OpenFile {
 public:
  OpenFile(FileOperations& operations, int descriptor) : operations_(&operations), descriptor_(descriptor) {}
  OpenFile(OpenFile&& other) noexcept
      : operations_(other.operations_), descriptor_(std::exchange(other.descriptor_, -1)) {}
  OpenFile& operator=(OpenFile&& other) noexcept {
    std::swap(operations_, other.operations_);
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  OpenFile(OpenFile const&) = delete;
  OpenFile& operator=(OpenFile const&) = delete;
  ~OpenFile() {
    if (descriptor_ >= 0) operations_->close(descriptor_);
  }

  [[nodiscard]] int get() const { return descriptor_; }
  [[nodiscard]] int release() { return std::exchange(descriptor_, -1); }

 private:
  FileOperations* operations_;
  int descriptor_;
};

/// Checked file steps. All throw mor::error IoFailure with the path and the system's reason.
class DurableFiles {
 public:
  using Path = std::filesystem::path;

  explicit DurableFiles(FileOperations& operations) : operations_(&operations) {}

  [[nodiscard]] OpenFile open(Path const& path, int flags) const {
    bool const writes = (flags & O_ACCMODE) != O_RDONLY;
    int const descriptor = retried([&] { return operations_->open(path, flags, 0666); });
    if (descriptor < 0) stop(writes ? "cannot open the file for writing" : "cannot open the file for reading", path);
    return OpenFile(*operations_, descriptor);
  }

  /// Closes and reports: on some file systems an earlier write error only appears here.
  void close(OpenFile& file, Path const& path) const {
    // After EINTR the descriptor is gone on Linux; a second close could hit a stranger's file.
    if (operations_->close(file.release()) != 0 && errno != EINTR) stop("cannot close the file", path);
  }

  /// Writes everything, going on after short writes and signals.
  void write(OpenFile const& file, Path const& path, std::string_view text) const {
    while (!text.empty()) {
      ssize_t const count = retried([&] { return operations_->write(file.get(), text.data(), text.size()); });
      if (count == 0) errno = EIO;
      if (count <= 0) stop("cannot write the file", path);
      text.remove_prefix(static_cast<std::size_t>(count));
    }
  }

  /// Waits until the file's bytes are on disk. Not repeated after a failure: the kernel may have dropped the bytes.
  void sync(OpenFile const& file, Path const& path) const {
    if (retried([&] { return operations_->sync(file.get()); }) != 0) stop("cannot flush the file to disk", path);
  }

  void truncate(OpenFile const& file, Path const& path, std::uint64_t size) const {
    if (retried([&] { return operations_->truncate(file.get(), size); }) != 0) stop("cannot shorten the file", path);
  }

  /// Creates a file, or replaces its content, and waits until the bytes are on disk.
  void write_file(Path const& path, std::string_view text) const {
    OpenFile file = open(path, O_WRONLY | O_CREAT | O_TRUNC);
    write(file, path, text);
    sync(file, path);
    close(file, path);
  }

  /// Gives a file's bytes to `take` piece by piece until it returns false or the file ends.
  /// @throws mor::error MalformedFile when the disk cannot give the bytes back (EIO)
  template <class Take>
  void read_pieces(Path const& path, Take const& take) const {
    OpenFile file = open(path, O_RDONLY);
    std::array<std::byte, 16384> piece;
    for (;;) {
      ssize_t const count = retried([&] { return operations_->read(file.get(), piece.data(), piece.size()); });
      if (count < 0 && errno == EIO) {
        fail(ErrorCode::MalformedFile, "the disk cannot read this file back", path.string());
      }
      if (count < 0) stop("cannot read the file", path);
      if (count == 0 || !take(std::span<std::byte const>(piece.data(), static_cast<std::size_t>(count)))) break;
    }
    close(file, path);
  }

  /// The first `limit` bytes of a file; fails as `read_pieces`.
  [[nodiscard]] std::string read_file(Path const& path, std::size_t limit) const {
    std::string text;
    read_pieces(path, [&](std::span<std::byte const> bytes) {
      std::size_t const count = std::min(bytes.size(), limit - text.size());
      text.append(reinterpret_cast<char const*>(bytes.data()), count);
      return text.size() < limit;
    });
    return text;
  }

  /// Size and checksum, from reading the whole file; fails as `read_pieces`.
  [[nodiscard]] FileDigest digest(Path const& path) const {
    Crc32c checksum;
    std::uint64_t size = 0;
    read_pieces(path, [&](std::span<std::byte const> bytes) {
      checksum.update(bytes);
      size += bytes.size();
      return true;
    });
    return {size, checksum.value()};
  }

  /// Waits until a file that someone else wrote is on disk.
  void sync_file(Path const& path) const {
    OpenFile file = open(path, O_RDONLY);
    sync(file, path);
    close(file, path);
  }

  /// Waits until a folder's entries (names created, renamed, removed) are on disk.
  void sync_directory(Path const& path) const {
    OpenFile folder = open(path, O_RDONLY | O_DIRECTORY);
    // Some file systems cannot flush a folder and say EINVAL; there is nothing more to be done on them.
    if (retried([&] { return operations_->sync(folder.get()); }) != 0 && errno != EINVAL) {
      stop("cannot flush the folder to disk", path);
    }
    close(folder, path);
  }

  /// What a name refers to; nothing when there is no such name.
  [[nodiscard]] std::optional<FileStatus> status(Path const& path) const {
    FileStatus status;
    if (retried([&] { return operations_->status(path, status); }) == 0) return status;
    if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
    stop("cannot query the file", path);
  }

  /// The names in a folder, sorted.
  [[nodiscard]] std::vector<std::string> list(Path const& directory) const {
    std::vector<std::string> names;
    if (retried([&] { return operations_->list(directory, names); }) != 0) stop("cannot list the folder", directory);
    std::sort(names.begin(), names.end());
    return names;
  }

  void make_directory(Path const& path) const {
    if (retried([&] { return operations_->make_directory(path); }) != 0) stop("cannot create the folder", path);
  }

  /// Creates a folder and its missing parents; each new name is on disk when this returns.
  void make_directories(Path const& path) const {
    if (path.empty() || status(path)) return;
    Path const parent = path.parent_path();
    make_directories(parent);
    if (!path.has_filename()) return;  // a trailing slash: the parent is the folder itself
    make_directory(path);
    sync_directory(parent.empty() ? Path(".") : parent);
  }

  void rename(Path const& from, Path const& to) const {
    if (retried([&] { return operations_->rename(from, to); }) != 0) stop("cannot rename to " + to.string(), from);
  }

  /// Swaps two names in one step.
  void exchange(Path const& first, Path const& second) const {
    if (retried([&] { return operations_->exchange(first, second); }) != 0) {
      stop("cannot swap names with " + second.string(), first);
    }
  }

  /// Removes a file, or a folder with everything in it; links are removed, not followed. Nothing there is no error.
  void remove_tree(Path const& path) const {
    std::optional<FileStatus> const found = status(path);
    if (!found) return;
    bool const is_directory = found->kind == FileStatus::Kind::Directory;
    if (is_directory) {
      for (std::string const& name : list(path)) remove_tree(path / name);
    }
    int const result = retried(
        [&] { return is_directory ? operations_->remove_directory(path) : operations_->remove_file(path); });
    if (result != 0) stop("cannot remove", path);
  }

 private:
  /// Repeats a call that a signal interrupted, but not for ever.
  template <class Call>
  static std::invoke_result_t<Call const&> retried(Call const& call) {
    auto result = call();
    for (int attempt = 0; result < 0 && errno == EINTR && attempt < 100; ++attempt) result = call();
    return result;
  }

  [[noreturn]] static void stop(std::string const& what, Path const& path) {
    int const reason = errno;
    fail(ErrorCode::IoFailure, what + ": " + std::generic_category().message(reason), path.string());
  }

  FileOperations* operations_;
};

}  // namespace mor::train
