// SPDX-License-Identifier: Apache-2.0
/// @file
/// Answers of `/v1/completions` and `/v1/chat/completions`, whole or as server-sent events, in OpenAI's shapes; what
/// has to do with depths is in an object `mor` beside them.
#pragma once

#include "serve/api_request.hpp"
#include "serve/token_text.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace examples::serve {

/// Builds the answer to one request.
class ApiResponse {
 public:
  ApiResponse(ApiRequest const& request, ServedModel const& model);

  /// Tokens that may be shown, in order.
  void add(std::vector<ShownToken> tokens);

  /// @name The whole answer
  /// @{
  /// @param reason     "stop" or "length"
  /// @param generated  tokens that the model made, shown or not
  [[nodiscard]] std::string body(std::string_view reason, mor::Index generated) const;
  /// @}

  /// @name The answer as events
  /// Each is ready to be sent.
  /// @{
  [[nodiscard]] std::string first_event() const;  ///< an echoed prompt, or the role in a chat; may be empty
  [[nodiscard]] std::string token_event();        ///< tokens added since the last; may be empty
  [[nodiscard]] std::string last_events(std::string_view reason, mor::Index generated) const;
  [[nodiscard]] static std::string error_event(ApiError const& error);
  /// @}

 private:
  struct Part;
  [[nodiscard]] std::string chunk(Part const& part) const;
  [[nodiscard]] std::size_t text_offset(std::size_t token) const;

  ApiRequest const* request_;
  ServedModel const* model_;
  std::string id_;
  std::int64_t created_;
  std::vector<ShownToken> tokens_;
  std::size_t sent_ = 0;  ///< tokens that are in an event
};

/// `{"object": "list", "data": [...]}` with the one model.
[[nodiscard]] std::string models_body(ServedModel const& model);

/// The model's own entry of that list.
[[nodiscard]] std::string model_body(ServedModel const& model);

}  // namespace examples::serve
