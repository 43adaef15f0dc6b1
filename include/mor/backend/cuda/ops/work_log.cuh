// SPDX-License-Identifier: Apache-2.0
/// @file
/// A fingerprint of the work that the host asks of the device, so that a captured graph is launched again only for the very
/// same work.
#pragma once

#include "mor/core/dtype.hpp"
#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cstdint>
#include <type_traits>

namespace mor::cuda {

/// Thrown through work that turns out to wait for the device while it is only being compared with a graph, or captured in one.
struct WorkDiverged {};

/// Every launch, product and upload passes by here. In the state `Compare` nothing is enqueued: the host's part of the work
/// runs, and its fingerprint tells whether the device's part is the captured one. In the state `Capture` the work goes into a
/// graph, and none of it runs. In the state `Replay` the work is one that a graph will repeat without the host.
class WorkLog {
 public:
  enum class State { Run, Compare, Capture, Replay };

  void begin(State state) {
    state_ = state;
    fingerprint_ = 1469598103934665603ULL;  // FNV-1a
    waits_ = 0;
  }
  [[nodiscard]] bool compares() const { return state_ == State::Compare; }
  [[nodiscard]] std::uint64_t fingerprint() const { return fingerprint_; }
  [[nodiscard]] int waits() const { return waits_; }

  /// Adds arguments of a kernel: numbers, addresses, views, arrays of these, and structures. A structure's `note_to(log)`, or
  /// `note_to(log, structure)`, notes what in it does not follow from the rest: its bytes do not tell, since there may be padding.
  template <class... T>
  void note(T const&... values) {
    (note_one(values), ...);
  }

  /// The verb takes data from the host, or tells it something: refused in work that is repeated without the host.
  void needs_host(char const* verb) const {
    if (state_ == State::Replay) [[unlikely]] {
      fail(ErrorCode::InvalidArgument, "replayed work uploads or waits for the device", verb,
           "work that depends on its key alone");
    }
  }
  /// The host is about to wait for the device, and to act on what it reads.
  void wait(char const* verb) {
    if (compares()) throw WorkDiverged{};
    wait_once();
    needs_host(verb);
    ++waits_;
  }
  /// The host is about to wait for the device to learn something that it keeps: work that repeats does so at first only.
  void wait_once() const {
    if (state_ == State::Capture) throw WorkDiverged{};
  }

 private:
  template <class T>
  void note_one(T const& value) {
    if constexpr (std::is_pointer_v<T>) {
      mix(reinterpret_cast<std::uintptr_t>(value));
    } else if constexpr (std::is_array_v<T>) {
      for (auto const& element : value) note_one(element);
    } else if constexpr (std::is_same_v<T, float>) {
      mix(__builtin_bit_cast(std::uint32_t, value));
    } else if constexpr (std::is_same_v<T, double>) {
      mix(__builtin_bit_cast(std::uint64_t, value));
    } else if constexpr (std::is_same_v<T, bfloat16>) {
      mix(value.bits);
    } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
      mix(static_cast<std::uint64_t>(value));
    } else if constexpr (requires { value.note_to(*this); }) {
      value.note_to(*this);
    } else {
      note_to(*this, value);
    }
  }
  template <class T>
  void note_one(View<T> const& view) {
    note(view.data, view.rows, view.cols, view.stride);
  }
  void mix(std::uint64_t value) { fingerprint_ = (fingerprint_ ^ value) * 1099511628211ULL; }

  State state_ = State::Run;
  std::uint64_t fingerprint_ = 0;
  int waits_ = 0;
};

}  // namespace mor::cuda
