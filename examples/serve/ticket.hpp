// SPDX-License-Identifier: Apache-2.0
/// @file
/// A request on its way through the engine, as the thread that waits for it sees it: a mailbox.
#pragma once

#include "mor/core/error.hpp"
#include "mor/infer/request.hpp"
#include "serve/limits.hpp"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <vector>

namespace examples::serve {

class EngineThread;

/// Filled by the engine's thread, emptied by one other.
class Ticket {
 public:
  /// What has come since the last look.
  struct News {
    std::vector<mor::infer::Event> tokens;             ///< of kind Token, in order
    std::optional<mor::infer::FinishReason> finished;  ///< after the last token
    std::optional<mor::error> failure;                 ///< instead of `finished`

    [[nodiscard]] bool ended() const { return finished || failure; }
    [[nodiscard]] bool any() const { return ended() || !tokens.empty(); }
  };

  /// Waits until the engine has taken or refused the request. @returns why it was refused
  [[nodiscard]] std::optional<mor::error> wait_until_accepted() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return accepted_ || news_.failure; });
    return accepted_ ? std::nullopt : news_.failure;
  }

  /// Takes the tokens that have come, after waiting for one or for the end, at most so long. The end stays.
  [[nodiscard]] News wait(Clock::duration time) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, time, [&] { return news_.any(); });
    News result = news_;
    news_.tokens.clear();
    return result;
  }

 private:
  friend class EngineThread;

  template <class Change>
  void tell(Change const& change) {
    {
      std::lock_guard const lock(mutex_);
      change(*this);
    }
    changed_.notify_one();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  News news_;
  bool accepted_ = false;
  std::optional<mor::infer::RequestId> id_;  ///< of the engine's thread alone
};

}  // namespace examples::serve
