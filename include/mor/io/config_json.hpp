// SPDX-License-Identifier: Apache-2.0
/// @file
/// `config.json`: a model's configuration in the fields of a Hugging Face Llama model, plus one object, `mor`, that
/// says how tokens recur. Without that object the model is a plain Transformer.
#pragma once

#include "mor/core/config.hpp"
#include "mor/core/config_check.hpp"
#include "mor/core/config_text.hpp"
#include "mor/core/dtype.hpp"
#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/io/file.hpp"
#include "mor/io/json.hpp"
#include "mor/io/llama_fields.hpp"

#include <cstddef>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mor::io {

namespace detail {

/// A token id, the first of a list of them, or -1 where the file says null.
[[nodiscard]] inline Token read_token_id(JsonObject& root, std::string const& key, Token fallback) {
  if (!root.contains(key)) return fallback;
  nlohmann::json const* value = &root.at(key);
  std::string where = root.where(key);
  if (value->is_array() && !value->empty()) {
    value = &value->front();
    where += "[0]";
  }
  if (value->is_null()) return -1;
  return static_cast<Token>(json_integer(*value, where, -1, std::numeric_limits<Token>::max()));
}

/// Absent fields take the values that a Llama configuration gives them. The base of the rotary angles is not read here.
[[nodiscard]] inline TransformerConfig read_transformer(JsonObject& root) {
  TransformerConfig t;
  t.vocab_size = root.integer("vocab_size");
  t.hidden_size = root.integer("hidden_size");
  t.intermediate_size = root.integer("intermediate_size");
  t.num_attention_heads = root.integer("num_attention_heads", 1);
  t.num_key_value_heads =
      root.has_value("num_key_value_heads") ? root.integer("num_key_value_heads") : t.num_attention_heads;
  if (root.has_value("head_dim")) {
    t.head_dim = root.integer("head_dim");
  } else {
    t.head_dim = t.hidden_size / t.num_attention_heads;
    if (t.hidden_size % t.num_attention_heads != 0) {
      fail(ErrorCode::InvalidConfig, "not divisible by num_attention_heads, and there is no head_dim",
           root.where("hidden_size"), "a multiple of " + std::to_string(t.num_attention_heads),
           std::to_string(t.hidden_size));
    }
  }
  t.max_position_embeddings = root.integer_or("max_position_embeddings", 2048);
  t.rms_norm_eps = root.number_or("rms_norm_eps", 1e-6);
  t.initializer_range = root.number_or("initializer_range", 0.02);
  t.tie_word_embeddings = root.boolean_or("tie_word_embeddings", false);
  t.bos_token_id = read_token_id(root, "bos_token_id", 1);
  t.eos_token_id = read_token_id(root, "eos_token_id", 2);
  return t;
}

/// Reads the name of a choice; leaves `value` alone when the field is absent.
template <class Enum, class Value>
void read_choice(JsonObject& object, Value& value) {
  std::string const key(EnumNames<Enum>::field);
  if (object.contains(key)) value = parse_choice<Enum>(object.string(key), object.where(key));
}

/// The same for a choice whose default depends on others: null counts as absent.
template <class Enum>
void read_optional_choice(JsonObject& object, std::optional<Enum>& value) {
  if (object.has_value(std::string(EnumNames<Enum>::field))) read_choice<Enum>(object, value);
}

[[nodiscard]] inline std::vector<double> read_capacities(JsonObject& object) {
  std::vector<double> capacities;
  if (!object.has_value("capacities")) return capacities;
  for (nlohmann::json const& item : object.array("capacities")) {
    std::string const place = "capacities[" + std::to_string(capacities.size()) + "]";
    capacities.push_back(json_number(item, object.where(place)));
  }
  if (capacities.empty()) {
    fail(ErrorCode::InvalidConfig, "empty list", object.where("capacities"),
         "one number a recursion, or no such field");
  }
  return capacities;
}

[[nodiscard]] inline RecursionConfig read_recursion(JsonObject object) {
  RecursionConfig r;
  read_choice<RouterKind>(object, r.router);
  read_choice<RouterNetwork>(object, r.router_network);
  read_optional_choice<RouterActivation>(object, r.router_activation);
  if (object.has_value("alpha")) r.alpha = object.number("alpha");
  r.temperature = object.number_or("temperature", r.temperature);
  read_choice<Gating>(object, r.gating);
  r.capacities = read_capacities(object);
  read_choice<RouterSampling>(object, r.sampling);
  r.aux_coefficient = object.number_or("aux_coefficient", r.aux_coefficient);
  read_optional_choice<Balancing>(object, r.balancing);
  r.balance_coefficient = object.number_or("balance_coefficient", r.balance_coefficient);
  r.bias_update_rate = object.number_or("bias_update_rate", r.bias_update_rate);
  r.z_coefficient = object.number_or("z_coefficient", r.z_coefficient);
  r.random_router = object.boolean_or("random_router", r.random_router);
  r.paper_eq2 = object.boolean_or("paper_eq2", r.paper_eq2);
  read_choice<CacheKind>(object, r.cache);
  r.sharing = SharingKind::MiddleCycle;
  read_choice<SharingKind>(object, r.sharing);
  bool const middle = r.sharing == SharingKind::MiddleCycle || r.sharing == SharingKind::MiddleSequence;
  r.num_recursions = object.integer_or("num_recursions", r.sharing == SharingKind::None ? 1 : 3);
  r.num_prelude_layers = object.integer_or("num_prelude_layers", middle ? 1 : 0);
  r.num_coda_layers = object.integer_or("num_coda_layers", middle ? 1 : 0);
  object.reject_unknown();
  return r;
}

[[nodiscard]] inline nlohmann::ordered_json recursion_json(RecursionConfig const& r) {
  nlohmann::ordered_json mor;
  auto const name = [](auto choice) { return std::string(to_text(choice)); };
  mor["router"] = name(r.router);
  mor["router_network"] = name(r.router_network);
  if (r.router_activation) mor["router_activation"] = name(*r.router_activation);
  if (r.alpha) mor["alpha"] = *r.alpha;
  mor["temperature"] = r.temperature;
  mor["gating"] = name(r.gating);
  if (!r.capacities.empty()) mor["capacities"] = r.capacities;
  mor["sampling"] = name(r.sampling);
  mor["aux_coefficient"] = r.aux_coefficient;
  if (r.balancing) mor["balancing"] = name(*r.balancing);
  mor["balance_coefficient"] = r.balance_coefficient;
  mor["bias_update_rate"] = r.bias_update_rate;
  mor["z_coefficient"] = r.z_coefficient;
  mor["random_router"] = r.random_router;
  mor["paper_eq2"] = r.paper_eq2;
  mor["cache"] = name(r.cache);
  mor["sharing"] = name(r.sharing);
  mor["num_recursions"] = r.num_recursions;
  mor["num_prelude_layers"] = r.num_prelude_layers;
  mor["num_coda_layers"] = r.num_coda_layers;
  return mor;
}

[[nodiscard]] inline nlohmann::ordered_json token_id_json(Token token) {
  return token < 0 ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(token);
}

}  // namespace detail

