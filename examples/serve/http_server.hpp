// SPDX-License-Identifier: Apache-2.0
/// @file
/// cpp-httplib behind bounds: what it leaves unlimited or lenient is checked here before it acts, the same for the
/// version that Debian has and for the newest.
#pragma once

#include "serve/api_error.hpp"
#include "serve/connection.hpp"
#include "serve/limits.hpp"

#include <httplib.h>

#include <atomic>
#include <functional>
#include <map>
#include <string>
#include <thread>

namespace examples::serve {

/// One address: what it answers to, and who may ask.
struct Route {
  std::string method;  ///< GET (HEAD goes with it) or POST
  std::string path;
  bool open = false;  ///< needs no API key
  std::function<void(httplib::Request const&, httplib::Response&)> handle;
};

/// Serves exact paths. Its errors are JSON as of the OpenAI API; handlers may throw `ApiError`.
class HttpServer final : private httplib::Server {
 public:
  /// Called after every answer with method, path (of a route, or empty) and status.
  using Observer = std::function<void(std::string const& method, std::string const& path, int status)>;

  /// @param api_key  empty: none is needed
  HttpServer(Limits const& limits, std::string api_key, Observer observer);
  HttpServer(HttpServer const&) = delete;
  HttpServer& operator=(HttpServer const&) = delete;
  ~HttpServer() override;

  void add(Route route);

  /// Listens and returns at once. @returns the port
  /// @throws mor::error IoFailure where the address cannot be had
  int start(std::string const& host, int port);

  /// From now on connections end after the answer that is under way.
  void drain() { draining_ = true; }
  [[nodiscard]] bool draining() const { return draining_; }

  /// Requests whose headers were read and whose answer was not yet sent.
  [[nodiscard]] int busy() const { return busy_; }

  /// Closes the address and all connections.
  void stop();

  /// Whether the client that this thread serves is still there. One that has closed its sending half looks as one that
  /// has gone until something is sent: to that the system of one that has gone answers with a reset.
  /// @param poke  sends something that the client will skip, or returns false where it cannot: then the client has gone
  [[nodiscard]] static bool client_is_there(std::function<bool()> const& poke);
  /// An interim answer, for before the answer has begun. False where the client is of HTTP/1.0, which knows none.
  [[nodiscard]] static bool send_interim_answer(httplib::Request const& request);
  /// The answer is not sent, and the connection ends.
  static void hang_up();
  /// The rest of the request will not be read, so the connection cannot be used for another.
  static void close_after_answer();

 private:
  bool process_and_close_socket(socket_t socket) override;
  void serve(Connection& connection);
  [[nodiscard]] bool serve_one(Connection& connection, bool last, bool& closed);
  void prepare(httplib::Request& request);
  void check(httplib::Request const& request) const;
  HandlerResponse answer_early(httplib::Request const& request, httplib::Response& response);
  void add_headers(httplib::Request const& request, httplib::Response& response);

  Limits const limits_;
  std::string const api_key_;
  Observer observer_;
  std::map<std::string, std::map<std::string, Route>> routes_;  ///< by path and method
  std::atomic<bool> draining_ = false, stopping_ = false;
  std::atomic<int> busy_ = 0;
  std::thread thread_;
};

/// Sets the answer to an error.
void answer_with(httplib::Response& response, ApiError const& error);

}  // namespace examples::serve
