// SPDX-License-Identifier: Apache-2.0
/// @file
/// One client's connection as a stream for cpp-httplib, with bounds that its own stream lacks: bytes and time of a
/// whole request, not of one read.
#pragma once

#include "serve/limits.hpp"

#include <httplib.h>
#include <poll.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <string>

namespace examples::serve {

/// A socket that is read within a budget of bytes and before a deadline. Used by one thread.
///
/// The functions of the base class differ between versions of cpp-httplib; all of any version are here, so none of them
/// can say `override`.
class Connection final : public httplib::Stream {
 public:
  enum class Fault { None, TimedOut, TooLong };

  Connection(socket_t socket, Limits const& limits) : socket_(socket), limits_(limits) {}
  Connection(Connection const&) = delete;
  Connection& operator=(Connection const&) = delete;
  ~Connection();  ///< closes the socket

  /// @name The life of a connection
  /// @{
  /// Waits for a request's first byte. False where the client has gone, was idle for too long, or `stopping` is set.
  [[nodiscard]] bool wait_for_request(std::atomic<bool> const& stopping);
  void begin_request();  ///< the budget is that of a request line and headers
  void begin_body(std::size_t bytes) {
    budget_ = bytes;
    in_body_ = true;
  }
  /// The rest of the body will not be read: the connection ends after this answer.
  void abandon_body() { abandoned_ = true; }
  [[nodiscard]] bool abandoned() const { return abandoned_; }
  [[nodiscard]] bool body_is_read() const { return in_body_ && budget_ == 0; }
  [[nodiscard]] Fault fault() const { return fault_; }  ///< why the last request could not be read
  [[nodiscard]] bool answered() const { return answered_; }
  /// Says goodbye and lets the client read the answer before the connection is reset, for a moment.
  void linger();
  /// @}

  /// Whether nothing has shown yet that the client has gone.
  [[nodiscard]] bool alive() const;
  /// The client will send nothing more: it waits for its answer, or has gone.
  [[nodiscard]] bool half_closed() const;
  /// From now on nothing is sent.
  void hang_up();

  /// @name httplib::Stream
  /// @{
  bool is_readable() const { return begin_ < end_ || wait_for(POLLIN, Clock::duration::zero()); }
  bool is_writable() const { return wait_writable(); }
  bool wait_readable() const { return begin_ < end_ || wait_for(POLLIN, deadline_ - Clock::now()); }
  bool wait_writable() const { return wait_for(POLLOUT, patience_); }
  bool is_peer_alive() const { return alive(); }
  ssize_t read(char* bytes, std::size_t size);
  ssize_t write(char const* bytes, std::size_t size);
  void get_remote_ip_and_port(std::string& address, int& port) const;
  void get_local_ip_and_port(std::string& address, int& port) const;
  /// Only compared with what `select` can take; here it is `poll` that waits.
  socket_t socket() const { return socket_ < FD_SETSIZE ? socket_ : 0; }
  time_t duration() const { return 0; }
  /// @}

 private:
  [[nodiscard]] bool wait_for(short events, Clock::duration time) const;

  socket_t socket_;
  Limits const& limits_;
  std::array<char, 4096> buffer_{};
  std::size_t begin_ = 0, end_ = 0;  ///< of what is in the buffer and was not read
  std::size_t budget_ = 0;
  Clock::time_point deadline_;
  Fault fault_ = Fault::None;
  Clock::duration patience_{};  ///< left for a client that does not read its answer
  bool in_body_ = false, answered_ = false, abandoned_ = false;
};

}  // namespace examples::serve
