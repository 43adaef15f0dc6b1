// SPDX-License-Identifier: Apache-2.0
#include "serve/http_server.hpp"

#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "serve/connection_pool.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

namespace examples::serve {

namespace {

constexpr char json_type[] = "application/json";
constexpr int backlog = 1024;

/// A proxy needs the second to learn that its client has gone and the third to tell; more than 5 are too many for some.
constexpr int most_pokes = 4;
constexpr auto poke_interval = std::chrono::seconds(1);

/// What this thread is serving.
struct Current {
  Connection* connection = nullptr;
  std::optional<ApiError> refusal;  ///< found while the request was prepared
  bool counted = false;             ///< in `busy`
  int pokes = 0;                    ///< during this request
  Clock::time_point last_poke = {};
};
thread_local Current current;

/// Time depends on the length of the given key only.
bool same_key(std::string_view expected, std::string_view given) {
  std::size_t difference = expected.size() ^ given.size();
  for (std::size_t i = 0; i < given.size(); ++i) {
    auto const a = static_cast<unsigned char>(given[i]);
    auto const b = static_cast<unsigned char>(expected[i % expected.size()]);
    difference |= static_cast<std::size_t>(a ^ b);
  }
  return difference == 0;
}

bool same_word(std::string_view a, std::string_view b) {
  return a.size() == b.size() && ::strncasecmp(a.data(), b.data(), a.size()) == 0;
}

/// Whether `close` is among the words of the header Connection; cpp-httplib wants it alone and in lower case.
bool asks_to_close(httplib::Request const& request) {
  std::string const text = request.get_header_value("Connection");
  for (std::string_view rest = text; !rest.empty();) {
    auto const end = std::min(rest.find(','), rest.size());
    std::string_view word = rest.substr(0, end);
    while (!word.empty() && word.front() == ' ') word.remove_prefix(1);
    while (!word.empty() && word.back() == ' ') word.remove_suffix(1);
    if (same_word(word, "close")) return true;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return false;
}

/// The key of `Bearer KEY`, the scheme in any case.
std::optional<std::string_view> bearer_key(std::string_view authorization) {
  constexpr std::string_view scheme = "Bearer ";
  if (!same_word(authorization.substr(0, scheme.size()), scheme)) return std::nullopt;
  return authorization.substr(scheme.size());
}

/// The path of an address that may be a whole one, as proxies are sent it: `http://HOST/PATH`.
std::string own_path(std::string const& address) {
  for (std::string_view const scheme : {"http://", "https://"}) {
    if (!same_word(std::string_view(address).substr(0, scheme.size()), scheme)) continue;
    auto const begin = address.find('/', scheme.size());
    return begin == std::string::npos ? "/" : address.substr(begin);
  }
  return address;
}

/// The length of a body, as exactly one plain number.
std::size_t body_length(httplib::Request const& request, std::size_t most) {
  auto const [first, last] = request.headers.equal_range("Content-Length");
  if (request.has_header("Transfer-Encoding") || (first == last && request.method == "POST")) throw plain_error(411);
  if (first == last) return 0;
  std::string const& text = first->second;
  std::size_t length = 0;
  auto const [end, problem] = std::from_chars(text.data(), text.data() + text.size(), length);
  bool const number = !text.empty() && end == text.data() + text.size();
  if (std::next(first) != last || !number || problem == std::errc::invalid_argument) {
    throw ApiError(400, "Content-Length is not one number");
  }
  if (problem != std::errc() || length > most) {
    throw ApiError(413, "the body is too large (expected at most " + mor::text_of(most) + " bytes, got " +
                            mor::printable(text) + ")");
  }
  return length;
}

bool is_json(std::string_view type) {
  type = type.substr(0, type.find(';'));
  while (!type.empty() && type.back() == ' ') type.remove_suffix(1);
  return same_word(type, json_type);
}

/// An answer for a connection whose request cpp-httplib never saw.
std::string raw_answer(ApiError const& error, char const* reason) {
  std::string const body = error_body(error);
  return "HTTP/1.1 " + std::to_string(error.status) + " " + reason + "\r\nContent-Type: " + json_type +
         "\r\nContent-Length: " + std::to_string(body.size()) + "\r\nConnection: close\r\n" +
         (error.status == 429 ? "Retry-After: " + std::string(retry_after) + "\r\n" : std::string()) + "\r\n" + body;
}

void turn_away(socket_t socket) {
  std::string const answer = raw_answer(plain_error(429), "Too Many Requests");
  std::array<char, 4096> ignored{};
  // What was not read resets the connection, maybe before the answer is read; but others wait to be accepted.
  for (int left = 256; left > 0; --left) {
    if (::recv(socket, ignored.data(), ignored.size(), MSG_DONTWAIT) <= 0) break;
  }
  static_cast<void>(::send(socket, answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT));
  ::shutdown(socket, SHUT_WR);
  ::close(socket);
}

}  // namespace

void answer_with(httplib::Response& response, ApiError const& error) {
  response.status = error.status;
  response.set_content(error_body(error), json_type);
  if (error.status == 429 || error.status == 503) response.set_header("Retry-After", retry_after);
  if (error.status == 401) response.set_header("WWW-Authenticate", "Bearer");
}

HttpServer::HttpServer(Limits const& limits, std::string api_key, Observer observer)
    : limits_(limits), api_key_(std::move(api_key)), observer_(std::move(observer)) {
  new_task_queue = [this] { return new ConnectionPool(limits_.connections, limits_.waiting_connections); };
  set_payload_max_length(limits_.max_body_bytes);
  set_keep_alive_max_count(static_cast<std::size_t>(limits_.requests_a_connection));
  set_keep_alive_timeout(static_cast<time_t>(limits_.keep_alive_time.count()));
  set_tcp_nodelay(true);
  // Not cpp-httplib's SO_REUSEPORT: a second server on the same port is a mistake that should show.
  set_socket_options([](socket_t socket) {
    int const yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  });
  set_pre_routing_handler([this](auto const& request, auto& response) { return answer_early(request, response); });
  set_post_routing_handler([this](auto const& request, auto& response) { add_headers(request, response); });
  set_error_handler([](httplib::Request const&, httplib::Response& response) {
    if (!response.body.empty()) return;
    auto const fault = current.connection->fault();
    if (fault == Connection::Fault::TimedOut) response.status = 408;
    if (fault == Connection::Fault::TooLong) response.status = 431;
    current.connection->abandon_body();
    answer_with(response, plain_error(response.status));
  });
  // A client that asks before it sends a body hears the refusal instead of a go-ahead.
  set_expect_100_continue_handler([this](httplib::Request const& request, httplib::Response& response) {
    return answer_early(request, response) == HandlerResponse::Handled ? response.status : 100;
  });
  set_exception_handler([](httplib::Request const&, httplib::Response& response, std::exception_ptr problem) {
    try {
      std::rethrow_exception(std::move(problem));
    } catch (ApiError const& error) {
      answer_with(response, error);
    } catch (std::exception const& error) {
      answer_with(response, ApiError(500, error.what(), {}, {}, "server_error"));
    }
  });
}

HttpServer::~HttpServer() {
  stop();
}

void HttpServer::add(Route route) {
  auto const handle = route.handle;
  std::string const pattern = route.path;
  if (route.method == "GET") Get(pattern, handle);
  if (route.method == "POST") Post(pattern, handle);
  routes_[pattern].insert_or_assign(route.method, std::move(route));
}

int HttpServer::start(std::string const& host, int port) {
  int const bound = port == 0 ? bind_to_any_port(host) : bind_to_port(host, port) ? port : -1;
  if (bound < 0) {
    mor::fail(mor::ErrorCode::IoFailure, "cannot listen there", host + ":" + std::to_string(port),
              "a free port on an address of this machine");
  }
  ::listen(svr_sock_, backlog);
  thread_ = std::thread([this] { listen_after_bind(); });
  while (!is_running()) std::this_thread::yield();
  return bound;
}

void HttpServer::stop() {
  draining_ = stopping_ = true;
  if (!thread_.joinable()) return;
  httplib::Server::stop();
  thread_.join();
}

bool HttpServer::client_is_there(std::function<bool()> const& poke) {
  Connection const& connection = *current.connection;
  bool const due = current.pokes == 0 || Clock::now() - current.last_poke >= poke_interval;
  if (due && current.pokes < most_pokes && connection.half_closed()) {
    ++current.pokes;
    current.last_poke = Clock::now();
    if (!poke()) return false;
  }
  return connection.alive();
}

bool HttpServer::send_interim_answer(httplib::Request const& request) {
  // Clients have to skip it, asked for or not.
  constexpr std::string_view answer = "HTTP/1.1 100 Continue\r\n\r\n";
  return request.version != "HTTP/1.0" && current.connection->write(answer.data(), answer.size()) > 0;
}

void HttpServer::hang_up() {
  close_after_answer();
  current.connection->hang_up();
}

void HttpServer::close_after_answer() {
  current.connection->abandon_body();
}

bool HttpServer::process_and_close_socket(socket_t socket) {
  if (ConnectionPool::turned_away()) {
    observer_("", "", 429);
    turn_away(socket);
    return false;
  }
  Connection connection(socket, limits_);
  current = {};
  current.connection = &connection;
  try {
    serve(connection);
  } catch (std::exception const&) {  // out of memory while a request was read: all that can be done is to hang up
  }
  if (current.counted) --busy_;
  current = {};
  return true;
}

void HttpServer::serve(Connection& connection) {
  for (int left = limits_.requests_a_connection; left > 0 && connection.wait_for_request(stopping_); --left) {
    connection.begin_request();
    current.refusal.reset();
    current.pokes = 0;
    bool closed = false;
    bool const good = serve_one(connection, left == 1 || draining_, closed);
    if (std::exchange(current.counted, false)) --busy_;
    if (!connection.answered() && connection.fault() != Connection::Fault::None) {
      bool const late = connection.fault() == Connection::Fault::TimedOut;
      std::string const answer = late ? raw_answer(plain_error(408), "Request Timeout")
                                      : raw_answer(plain_error(431), "Request Header Fields Too Large");
      static_cast<void>(connection.write(answer.data(), answer.size()));
      observer_("", "", late ? 408 : 431);
      connection.abandon_body();
    }
    if (connection.abandoned()) return connection.linger();
    if (!good || closed || draining_ || !connection.body_is_read()) return;
  }
}

/// `process_request` in the one of its forms that this version of cpp-httplib has.
bool HttpServer::serve_one(Connection& connection, bool last, bool& closed) {
  auto const setup = [this](httplib::Request& request) { prepare(request); };
  auto const call = [&](auto& server) {
    if constexpr (requires { server.process_request(connection, last, closed, setup); }) {
      return server.process_request(connection, last, closed, setup);
    } else {
      std::string remote, local;
      int remote_port = 0, local_port = 0;
      connection.get_remote_ip_and_port(remote, remote_port);
      connection.get_local_ip_and_port(local, local_port);
      return server.process_request(connection, remote, remote_port, local, local_port, last, closed, setup);
    }
  };
  return call(*this);
}

/// Called when the headers are there and nothing was done with them yet.
void HttpServer::prepare(httplib::Request& request) {
  ++busy_;
  current.counted = true;
  request.ranges.clear();  // no part of an answer is ever sent alone
  request.path = own_path(request.path);
  if (asks_to_close(request)) close_after_answer();
  try {
    current.connection->begin_body(body_length(request, limits_.max_body_bytes));
    check(request);
  } catch (ApiError const& error) {
    current.refusal = error;
  }
}

/// Who asks, for what, and in which form; in this order, so that a stranger learns nothing.
void HttpServer::check(httplib::Request const& request) const {
  auto const path = routes_.find(request.path);
  bool const known = path != routes_.end();
  bool const open = known && path->second.begin()->second.open;
  if (!api_key_.empty() && !open) {
    std::string const given = request.get_header_value("Authorization");
    auto const key = bearer_key(given);
    if (!key || !same_key(api_key_, *key)) {
      throw ApiError(401, "the API key is missing or wrong", {}, "invalid_api_key");
    }
  }
  if (!known) throw ApiError(404, "no such address", {}, "not_found");
  std::string const method = request.method == "HEAD" ? "GET" : request.method;
  if (!path->second.contains(method)) {
    throw ApiError(405, "this address answers to " + path->second.begin()->first + " only", {}, "method_not_allowed");
  }
  if (method != "POST") return;
  if (!is_json(request.get_header_value("Content-Type"))) {
    throw ApiError(415, "Content-Type must be application/json", {}, "unsupported_media_type");
  }
  if (request.has_header("Content-Encoding") && request.get_header_value("Content-Encoding") != "identity") {
    throw ApiError(415, "a compressed body is not read", {}, "unsupported_media_type");
  }
  if (draining_) throw ApiError(503, "the server is stopping", {}, "draining", "server_error");
}

httplib::Server::HandlerResponse HttpServer::answer_early(httplib::Request const& request,
                                                          httplib::Response& response) {
  if (!current.refusal) return HandlerResponse::Unhandled;
  answer_with(response, *current.refusal);
  if (current.refusal->status == 405) response.set_header("Allow", routes_.at(request.path).begin()->first);
  if (!current.connection->body_is_read()) current.connection->abandon_body();
  return HandlerResponse::Handled;
}

void HttpServer::add_headers(httplib::Request const& request, httplib::Response& response) {
  if (current.connection->abandoned()) {
    response.headers.erase("Connection");
    response.headers.erase("Keep-Alive");
    response.set_header("Connection", "close");
  }
  response.set_header("X-Content-Type-Options", "nosniff");
  if (!response.has_header("Cache-Control")) response.set_header("Cache-Control", "no-store");
  observer_(request.method, routes_.contains(request.path) ? request.path : "", response.status);
}

}  // namespace examples::serve
