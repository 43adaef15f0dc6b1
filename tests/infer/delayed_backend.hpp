// SPDX-License-Identifier: Apache-2.0
/// @file
/// A host backend whose reports reach the caller late, as those of a device do: `arrived` says no until a number of
/// younger reports has been posted, or the caller waits. Work of a loop runs once the first time, as where it is yet to be
/// captured.
#pragma once

#include "mor/backend/host/backend.hpp"

#include <cstdint>
#include <deque>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace mor::test {

template <class T>
class DelayedBackend : public host::Backend<T> {
 public:
  using host::Backend<T>::Backend;

  class Reports {
   public:
    Reports(DelayedBackend&, Index words, Index in_flight) : words_(words), room_(in_flight) {}
    void send(std::span<Row const> words) {
      require(static_cast<Index>(words.size()) <= words_ && !unsettled_, "no room for a report", "DelayedBackend");
      reports_.push_back({{words.begin(), words.end()}, false});
      unsettled_ = true;
    }
    void settle() {
      require(std::exchange(unsettled_, false), "nothing has been sent", "DelayedBackend");
    }
    void expect(Index size) {
      require(pending_ < room_ && !unsettled_ && pending_ + 1 == static_cast<Index>(reports_.size()), "not one report a tick", "DelayedBackend");
      require(size == static_cast<Index>(reports_.back().first.size()), "another report was sent", "DelayedBackend");
      ++pending_;
    }
    void post(std::span<Row const> words) {
      send(words);
      settle();
      expect(static_cast<Index>(words.size()));
    }
    [[nodiscard]] Index pending() const { return pending_; }
    [[nodiscard]] bool arrived() const { return pending_ > 0 && (reports_.front().second || pending_ >= room_); }
    void wait() { reports_.front().second = true; }
    [[nodiscard]] std::span<Row const> front() const {
      require(arrived(), "a report was read before it arrived", "DelayedBackend");
      return reports_.front().first;
    }
    void pop() {
      reports_.pop_front();
      --pending_;
    }

   private:
    Index words_, room_, pending_ = 0;
    bool unsettled_ = false;
    std::deque<std::pair<std::vector<Row>, bool>> reports_;
  };

  /// Says that it captures, so that the engine launches ahead.
  class Replays : public host::Replays {
   public:
    static constexpr bool captures = true;
    using host::Replays::Replays;
    template <class Work>
    void run_while(std::uint64_t key, Work const& work) {
      if (warm_.insert(key).second) return work(Loop{});
      host::Replays::run_while(key, work);
    }

   private:
    std::set<std::uint64_t> warm_;
  };
};

}  // namespace mor::test
