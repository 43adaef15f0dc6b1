// SPDX-License-Identifier: Apache-2.0
/// @file
/// Ctrl-C and SIGTERM as a question that a loop can ask.
#pragma once

#include <csignal>

namespace examples {

namespace detail {
inline volatile std::sig_atomic_t interrupt_requested = 0;
}

/// While it lives, the first SIGINT or SIGTERM only sets a flag; a second one ends the program as usual.
class InterruptGuard {
 public:
  InterruptGuard() {
    struct sigaction action {};
    action.sa_handler = [](int) { detail::interrupt_requested = 1; };
    action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
    sigaction(SIGINT, &action, &interrupt_);
    sigaction(SIGTERM, &action, &terminate_);
  }
  InterruptGuard(InterruptGuard const&) = delete;
  InterruptGuard& operator=(InterruptGuard const&) = delete;
  ~InterruptGuard() {
    sigaction(SIGINT, &interrupt_, nullptr);
    sigaction(SIGTERM, &terminate_, nullptr);
  }

  [[nodiscard]] static bool requested() { return detail::interrupt_requested != 0; }

 private:
  struct sigaction interrupt_ {
  }, terminate_{};
};

}  // namespace examples
