// SPDX-License-Identifier: Apache-2.0
#include "serve/api_error.hpp"

#include "mor/core/utf8.hpp"

#include <nlohmann/json.hpp>

namespace examples::serve {

std::string error_body(ApiError const& error) {
  using Json = nlohmann::ordered_json;
  auto const text_or_null = [](std::string const& text) { return text.empty() ? Json() : Json(text); };
  Json const body{{"message", mor::to_valid_utf8(error.what())},
                  {"type", error.type},
                  {"param", text_or_null(mor::to_valid_utf8(error.parameter))},
                  {"code", text_or_null(error.code)}};
  return Json{{"error", body}}.dump() + "\n";
}

ApiError plain_error(int status) {
  switch (status) {
    case 400: return {400, "the request is not valid HTTP/1.1"};
    case 408: return {408, "the request did not arrive in time", {}, "request_timeout"};
    case 411: return {411, "a body needs a Content-Length"};
    case 413: return {413, "the body is too large"};
    case 414: return {414, "the address is too long"};
    case 416: return {416, "the Range header makes no sense"};
    case 429: return {429, "too many requests at once", {}, "rate_limit_exceeded", "rate_limit_error"};
    case 431: return {431, "the headers are too large"};
    default: break;
  }
  if (status < 500) return {status, "the request is refused"};
  return {status, "the server failed", {}, {}, "server_error"};
}

}  // namespace examples::serve
