// SPDX-License-Identifier: Apache-2.0
#include "mor/core/config_text.hpp"
#include "mor/io/config_json.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"
#include "support/temporary_folder.hpp"

#include <string>
#include <vector>

using mor::ErrorCode;
using mor::ModelConfig;
using mor::RouterKind;
using mor::SharingKind;
using mor::io::parse_config;
using mor::test::fails_with;

namespace {

/// A Llama configuration as model hubs hold them, with more fields before the end.
std::string llama(std::string const& more = "") {
  return R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "attention_bias": false,
    "rope_scaling": null, "torch_dtype": "bfloat16", "transformers_version": "4.42.3", "use_cache": true,
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 4, "rms_norm_eps": 1e-05, "rope_theta": 100000, "max_position_embeddings": 512,
    "tie_word_embeddings": true, "initializer_range": 0.04, "bos_token_id": 1, "eos_token_id": 2)" +
         more + "}";
}

std::string with_mor(std::string const& fields) {
  return llama(", \"mor\": {" + fields + "}");
}

/// The Llama configuration with one field's text replaced.
std::string changed(std::string text, std::string const& from, std::string const& to) {
  auto const at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

template <class... Parts>
bool refused(ErrorCode code, std::string const& text, Parts const&... parts) {
  return fails_with(
      code, [&] { (void)parse_config(text, "config.json"); }, "config.json", parts...);
}

}  // namespace

TEST_CASE("a Llama configuration is read field by field and is a plain Transformer") {
  ModelConfig const config = parse_config(llama(), "config.json");
  REQUIRE(config.transformer.vocab_size == 512);
  REQUIRE(config.transformer.hidden_size == 64);
  REQUIRE(config.transformer.intermediate_size == 172);
  REQUIRE(config.transformer.num_attention_heads == 8);
  REQUIRE(config.transformer.num_key_value_heads == 4);
  REQUIRE(config.transformer.head_dim == 8);
  REQUIRE(config.transformer.max_position_embeddings == 512);
  REQUIRE(config.transformer.rms_norm_eps == 1e-5);
  REQUIRE(config.transformer.rope_theta == 100000.0);
  REQUIRE(config.transformer.initializer_range == 0.04);
  REQUIRE(config.transformer.tie_word_embeddings);
  REQUIRE(config.transformer.bos_token_id == 1);
  REQUIRE(config.transformer.eos_token_id == 2);
  REQUIRE(config.num_hidden_layers == 8);
  REQUIRE(config.recursion == mor::RecursionConfig{});
}

TEST_CASE("absent fields take Llama's values, and lists of end tokens their first") {
  std::string const least =
      R"("vocab_size": 512, "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2,
      "num_attention_heads": 4)";
  ModelConfig config = parse_config("{" + least + "}", "c");
  REQUIRE(config.transformer.num_key_value_heads == 4);
  REQUIRE(config.transformer.head_dim == 16);
  REQUIRE(config.transformer.rms_norm_eps == 1e-6);
  REQUIRE(config.transformer.rope_theta == 10000.0);
  REQUIRE_FALSE(config.transformer.tie_word_embeddings);
  config = parse_config("{" + least + R"(, "head_dim": 32, "num_key_value_heads": null, "eos_token_id": [7, 8],
    "bos_token_id": null, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}})",
                        "c");
  REQUIRE(config.transformer.head_dim == 32);
  REQUIRE(config.transformer.num_key_value_heads == 4);
  REQUIRE(config.transformer.eos_token_id == 7);
  REQUIRE(config.transformer.bos_token_id == -1);
  REQUIRE(config.transformer.rope_theta == 5000.0);
}

TEST_CASE("an empty mor object is three recursions between one prelude and one coda layer") {
  ModelConfig const config = parse_config(with_mor(""), "c");
  REQUIRE(config.recursion.router == RouterKind::AllTokens);
  REQUIRE(config.recursion.sharing == SharingKind::MiddleCycle);
  REQUIRE(config.recursion.num_recursions == 3);
  REQUIRE(config.recursion.num_prelude_layers == 1);
  REQUIRE(config.recursion.num_coda_layers == 1);
  REQUIRE(config.block_layers() == 2);
  REQUIRE(config.recursion.capacities.empty());
  REQUIRE_FALSE(config.recursion.router_activation);
  REQUIRE_FALSE(config.recursion.alpha);
  REQUIRE_FALSE(config.recursion.balancing);
}

