// SPDX-License-Identifier: Apache-2.0
/// @file
/// Everything that the server bounds, so that no client can take more than its share of memory, threads or time.
#pragma once

#include "mor/core/types.hpp"

#include <chrono>
#include <cstddef>

namespace examples::serve {

using Seconds = std::chrono::duration<double>;
using Clock = std::chrono::steady_clock;

struct Limits {
  std::size_t max_body_bytes = std::size_t{1} << 20;
  std::size_t max_header_bytes = 8192;  ///< request line and headers together
  int connections = 112;                ///< served at once; each has a thread
  int waiting_connections = 64;         ///< accepted, but not yet served; one more is answered 429 and closed
  int requests_a_connection = 1000;
  Seconds read_time{10};        ///< from a request's first byte to its last
  Seconds write_time{10};       ///< that a client may keep an answer waiting, all in all
  Seconds keep_alive_time{5};   ///< that a connection may be idle
  Seconds request_time{300};    ///< from a request's last byte to the end of its answer
  mor::Index generations = 96;  ///< running and queued; one more is answered 429
};

/// Longest stop string, and how many a request may have.
inline constexpr std::size_t max_stop_bytes = 256;
inline constexpr std::size_t max_stop_strings = 4;

}  // namespace examples::serve
