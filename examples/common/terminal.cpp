// SPDX-License-Identifier: Apache-2.0
#include "common/terminal.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string_view>
#include <utility>

namespace examples {

bool is_terminal() {
  char const* const kind = std::getenv("TERM");
  return ::isatty(STDOUT_FILENO) != 0 && (kind == nullptr || std::string_view(kind) != "dumb");
}

std::size_t terminal_columns() {
  winsize size{};
  bool const known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? size.ws_col : 80;
}

void TransientLine::show(std::string const& text) {
  std::cout << '\r' << text.substr(0, terminal_columns() - 1) << "\x1b[K" << std::flush;
  shown_ = true;
}

void TransientLine::clear() {
  if (std::exchange(shown_, false)) std::cout << "\r\x1b[K" << std::flush;
}

}  // namespace examples
