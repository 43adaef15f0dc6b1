// SPDX-License-Identifier: Apache-2.0
/// @file
/// The HTTP server over an engine that does what a test tells it: every request's text is its prompt, over and over,
/// one token a tick. So a test knows each answer, can spell any bytes, and can make the engine as slow as it likes.
#include "common/command_line.hpp"
#include "mor/core/error.hpp"
#include "serve/run_server.hpp"

#include <algorithm>
#include <chrono>
#include <deque>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

using namespace mor;
using infer::Event;
using infer::EventKind;
using infer::FinishReason;

constexpr Index recursions = 3, context = 4096;
/// What a prompt begins with that is refused, breaks a step, or breaks down before the engine has it.
constexpr Token refused = 254, broken = 255, broken_early = 253;
constexpr Token end_token = 256;

class ScriptedEngine final : public examples::AnyEngine {
 public:
  ScriptedEngine(Index slots, int tick_milliseconds)
      : slots_(static_cast<std::size_t>(slots)), tick_(std::chrono::milliseconds(tick_milliseconds)) {}

  infer::RequestId submit(infer::Request request) override {
    if (request.prompt.front() == refused) fail(ErrorCode::InvalidArgument, "the script refuses this", "prompt");
    if (request.prompt.front() == broken_early) throw std::runtime_error("the script breaks down early");
    waiting_.push_back({++last_, std::move(request), 0});
    return last_;
  }

  bool cancel(infer::RequestId id) override {
    for (auto* const list : {&waiting_, &running_}) {
      auto const found = std::find_if(list->begin(), list->end(), [&](auto const& text) { return text.id == id; });
      if (found == list->end()) continue;
      cancelled_.push_back(id);
      list->erase(found);
      return true;
    }
    return false;
  }

  std::span<Event const> step() override {
    events_.clear();
    for (auto const id : cancelled_) finish(id, FinishReason::Cancelled);
    cancelled_.clear();
    while (running_.size() < slots_ && !waiting_.empty()) {
      running_.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
    if (!running_.empty()) std::this_thread::sleep_for(tick_);
    std::erase_if(running_, [this](Text& text) { return advance(text); });
    return events_;
  }

  bool idle() const override { return waiting_.empty() && running_.empty() && cancelled_.empty(); }

  std::vector<examples::EngineFigure> figures() const override {
    return {{"running", "Requests in a slot.", static_cast<double>(running_.size())},
            {"queued", "Requests that wait for a slot.", static_cast<double>(waiting_.size())}};
  }

 private:
  struct Text {
    infer::RequestId id;
    infer::Request request;
    Index made;
  };

  void finish(infer::RequestId id, FinishReason reason) {
    Event event;
    event.request = id;
    event.kind = EventKind::Finished;
    event.reason = reason;
    events_.push_back(event);
  }

  /// One token more. @returns true after the last
  bool advance(Text& text) {
    auto const& prompt = text.request.prompt;
    if (prompt.front() == broken) fail(ErrorCode::DeviceFailure, "the script breaks down", "step");
    Event event;
    event.request = text.id;
    event.token = prompt[static_cast<std::size_t>(text.made) % prompt.size()];
    event.position = static_cast<Index>(prompt.size()) + text.made;
    event.depth = static_cast<Row>(1 + text.made % recursions);
    event.log_probability = -0.5;
    events_.push_back(event);
    bool const end = text.request.end_token == event.token, full = ++text.made == text.request.max_new_tokens;
    if (end || full) finish(text.id, end ? FinishReason::EndToken : FinishReason::Length);
    return end || full;
  }

  std::size_t slots_;
  std::chrono::milliseconds tick_;
  infer::RequestId last_ = 0;
  std::deque<Text> waiting_, running_;
  std::vector<infer::RequestId> cancelled_;
  std::vector<Event> events_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Serves prompts, over and over.", "scripted_server");
  examples::serve::ServerFlags flags;
  int tick_milliseconds = 0;
  examples::serve::add_server_options(app, flags);
  app.add_option("--tick-milliseconds", tick_milliseconds, "that a token takes");
  return examples::run_program(app, argc, argv, [&] {
    ScriptedEngine engine(flags.max_slots, tick_milliseconds);
    examples::serve::ServedModel const model{"scripted", context, 257, recursions, end_token, 1700000000};
    examples::serve::run_server(engine, io::Tokenizer::byte_level(), model, flags);
  });
}
