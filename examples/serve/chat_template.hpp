// SPDX-License-Identifier: Apache-2.0
/// @file
/// The one chat template: roles as plain words, so that it works with any tokenizer and no control token is needed.
///
///     System: Be brief.
///
///     User: Where does the river rise?
///
///     Assistant:
///
/// The model goes on after the colon; its reply ends at the latest before `chat_turn`, where it would speak for the
/// user.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace examples::serve {

struct ChatMessage {
  std::string_view role;  ///< System, User or Assistant
  std::string content;
};

inline constexpr std::string_view chat_turn = "\n\nUser:";

[[nodiscard]] inline std::string chat_prompt(std::vector<ChatMessage> const& messages) {
  std::string text;
  for (auto const& message : messages) text += std::string(message.role) + ": " + message.content + "\n\n";
  return text += "Assistant:";
}

}  // namespace examples::serve
