// SPDX-License-Identifier: Apache-2.0
/// @file
/// One request between its ticket and its answer: tokens become text, and whatever ends it early frees its place.
#pragma once

#include "serve/api_request.hpp"
#include "serve/engine_thread.hpp"
#include "serve/metrics.hpp"
#include "serve/token_text.hpp"

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace examples::serve {

/// What all generations of a server have in common.
struct Serving {
  ServedModel const& model;
  mor::io::Tokenizer const& tokenizer;
  EngineThread& engine;
  Metrics& metrics;
  Limits const& limits;
  std::atomic<bool> const& hurry;  ///< the time to finish is over
};

/// Lives as long as its answer; what is left of it in the engine when it is destroyed is cancelled.
class Generation {
 public:
  /// Some more of the answer.
  struct Part {
    std::vector<ShownToken> tokens;
    std::optional<std::string> reason;  ///< set with the last: "stop" or "length"
  };

  /// Waits until the engine has taken the request.
  /// @throws ApiError 429 where every place is taken, 400 for a request that the engine refuses
  Generation(Serving const& serving, ApiRequest request);
  Generation(Generation const&) = delete;
  Generation& operator=(Generation const&) = delete;
  ~Generation();

  /// Waits for more. Nothing where the client has gone: there is nobody to answer.
  /// @throws ApiError 408 where the time is over, 503 while the server stops, 500 where the engine has failed
  [[nodiscard]] std::optional<Part> next(std::function<bool()> const& client_is_there);

  [[nodiscard]] ApiRequest const& request() const { return request_; }
  [[nodiscard]] mor::Index generated() const { return generated_; }

 private:
  [[nodiscard]] Ticket::News wait(std::function<bool()> const& client_is_there, bool& gone);
  void take(mor::infer::Event const& event, Part& part);
  [[noreturn]] void fail(ApiError const& error, std::string outcome);

  Serving serving_;
  ApiRequest request_;
  TokenText text_;
  Clock::time_point begin_ = Clock::now();
  std::shared_ptr<Ticket> ticket_;
  mor::Index generated_ = 0;
  bool in_engine_ = true;
  std::string outcome_ = "cancelled";
};

}  // namespace examples::serve
