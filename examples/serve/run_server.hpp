// SPDX-License-Identifier: Apache-2.0
/// @file
/// The server as a program: its options, and its life from the first request to the last.
#pragma once

#include "common/any_engine.hpp"
#include "mor/io/tokenizer.hpp"
#include "serve/api_request.hpp"
#include "serve/limits.hpp"

#include <CLI/CLI.hpp>

#include <string>

namespace examples::serve {

struct ServerFlags {
  std::string host = "127.0.0.1", name, api_key;
  int port = 8080;
  mor::Index max_slots = 32, queue = 64;
  int connections = 0;
  std::size_t max_body_bytes = Limits().max_body_bytes, max_header_bytes = Limits().max_header_bytes;
  double read_seconds = 10, write_seconds = 10, keep_alive_seconds = 5, request_seconds = 300, drain_seconds = 30;
};

/// Adds an option for each field.
void add_server_options(CLI::App& app, ServerFlags& flags);

/// Checks the values. @throws mor::error InvalidArgument naming the option
[[nodiscard]] Limits limits_of(ServerFlags const& flags);

/// A name that can stand in an address and in a label: letters, digits, and . _ - for anything else.
[[nodiscard]] std::string model_name(std::string const& text);

/// Serves until SIGINT or SIGTERM, then drains; a second signal ends the program at once. Prints the address on
/// standard output when it can be used.
/// @throws mor::error where the address cannot be had, or what ended the engine
void run_server(AnyEngine& engine, mor::io::Tokenizer const& tokenizer, ServedModel const& model,
                ServerFlags const& flags);

}  // namespace examples::serve