TEST_CASE("prelude and coda layers default to what the sharing strategy needs") {
  auto const recursion = [](std::string const& sharing) {
    return parse_config(with_mor("\"num_recursions\": 2, \"sharing\": \"" + sharing + "\""), "c").recursion;
  };
  REQUIRE(recursion("cycle").num_prelude_layers == 0);
  REQUIRE(recursion("sequence").num_coda_layers == 0);
  REQUIRE(recursion("middle_sequence").num_prelude_layers == 1);
  REQUIRE(parse_config(with_mor(R"("sharing": "none")"), "c").recursion.num_recursions == 1);
}

TEST_CASE("every field of the mor object is read") {
  ModelConfig const config = parse_config(with_mor(R"("router": "token_choice", "router_network": "wide_mlp",
    "router_activation": "sigmoid", "alpha": 0.25, "temperature": 2, "gating": "additive",
    "capacities": [1.0, 0.6667, 0.3333],
    "sampling": "aux_loss", "aux_coefficient": 0.5, "balancing": "loss_free", "balance_coefficient": 0.75,
    "bias_update_rate": 0.01, "z_coefficient": 1e-5, "cache": "shared", "sharing": "middle_cycle", "num_recursions": 3,
    "num_prelude_layers": 3, "num_coda_layers": 2, "random_router": true, "paper_eq2": true)"),
                                          "c");
  mor::RecursionConfig const& r = config.recursion;
  REQUIRE(r.router == RouterKind::TokenChoice);
  REQUIRE(r.router_network == mor::RouterNetwork::WideMlp);
  REQUIRE(r.router_activation == mor::RouterActivation::Sigmoid);
  REQUIRE(r.alpha == 0.25);
  REQUIRE(r.temperature == 2.0);
  REQUIRE(r.gating == mor::Gating::Additive);
  REQUIRE(r.capacities == std::vector<double>{1.0, 0.6667, 0.3333});
  REQUIRE(r.aux_coefficient == 0.5);
  REQUIRE(r.balancing == mor::Balancing::LossFree);
  REQUIRE(r.balance_coefficient == 0.75);
  REQUIRE(r.bias_update_rate == 0.01);
  REQUIRE(r.z_coefficient == 1e-5);
  REQUIRE(r.cache == mor::CacheKind::Shared);
  REQUIRE(r.num_prelude_layers == 3);
  REQUIRE(r.num_coda_layers == 2);
  REQUIRE(r.random_router);
  REQUIRE(r.paper_eq2);
}

TEST_CASE("null stands for absent where the default depends on other fields") {
  ModelConfig const config =
      parse_config(with_mor(
                       R"("router": "expert_choice", "router_activation": null, "alpha": null, "balancing": null,
             "capacities": null)"),
                   "c");
  REQUIRE(config.recursion.gate_scale() == 0.1);
  REQUIRE(config.recursion.capacities.empty());
}

TEST_CASE("a configuration that is written is read back equal, and the file too") {
  mor::test::TemporaryFolder const folder;
  std::vector<ModelConfig> configs{ModelConfig{}, parse_config(llama(), "c"), parse_config(with_mor(""), "c")};
  configs.push_back(parse_config(with_mor(R"("router": "expert_choice", "capacities": [1, 0.66666666666666663, 0.1],
    "alpha": 0.1, "router_activation": "tanh", "sampling": "aux_router", "cache": "hybrid", "random_router": true)"),
                                 "c"));
  configs.push_back(
      parse_config(with_mor(R"("router": "token_choice", "paper_eq2": true, "z_coefficient": 1e-300)"), "c"));
  configs.push_back(ModelConfig{});
  configs.back().recursion.temperature = 0.5;
  configs.back().transformer.eos_token_id = -1;
  for (ModelConfig const& config : configs) {
    std::string const text = mor::io::to_config_json(config);
    REQUIRE(parse_config(text, "c") == config);
    REQUIRE(mor::io::to_config_json(parse_config(text, "c")) == text);
    mor::io::save_config(folder / "config.json", config);
    REQUIRE(mor::io::load_config(folder / "config.json") == config);
  }
  REQUIRE(mor::io::to_config_json(configs[0]).find("\"mor\"") == std::string::npos);
  REQUIRE(mor::io::to_config_json(configs[0]).find("\"llama\"") != std::string::npos);
  REQUIRE(mor::io::to_config_json(configs[2]).find("\"model_type\": \"mor\"") != std::string::npos);
}

