// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a client is told when its request is not answered: a status and the error object of the OpenAI API.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace examples::serve {

/// `type` and `code` are the words that OpenAI's clients branch on; `parameter` is the field at fault, where there is
/// one.
struct ApiError : std::runtime_error {
  ApiError(int status_, std::string const& message, std::string parameter_ = {}, std::string code_ = {},
           std::string type_ = "invalid_request_error")
      : std::runtime_error(message),
        status(status_),
        type(std::move(type_)),
        parameter(std::move(parameter_)),
        code(std::move(code_)) {}

  int status;
  std::string type, parameter, code;
};

/// `{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}`
[[nodiscard]] std::string error_body(ApiError const& error);

/// The same for a status that came without a message of ours.
[[nodiscard]] ApiError plain_error(int status);

/// Seconds after which a client that was turned away may try again.
inline constexpr char retry_after[] = "1";

}  // namespace examples::serve
