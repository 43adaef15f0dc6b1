// SPDX-License-Identifier: Apache-2.0
#include "mor/io/config_json.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"

#include <set>
#include <string>
#include <vector>

using mor::ErrorCode;
using mor::io::parse_config;

namespace {

/// A whole configuration; more fields come before its end, and a field that is named again here takes the place of the
/// first.
std::string config(std::string const& more = "", std::string const& without = "") {
  struct Field {
    char const *name, *value;
  };
  std::string text = "{";
  for (Field const field :
       {Field{"vocab_size", "512"}, Field{"hidden_size", "64"}, Field{"intermediate_size", "172"},
        Field{"num_hidden_layers", "8"}, Field{"num_attention_heads", "8"}, Field{"num_key_value_heads", "4"}}) {
    std::string const key = "\"" + std::string(field.name) + "\"";
    bool const replaced = more.find(key + ":") != std::string::npos || without == field.name;
    if (!replaced) text += key + ": " + field.value + ", ";
  }
  return text + (more.empty() ? "\"x\": 0" : more) + "}";
}

struct Malformed {
  std::string json;
  std::string message;  ///< the whole error after the file's name
  ErrorCode code;
};

constexpr auto malformed = ErrorCode::MalformedFile;
constexpr auto invalid = ErrorCode::InvalidConfig;
constexpr auto unsupported = ErrorCode::Unsupported;

/// One case a field and kind of mistake.
std::vector<Malformed> const cases{
    // JSON
    {"", ": byte 0: not valid JSON: syntax error while parsing value - unexpected end of input", malformed},
    {"{", "unexpected end of input; expected string literal", malformed},
    {"null", ": wrong type (expected an object, got null)", malformed},
    {"[{}]", ": wrong type (expected an object, got an array of 1)", malformed},
    {"\xEF\xBB\xBF{}", ": byte 0: not valid JSON: begins with a byte order mark", malformed},
    {config() + "}", "not valid JSON: syntax error while parsing value - unexpected '}'; expected end of input",
     malformed},
    {config("\"x\": NaN"), "invalid literal", malformed},
    {config("\"x\": 01"), "unexpected number literal", malformed},
    {config("\"x\": 'a'"), "not valid JSON", malformed},
    {config("\"x\": \"\xFF\""), "ill-formed UTF-8 byte", malformed},
    {config("\"x\": 1, \"x\": 2"), "the object repeats the key \"x\"", malformed},
    {config("\"mor\": {\"alpha\": 1, \"\\u0061lpha\": 1}"), "the object repeats the key \"alpha\"", malformed},
    {config("\"x\": " + std::string(70, '[') + std::string(70, ']')),
     "JSON nested too deeply (expected at most 64, got more)", malformed},
    // Fields that must be there, and their types
    {config("", "vocab_size"), ": field vocab_size: required field is missing", malformed},
    {config("", "hidden_size"), ": field hidden_size: required field is missing", malformed},
    {config("", "intermediate_size"), ": field intermediate_size: required field is missing", malformed},
    {config("", "num_hidden_layers"), ": field num_hidden_layers: required field is missing", malformed},
    {config("", "num_attention_heads"), ": field num_attention_heads: required field is missing", malformed},
    {config("\"vocab_size\": 512.0"), ": field vocab_size: wrong type (expected an integer, got 512.0)", malformed},
    {config("\"vocab_size\": 1e3"), ": field vocab_size: wrong type (expected an integer, got 1000.0)", malformed},
    {config("\"vocab_size\": \"512\""), ": field vocab_size: wrong type (expected an integer, got the string \"512\")",
     malformed},
    {config("\"vocab_size\": true"), ": field vocab_size: wrong type (expected an integer, got true)", malformed},
    {config("\"hidden_size\": 18446744073709551615"), ": field hidden_size: integer out of range", malformed},
    {config("\"num_attention_heads\": 0"), ": field num_attention_heads: integer out of range", malformed},
    {config("\"head_dim\": \"8\""), ": field head_dim: wrong type", malformed},
    {config("\"rms_norm_eps\": \"1e-5\""), ": field rms_norm_eps: wrong type (expected a finite number, got the string",
     malformed},
    {config("\"rms_norm_eps\": null"), ": field rms_norm_eps: wrong type (expected a finite number, got null)",
     malformed},
    {config("\"rope_theta\": []"), ": field rope_theta: wrong type", malformed},
    {config("\"rope_theta\": 1e999"), "number overflow", malformed},
    {config("\"tie_word_embeddings\": 1"), ": field tie_word_embeddings: wrong type (expected true or false, got 1)",
     malformed},
    {config("\"eos_token_id\": \"2\""), ": field eos_token_id: wrong type", malformed},
    {config("\"eos_token_id\": [[2]]"), ": field eos_token_id[0]: wrong type", malformed},
    {config("\"bos_token_id\": -2"),
     ": field bos_token_id: integer out of range (expected an integer in [-1, 2147483647], got -2)", malformed},
    {config("\"architectures\": \"LlamaForCausalLM\""), ": field architectures: wrong type (expected an array",
     malformed},
    {config("\"architectures\": [1]"), ": field architectures[0]: wrong type (expected a string, got 1)", malformed},
    {config("\"hidden_act\": 1"), ": field hidden_act: wrong type (expected a string, got 1)", malformed},
    {config("\"attention_bias\": \"no\""), ": field attention_bias: wrong type (expected true or false", malformed},
    {config("\"rope_scaling\": 2.0"), ": field rope_scaling: wrong type (expected an object, got 2.0)", malformed},
    {config("\"rope_parameters\": {\"rope_theta\": \"x\"}"), ": field rope_parameters.rope_theta: wrong type",
     malformed},
    {config("\"torch_dtype\": 16"), ": field torch_dtype: wrong type (expected a string, got 16)", malformed},
    {config("\"layer_types\": [null]"), ": field layer_types[0]: wrong type (expected a string, got null)", malformed},
    {config("\"mor\": true"), ": field mor: wrong type (expected an object, got true)", malformed},
    // Values that cannot work
    {config("\"vocab_size\": 0"), ": field vocab_size: out of range (expected an integer in [1, 2147483647], got 0)",
     invalid},
    {config("\"hidden_size\": 65"), ": field hidden_size: not divisible by num_attention_heads", invalid},
    {config("\"num_key_value_heads\": 3"), ": field num_key_value_heads: does not divide num_attention_heads", invalid},
    {config("\"num_key_value_heads\": 16"),
     ": field num_key_value_heads: out of range (expected an integer in [1, 8], got 16)", invalid},
    {config("\"head_dim\": 7"), ": field head_dim: odd, but rotary positions turn pairs", invalid},
    {config("\"num_hidden_layers\": 0"), ": field num_hidden_layers: out of range", invalid},
    {config("\"num_hidden_layers\": 1000000"),
     ": field num_hidden_layers: out of range (expected an integer in [1, 1024]", invalid},
    {config("\"max_position_embeddings\": 0"), ": field max_position_embeddings: out of range", invalid},
    {config("\"rms_norm_eps\": 0"), ": field rms_norm_eps: out of range (expected a number in (0, 1), got 0)", invalid},
    {config("\"rope_theta\": -1"), ": field rope_theta: out of range (expected a finite number > 0, got -1)", invalid},
    {config("\"eos_token_id\": 512"), ": field eos_token_id: out of range (expected an integer in [-1, 511], got 512)",
     invalid},
    {config("\"initializer_range\": -0.1"), ": field initializer_range: out of range", invalid},
    {config("\"rope_theta\": 10000, \"rope_parameters\": {\"rope_theta\": 5000}"),
     ": field rope_theta: rope_theta and rope_parameters.rope_theta differ (expected 5000, got 10000)", invalid},
    {config("\"mor\": {\"num_recursions\": 0}"), ": field mor.num_recursions: out of range", invalid},
    {config("\"mor\": {\"num_recursions\": 5}"), ": field num_hidden_layers: does not fit the recursion", invalid},
    {config("\"mor\": {\"sharing\": \"cycle\", \"num_recursions\": 2, \"num_coda_layers\": 1}"),
     ": field num_hidden_layers: does not fit the recursion (expected prelude + recursions x block + coda = 0 + 2 x B "
     "+ 1",
     invalid},
    {config("\"mor\": {\"router\": \"expert_choice\", \"router_activation\": \"softmax\"}"),
     ": field mor.router_activation: wrong with router expert_choice, whose router has one logit", invalid},
    {config("\"mor\": {\"router\": \"token_choice\", \"sampling\": \"aux_router\"}"),
     ": field mor.sampling: wrong with router token_choice", invalid},
    {config("\"mor\": {\"capacities\": [1, 0.5]}"),
     ": field mor.capacities: wrong number of entries (expected 3, one a recursion, got 2)", invalid},
    {config("\"mor\": {\"capacities\": [1, 0.5, 0.6]}"), ": field mor.capacities[2]: capacities grow", invalid},
    {config("\"mor\": {\"auto_map\": {}}"), ": field mor: unknown field", invalid},
    // Models that compute something else
    {config("\"architectures\": [\"MistralForCausalLM\"]"),
     ": field architectures[0]: this library does not compute such a model (expected "
     "LlamaForCausalLM, MoRLlamaForCausalLM or MixtureOfRecursionsForCausalLM, got \"MistralForCausalLM\")",
     unsupported},
    {config("\"architectures\": [\"LlamaForCausalLM\", \"LlamaForSequenceClassification\"]"),
     ": field architectures[1]: ", unsupported},
    {config("\"model_type\": \"qwen2\""),
     ": field model_type: this library does not compute such a model (expected \"llama\" or \"mor\", "
     "got \"qwen2\")",
     unsupported},
    {config("\"hidden_act\": \"gelu\""),
     ": field hidden_act: this library does not compute such a model (expected \"silu\", got \"gelu\")", unsupported},
    {config("\"attention_bias\": true"),
     ": field attention_bias: this library does not compute such a model (expected false, got true)", unsupported},
    {config("\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}"),
     ": field rope_scaling: this library does not scale rotary positions (expected rope_type default, got \"linear\")",
     unsupported},
    {config("\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0}"),
     "expected rope_type default, got \"llama3\"", unsupported},
    {config("\"rope_scaling\": {\"rope_type\": \"default\", \"factor\": 8.0}"),
     ": field rope_scaling.factor: ", unsupported},
    {config("\"rope_parameters\": {\"rope_type\": \"dynamic\"}"),
     ": field rope_parameters: this library does not scale rotary positions", unsupported},
    {config("\"rope_parameters\": {\"partial_rotary_factor\": 0.5}"),
     ": field rope_parameters.partial_rotary_factor: ", unsupported},
    {config("\"rope_parameters\": {\"full_attention\": {\"rope_theta\": 1}}"),
     "one kind of rotary positions for all layers", unsupported},
    {config("\"rope_scaling\": {\"chunked_attention\": {}}"),
     ": field rope_scaling.chunked_attention: this library has one kind", unsupported},
    {config("\"sliding_window\": 4096"),
     ": field sliding_window: this library does not compute such a model (expected null, got 4096)", unsupported},
    {config("\"quantization_config\": {\"bits\": 4}"), ": field quantization_config: ", unsupported},
    {config("\"sliding_window\": 64, \"use_sliding_window\": true"),
     ": field sliding_window: this library does not compute such a model (expected null, got 64)", unsupported},
    {config("\"sliding_window\": 64, \"use_sliding_window\": 0"),
     ": field use_sliding_window: wrong type (expected true or false, got 0)", malformed},
    {config("\"rope_scaling\": {\"rope_theta\": 1}, \"rope_parameters\": {\"rope_theta\": 2}"),
     "rope_scaling.rope_theta and rope_parameters.rope_theta differ (expected 2, got 1)",
     invalid},
    {config("\"layer_types\": [\"full_attention\", \"sliding_attention\"]"), ": field layer_types[1]: ", unsupported},
    {config("\"torch_dtype\": \"int8\""), ": field torch_dtype: this library does not read weights of such a type",
     unsupported},
    {config("\"dtype\": \"float8_e4m3fn\""), ": field dtype: this library does not read weights of such a type",
     unsupported}};

}  // namespace

