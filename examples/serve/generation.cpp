// SPDX-License-Identifier: Apache-2.0
#include "serve/generation.hpp"

#include <iterator>
#include <utility>

namespace examples::serve {

namespace {

/// How soon a client that has gone is noticed while no token comes.
constexpr auto slice = std::chrono::milliseconds(50);

/// The engine refuses what can never be answered, and what would not fit its memory even alone: both are of the client.
ApiError api_error(mor::error const& problem) {
  switch (problem.code()) {
    case mor::ErrorCode::InvalidArgument:
    case mor::ErrorCode::OutOfMemory: return {400, problem.what()};
    case mor::ErrorCode::Unsupported: return {503, problem.what(), {}, "draining", "server_error"};
    default: return {500, problem.what(), {}, {}, "server_error"};
  }
}

}  // namespace

Generation::Generation(Serving const& serving, ApiRequest request)
    : serving_(serving), request_(std::move(request)), text_(request_.stop, request_.chat) {
  auto const prompt = request_.generation.prompt.size();
  ticket_ = serving_.engine.submit(request_.generation);
  if (ticket_ == nullptr) {
    throw ApiError(429, "the queue is full (" + std::to_string(serving_.limits.generations) + " requests)", {},
                   "rate_limit_exceeded", "rate_limit_error");
  }
  if (auto const refusal = ticket_->wait_until_accepted()) throw api_error(*refusal);
  serving_.metrics.count_prompt(prompt);
}

Generation::~Generation() {
  if (in_engine_) serving_.engine.cancel(ticket_);
  serving_.metrics.count_generation(outcome_, Clock::now() - begin_);
}

Ticket::News Generation::wait(std::function<bool()> const& client_is_there, bool& gone) {
  auto const end = begin_ + std::chrono::duration_cast<Clock::duration>(serving_.limits.request_time);
  for (;;) {
    auto news = ticket_->wait(slice);
    gone = !client_is_there();
    if (gone || news.ended()) return news;
    if (serving_.hurry) fail({503, "the server is stopping", {}, "draining", "server_error"}, "failed");
    if (Clock::now() >= end) fail({408, "the answer took too long", {}, "request_timeout"}, "timeout");
    if (news.any()) return news;
  }
}

std::optional<Generation::Part> Generation::next(std::function<bool()> const& client_is_there) {
  bool gone = false;
  auto const news = wait(client_is_there, gone);
  if (gone) return std::nullopt;
  if (news.ended()) in_engine_ = false;
  if (news.failure) fail(api_error(*news.failure), "failed");
  Part part;
  for (auto const& event : news.tokens) {
    take(event, part);
    if (!text_.stopped()) continue;
    outcome_ = "stop";
    part.reason = outcome_;
    return part;
  }
  if (!news.finished) return part;
  if (*news.finished == mor::infer::FinishReason::NonFinite) {
    fail({500, "the model gave logits that are not numbers", {}, {}, "server_error"}, "failed");
  }
  auto rest = text_.finish();
  part.tokens.insert(part.tokens.end(), std::move_iterator(rest.begin()), std::move_iterator(rest.end()));
  bool const stop = *news.finished == mor::infer::FinishReason::EndToken || text_.stopped();
  outcome_ = stop ? "stop" : "length";
  part.reason = outcome_;
  return part;
}

void Generation::take(mor::infer::Event const& event, Part& part) {
  if (generated_++ == 0) serving_.metrics.observe_first_token(Clock::now() - begin_);
  serving_.metrics.count_token(event.depth);
  bool const end = request_.generation.end_token == event.token;
  auto const bytes = end ? std::string_view() : token_bytes(serving_.tokenizer, event.token);
  auto shown = text_.push({event.token, std::string(bytes), event.depth, event.log_probability});
  part.tokens.insert(part.tokens.end(), std::move_iterator(shown.begin()), std::move_iterator(shown.end()));
}

void Generation::fail(ApiError const& error, std::string outcome) {
  outcome_ = std::move(outcome);
  throw ApiError(error);
}

}  // namespace examples::serve