TEST_CASE("a configuration that cannot work is not written") {
  ModelConfig config;
  config.num_hidden_layers = 0;
  REQUIRE(fails_with(
      ErrorCode::InvalidConfig, [&] { (void)mor::io::to_config_json(config); }, "num_hidden_layers"));
}

TEST_CASE("unknown names inside mor are refused with the known ones") {
  auto const code = ErrorCode::InvalidConfig;
  REQUIRE(refused(code, with_mor(R"("rooter": "all_tokens")"), "field mor", "unknown field", "router_network",
                  "\"rooter\""));
  REQUIRE(refused(code, with_mor(R"("capacity": [1])"), "unknown field", "capacities"));
  REQUIRE(refused(code, with_mor(R"("router": "expert")"), "field mor.router",
                  "one of all_tokens, expert_choice, token_choice", "\"expert\""));
  REQUIRE(refused(code, with_mor(R"("router_network": "x")"), "field mor.router_network", "linear, mlp, wide_mlp"));
  REQUIRE(refused(code, with_mor(R"("router_activation": "x")"), "field mor.router_activation",
                  "sigmoid, tanh, softmax, none"));
  REQUIRE(refused(code, with_mor(R"("gating": "x")"), "field mor.gating", "weighted, additive"));
  REQUIRE(refused(code, with_mor(R"("sampling": "x")"), "field mor.sampling", "aux_loss, aux_router"));
  REQUIRE(refused(code, with_mor(R"("balancing": "x")"), "field mor.balancing", "none, loss, loss_free"));
  REQUIRE(refused(code, with_mor(R"("cache": "x")"), "field mor.cache", "recursion_wise, shared, hybrid"));
  REQUIRE(refused(code, with_mor(R"("sharing": "Cycle")"), "field mor.sharing", "none, cycle, middle_cycle"));
  REQUIRE(refused(code, with_mor(R"("capacities": [])"), "field mor.capacities", "empty"));
  REQUIRE(refused(code, with_mor(R"("num_recursions": 4)"), "field num_hidden_layers", "1 + 4 x B + 1"));
  REQUIRE(refused(code, with_mor(R"("router": "all_tokens", "balancing": "loss")"), "field mor.balancing"));
}

TEST_CASE("wrong types are refused, also where a lenient reader would convert") {
  auto const code = ErrorCode::MalformedFile;
  REQUIRE(refused(code, with_mor(R"("num_recursions": 3.0)"), "field mor.num_recursions", "got 3.0"));
  REQUIRE(refused(code, with_mor(R"("num_recursions": "3")"), "field mor.num_recursions"));
  REQUIRE(refused(code, with_mor(R"("num_recursions": null)"), "field mor.num_recursions"));
  REQUIRE(refused(code, with_mor(R"("router": 1)"), "field mor.router", "a string"));
  REQUIRE(refused(code, with_mor(R"("capacities": [1, "x"])"), "field mor.capacities[1]", "a finite number"));
  REQUIRE(refused(code, with_mor(R"("capacities": 0.5)"), "field mor.capacities", "an array"));
  REQUIRE(refused(code, with_mor(R"("alpha": true)"), "field mor.alpha"));
  REQUIRE(refused(code, with_mor(R"("random_router": 1)"), "field mor.random_router", "true or false"));
  REQUIRE(refused(code, llama(R"(, "mor": [])"), "field mor", "an object"));
  REQUIRE(refused(code, llama(R"(, "mor": null)"), "field mor", "an object"));
  REQUIRE(
      refused(code, changed(llama(), "\"vocab_size\": 512", "\"vocab_size\": 512.5"), "field vocab_size", "got 512.5"));
  REQUIRE(refused(code, changed(llama(), "\"vocab_size\": 512", "\"vocab_siz\": 512"), "field vocab_size", "missing"));
  REQUIRE(refused(code, changed(llama(), "\"eos_token_id\": 2", "\"eos_token_id\": []"), "field eos_token_id"));
  REQUIRE(refused(code, changed(llama(), "\"eos_token_id\": 2", "\"eos_token_id\": [\"x\"]"), "field eos_token_id[0]"));
  REQUIRE(refused(code, changed(llama(), "\"eos_token_id\": 2", "\"eos_token_id\": 4294967296"), "field eos_token_id"));
  REQUIRE(refused(code, changed(llama(), "\"num_attention_heads\": 8", "\"num_attention_heads\": 0"),
                  "num_attention_heads"));
  REQUIRE(refused(code, "[]", "an object"));
  REQUIRE(refused(code, llama(R"(, "vocab_size": 512)"), "repeats the key \"vocab_size\""));
  REQUIRE(refused(code, llama() + "x", "not valid JSON"));
  REQUIRE(refused(ErrorCode::InvalidConfig, changed(llama(), "\"hidden_size\": 64", "\"hidden_size\": 60"),
                  "field hidden_size", "a multiple of 8, got 60"));
  REQUIRE(refused(ErrorCode::InvalidConfig, changed(llama(), "\"vocab_size\": 512", "\"vocab_size\": -1"),
                  "field vocab_size"));
}

