// SPDX-License-Identifier: Apache-2.0
/// @file
/// Scalar verbs of rows of mixed depth on the host, and how reports reach the caller: at once.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>
#include <span>
#include <vector>

namespace mor::host {

template <class T>
inline void scatter_values(std::span<T const> values, std::span<Row const> rows, std::span<T> out) {
  for (std::size_t i = 0; i < rows.size(); ++i) out[static_cast<std::size_t>(rows[i])] = values[i];
}

template <class T>
inline void pick_columns(View<T const> x, std::span<Row const> columns, Index shift, std::span<T> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i] = x(static_cast<Index>(i), std::min(columns[i] + shift, x.cols - 1));
  }
}

template <class T>
inline void limit_choice(View<T const> probabilities, std::span<Row const> least, std::span<Row const> most,
                         std::span<T> choice, std::span<T> gate) {
  for (std::size_t i = 0; i < choice.size(); ++i) {
    Index const highest = std::min<Index>(most[i], probabilities.cols) - 1;
    Index const chosen = std::clamp<Index>(static_cast<Index>(choice[i]), std::min<Index>(least[i] - 1, highest), highest);
    choice[i] = static_cast<T>(chosen);
    gate[i] = probabilities(static_cast<Index>(i), chosen);
  }
}

template <class T>
inline void choice_weights(std::span<T const> choice, std::span<T const> gate, std::span<Row const> depths,
                           bool gate_intermediate, bool additive, std::span<T> scale, std::span<T> keep,
                           std::span<T> scores) {
  for (std::size_t i = 0; i < depths.size(); ++i) {
    bool const last = static_cast<Row>(choice[i]) <= depths[i];
    scale[i] = !additive && (last || gate_intermediate) ? gate[i] : T(1);
    keep[i] = last ? T(1) : T(0);
    scores[i] = last ? -std::numeric_limits<T>::infinity() : std::numeric_limits<T>::infinity();
  }
}

/// Reports of ticks on their way to the host: here they arrive at once.
class Reports {
 public:
  template <class B>
  Reports(B&, Index words, Index in_flight) : words_(words), room_(in_flight) {}

  void send(std::span<Row const> words) {
    require(static_cast<Index>(words.size()) <= words_, "a report is longer than its room", "Reports::send");
    reports_.emplace_back(words.begin(), words.end());
  }
  void settle() {}
  void expect(Index /*size*/) {
    require(pending_ < room_, "more reports than there is room for", "Reports::expect");
    ++pending_;
  }
  void post(std::span<Row const> words) {
    require(pending_ < room_, "more reports than there is room for", "Reports::post");
    send(words);
    expect(static_cast<Index>(words.size()));
  }
  [[nodiscard]] Index pending() const { return pending_; }
  [[nodiscard]] bool arrived() const { return pending_ > 0; }
  void wait() {}
  [[nodiscard]] std::span<Row const> front() const { return reports_.front(); }
  void pop() {
    reports_.pop_front();
    --pending_;
  }

 private:
  Index words_, room_, pending_ = 0;
  std::deque<std::vector<Row>> reports_;
};

/// Work that may be captured: here it is done.
class Replays {
 public:
  static constexpr bool captures = false;

  template <class B>
  explicit Replays(B&) {}
  template <class Work>
  void run(std::uint64_t /*key*/, Work const& work) {
    work();
  }

  /// Work of a loop is called with this and hands it to `end_tick`, which says here whether there is another round.
  struct Loop {
    bool* again = nullptr;  ///< null: there is none
  };
  template <class Work>
  void run_while(std::uint64_t /*key*/, Work const& work) {
    for (bool again = true; again;) {
      again = false;
      work(Loop{&again});
    }
  }
};

}  // namespace mor::host
