// SPDX-License-Identifier: Apache-2.0
/// @file
/// `EventLog`: news of requests, collected until the caller takes them.
#pragma once

#include "mor/infer/request.hpp"
#include "mor/infer/sequence.hpp"

#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace mor::infer {

class EventLog {
 public:
  /// The token that follows the sequence's text.
  void token(Sequence const& sequence, Token token, double log_probability) {
    Event event;
    event.request = sequence.id;
    event.token = token;
    event.position = sequence.length();
    event.depth = sequence.depths.back();
    event.log_probability = log_probability;
    news_.events.push_back(event);
  }
  void finished(std::unique_ptr<Sequence> sequence, FinishReason reason) {
    Event event;
    event.request = sequence->id;
    event.kind = EventKind::Finished;
    event.position = sequence->length();
    event.reason = reason;
    event.prompt_tokens = sequence->prompt_tokens();
    for (Row const depth : sequence->depths) event.cost += depth;
    event.depths = sequence->depths;
    news_.events.push_back(event);
    news_.ended.push_back(std::move(sequence));
  }
  [[nodiscard]] bool empty() const { return news_.events.empty(); }
  /// What happened since the last call; valid until the next one, whatever happens meanwhile.
  [[nodiscard]] std::span<Event const> hand_out() {
    handed_out_.events.clear();
    handed_out_.ended.clear();
    std::swap(news_, handed_out_);
    return handed_out_.events;
  }

 private:
  struct News {
    std::vector<Event> events;
    std::vector<std::unique_ptr<Sequence>> ended;  // events point to their depths
  };
  News news_, handed_out_;
};

}  // namespace mor::infer
