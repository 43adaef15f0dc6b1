// SPDX-License-Identifier: Apache-2.0
/// @file
/// Threads for connections: as many as were ever needed at once, up to a limit or to what the system gives, and a
/// bounded line in front of them.
#pragma once

#include <httplib.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace examples::serve {

/// A task queue of cpp-httplib. A connection too many is run at once on the thread that accepts, with `turned_away()`.
class ConnectionPool final : public httplib::TaskQueue {
 public:
  ConnectionPool(int threads, int waiting)
      : most_threads_(static_cast<std::size_t>(threads)), most_waiting_(static_cast<std::size_t>(waiting)) {}

  /// Whether this thread runs a connection only to refuse it.
  [[nodiscard]] static bool& turned_away() {
    static thread_local bool value = false;
    return value;
  }

  /// Newer versions of cpp-httplib want to know whether the job was taken, older ones do not.
  using Enqueued = decltype(std::declval<httplib::TaskQueue&>().enqueue(std::function<void()>()));

  Enqueued enqueue(std::function<void()> job) override {
    bool const taken = offer(job);
    if (!taken) {
      turned_away() = true;
      job();
      turned_away() = false;
    }
    return static_cast<Enqueued>(true);
  }

  void shutdown() override {
    {
      std::lock_guard const lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

 private:
  [[nodiscard]] bool offer(std::function<void()>& job) {
    {
      std::lock_guard const lock(mutex_);
      if (inside_ >= threads_.size() && threads_.size() < most_threads_) add_thread();
      if (threads_.empty() || inside_ >= threads_.size() + most_waiting_) return false;
      jobs_.push_back(std::move(job));
      ++inside_;
    }
    wake_.notify_one();
    return true;
  }

  void add_thread() {
    try {
      threads_.emplace_back([this] { work(); });
    } catch (std::system_error const&) {  // the system has no more: those that there are serve everybody
    }
  }

  void work() {
    for (;;) {
      std::function<void()> job;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
        if (jobs_.empty()) return;
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
      job();
      std::lock_guard const lock(mutex_);
      --inside_;
    }
  }

  std::size_t const most_threads_, most_waiting_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;
  std::vector<std::thread> threads_;
  std::size_t inside_ = 0;  ///< connections that run or wait
  bool stopping_ = false;
};

}  // namespace examples::serve