TEST_CASE("a config.json that cannot be used is refused with an error of its own that names the field") {
  std::set<std::string> messages;
  for (Malformed const& item : cases) {
    CAPTURE(item.json, item.message);
    auto const failure = mor::test::failure_of([&] { (void)parse_config(item.json, "config.json"); });
    REQUIRE(failure);
    INFO(failure->message);
    CHECK(failure->message.starts_with("config.json: "));
    CHECK(failure->message.find(item.message) != std::string::npos);
    CHECK(failure->code == item.code);
    CHECK(messages.insert(failure->message).second);
  }
  REQUIRE(cases.size() >= 40);
}

/// A field that changes what a model computes: a value that does, what the error expects, and a value that does not.
struct OtherModel {
  char const *field, *value, *expected, *harmless;
};

TEST_CASE("a field that changes what a model computes is refused by name, unless its value changes nothing") {
  std::vector<OtherModel> const models{{"attention_bias", "true", "false", "false"},
                                       {"mlp_bias", "true", "false", "false"},
                                       {"use_qkv_bias", "true", "false", "false"},
                                       {"use_qk_norm", "true", "false", "false"},
                                       {"qk_layernorm", "true", "false", "false"},
                                       {"rope_interleaved", "true", "false", "false"},
                                       {"partial_rotary_factor", "0.5", "1", "1"},
                                       {"rotary_pct", "0.25", "1", "1.0"},
                                       {"no_rope_layers", "[1, 0]", "null", "[]"},
                                       {"alibi", "true", "false", "false"},
                                       {"attention_chunk_size", "8192", "null", "null"},
                                       {"attention_multiplier", "0.015625", "null", "null"},
                                       {"query_pre_attn_scalar", "256", "null", "null"},
                                       {"attn_logit_softcapping", "50.0", "null", "null"},
                                       {"attn_temperature_tuning", "true", "false", "false"},
                                       {"clip_qkv", "8.0", "null", "null"},
                                       {"embedding_multiplier", "12.0", "1", "1"},
                                       {"residual_multiplier", "0.22", "1", "1"},
                                       {"logits_scaling", "16", "1", "1"},
                                       {"logit_scale", "0.0625", "1", "1"},
                                       {"final_logit_softcapping", "30.0", "null", "null"},
                                       {"use_parallel_residual", "true", "false", "false"},
                                       {"is_encoder_decoder", "true", "false", "false"},
                                       {"add_cross_attention", "true", "false", "false"},
                                       {"num_local_experts", "8", "null", "null"},
                                       {"num_experts", "64", "null", "null"},
                                       {"n_routed_experts", "64", "null", "null"},
                                       {"per_layer_config", "{\"3\": {\"hidden_size\": 8}}", "null", "{}"},
                                       {"pruned_heads", "{\"0\": [1]}", "null", "{}"},
                                       {"quantization_config", "{\"bits\": 4}", "null", "null"},
                                       {"compression_config", "{\"format\": \"int\"}", "null", "null"},
                                       {"quantization", "{\"bits\": 4, \"group_size\": 64}", "null", "null"}};
  REQUIRE(models.size() == mor::io::detail::other_mathematics.size());
  for (OtherModel const& model : models) {
    CAPTURE(model.field);
    std::string const key = "\"" + std::string(model.field) + "\": ";
    REQUIRE(mor::test::fails_with(
        unsupported, [&] { (void)parse_config(config(key + model.value), "c"); },
        std::string("c: field ") + model.field + ": this library does not compute such a model (expected " +
            model.expected + ", got "));
    for (char const* value : {model.harmless, "null"}) {
      REQUIRE(mor::io::read_config(config(key + value), "c").ignored.empty());
    }
    REQUIRE(mor::test::failure_of([&] { (void)parse_config(config(key + "\"x\""), "c"); }));
  }
}

