// SPDX-License-Identifier: Apache-2.0
/// @file
/// A file seen as memory, read-only: pages come from disk when they are touched, and are shared with other processes.
#pragma once

#include "mor/core/error.hpp"
#include "mor/io/file.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <utility>

namespace mor::io {

/// A read-only mapping of a whole regular file.
///
/// A mapping is a window, not a copy: if another process truncates the file meanwhile, touching the lost part raises
/// SIGBUS, and no library can turn that into an error. Files replaced by rename (as `write_file` does) are safe. Read
/// the file instead of mapping it where that cannot be ruled out.
class MappedFile {
 public:
  MappedFile() = default;

  /// @throws mor::error IoFailure
  explicit MappedFile(std::filesystem::path const& path) {
    FileDescriptor file = open_file(path, O_RDONLY);
    std::uint64_t const size = regular_file_size(file, path);
    if (size > 0) {
      void* const address = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_SHARED, file.get(), 0);
      if (address == MAP_FAILED) detail::fail_errno("cannot map the file", path, errno);
      bytes_ = {static_cast<std::byte const*>(address), static_cast<std::size_t>(size)};
    }
    if (regular_file_size(file, path) != size) {
      release();
      fail(ErrorCode::IoFailure, "the file changed its size while it was opened", path.string());
    }
    file.close(path);
  }

  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    if (this != &other) {
      release();
      bytes_ = std::exchange(other.bytes_, {});
    }
    return *this;
  }
  MappedFile(MappedFile const&) = delete;
  MappedFile& operator=(MappedFile const&) = delete;
  ~MappedFile() { release(); }

  [[nodiscard]] std::span<std::byte const> bytes() const noexcept { return bytes_; }

  /// Takes the pages that lie wholly inside `part` out of this process's memory. They stay in the system's cache and
  /// come back when they are touched.
  void release_pages(std::span<std::byte const> part) const noexcept {
    auto const page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    auto const begin = static_cast<std::size_t>(part.data() - bytes_.data());
    std::size_t const first = (begin + page - 1) / page * page, last = (begin + part.size()) / page * page;
    if (first < last) ::madvise(const_cast<std::byte*>(bytes_.data()) + first, last - first, MADV_DONTNEED);
  }

 private:
  void release() noexcept {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
    bytes_ = {};
  }

  std::span<std::byte const> bytes_;
};

}  // namespace mor::io
