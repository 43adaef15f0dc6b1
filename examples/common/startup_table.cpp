// SPDX-License-Identifier: Apache-2.0
#include "common/startup_table.hpp"

#include "mor/core/capacity.hpp"
#include "mor/core/config_text.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/train/number_text.hpp"
#include "mor/train/progress_line.hpp"

#include <algorithm>

namespace examples {

namespace {

using mor::train::detail::fixed_text;

std::string line(std::string name, std::string const& value) {
  name.resize(12, ' ');
  return name + value + "\n";
}

/// Three significant digits of value / 1000^n and the unit of n.
std::string scaled(double value, char const* const (&units)[5]) {
  std::size_t unit = 0;
  while (value >= 999.5 && unit < 4) {
    value /= 1000.0;
    ++unit;
  }
  int const digits = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return fixed_text(value, digits) + units[unit];
}

template <class Enum>
std::string name(Enum value) {
  return std::string(mor::to_text(value));
}

std::string policies(mor::RecursionConfig const& r) {
  std::string text = "router " + name(r.router) + ", cache " + name(r.cache) + ", sharing " + name(r.sharing);
  if (r.router == mor::RouterKind::AllTokens) return text;
  text +=
      "; " + name(r.router_network) + " network, " + name(r.activation()) + ", alpha " + mor::text_of(r.gate_scale());
  if (r.random_router) text += ", random scores";
  return text;
}

std::string layers(mor::ModelConfig const& config, Index unique) {
  auto const& r = config.recursion;
  std::string text = mor::text_of(config.num_hidden_layers) + " = " + mor::text_of(r.num_prelude_layers) + " + " +
                     mor::text_of(r.num_recursions) + " x " + mor::text_of(config.block_layers()) + " + " +
                     mor::text_of(r.num_coda_layers) + ", " + mor::text_of(unique) + " with weights of their own";
  if (r.router != mor::RouterKind::ExpertChoice) return text;
  text += "; share of tokens";
  for (Index step = 0; step < r.num_recursions; ++step) {
    text += (step == 0 ? " " : ", ") + fixed_text(mor::capacity(r, step), 3);
  }
  return text;
}

std::string widths(mor::TransformerConfig const& t) {
  return "hidden " + mor::text_of(t.hidden_size) + ", heads " + mor::text_of(t.num_attention_heads) + " of " +
         mor::text_of(t.head_dim) + " (" + mor::text_of(t.num_key_value_heads) + " key/value), mlp " +
         mor::text_of(t.intermediate_size) + ", vocabulary " + grouped(t.vocab_size) +
         (t.tie_word_embeddings ? " (tied)" : "") + ", context " + grouped(t.max_position_embeddings);
}

std::string schedule_text(TrainPlan const& plan) {
  auto const& s = plan.schedule;
  std::string text = std::string(mor::train::to_string(s.kind)) + ", peak " +
                     mor::train::detail::scientific_text(s.peak, 1) + ", warm-up " + grouped(s.warmup_steps) + " steps";
  if (s.kind == mor::train::LearningRateSchedule::Kind::WarmupStableDecay) {
    text += ", decay over the last " + fixed_text(100.0 * s.decay_fraction, 0) + " %";
  }
  if (plan.length.steps) return text + "; " + grouped(*plan.length.steps) + " steps";
  return text + "; " + mor::train::duration_text(*plan.length.seconds) + " by the clock";
}

std::string data_text(TrainingData const& data, mor::train::TokenSplit const& split) {
  std::string text = grouped(data.tokens.size()) + " tokens";
  if (data.text_bytes > 0) {
    text += " of " + byte_text(data.text_bytes) + " text (" +
            fixed_text(static_cast<double>(data.text_bytes) / static_cast<double>(data.tokens.size()), 2) +
            " bytes a token)";
  }
  return text + "; " + grouped(split.validation.size()) + " held out";
}

}  // namespace

ParameterCounts count_parameters(mor::ModelConfig const& config, Index unique) {
  auto const& t = config.transformer;
  Index const a_layer = 2 * t.hidden_size * (t.query_size() + t.key_value_size()) +
                        3 * t.hidden_size * t.intermediate_size + 2 * t.hidden_size;
  ParameterCounts counts;
  counts.unique = unique;
  counts.unrolled = unique + (config.num_hidden_layers - mor::named_schedule(config).num_parameter_sets()) * a_layer;
  counts.embedding = t.vocab_size * t.hidden_size * (t.tie_word_embeddings ? 1 : 2);
  return counts;
}

std::string model_table(mor::ModelConfig const& config, Forecast const& forecast) {
  auto const counts = count_parameters(config, forecast.parameters);
  return line("model", policies(config.recursion)) +
         line("layers", layers(config, mor::named_schedule(config).num_parameter_sets())) +
         line("width", widths(config.transformer)) +
         line("parameters", count_text(counts.unique) + " (" + count_text(counts.embedding) + " of them embedding), " +
                                count_text(counts.unrolled) + " as unrolled");
}

std::string run_table(TrainPlan const& plan, Forecast const& forecast, TrainingData const& data,
                      mor::train::TokenSplit const& split) {
  auto const& device = plan.device;
  std::string const threads = mor::text_of(device.threads) + (device.threads == 1 ? " thread" : " threads");
  std::string const gpu = device.gpu + (device.dtype == mor::DType::BF16 ? ", bfloat16" : ", float32");
  return (device.cuda ? line("device", gpu) : std::string()) +
         line("memory", "weights " + byte_text(forecast.weight_bytes) + ", gradients " +
                            byte_text(forecast.gradient_bytes) + ", optimizer " + byte_text(forecast.optimizer_bytes) +
                            (device.cuda ? ", workspace " + byte_text(forecast.workspace_bytes) : std::string()) +
                            ", activations " + byte_text(forecast.activation_bytes) + ": " +
                            byte_text(forecast.total_bytes()) + " in all") +
         line("data", data_text(data, split)) +
         line("step", mor::text_of(plan.batch_size) + " x " + mor::text_of(plan.context) + " tokens" +
                          (plan.accumulation > 1 ? " x " + mor::text_of(plan.accumulation) + " micro-batches" : "") +
                          " = " + grouped(plan.tokens_per_step()) + "; " +
                          scaled(forecast.training_flops, {" FLOP", " kFLOP", " MFLOP", " GFLOP", " TFLOP"}) +
                          " a token" + (device.cuda ? std::string() : "; " + threads)) +
         line("schedule", schedule_text(plan));
}

std::string grouped(Index value) {
  std::string digits = std::to_string(value);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > (value < 0 ? 1 : 0); at -= 3) {
    digits.insert(static_cast<std::size_t>(at), 1, ',');
  }
  return digits;
}

std::string byte_text(Index bytes) {
  return scaled(static_cast<double>(bytes), {" B", " kB", " MB", " GB", " TB"});
}

std::string count_text(Index count) {
  return scaled(static_cast<double>(count), {"", " k", " M", " G", " T"});
}

}  // namespace examples