TEST_CASE("fields without a meaning here are named, notes of other programs are not") {
  auto const ignored = [](std::string const& fields) { return mor::io::read_config(config(fields), "c").ignored; };
  using Names = std::vector<std::string>;
  CHECK(ignored("\"x\": 0") == Names{"x"});
  CHECK(ignored("\"x\": null").empty());
  CHECK(ignored("\"num_atention_heads\": 8, \"auto_map\": {}, \"Rope_theta\": 5") ==
        Names{"Rope_theta", "auto_map", "num_atention_heads"});
  CHECK(ignored("\"rope_scaling\": {\"beta_fast\": 32, \"rope_type\": \"default\", \"mscale\": null}, \"y\": {}, "
                "\"rope_parameters\": {\"attention_factor\": 1.2}") ==
        Names{"rope_scaling.beta_fast", "rope_parameters.attention_factor", "y"});
  CHECK(ignored("\"attention_dropout\": 0.0").empty());
  CHECK(ignored("\"attention_dropout\": 0.1") == Names{"attention_dropout"});
  CHECK(ignored("\"sliding_window\": 4096, \"use_sliding_window\": false").empty());
  CHECK(ignored("\"_name_or_path\": \"a\", \"_commit_hash\": \"b\", \"_attn_implementation_autoset\": true, "
                "\"pad_token_id\": 0, \"temperature\": 0.6, \"id2label\": {\"0\": \"LABEL_0\"}")
            .empty());
  // As SmolLM2 and Llama 3 are published.
  CHECK(ignored("\"architectures\": [\"LlamaForCausalLM\"], \"attention_bias\": false, \"attention_dropout\": 0.0, "
                "\"bos_token_id\": 0, \"eos_token_id\": 0, \"hidden_act\": \"silu\", \"initializer_range\": 0.04, "
                "\"is_llama_config\": true, \"max_position_embeddings\": 8192, \"model_type\": \"llama\", "
                "\"pretraining_tp\": 1, \"rms_norm_eps\": 1e-05, \"rope_interleaved\": false, \"rope_scaling\": null, "
                "\"rope_theta\": 100000, \"tie_word_embeddings\": true, \"torch_dtype\": \"bfloat16\", "
                "\"transformers.js_config\": {\"dtype\": \"q4\"}, \"transformers_version\": \"4.40.1\", "
                "\"use_cache\": true")
            .empty());
  CHECK(ignored("\"architectures\": [\"LlamaForCausalLM\"], \"dtype\": \"bfloat16\", \"head_dim\": 8, "
                "\"mlp_bias\": false, \"rope_parameters\": {\"rope_theta\": 500000.0, \"rope_type\": \"default\"}")
            .empty());
  // What is written here is known here.
  CHECK(mor::io::read_config(mor::io::to_config_json({}, mor::DType::BF16), "c").ignored.empty());
}

