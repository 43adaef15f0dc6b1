// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the server answers at each address.
#pragma once

#include "serve/engine_thread.hpp"
#include "serve/generation.hpp"
#include "serve/http_server.hpp"
#include "serve/metrics.hpp"

#include <atomic>
#include <string>

namespace examples::serve {

/// A model behind HTTP.
class Service {
 public:
  /// @param engine, tokenizer  must outlive this
  Service(AnyEngine& engine, mor::io::Tokenizer const& tokenizer, ServedModel model, Limits const& limits,
          std::string api_key);

  /// Listens. @returns the port
  int start(std::string const& host, int port) { return server_.start(host, port); }

  /// Refuses new work and finishes what is under way, for at most so long; then ends the rest and closes.
  void drain(Seconds time);

  /// The error that ended the engine, if one has.
  [[nodiscard]] std::exception_ptr failure() const { return engine_.failure(); }

 private:
  void add_pages();
  void add_figures();
  void add_generation(std::string const& path, bool chat);
  void complete(httplib::Request const& request, httplib::Response& response, bool chat);

  ServedModel const model_;
  mor::io::Tokenizer const& tokenizer_;
  Limits const limits_;
  Metrics metrics_;
  std::atomic<bool> hurry_ = false;
  EngineThread engine_;
  HttpServer server_;  ///< last: its threads use all of the above
};

}  // namespace examples::serve
