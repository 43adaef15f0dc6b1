// SPDX-License-Identifier: Apache-2.0
#include "serve/api_request.hpp"

#include "mor/core/printable.hpp"
#include "mor/core/utf8.hpp"
#include "mor/io/json.hpp"
#include "serve/chat_template.hpp"
#include "serve/limits.hpp"

#include <array>
#include <limits>
#include <random>

namespace examples::serve {

namespace {

using mor::Index;
using mor::Token;
using mor::io::JsonObject;
using Json = nlohmann::json;

constexpr char source[] = "request";

[[noreturn]] void refuse(std::string const& field, std::string const& problem, std::string const& code = {},
                         int status = 400) {
  throw ApiError(status, field + ": " + problem, field, code);
}

/// A field that is there and not null: OpenAI's clients spell "absent" as null.
Json const* given(JsonObject& object, std::string const& key) {
  return object.has_value(key) ? &object.at(key) : nullptr;
}

void read_number(JsonObject& object, std::string const& key, double& value) {
  if (object.has_value(key)) value = object.number(key);
}

void read_integer(JsonObject& object, std::string const& key, Index least, Index most, Index& value) {
  if (object.has_value(key)) value = object.integer(key, least, most);
}

void read_flag(JsonObject& object, std::string const& key, bool& value) {
  if (object.has_value(key)) value = object.boolean(key);
}

/// Fields of the OpenAI API that change nothing here, whatever they say.
void read_ignored(JsonObject& object) {
  for (char const* const key : {"user", "safety_identifier", "prompt_cache_key", "service_tier"}) {
    if (object.has_value(key)) static_cast<void>(object.string(key));
  }
  for (char const* const key : {"store", "parallel_tool_calls"}) {
    if (object.has_value(key)) static_cast<void>(object.boolean(key));
  }
  if (object.has_value("metadata")) static_cast<void>(object.object("metadata"));
}

/// Fields of the OpenAI API that ask for what this server does not do: accepted where they ask for nothing.
void read_unsupported(JsonObject& object, bool chat) {
  auto const only = [&](char const* key, Json const& neutral) {
    Json const* const value = given(object, key);
    if (value == nullptr || *value == neutral) return;
    refuse(key, "not supported (expected nothing or " + neutral.dump() + ")", "unsupported_value");
  };
  only("n", 1);
  only("frequency_penalty", 0);
  only("presence_penalty", 0);
  only("logit_bias", Json::object());
  if (!chat) {
    only("best_of", 1);
    only("suffix", "");
    return;
  }
  only("top_logprobs", 0);
  only("tools", Json::array());
  only("functions", Json::array());
  only("tool_choice", "none");
  only("function_call", "none");
  only("modalities", Json::array({"text"}));
  only("response_format", Json{{"type", "text"}});
}

std::uint64_t read_seed(JsonObject& object) {
  Json const* const value = given(object, "seed");
  if (value == nullptr) {
    static thread_local std::random_device device;
    return (std::uint64_t{device()} << 32 | device()) >> 11;  // an integer that JavaScript can hold, too
  }
  if (value->is_number_unsigned()) return value->get<std::uint64_t>();
  return static_cast<std::uint64_t>(mor::io::json_integer(*value, object.where("seed")));
}

void read_sampling(JsonObject& object, mor::infer::SamplingParams& sampling) {
  read_number(object, "temperature", sampling.temperature);
  read_number(object, "top_p", sampling.top_p);
  read_number(object, "min_p", sampling.min_p);
  read_number(object, "repetition_penalty", sampling.repetition_penalty);
  read_integer(object, "top_k", 0, std::numeric_limits<mor::Row>::max(), sampling.top_k);
  sampling.seed = read_seed(object);
  sampling.check();
}

void read_depth(JsonObject& object, ServedModel const& model, mor::infer::DepthKnobs& depth) {
  read_number(object, "depth_threshold", depth.threshold);
  read_integer(object, "min_depth", 1, model.recursions, depth.min_depth);
  read_integer(object, "max_depth", 1, model.recursions, depth.max_depth);
  if (depth.max_depth != 0 && depth.min_depth > depth.max_depth) {
    refuse("min_depth", "above max_depth (expected at most " + mor::text_of(depth.max_depth) + ", got " +
                            mor::text_of(depth.min_depth) + ")");
  }
}

std::string read_stop_string(Json const& value, std::string const& where) {
  std::string const& text = mor::io::json_string(value, where);
  if (text.empty()) refuse("stop", "a stop string is empty (expected at least one character)");
  if (text.size() > max_stop_bytes) {
    refuse("stop", "a stop string is too long (expected at most " + mor::text_of(max_stop_bytes) + " bytes, got " +
                       mor::text_of(text.size()) + ")");
  }
  return text;
}

std::vector<std::string> read_stop(JsonObject& object) {
  Json const* const value = given(object, "stop");
  if (value == nullptr) return {};
  if (value->is_string()) return {read_stop_string(*value, object.where("stop"))};
  if (!value->is_array()) refuse("stop", "wrong type (expected a string or an array of strings)");
  if (value->size() > max_stop_strings) {
    refuse("stop", "too many stop strings (expected at most " + mor::text_of(max_stop_strings) + ", got " +
                       mor::text_of(value->size()) + ")");
  }
  std::vector<std::string> texts;
  for (Json const& item : *value) texts.push_back(read_stop_string(item, object.where("stop")));
  return texts;
}

void read_streaming(JsonObject& object, ApiRequest& request) {
  read_flag(object, "stream", request.stream);
  if (!object.has_value("stream_options")) return;
  if (!request.stream) refuse("stream_options", "only allowed where stream is true");
  auto options = object.object("stream_options");
  read_flag(options, "include_usage", request.include_usage);
  options.reject_unknown();
}

/// Text becomes text: what spells a control token stays a spelling.
std::vector<Token> encode(std::string const& text, mor::io::Tokenizer const& tokenizer, std::string const& field) {
  std::vector<Token> tokens(tokenizer.begin_tokens().begin(), tokenizer.begin_tokens().end());
  auto const words = tokenizer.encode(text, mor::io::SpecialInput::PlainText);
  tokens.insert(tokens.end(), words.begin(), words.end());
  if (!tokens.empty()) return tokens;
  auto const begin = tokenizer.end_of_text_id();
  if (!begin) refuse(field, "empty, and the tokenizer has no token that begins a text");
  return {*begin};
}

std::vector<Token> read_tokens(Json const& list, ServedModel const& model) {
  std::vector<Token> tokens;
  for (Json const& item : list) {
    tokens.push_back(static_cast<Token>(
        mor::io::json_integer(item, std::string(source) + ": field prompt", 0, model.vocabulary - 1)));
  }
  if (tokens.empty()) refuse("prompt", "empty (expected at least one token)");
  return tokens;
}

void read_prompt(JsonObject& object, ServedModel const& model, mor::io::Tokenizer const& tokenizer,
                 ApiRequest& request) {
  Json const* value = &object.at("prompt");
  bool const list_of_prompts = value->is_array() && !value->empty() && !value->front().is_number();
  if (list_of_prompts) {
    if (value->size() > 1) {
      refuse("prompt", "several prompts (expected one, got " + mor::text_of(value->size()) + ")", "unsupported_value");
    }
    value = &value->front();
  }
  if (value->is_string()) {
    request.prompt_text = value->get_ref<std::string const&>();
    request.generation.prompt = encode(request.prompt_text, tokenizer, "prompt");
    return;
  }
  if (!value->is_array()) refuse("prompt", "wrong type (expected a string or an array of token ids)");
  request.generation.prompt = read_tokens(*value, model);
  std::string bytes;
  for (Token const token : request.generation.prompt) bytes += token_bytes(tokenizer, token);
  request.prompt_text = mor::to_valid_utf8(bytes);
}

std::string_view read_role(JsonObject& message) {
  static constexpr std::array<std::array<std::string_view, 2>, 4> roles{
      {{"system", "System"}, {"developer", "System"}, {"user", "User"}, {"assistant", "Assistant"}}};
  std::string const& role = message.string("role");
  for (auto const& [name, word] : roles) {
    if (role == name) return word;
  }
  refuse("messages", "unknown role (expected system, developer, user or assistant, got " + mor::printable(role) + ")");
}

/// A string, or parts of type text.
std::string read_content(JsonObject& message) {
  Json const& content = message.at("content");
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) refuse("messages", "content: wrong type (expected a string or an array of parts)");
  std::string text;
  for (Json const& item : content) {
    JsonObject part(item, source, "messages");
    if (part.string("type") != "text") refuse("messages", "content: only parts of type text", "unsupported_value");
    text += part.string("text");
    part.reject_unknown();
  }
  return text;
}

/// What else an answer of this API holds: it may come back as history, where it says nothing.
void read_rest_of_answer(JsonObject& message) {
  for (char const* const key : {"refusal", "tool_calls", "function_call", "audio", "annotations"}) {
    Json const* const value = given(message, key);
    if (value == nullptr || value->empty() || *value == "") continue;
    refuse("messages", std::string(key) + ": not supported (expected nothing)", "unsupported_value");
  }
}

void read_messages(JsonObject& object, mor::io::Tokenizer const& tokenizer, ApiRequest& request) {
  std::vector<ChatMessage> messages;
  for (Json const& item : object.array("messages")) {
    JsonObject message(item, source, "messages");
    auto const role = read_role(message);
    messages.push_back({role, read_content(message)});
    if (message.has_value("name")) static_cast<void>(message.string("name"));
    if (role == "Assistant") read_rest_of_answer(message);
    message.reject_unknown();
  }
  if (messages.empty()) refuse("messages", "empty (expected at least one message)");
  request.prompt_text = chat_prompt(messages);
  request.generation.prompt = encode(request.prompt_text, tokenizer, "messages");
  request.stop.emplace_back(chat_turn);
}

void read_log_probabilities(JsonObject& object, ApiRequest& request) {
  if (request.chat) return read_flag(object, "logprobs", request.log_probabilities);
  Json const* const value = given(object, "logprobs");
  if (value == nullptr) return;
  if (mor::io::json_integer(*value, object.where("logprobs"), 0, 5) != 0) {
    refuse("logprobs", "alternatives to the chosen token are not reported (expected 0: the chosen token's)",
           "unsupported_value");
  }
  request.log_probabilities = true;
}

/// The number of tokens asked for, checked against the context or clipped to it.
void read_length(JsonObject& object, ServedModel const& model, ApiRequest& request) {
  std::string const field = request.chat ? "messages" : "prompt";
  auto const used = static_cast<Index>(request.generation.prompt.size());
  auto const refuse_length = [&](std::string const& what, Index tokens) {
    refuse(field,
           what + " do not fit the context (expected at most " + mor::text_of(model.context) + " tokens, got " +
               mor::text_of(tokens) + ")",
           "context_length_exceeded");
  };
  if (used >= model.context) refuse_length("the prompt and a token after it", used + 1);
  Index length = request.chat ? model.context - used : std::min<Index>(16, model.context - used);
  Index const most = std::numeric_limits<std::int32_t>::max();
  read_integer(object, "max_tokens", 1, most, length);
  if (request.chat) read_integer(object, "max_completion_tokens", 1, most, length);
  bool clip = false;
  read_flag(object, "clip_to_context", clip);
  if (clip) length = std::min(length, model.context - used);
  if (used + length > model.context) refuse_length("prompt and max_tokens", used + length);
  request.generation.max_new_tokens = length;
}

void read_model(JsonObject& object, ServedModel const& model) {
  if (!object.has_value("model") || object.string("model") == model.name) return;
  refuse(
      "model",
      "no such model (expected " + mor::printable(model.name) + ", got " + mor::printable(object.string("model")) + ")",
      "model_not_found", 404);
}

ApiRequest read_all(JsonObject& object, bool chat, ServedModel const& model, mor::io::Tokenizer const& tokenizer) {
  ApiRequest request;
  request.chat = chat;
  read_model(object, model);
  read_ignored(object);
  read_unsupported(object, chat);
  read_streaming(object, request);
  read_sampling(object, request.generation.sampling);
  read_depth(object, model, request.generation.depth);
  read_log_probabilities(object, request);
  request.stop = read_stop(object);
  if (chat) {
    read_messages(object, tokenizer, request);
  } else {
    read_flag(object, "echo", request.echo);
    read_prompt(object, model, tokenizer, request);
  }
  read_length(object, model, request);
  bool ignore_end = false;
  read_flag(object, "ignore_eos", ignore_end);
  if (!ignore_end) request.generation.end_token = model.end_token;
  object.reject_unknown();
  return request;
}

/// The field that an error of the JSON reader names: `request: field NAME` or, of a sampling parameter, `NAME`.
std::string field_of(mor::error const& problem) {
  std::string const mark = std::string(source) + ": field ";
  std::string const& where = problem.where();
  if (where.starts_with(mark)) return where.substr(mark.size());
  return where.starts_with(source) ? std::string() : where;
}

}  // namespace

ApiRequest parse_request(std::string_view body, bool chat, ServedModel const& model,
                         mor::io::Tokenizer const& tokenizer) {
  try {
    Json const json = mor::io::parse_json(body, source);
    JsonObject object(json, source);
    return read_all(object, chat, model, tokenizer);
  } catch (mor::error const& problem) {
    if (problem.code() == mor::ErrorCode::InvalidConfig) {  // reject_unknown
      std::string const& quoted = problem.got();
      throw ApiError(400, "unrecognized request argument: " + quoted, quoted.substr(1, quoted.size() - 2),
                     "unknown_parameter");
    }
    throw ApiError(400, problem.what(), field_of(problem));
  }
}

std::string_view token_bytes(mor::io::Tokenizer const& tokenizer, Token token) {
  if (token < 0 || token >= tokenizer.vocab_size()) return mor::utf8_replacement;
  return tokenizer.token_bytes(token);
}

}  // namespace examples::serve