/// What a `config.json` says, and what it says in vain.
struct ConfigReading {
  ModelConfig config;
  bool has_recursion = false;  ///< whether there is an object `mor`
  /// Fields that have no meaning here, such as `rope_parameters.x`: worth a warning, because the file's writer meant
  /// something by them. Those by which other programs note how they save, run or sample are left out.
  std::vector<std::string> ignored;
};

/// Reads a configuration and checks it (core/config_check.hpp).
/// @param file  the name that errors carry
/// @throws mor::error MalformedFile for bad JSON, a missing field or a wrong type; InvalidConfig for values that cannot
///         work and for unknown fields or names inside `mor`; Unsupported for a Llama variant that computes
///         differently (io/llama_fields.hpp)
[[nodiscard]] inline ConfigReading read_config(std::string_view json, std::string const& file) {
  nlohmann::json const document = parse_json(json, file);
  JsonObject root(document, file);
  ConfigReading reading;
  ModelConfig& config = reading.config;
  detail::refuse_other_mathematics(root);
  double const rope_theta = detail::read_rope_theta(root, reading.ignored);
  config.transformer = detail::read_transformer(root);
  config.transformer.rope_theta = rope_theta;
  config.num_hidden_layers = root.integer("num_hidden_layers");
  reading.has_recursion = root.contains("mor");
  if (reading.has_recursion) config.recursion = detail::read_recursion(root.object("mor"));
  check(config, file);
  detail::add_ignored(root, reading.ignored);
  return reading;
}

/// The configuration alone. @throws mor::error as `read_config` does
[[nodiscard]] inline ModelConfig parse_config(std::string_view json, std::string const& file) {
  return read_config(json, file).config;
}

/// `parse_config` of a file. @throws mor::error as it does, and IoFailure
[[nodiscard]] inline ModelConfig load_config(std::filesystem::path const& path) {
  return parse_config(read_file(path), path.string());
}

/// The text of a `config.json`, which `parse_config` reads back as the same value. A plain Transformer is written as a
/// Llama model; anything else has a model type of its own, so that no other program takes it for one.
/// @param saved_type  the element type of the weights beside it, for programs that ask: F32, F16 or BF16
/// @throws mor::error InvalidConfig when the configuration cannot work
[[nodiscard]] inline std::string to_config_json(ModelConfig const& config, std::optional<DType> saved_type = {}) {
  check(config, "configuration to write");
  TransformerConfig const& t = config.transformer;
  bool const plain = config.recursion == RecursionConfig{};
  nlohmann::ordered_json root;
  root["architectures"] =
      nlohmann::ordered_json::array({plain ? "LlamaForCausalLM" : "MixtureOfRecursionsForCausalLM"});
  root["model_type"] = plain ? "llama" : "mor";
  root["vocab_size"] = t.vocab_size;
  root["hidden_size"] = t.hidden_size;
  root["intermediate_size"] = t.intermediate_size;
  root["num_hidden_layers"] = config.num_hidden_layers;
  root["num_attention_heads"] = t.num_attention_heads;
  root["num_key_value_heads"] = t.num_key_value_heads;
  root["head_dim"] = t.head_dim;
  root["max_position_embeddings"] = t.max_position_embeddings;
  root["hidden_act"] = "silu";
  root["attention_bias"] = false;
  root["mlp_bias"] = false;
  root["rms_norm_eps"] = t.rms_norm_eps;
  root["rope_theta"] = t.rope_theta;
  root["rope_scaling"] = nullptr;
  root["initializer_range"] = t.initializer_range;
  root["tie_word_embeddings"] = t.tie_word_embeddings;
  root["bos_token_id"] = detail::token_id_json(t.bos_token_id);
  root["eos_token_id"] = detail::token_id_json(t.eos_token_id);
  if (saved_type) {
    root["torch_dtype"] = *saved_type == DType::F16 ? "float16" : *saved_type == DType::BF16 ? "bfloat16" : "float32";
  }
  if (!plain) root["mor"] = detail::recursion_json(config.recursion);
  return root.dump(2) + "\n";
}

/// Writes `config.json` in one step (io/file.hpp). @throws mor::error InvalidConfig, IoFailure
inline void save_config(std::filesystem::path const& path, ModelConfig const& config,
                        std::optional<DType> saved_type = {}) {
  write_file(path, to_config_json(config, saved_type));
}

}  // namespace mor::io