TEST_CASE("odd but valid configurations are read") {
  for (char const* more : {"",
                           "\"rope_scaling\": null",
                           "\"rope_scaling\": {\"rope_type\": \"default\"}",
                           "\"rope_scaling\": {\"type\": \"default\"}",
                           "\"rope_scaling\": {}",
                           "\"rope_parameters\": null",
                           "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 1e6}",
                           "\"rope_theta\": 5000, \"rope_parameters\": {\"rope_theta\": 5000.0}",
                           "\"rope_scaling\": {\"rope_theta\": 5000.0}, \"rope_parameters\": {\"rope_theta\": 5000}",
                           "\"rope_scaling\": {\"type\": null, \"factor\": 1}",
                           "\"sliding_window\": 4096, \"use_sliding_window\": false",
                           "\"rope_theta\": 1000000",
                           "\"rope_theta\": null",
                           "\"head_dim\": null",
                           "\"head_dim\": 32",
                           "\"num_key_value_heads\": null",
                           "\"hidden_act\": \"swish\"",
                           "\"hidden_act\": null",
                           "\"attention_bias\": null",
                           "\"sliding_window\": null",
                           "\"quantization_config\": null",
                           "\"architectures\": []",
                           "\"architectures\": null",
                           "\"architectures\": [\"MoRLlamaForCausalLM\"]",
                           "\"torch_dtype\": \"bfloat16\"",
                           "\"torch_dtype\": null",
                           "\"dtype\": \"float16\"",
                           "\"torch_dtype\": \"torch.float32\"",
                           "\"dtype\": \"auto\"",
                           "\"layer_types\": [\"full_attention\", \"full_attention\"]",
                           "\"eos_token_id\": null",
                           "\"eos_token_id\": -1",
                           "\"eos_token_id\": [7, 8, 9]",
                           "\"pretraining_tp\": 4",
                           "\"auto_map\": {\"AutoModel\": \"evil.Code\"}",
                           "\"x\": {\"y\": [[[]]]}",
                           "\"partial_rotary_factor\": 1.0",
                           "\"rms_norm_eps\": 1E-6",
                           "\"initializer_range\": 0",
                           "\"mor\": {}",
                           "\"mor\": {\"sharing\": \"none\"}",
                           "\"mor\": {\"num_recursions\": 6}",
                           "\"mor\": {\"router_activation\": null, \"alpha\": null, \"capacities\": null}"}) {
    CAPTURE(more);
    REQUIRE_NOTHROW(parse_config(config(more), "config.json"));
  }
  REQUIRE_NOTHROW(parse_config("\t\r\n " + config() + "\n\n", "config.json"));
  for (std::string const key : {"rope_parameters", "rope_scaling"}) {
    auto const text = config("\"" + key + "\": {\"rope_theta\": 123.0}");
    REQUIRE(parse_config(text, "c").transformer.rope_theta == 123.0);
  }
}

TEST_CASE("the element type of the weights is written for other programs, and read as a note") {
  mor::ModelConfig const model;
  auto const text = mor::io::to_config_json(model, mor::DType::BF16);
  REQUIRE(text.find("\"torch_dtype\": \"bfloat16\"") != std::string::npos);
  REQUIRE(parse_config(text, "c") == model);
  REQUIRE(mor::io::to_config_json(model).find("dtype") == std::string::npos);
  REQUIRE(mor::io::read_config(config("\"mor\": {}"), "c").has_recursion);
  REQUIRE_FALSE(mor::io::read_config(config(), "c").has_recursion);
}
