// SPDX-License-Identifier: Apache-2.0
/// @file
/// Looks at an error that the library throws: its code and its message.
#pragma once

#include "mor/core/error.hpp"

#include <optional>
#include <string>

namespace mor::test {

/// What was thrown.
struct Failure {
  ErrorCode code;
  std::string message;
};

/// Runs `action` and returns the mor::error it throws, or nothing. Other exceptions pass through.
template <class Action>
[[nodiscard]] std::optional<Failure> failure_of(Action&& action) {
  try {
    action();
  } catch (mor::error const& problem) {
    return Failure{problem.code(), problem.what()};
  }
  return std::nullopt;
}

/// True when `action` throws that code with a message that holds every one of `parts`.
template <class Action, class... Parts>
[[nodiscard]] bool fails_with(ErrorCode code, Action&& action, Parts const&... parts) {
  std::optional<Failure> const failure = failure_of(action);
  return failure && failure->code == code && (... && (failure->message.find(parts) != std::string::npos));
}

}  // namespace mor::test
