// SPDX-License-Identifier: Apache-2.0
#include "serve/run_server.hpp"

#include "common/interrupt.hpp"
#include "mor/core/error.hpp"
#include "serve/endpoints.hpp"

#include <cctype>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <thread>

namespace examples::serve {

namespace {

/// Beyond what slots and queue can use: connections for those who are told that the queue is full, and for /health.
constexpr int spare_connections = 16;

constexpr char key_variable[] = "MOR_API_KEY";
constexpr char empty[] = "empty (expected at least one character)";

std::string not_empty(std::string const& text) {
  return text.empty() ? empty : "";
}

template <class Value>
void in_range(char const* option, Value value, Value least, Value most) {
  if (value >= least && value <= most) return;
  mor::fail(mor::ErrorCode::InvalidArgument, "out of range", option, mor::text_of(least) + " to " + mor::text_of(most),
            mor::text_of(value));
}

}  // namespace

void add_server_options(CLI::App& app, ServerFlags& flags) {
  auto const add = [&](char const* name, auto& value, char const* help) {
    return app.add_option(name, value, help)->group("Server");
  };
  add("--host", flags.host, "address to listen on; 0.0.0.0: all of this machine's")
      ->check(not_empty)
      ->capture_default_str();
  add("--port", flags.port, "0: any that is free")->capture_default_str();
  add("--name", flags.name, "of the model, in requests and answers (default: its folder's name)");
  add("--api-key", flags.api_key, "asked for in the header Authorization: Bearer KEY; none: everybody may ask")
      ->check(not_empty)
      ->envname(key_variable);
  add("--max-slots", flags.max_slots, "requests that run at once")->capture_default_str();
  add("--queue", flags.queue, "requests that may wait; further ones are answered 429")->capture_default_str();
  add("--connections", flags.connections, "served at once, each by a thread; 0: slots and queue and 16 more")
      ->capture_default_str();
  add("--max-body-bytes", flags.max_body_bytes, "of a request")->capture_default_str();
  add("--max-header-bytes", flags.max_header_bytes, "of a request")->capture_default_str();
  add("--read-seconds", flags.read_seconds, "that a request may take to arrive")->capture_default_str();
  add("--write-seconds", flags.write_seconds, "that a client may keep its answer waiting")->capture_default_str();
  add("--keep-alive-seconds", flags.keep_alive_seconds, "that a connection may be idle")->capture_default_str();
  add("--request-seconds", flags.request_seconds, "that an answer may take")->capture_default_str();
  add("--drain-seconds", flags.drain_seconds, "that running requests have to finish after SIGINT or SIGTERM")
      ->capture_default_str();
}

Limits limits_of(ServerFlags const& flags) {
  // Not as good as none: it may have been meant to hold a key.
  if (flags.api_key.empty() && std::getenv(key_variable) != nullptr) {
    mor::fail(mor::ErrorCode::InvalidArgument, empty, key_variable);
  }
  in_range("--port", flags.port, 0, 65535);
  in_range<mor::Index>("--max-slots", flags.max_slots, 1, 4096);
  in_range<mor::Index>("--queue", flags.queue, 0, 4096);
  in_range("--connections", flags.connections, 0, 16384);
  in_range<std::size_t>("--max-body-bytes", flags.max_body_bytes, 1, std::size_t{1} << 30);
  in_range<std::size_t>("--max-header-bytes", flags.max_header_bytes, 256, std::size_t{1} << 20);
  double const day = 86400;
  in_range("--read-seconds", flags.read_seconds, 0.01, day);
  in_range("--write-seconds", flags.write_seconds, 0.01, day);
  in_range("--keep-alive-seconds", flags.keep_alive_seconds, 0.01, day);
  in_range("--request-seconds", flags.request_seconds, 0.01, day);
  in_range("--drain-seconds", flags.drain_seconds, 0.0, day);
  Limits limits;
  limits.max_body_bytes = flags.max_body_bytes;
  limits.max_header_bytes = flags.max_header_bytes;
  limits.generations = flags.max_slots + flags.queue;
  limits.connections =
      flags.connections > 0 ? flags.connections : static_cast<int>(limits.generations) + spare_connections;
  limits.read_time = Seconds(flags.read_seconds);
  limits.write_time = Seconds(flags.write_seconds);
  limits.keep_alive_time = Seconds(flags.keep_alive_seconds);
  limits.request_time = Seconds(flags.request_seconds);
  return limits;
}

std::string model_name(std::string const& text) {
  std::string name;
  for (char const symbol : text) {
    bool const plain = std::isalnum(static_cast<unsigned char>(symbol)) != 0 || symbol == '.' || symbol == '_';
    name += plain ? symbol : '-';
  }
  return name.empty() ? "model" : name;
}

void run_server(AnyEngine& engine, mor::io::Tokenizer const& tokenizer, ServedModel const& model,
                ServerFlags const& flags) {
  InterruptGuard const interrupts;
  Service service(engine, tokenizer, model, limits_of(flags), flags.api_key);
  int const port = service.start(flags.host, flags.port);
  bool const version_6 = flags.host.find(':') != std::string::npos;
  std::cout << model.name << " is served at http://" << (version_6 ? "[" + flags.host + "]" : flags.host) << ':' << port
            << '/' << std::endl;
  while (!InterruptGuard::requested() && !service.failure()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  service.drain(Seconds(flags.drain_seconds));
  if (auto const problem = service.failure()) std::rethrow_exception(problem);
}

}  // namespace examples::serve
