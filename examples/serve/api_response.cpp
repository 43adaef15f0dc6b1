// SPDX-License-Identifier: Apache-2.0
#include "serve/api_response.hpp"

#include <nlohmann/json.hpp>

#include <cmath>
#include <ctime>
#include <random>
#include <span>
#include <utility>

namespace examples::serve {

namespace {

using mor::Index;
using Json = nlohmann::ordered_json;
using Tokens = std::span<ShownToken const>;

std::string new_id(bool chat) {
  static constexpr char digits[] = "0123456789abcdef";
  static thread_local std::mt19937_64 generator{std::random_device()()};
  std::string id = chat ? "chatcmpl-" : "cmpl-";
  for (int word = 0; word < 2; ++word) {
    auto bits = generator();
    for (int i = 0; i < 16; ++i, bits >>= 4) id += digits[bits & 15];
  }
  return id;
}

std::string joined(Tokens tokens) {
  std::string text;
  for (auto const& token : tokens) text += token.text;
  return text;
}

double mean_depth(Tokens tokens) {
  double sum = 0.0;
  for (auto const& token : tokens) sum += static_cast<double>(token.depth);
  return tokens.empty() ? 0.0 : sum / static_cast<double>(tokens.size());
}

/// What is not of the OpenAI API.
Json depths_of(Tokens tokens) {
  Json texts = Json::array(), depths = Json::array();
  for (auto const& token : tokens) {
    texts.push_back(token.text);
    depths.push_back(token.depth);
  }
  return {{"tokens", std::move(texts)}, {"depths", std::move(depths)}};
}

Json usage_of(ApiRequest const& request, Index generated) {
  auto const prompt = static_cast<Index>(request.generation.prompt.size());
  return {{"prompt_tokens", prompt}, {"completion_tokens", generated}, {"total_tokens", prompt + generated}};
}

/// A logarithm that JSON can hold.
double finite(double log_probability) {
  return std::isfinite(log_probability) ? log_probability : -9999.0;
}

Json chat_log_probabilities(Tokens tokens) {
  Json content = Json::array();
  for (auto const& token : tokens) {
    Json bytes = Json::array();
    for (char const byte : token.text) bytes.push_back(static_cast<unsigned char>(byte));
    content.push_back({{"token", token.text},
                       {"logprob", finite(token.log_probability)},
                       {"bytes", std::move(bytes)},
                       {"top_logprobs", Json::array()}});
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

/// @param offset  characters before the first token's text
Json text_log_probabilities(Tokens tokens, std::size_t offset) {
  Json texts = Json::array(), values = Json::array(), offsets = Json::array();
  for (auto const& token : tokens) {
    texts.push_back(token.text);
    values.push_back(finite(token.log_probability));
    offsets.push_back(offset);
    for (char const byte : token.text) offset += (static_cast<unsigned char>(byte) & 0xC0U) != 0x80U;
  }
  return {{"tokens", std::move(texts)},
          {"token_logprobs", std::move(values)},
          {"top_logprobs", nullptr},
          {"text_offset", std::move(offsets)}};
}

std::string event(std::string const& data) {
  return "data: " + data + "\n\n";
}

}  // namespace

ApiResponse::ApiResponse(ApiRequest const& request, ServedModel const& model)
    : request_(&request), model_(&model), id_(new_id(request.chat)), created_(std::time(nullptr)) {}

void ApiResponse::add(std::vector<ShownToken> tokens) {
  tokens_.insert(tokens_.end(), std::move_iterator(tokens.begin()), std::move_iterator(tokens.end()));
}

/// What one object of a stream says.
struct ApiResponse::Part {
  std::string text = {};
  std::span<ShownToken const> tokens = {};
  std::size_t offset = 0;  ///< characters before the first token
  std::optional<std::string_view> reason = {};
  bool opening = false;
};

/// Characters before the text of a token, the echoed prompt counted.
std::size_t ApiResponse::text_offset(std::size_t token) const {
  std::size_t count = 0;
  auto const add = [&](std::string const& text) {
    for (char const byte : text) count += (static_cast<unsigned char>(byte) & 0xC0U) != 0x80U;
  };
  if (!request_->log_probabilities) return 0;
  if (request_->echo) add(request_->prompt_text);
  for (std::size_t i = 0; i < token; ++i) add(tokens_[i].text);
  return count;
}

std::string ApiResponse::chunk(Part const& part) const {
  bool const chat = request_->chat;
  Json choice{{"index", 0}};
  Json log_probabilities;
  if (chat) {
    Json delta = Json::object();
    if (part.opening) delta["role"] = "assistant";
    if (part.opening || !part.tokens.empty()) delta["content"] = part.text;
    choice["delta"] = std::move(delta);
    if (request_->log_probabilities && !part.tokens.empty()) log_probabilities = chat_log_probabilities(part.tokens);
  } else {
    choice["text"] = part.text;
    if (request_->log_probabilities) log_probabilities = text_log_probabilities(part.tokens, part.offset);
  }
  choice["logprobs"] = std::move(log_probabilities);
  choice["finish_reason"] = part.reason ? Json(*part.reason) : Json();
  Json mor = depths_of(part.tokens);
  if (part.reason) {
    mor["mean_depth"] = mean_depth(tokens_);
    mor["seed"] = request_->generation.sampling.seed;
  }
  Json object{{"id", id_},
              {"object", chat ? "chat.completion.chunk" : "text_completion"},
              {"created", created_},
              {"model", model_->name},
              {"choices", Json::array({std::move(choice)})}};
  if (request_->include_usage) object["usage"] = nullptr;
  object["mor"] = std::move(mor);
  return object.dump();
}

std::string ApiResponse::body(std::string_view reason, Index generated) const {
  bool const chat = request_->chat;
  std::string text = joined(tokens_);
  Json choice{{"index", 0}};
  Json log_probabilities;
  if (chat) {
    choice["message"] = {{"role", "assistant"}, {"content", std::move(text)}, {"refusal", nullptr}};
    if (request_->log_probabilities) log_probabilities = chat_log_probabilities(tokens_);
  } else {
    choice["text"] = (request_->echo ? request_->prompt_text : std::string()) + text;
    if (request_->log_probabilities) log_probabilities = text_log_probabilities(tokens_, text_offset(0));
  }
  choice["logprobs"] = std::move(log_probabilities);
  choice["finish_reason"] = reason;
  Json mor = depths_of(tokens_);
  mor["mean_depth"] = mean_depth(tokens_);
  mor["seed"] = request_->generation.sampling.seed;
  Json const object{{"id", id_},
                    {"object", chat ? "chat.completion" : "text_completion"},
                    {"created", created_},
                    {"model", model_->name},
                    {"choices", Json::array({std::move(choice)})},
                    {"usage", usage_of(*request_, generated)},
                    {"mor", std::move(mor)}};
  return object.dump() + "\n";
}

std::string ApiResponse::first_event() const {
  if (request_->chat) return event(chunk({.opening = true}));
  return request_->echo ? event(chunk({.text = request_->prompt_text})) : std::string();
}

std::string ApiResponse::token_event() {
  if (sent_ == tokens_.size()) return {};
  auto const fresh = Tokens(tokens_).subspan(sent_);
  std::string text = event(chunk({.text = joined(fresh), .tokens = fresh, .offset = text_offset(sent_)}));
  sent_ = tokens_.size();
  return text;
}

std::string ApiResponse::last_events(std::string_view reason, Index generated) const {
  std::string text = event(chunk({.offset = text_offset(sent_), .reason = reason}));
  if (request_->include_usage) {
    Json const object{{"id", id_},
                      {"object", request_->chat ? "chat.completion.chunk" : "text_completion"},
                      {"created", created_},
                      {"model", model_->name},
                      {"choices", Json::array()},
                      {"usage", usage_of(*request_, generated)}};
    text += event(object.dump());
  }
  return text + event("[DONE]");
}

std::string ApiResponse::error_event(ApiError const& error) {
  std::string body = error_body(error);
  body.pop_back();
  return event(body);
}

namespace {

Json model_entry(ServedModel const& model) {
  return {{"id", model.name},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "mor"},
          {"mor", {{"context", model.context}, {"vocabulary", model.vocabulary}, {"recursions", model.recursions}}}};
}

}  // namespace

std::string models_body(ServedModel const& model) {
  return Json{{"object", "list"}, {"data", Json::array({model_entry(model)})}}.dump() + "\n";
}

std::string model_body(ServedModel const& model) {
  return model_entry(model).dump() + "\n";
}

}  // namespace examples::serve
