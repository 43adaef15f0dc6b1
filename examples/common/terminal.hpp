// SPDX-License-Identifier: Apache-2.0
/// @file
/// What standard output shows: a terminal, its width, and a line there that changes.
#pragma once

#include <cstddef>
#include <string>

namespace examples {

/// Whether standard output is a terminal that knows escape sequences; TERM=dumb says that it does not.
[[nodiscard]] bool is_terminal();

/// Columns of the terminal; 80 where it does not say.
[[nodiscard]] std::size_t terminal_columns();

/// A line that the next one replaces. For terminals only.
class TransientLine {
 public:
  /// Cut where it would wrap: what has wrapped can be overwritten no more.
  /// @param text  ASCII
  void show(std::string const& text);

  /// Takes the line away, if there is one, so that something else can be printed.
  void clear();

 private:
  bool shown_ = false;
};

}  // namespace examples
