// SPDX-License-Identifier: Apache-2.0
/// @file
/// `PagePool`: which pages of key storage are in use, by how many lists, and which of them only for kept prefixes.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"

#include <vector>

namespace mor::infer {

/// Pages 0 .. size - 1, each counted by its users. Lowest free pages are not preferred: the one freed last is taken first.
class PagePool {
 public:
  explicit PagePool(Index size) : users_(static_cast<std::size_t>(size), 0), keepers_(users_) {
    for (Index page = size - 1; page >= 0; --page) free_.push_back(static_cast<Row>(page));
  }
  [[nodiscard]] Index size() const { return static_cast<Index>(users_.size()); }
  [[nodiscard]] Index free() const { return static_cast<Index>(free_.size()); }
  [[nodiscard]] Index users(Row page) const { return users_[static_cast<std::size_t>(page)]; }
  /// Pages that have no users but keepers: free as soon as those let go.
  [[nodiscard]] Index only_kept() const { return only_kept_; }

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
  void share(Row page) { change(page, 1, 0); }
  /// One user less; the last one frees it.
  void release(Row page) { change(page, -1, 0); }
  /// One more user who would let go of it for others; and one less.
  void keep(Row page) { change(page, 1, 1); }
  void let_go(Row page) { change(page, -1, -1); }

 private:
  void change(Row page, Index users, Index keepers) {
    auto const i = static_cast<std::size_t>(page);
    if (users_[i] == keepers_[i]) --only_kept_;
    users_[i] += users;
    keepers_[i] += keepers;
    if (users_[i] == 0) {
      free_.push_back(page);
    } else if (users_[i] == keepers_[i]) {
      ++only_kept_;
    }
  }

  std::vector<Index> users_, keepers_;  // keepers are users too
  std::vector<Row> free_;
  Index only_kept_ = 0;
};

}  // namespace mor::infer
