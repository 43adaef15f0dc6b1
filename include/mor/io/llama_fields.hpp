// SPDX-License-Identifier: Apache-2.0
/// @file
/// The fields of a Hugging Face Llama `config.json` that say nothing about the sizes of a model: those that would make
/// it compute something else are refused, notes of other programs are passed over, and what is left is reported by
/// name.
#pragma once

#include "mor/core/config_text.hpp"
#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/io/json.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mor::io::detail {

/// The value with which a field changes nothing; null changes nothing either.
enum class Harmless { False, One, Empty, Null };

struct OtherMathematics {
  char const* field;
  Harmless value;
};

/// Fields of Llama configurations, and of models that Hugging Face derives from them, that change what is computed.
inline constexpr auto other_mathematics = std::to_array<OtherMathematics>({
    // Biases and norms that we do not have
    {"attention_bias", Harmless::False},
    {"mlp_bias", Harmless::False},
    {"use_qkv_bias", Harmless::False},
    {"use_qk_norm", Harmless::False},
    {"qk_layernorm", Harmless::False},
    // Positions
    {"rope_interleaved", Harmless::False},
    {"partial_rotary_factor", Harmless::One},
    {"rotary_pct", Harmless::One},
    {"no_rope_layers", Harmless::Empty},
    {"alibi", Harmless::False},
    // Attention to a part of the keys, or scaled otherwise
    {"attention_chunk_size", Harmless::Null},
    {"attention_multiplier", Harmless::Null},
    {"query_pre_attn_scalar", Harmless::Null},
    {"attn_logit_softcapping", Harmless::Null},
    {"attn_temperature_tuning", Harmless::False},
    {"clip_qkv", Harmless::Null},
    // Factors in the residual stream and on the logits
    {"embedding_multiplier", Harmless::One},
    {"residual_multiplier", Harmless::One},
    {"logits_scaling", Harmless::One},
    {"logit_scale", Harmless::One},
    {"final_logit_softcapping", Harmless::Null},
    // Layers of another kind
    {"use_parallel_residual", Harmless::False},
    {"is_encoder_decoder", Harmless::False},
    {"add_cross_attention", Harmless::False},
    {"num_local_experts", Harmless::Null},
    {"num_experts", Harmless::Null},
    {"n_routed_experts", Harmless::Null},
    {"per_layer_config", Harmless::Empty},
    {"pruned_heads", Harmless::Empty},
    // Weights that are stored in a way of their own
    {"quantization_config", Harmless::Null},
    {"compression_config", Harmless::Null},
    {"quantization", Harmless::Null},
});

/// Fields that Hugging Face and other programs write for themselves: how they save, run, sample from and fine-tune a
/// model. None of them changes a logit.
inline constexpr auto notes_of_other_programs = std::to_array<std::string_view>(
    {// The file and its writer
     "transformers_version", "name_or_path", "tokenizer_class", "transformers.js_config", "is_llama_config",
     "unsloth_fixed", "unsloth_version",
     // How it is run
     "use_cache", "attn_implementation", "experts_implementation", "pretraining_tp", "chunk_size_feed_forward",
     "gradient_checkpointing", "output_attentions", "output_hidden_states", "output_scores", "return_dict",
     "return_dict_in_generate", "torchscript", "use_bfloat16", "tf_legacy_loss", "is_decoder", "tie_encoder_decoder",
     "cross_attention_hidden_size",
     // Sampling
     "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty",
     "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size",
     "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "forced_bos_token_id",
     "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens",
     "begin_suppress_tokens",
     // Tokens that no text of ours holds
     "pad_token_id", "sep_token_id", "decoder_start_token_id",
     // Heads for other tasks
     "finetuning_task", "id2label", "label2id", "num_labels", "prefix", "problem_type", "task_specific_params"});

/// Whether a field is a note of another program. Names that begin with an underscore are a writer's own.
[[nodiscard]] inline bool is_note(std::string_view field) {
  auto const& notes = notes_of_other_programs;
  return field.starts_with('_') || std::find(notes.begin(), notes.end(), field) != notes.end();
}

[[noreturn]] inline void refuse_mathematics(std::string const& where, std::string expected, std::string got) {
  fail(ErrorCode::Unsupported, "this library does not compute such a model", where, std::move(expected),
       std::move(got));
}

/// Names of classes whose mathematics is ours.
inline void check_architectures(JsonObject& root) {
  if (!root.has_value("architectures")) return;
  std::size_t place = 0;
  for (nlohmann::json const& item : root.array("architectures")) {
    std::string const where = root.where("architectures[" + std::to_string(place++) + "]");
    std::string const& name = json_string(item, where);
    if (name == "LlamaForCausalLM" || name == "MoRLlamaForCausalLM" || name == "MixtureOfRecursionsForCausalLM")
      continue;
    refuse_mathematics(where, "LlamaForCausalLM, MoRLlamaForCausalLM or MixtureOfRecursionsForCausalLM",
                       printable(name));
  }
}

