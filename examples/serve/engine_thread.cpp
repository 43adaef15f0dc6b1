// SPDX-License-Identifier: Apache-2.0
#include "serve/engine_thread.hpp"

#include <utility>

namespace examples::serve {

namespace {

constexpr auto figures_interval = std::chrono::milliseconds(100);

mor::error stopped_error() {
  return {mor::ErrorCode::Unsupported, "the server is stopping", "engine"};
}

}  // namespace

EngineThread::EngineThread(AnyEngine& engine, mor::Index places) : engine_(engine), places_(places) {
  publish_figures();
  thread_ = std::thread([this] { run(); });
}

EngineThread::~EngineThread() {
  {
    std::lock_guard const lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

std::shared_ptr<Ticket> EngineThread::submit(mor::infer::Request request) {
  auto ticket = std::make_shared<Ticket>();
  {
    std::lock_guard const lock(mutex_);
    if (failure_ || stopping_) {
      ticket->tell([](Ticket& own) { own.news_.failure = stopped_error(); });
      return ticket;
    }
    if (inside_ >= places_) return nullptr;
    ++inside_;
    commands_.push_back({ticket, std::move(request), false});
  }
  wake_.notify_one();
  return ticket;
}

void EngineThread::cancel(std::shared_ptr<Ticket> const& ticket) {
  {
    std::lock_guard const lock(mutex_);
    commands_.push_back({ticket, {}, true});
  }
  wake_.notify_one();
}

std::vector<EngineFigure> EngineThread::figures() const {
  std::lock_guard const lock(mutex_);
  return figures_;
}

std::exception_ptr EngineThread::failure() const {
  std::lock_guard const lock(mutex_);
  return failure_;
}

void EngineThread::run() {
  try {
    serve();
    fail_all(stopped_error());
  } catch (std::exception const& problem) {
    auto const* const known = dynamic_cast<mor::error const*>(&problem);
    {
      std::lock_guard const lock(mutex_);
      failure_ = std::current_exception();
    }
    fail_all(known != nullptr ? mor::error(mor::ErrorCode::DeviceFailure, known->problem(), known->where())
                              : mor::error(mor::ErrorCode::DeviceFailure, problem.what(), "engine"));
  }
}

void EngineThread::serve() {
  for (bool idle = true;;) {
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || !idle || !commands_.empty(); });
      if (stopping_) return;
      std::swap(taken_, commands_);
    }
    for (; !taken_.empty(); taken_.pop_front()) obey(taken_.front());
    deliver(engine_.step());
    idle = engine_.idle();
    if (idle || Clock::now() - figures_taken_ > figures_interval) publish_figures();
  }
}

void EngineThread::obey(Command& command) {
  Ticket& ticket = *command.ticket;
  if (command.cancel) {
    if (ticket.id_ && tickets_.contains(*ticket.id_)) engine_.cancel(*ticket.id_);
    return;
  }
  try {
    ticket.id_ = engine_.submit(std::move(command.request));
  } catch (mor::error const& problem) {
    leave();
    ticket.tell([&](Ticket& own) { own.news_.failure = problem; });
    return;
  }
  tickets_.emplace(*ticket.id_, command.ticket);
  ticket.tell([](Ticket& own) { own.accepted_ = true; });
}

void EngineThread::deliver(std::span<mor::infer::Event const> events) {
  for (auto const& event : events) {
    auto const found = tickets_.find(event.request);
    if (found == tickets_.end()) continue;
    auto const ticket = found->second;
    if (event.kind == mor::infer::EventKind::Token) {
      ticket->tell([&](Ticket& own) { own.news_.tokens.push_back(event); });
      continue;
    }
    tickets_.erase(found);
    leave();
    ticket->tell([&](Ticket& own) { own.news_.finished = event.reason; });
  }
}

void EngineThread::fail_all(mor::error const& problem) {
  std::deque<Command> commands;
  {
    std::lock_guard const lock(mutex_);
    stopping_ = true;
    std::swap(commands, commands_);
  }
  auto const fail = [&](std::shared_ptr<Ticket> const& ticket) {
    leave();
    ticket->tell([&](Ticket& own) { own.news_.failure = problem; });
  };
  for (auto const* const list : {&taken_, &commands}) {
    for (auto const& command : *list) {
      if (!command.cancel) fail(command.ticket);
    }
  }
  taken_.clear();
  for (auto const& [id, ticket] : tickets_) fail(ticket);
  tickets_.clear();
}

void EngineThread::publish_figures() {
  auto figures = engine_.figures();
  figures_taken_ = Clock::now();
  std::lock_guard const lock(mutex_);
  figures_ = std::move(figures);
}

}  // namespace examples::serve