TEST_CASE("Llama variants that compute something else are refused as unsupported") {
  auto const code = ErrorCode::Unsupported;
  REQUIRE(
      refused(code, changed(llama(), "\"attention_bias\": false", "\"attention_bias\": true"), "field attention_bias"));
  REQUIRE(refused(code, llama(R"(, "mlp_bias": true)"), "field mlp_bias", "expected false, got true"));
  REQUIRE(refused(code, changed(llama(), "\"rope_scaling\": null", R"("rope_scaling": {"type": "linear"})"),
                  "rope_scaling"));
  REQUIRE(refused(code, llama(R"(, "rope_parameters": {"rope_type": "yarn"})"), "field rope_parameters", "\"yarn\""));
  REQUIRE(refused(code, changed(llama(), "\"silu\"", "\"gelu\""), "field hidden_act", "\"gelu\""));
  REQUIRE(refused(code, changed(llama(), "\"llama\"", "\"gemma\""), "field model_type", "\"gemma\""));
  REQUIRE(refused(code, llama(R"(, "rope_interleaved": true)"), "field rope_interleaved"));
  REQUIRE(refused(code, llama(R"(, "partial_rotary_factor": 0.5)"), "field partial_rotary_factor"));
  REQUIRE_NOTHROW(parse_config(llama(R"(, "mlp_bias": false, "rope_interleaved": false, "pretraining_tp": 1)"), "c"));
}

TEST_CASE("a missing file is an input/output failure that names it") {
  REQUIRE(fails_with(
      ErrorCode::IoFailure, [] { (void)mor::io::load_config("/nowhere/config.json"); }, "/nowhere/config.json"));
}

TEST_CASE("every name of every choice is read back, and a wrong one lists them all") {
  auto const round_trip = [](auto names) {
    for (auto const& named : decltype(names)::values) {
      using Enum = std::remove_cv_t<decltype(named.value)>;
      if (mor::parse_choice<Enum>(mor::to_text(named.value), "x") != named.value) return false;
    }
    return true;
  };
  REQUIRE(round_trip(mor::EnumNames<RouterKind>{}));
  REQUIRE(round_trip(mor::EnumNames<mor::RouterNetwork>{}));
  REQUIRE(round_trip(mor::EnumNames<mor::RouterActivation>{}));
  REQUIRE(round_trip(mor::EnumNames<mor::Gating>{}));
  REQUIRE(round_trip(mor::EnumNames<mor::RouterSampling>{}));
  REQUIRE(round_trip(mor::EnumNames<mor::Balancing>{}));
  REQUIRE(round_trip(mor::EnumNames<mor::CacheKind>{}));
  REQUIRE(round_trip(mor::EnumNames<SharingKind>{}));
  REQUIRE(round_trip(mor::EnumNames<mor::RoutingMode>{}));
  REQUIRE(mor::parse_routing_mode("topk") == mor::RoutingMode::TopK);
  REQUIRE(fails_with(
      ErrorCode::InvalidConfig, [] { (void)mor::parse_routing_mode("top_k", "--routing"); }, "--routing: unknown value",
      "topk, threshold, aux_router, full_depth", "\"top_k\""));
}
