// SPDX-License-Identifier: Apache-2.0
#include "serve/connection.hpp"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace examples::serve {

namespace {

/// How soon a waiting thread notices that the server stops.
constexpr auto slice = std::chrono::milliseconds(100);
constexpr auto linger_time = std::chrono::seconds(2);

void name_of(sockaddr_storage const& address, socklen_t length, std::string& host, int& port) {
  std::array<char, NI_MAXHOST> name{};
  std::array<char, NI_MAXSERV> number{};
  if (::getnameinfo(reinterpret_cast<sockaddr const*>(&address), length, name.data(), name.size(), number.data(),
                    number.size(), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return;
  }
  host = name.data();
  port = std::atoi(number.data());
}

}  // namespace

Connection::~Connection() {
  ::close(socket_);
}

bool Connection::wait_for(short events, Clock::duration time) const {
  auto const until = Clock::now() + time;
  for (;;) {
    auto const left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    pollfd wanted{socket_, events, 0};
    int const ready = ::poll(&wanted, 1, static_cast<int>(std::clamp<decltype(left)>(left, 0, 1 << 30)));
    if (ready > 0) return (wanted.revents & events) != 0;
    if (ready == 0 || errno != EINTR) return false;
  }
}

bool Connection::wait_for_request(std::atomic<bool> const& stopping) {
  if (begin_ < end_) return true;
  auto const until = Clock::now() + std::chrono::duration_cast<Clock::duration>(limits_.keep_alive_time);
  while (!stopping && Clock::now() < until) {
    if (wait_for(POLLIN, std::min<Clock::duration>(slice, until - Clock::now()))) {
      char byte = 0;
      return ::recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
    }
    if (!alive()) return false;
  }
  return false;
}

void Connection::begin_request() {
  budget_ = limits_.max_header_bytes;
  deadline_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(limits_.read_time);
  fault_ = Fault::None;
  patience_ = std::chrono::duration_cast<Clock::duration>(limits_.write_time);
  in_body_ = answered_ = abandoned_ = false;
}

bool Connection::alive() const {
  pollfd wanted{socket_, 0, 0};  // POLLERR and POLLHUP need not be asked for
  return ::poll(&wanted, 1, 0) == 0;
}

bool Connection::half_closed() const {
  return wait_for(POLLRDHUP, Clock::duration::zero());
}

void Connection::hang_up() {
  ::shutdown(socket_, SHUT_RDWR);
}

ssize_t Connection::read(char* bytes, std::size_t size) {
  if (size == 0) return 0;
  if (budget_ == 0) {
    if (!in_body_) fault_ = Fault::TooLong;
    return 0;
  }
  while (begin_ == end_) {
    if (!wait_for(POLLIN, deadline_ - Clock::now())) {
      fault_ = Clock::now() >= deadline_ ? Fault::TimedOut : Fault::None;
      return -1;
    }
    ssize_t const count = ::recv(socket_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (count == 0) return 0;
    if (count < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      return -1;
    }
    begin_ = 0;
    end_ = static_cast<std::size_t>(count);
  }
  std::size_t const count = std::min({size, budget_, end_ - begin_});
  std::memcpy(bytes, buffer_.data() + begin_, count);
  begin_ += count;
  budget_ -= count;
  return static_cast<ssize_t>(count);
}

ssize_t Connection::write(char const* bytes, std::size_t size) {
  answered_ = true;
  for (;;) {
    ssize_t const count = ::send(socket_, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count >= 0) return count;
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return -1;
    auto const begin = Clock::now();
    if (!wait_writable()) return -1;
    patience_ -= Clock::now() - begin;
  }
}

void Connection::linger() {
  if (::shutdown(socket_, SHUT_WR) != 0) return;
  // However much comes: a client that is reset while it sends a body seldom looks for the answer that says why.
  for (auto const until = Clock::now() + linger_time; Clock::now() < until && wait_for(POLLIN, until - Clock::now());) {
    ssize_t const count = ::recv(socket_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (count == 0 || (count < 0 && errno != EINTR && errno != EAGAIN)) return;
  }
}

void Connection::get_remote_ip_and_port(std::string& address, int& port) const {
  sockaddr_storage peer{};
  socklen_t length = sizeof(peer);
  if (::getpeername(socket_, reinterpret_cast<sockaddr*>(&peer), &length) == 0) name_of(peer, length, address, port);
}

void Connection::get_local_ip_and_port(std::string& address, int& port) const {
  sockaddr_storage own{};
  socklen_t length = sizeof(own);
  if (::getsockname(socket_, reinterpret_cast<sockaddr*>(&own), &length) == 0) name_of(own, length, address, port);
}

}  // namespace examples::serve
