// SPDX-License-Identifier: Apache-2.0
/// @file
/// `OrderedWorkers`: jobs done by several threads, whose results come back in the order in which they were handed in.
#pragma once

#include "mor/core/error.hpp"

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace mor::train {

/// One thread hands jobs in and takes them back; the workers call `work` on each. What they throw comes out of `take`,
/// for the first job in order that failed, so that failures too do not depend on the number of threads.
template <class Job>
class OrderedWorkers {
 public:
  /// @param threads  1 or more
  OrderedWorkers(int threads, std::function<void(Job&)> work) : work_(std::move(work)) {
    require(threads >= 1, "at least one thread", "OrderedWorkers");
    try {
      for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
    } catch (...) {
      stop();
      throw;
    }
  }
  OrderedWorkers(OrderedWorkers const&) = delete;
  OrderedWorkers& operator=(OrderedWorkers const&) = delete;
  /// Jobs that no thread has begun are dropped.
  ~OrderedWorkers() { stop(); }

  /// Jobs handed in and not taken back.
  [[nodiscard]] std::size_t pending() const {
    std::lock_guard const lock(mutex_);
    return slots_.size();
  }

  void submit(Job job) {
    {
      std::lock_guard const lock(mutex_);
      slots_.push_back({std::move(job), nullptr, false});
    }
    work_waits_.notify_one();
  }

  /// Waits for the oldest job and hands it back. There must be one.
  [[nodiscard]] Job take() {
    std::unique_lock lock(mutex_);
    require(!slots_.empty(), "no job was handed in", "OrderedWorkers");
    job_done_.wait(lock, [&] { return slots_.front().done; });
    Slot slot = std::move(slots_.front());
    slots_.pop_front();
    --begun_;
    if (slot.problem) std::rethrow_exception(slot.problem);
    return std::move(slot.job);
  }

 private:
  struct Slot {
    Job job;
    std::exception_ptr problem;
    bool done = false;
  };

  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      work_waits_.wait(lock, [&] { return stopping_ || begun_ < slots_.size(); });
      if (stopping_) return;
      Slot& slot = slots_[begun_++];  // a deque's elements stay where they are when its ends change
      lock.unlock();
      std::exception_ptr problem;
      try {
        work_(slot.job);
      } catch (...) {
        problem = std::current_exception();
      }
      lock.lock();
      slot.problem = std::move(problem);
      slot.done = true;
      job_done_.notify_one();
    }
  }

  void stop() {
    {
      std::lock_guard const lock(mutex_);
      stopping_ = true;
    }
    work_waits_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  std::function<void(Job&)> work_;
  mutable std::mutex mutex_;
  std::condition_variable work_waits_, job_done_;
  std::deque<Slot> slots_;
  std::size_t begun_ = 0;  ///< slots from the front that a thread has taken up
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace mor::train
