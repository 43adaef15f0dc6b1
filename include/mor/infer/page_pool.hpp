// SPDX-License-Identifier: Apache-2.0
/// @file
/// `PagePool`: which pages of key storage are in use, and by how many lists.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"

#include <vector>

namespace mor::infer {

/// Pages 0 .. size - 1, each counted by its users. Lowest free pages are not preferred: the one freed last is taken first.
class PagePool {
 public:
  explicit PagePool(Index size) : users_(static_cast<std::size_t>(size), 0) {
    for (Index page = size - 1; page >= 0; --page) free_.push_back(static_cast<Row>(page));
  }
  [[nodiscard]] Index size() const { return static_cast<Index>(users_.size()); }
  [[nodiscard]] Index free() const { return static_cast<Index>(free_.size()); }
  [[nodiscard]] Index users(Row page) const { return users_[static_cast<std::size_t>(page)]; }

  /// A page with one user; throws OutOfMemory where none is free.
  [[nodiscard]] Row take() {
    if (free_.empty()) {
      fail(ErrorCode::OutOfMemory, "no page is free", "PagePool::take", "a free page", "none of " + text_of(size()));
    }
    Row const page = free_.back();
    free_.pop_back();
    users_[static_cast<std::size_t>(page)] = 1;
    return page;
  }
  /// One more user of a page in use.
  void share(Row page) { ++users_[static_cast<std::size_t>(page)]; }
  /// One user less; the last one frees it.
  void release(Row page) {
    if (--users_[static_cast<std::size_t>(page)] == 0) free_.push_back(page);
  }

 private:
  std::vector<Index> users_;
  std::vector<Row> free_;
};

}  // namespace mor::infer