/// The type that weights were saved in, as Hugging Face spells it: the files say it themselves, but an unknown name
/// means weights that are stored in a way of their own.
inline void check_saved_type(JsonObject& root, std::string const& key) {
  if (!root.has_value(key)) return;
  std::string name = root.string(key);
  if (name.starts_with("torch.")) name = name.substr(6);
  for (char const* known : {"float32", "float16", "bfloat16", "float64", "auto"}) {
    if (name == known) return;
  }
  fail(ErrorCode::Unsupported, "this library does not read weights of such a type", root.where(key),
       "float32, float16, bfloat16 or float64", printable(name));
}

inline void check_mathematics(JsonObject& root, OtherMathematics const& rule) {
  std::string const key = rule.field;
  if (!root.has_value(key)) return;
  nlohmann::json const& value = root.at(key);
  switch (rule.value) {
    case Harmless::False:
      if (root.boolean(key)) refuse_mathematics(root.where(key), "false", "true");
      break;
    case Harmless::One:
      if (root.number(key) != 1.0) refuse_mathematics(root.where(key), "1", describe(value));
      break;
    case Harmless::Empty:
      if (!value.is_structured() || !value.empty()) refuse_mathematics(root.where(key), "null", describe(value));
      break;
    case Harmless::Null: refuse_mathematics(root.where(key), "null", describe(value));
  }
}

/// Windows of some models are turned off by a switch beside them.
inline void check_attention_kinds(JsonObject& root) {
  bool const off = root.has_value("use_sliding_window") && !root.boolean("use_sliding_window");
  if (root.has_value("sliding_window") && !off) {
    refuse_mathematics(root.where("sliding_window"), "null", describe(root.at("sliding_window")));
  }
  if (!root.has_value("layer_types")) return;
  std::size_t place = 0;
  for (nlohmann::json const& item : root.array("layer_types")) {
    std::string const where = root.where("layer_types[" + std::to_string(place++) + "]");
    std::string const& kind = json_string(item, where);
    if (kind != "full_attention") refuse_mathematics(where, "\"full_attention\"", printable(kind));
  }
}

/// Refuses settings under which a Llama model computes something else than ours; rotary positions apart.
inline void refuse_other_mathematics(JsonObject& root) {
  check_architectures(root);
  if (root.has_value("model_type") && root.string("model_type") != "llama" && root.string("model_type") != "mor") {
    refuse_mathematics(root.where("model_type"), "\"llama\" or \"mor\"", printable(root.string("model_type")));
  }
  for (OtherMathematics const& rule : other_mathematics) check_mathematics(root, rule);
  check_attention_kinds(root);
  if (root.has_value("hidden_act") && root.string("hidden_act") != "silu" && root.string("hidden_act") != "swish") {
    refuse_mathematics(root.where("hidden_act"), "\"silu\"", printable(root.string("hidden_act")));
  }
  check_saved_type(root, "torch_dtype");
  check_saved_type(root, "dtype");
}

/// Refuses rotary positions that are not the plain ones.
inline void check_rope(JsonObject& rope, std::string const& where) {
  std::string kind = rope.has_value("type") ? rope.string("type") : "default";
  if (rope.has_value("rope_type")) kind = rope.string("rope_type");
  if (kind != "default") {
    fail(ErrorCode::Unsupported, "this library does not scale rotary positions", where, "rope_type default",
         printable(kind));
  }
  for (char const* field : {"factor", "partial_rotary_factor"}) {
    if (!rope.has_value(field) || rope.number(field) == 1.0) continue;
    refuse_mathematics(rope.where(field), "1", describe(rope.at(field)));
  }
}

/// The base of the rotary angles. Newer writers put it into `rope_parameters`, which older ones call `rope_scaling`.
/// @param ignored  gets the names of fields in there that no one knows
[[nodiscard]] inline double read_rope_theta(JsonObject& root, std::vector<std::string>& ignored) {
  double theta = 10000.0;
  std::string said_by;
  auto const take = [&](double value, std::string const& field) {
    if (!said_by.empty() && value != theta) {
      fail(ErrorCode::InvalidConfig, said_by + " and " + field + " differ", root.where(said_by), text_of(value),
           text_of(theta));
    }
    theta = value;
    said_by = field;
  };
  if (root.has_value("rope_theta")) take(root.number("rope_theta"), "rope_theta");
  for (std::string const key : {"rope_scaling", "rope_parameters"}) {
    if (!root.has_value(key)) continue;
    JsonObject rope = root.object(key);
    check_rope(rope, root.where(key));
    if (rope.has_value("rope_theta")) take(rope.number("rope_theta"), key + ".rope_theta");
    for (std::string const& field : rope.unread()) {
      if (rope.at(field).is_object()) {
        fail(ErrorCode::Unsupported, "this library has one kind of rotary positions for all layers", rope.where(field),
             "no such field", "an object");
      }
      if (rope.has_value(field)) ignored.push_back(key + "." + field);
    }
  }
  return theta;
}

/// Call after the last field: adds the fields that no one asked for. Notes of other programs and fields that are null
/// say nothing; dropout does where it is not zero, because `train` has none.
inline void add_ignored(JsonObject& root, std::vector<std::string>& ignored) {
  for (std::string const& field : root.unread()) {
    nlohmann::json const& value = root.at(field);
    bool const no_dropout = field == "attention_dropout" && value.is_number() && value.get<double>() == 0.0;
    if (!value.is_null() && !no_dropout && !is_note(field)) ignored.push_back(field);
  }
}

}  // namespace mor::io::detail
