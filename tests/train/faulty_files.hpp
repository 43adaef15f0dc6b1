// SPDX-License-Identifier: Apache-2.0
/// @file
/// File operations that go wrong on purpose, around others that work.
#pragma once

#include "mor/train/file_operations.hpp"

#include <cerrno>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace mor::test {

/// Passes every call on, after asking `before` and before telling `after`.
class InterceptedFiles : public train::FileOperations {
 public:
  enum class Call { Open, Read, Write, Sync, Truncate, Close, Status, List, MakeDirectory, Remove, Rename };

  explicit InterceptedFiles(train::FileOperations& inner) : inner_(inner) {}

  int open(Path const& path, int flags, mode_t mode) override {
    return pass<int>(Call::Open, [&] { return inner_.open(path, flags, mode); });
  }
  ssize_t read(int descriptor, void* bytes, std::size_t size) override {
    return pass<ssize_t>(Call::Read, [&] { return inner_.read(descriptor, bytes, size); });
  }
  ssize_t write(int descriptor, void const* bytes, std::size_t size) override {
    return pass<ssize_t>(Call::Write, [&] { return inner_.write(descriptor, bytes, writable(size)); });
  }
  int sync(int descriptor) override {
    return pass<int>(Call::Sync, [&] { return skips_sync() ? 0 : inner_.sync(descriptor); });
  }
  int truncate(int descriptor, std::uint64_t size) override {
    return pass<int>(Call::Truncate, [&] { return inner_.truncate(descriptor, size); });
  }
  int close(int descriptor) override {
    int const result = inner_.close(descriptor);  // a close that fails has closed
    return pass<int>(Call::Close, [&] { return result; });
  }
  int status(Path const& path, train::FileStatus& status) override {
    return pass<int>(Call::Status, [&] { return inner_.status(path, status); });
  }
  int list(Path const& directory, std::vector<std::string>& names) override {
    return pass<int>(Call::List, [&] { return inner_.list(directory, names); });
  }
  int make_directory(Path const& path) override {
    return pass<int>(Call::MakeDirectory, [&] { return inner_.make_directory(path); });
  }
  int remove_file(Path const& path) override {
    return pass<int>(Call::Remove, [&] { return inner_.remove_file(path); });
  }
  int remove_directory(Path const& path) override {
    return pass<int>(Call::Remove, [&] { return inner_.remove_directory(path); });
  }
  int rename(Path const& from, Path const& to) override {
    return pass<int>(Call::Rename, [&] { return inner_.rename(from, to); });
  }
  int exchange(Path const& first, Path const& second) override {
    return pass<int>(Call::Rename, [&] { return inner_.exchange(first, second); });
  }

 protected:
  /// 0, or the errno with which the call fails instead of being made.
  virtual int before(Call) { return 0; }
  virtual void after(Call) {}
  /// How many of `size` bytes a write takes.
  virtual std::size_t writable(std::size_t size) { return size; }
  /// Whether this sync only pretends.
  virtual bool skips_sync() { return false; }

 private:
  template <class Result, class Function>
  Result pass(Call call, Function const& function) {
    if (int const reason = before(call); reason != 0) {
      errno = reason;
      return -1;
    }
    Result const result = function();
    int const reason = errno;
    after(call);
    errno = reason;
    return result;
  }

  train::FileOperations& inner_;
};

/// Call number `fail_at` (from 1) fails, or with `sticky` every call from it on.
class FailingFiles final : public InterceptedFiles {
 public:
  FailingFiles(train::FileOperations& inner, int fail_at, int reason, bool sticky)
      : InterceptedFiles(inner), fail_at_(fail_at), reason_(reason), sticky_(sticky) {}

  [[nodiscard]] bool tripped() const { return calls_ >= fail_at_; }
  void repair() { fail_at_ = 0x7fffffff; }

 protected:
  int before(Call) override {
    ++calls_;
    return calls_ == fail_at_ || (sticky_ && calls_ > fail_at_) ? reason_ : 0;
  }

 private:
  int calls_ = 0, fail_at_, reason_;
  bool sticky_;
};

/// Every write takes a byte or two less than it was given.
class ShortWritingFiles final : public InterceptedFiles {
 public:
  using InterceptedFiles::InterceptedFiles;

 protected:
  std::size_t writable(std::size_t size) override { return size < 3 ? size : size - 1 - ++calls_ % 2; }

 private:
  std::size_t calls_ = 0;
};

/// Calls `look` after every operation that changes the disk; syncs can be made to do nothing.
class WatchedFiles final : public InterceptedFiles {
 public:
  WatchedFiles(train::FileOperations& inner, std::function<void()> look)
      : InterceptedFiles(inner), look_(std::move(look)) {}

  int forget_sync = 0;  ///< the number of the sync, from 1, that only pretends
  [[nodiscard]] int syncs() const { return syncs_; }

 protected:
  bool skips_sync() override { return ++syncs_ == forget_sync; }
  void after(Call call) override {
    if (call != Call::Read && call != Call::Status && call != Call::List && call != Call::Close) look_();
  }

 private:
  std::function<void()> look_;
  int syncs_ = 0;
};

}  // namespace mor::test
