// SPDX-License-Identifier: Apache-2.0
/// @file
/// The one thread that drives the engine. Others hand it requests and wait at their tickets.
#pragma once

#include "common/any_engine.hpp"
#include "serve/ticket.hpp"

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

namespace examples::serve {

class EngineThread {
 public:
  /// @param engine  must outlive this; nobody else calls it from now on
  /// @param places  requests that may be inside at once, running or queued
  EngineThread(AnyEngine& engine, mor::Index places);
  EngineThread(EngineThread const&) = delete;
  EngineThread& operator=(EngineThread const&) = delete;
  ~EngineThread();

  /// A ticket, or nothing where every place is taken.
  [[nodiscard]] std::shared_ptr<Ticket> submit(mor::infer::Request request);

  /// Ends a request early; its ticket says so when its place is free again. Later calls do nothing.
  void cancel(std::shared_ptr<Ticket> const& ticket);

  /// Requests inside.
  [[nodiscard]] mor::Index inside() const { return inside_; }

  /// The engine's figures as of a moment ago; exact once it is idle.
  [[nodiscard]] std::vector<EngineFigure> figures() const;

  /// The error that ended the engine. From then on every request fails.
  [[nodiscard]] std::exception_ptr failure() const;

 private:
  struct Command {
    std::shared_ptr<Ticket> ticket;
    mor::infer::Request request;
    bool cancel = false;
  };

  void run();
  void serve();
  void obey(Command& command);
  void deliver(std::span<mor::infer::Event const> events);
  void fail_all(mor::error const& problem);
  void leave() { --inside_; }
  void publish_figures();

  AnyEngine& engine_;
  mor::Index const places_;
  std::atomic<mor::Index> inside_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Command> commands_;
  std::vector<EngineFigure> figures_;
  std::exception_ptr failure_;
  bool stopping_ = false;

  /// @name Of the thread alone
  /// @{
  std::deque<Command> taken_;  ///< not yet obeyed; the first may have failed
  std::unordered_map<mor::infer::RequestId, std::shared_ptr<Ticket>> tickets_;
  /// @}
  Clock::time_point figures_taken_;
  std::thread thread_;
};

}  // namespace examples::serve
