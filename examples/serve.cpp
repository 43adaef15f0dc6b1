// SPDX-License-Identifier: Apache-2.0
/// @file
/// Serves a model over HTTP as the OpenAI API does: `serve --model DIR`. A page at `/` shows how deep each token goes.
#include "common/command_line.hpp"
#include "common/device_choice.hpp"
#include "common/model_folder.hpp"
#include "common/short_waits.hpp"
#include "common/text_loss.hpp"
#include "mor/core/config_text.hpp"
#include "serve/run_server.hpp"

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

namespace {

using namespace examples;

struct ServeFlags {
  ModelFlags shape;
  std::optional<std::string> model, routing, dtype;
  serve::ServerFlags server;
  std::string device = "auto";
  int threads = 0;
  Index cache_megabytes = 0, prefill_chunk = mor::infer::EngineOptions().prefill_chunk;
  bool no_prefix_cache = false;
};

void add_options(CLI::App& app, ServeFlags& flags) {
  app.add_option("--model", flags.model, "model folder; without one, --preset gives a model with random weights");
  app.add_option("--routing", flags.routing, "threshold | aux_router | full_depth (default: the model's causal rule)");
  app.add_option("--device", flags.device, "auto (a GPU where there is one) | cpu | cuda")->capture_default_str();
  app.add_option("--dtype", flags.dtype, "of weights and activations: float32 | bfloat16 (default: bfloat16 on a GPU)");
  app.add_option("--threads", flags.threads, "of the processor, for the model; 0: all")->capture_default_str();
  serve::add_server_options(app, flags.server);
  std::string const group = "Engine";
  auto const add = [&](char const* name, Index& value, char const* help) {
    app.add_option(name, value, help)->capture_default_str()->group(group);
  };
  add("--cache-megabytes", flags.cache_megabytes, "for keys and values; 0: what every slot can need, and a quarter more for kept prompts");
  add("--prefill-chunk", flags.prefill_chunk, "tokens of a prompt that are read at once");
  app.add_flag("--no-prefix-cache", flags.no_prefix_cache, "forget prompts instead of keeping their keys")
      ->group(group);
  add_model_options(app, flags.shape, "none: the model folder's own");
}

mor::infer::EngineOptions engine_options(ServeFlags const& flags, mor::ModelConfig const& config) {
  constexpr Index most_megabytes = Index{1} << 24;
  if (flags.cache_megabytes < 0 || flags.cache_megabytes > most_megabytes) {
    mor::fail(mor::ErrorCode::InvalidArgument, "out of range", "--cache-megabytes",
              "0 to " + mor::text_of(most_megabytes), mor::text_of(flags.cache_megabytes));
  }
  mor::infer::EngineOptions options;
  options.slots = flags.server.max_slots;
  options.queue = flags.server.max_slots + flags.server.queue;
  options.cache_bytes = flags.cache_megabytes << 20;
  options.prefill_chunk = flags.prefill_chunk;
  options.prefix_cache = !flags.no_prefix_cache;
  options.mode =
      flags.routing ? mor::parse_routing_mode(*flags.routing, "--routing") : generation_mode(config.recursion);
  return options;
}

/// The time of the weights, for `created`.
std::int64_t seconds_of(std::filesystem::path const& path) {
  std::error_code problem;
  auto const time = std::filesystem::last_write_time(path, problem);
  auto const since = problem ? std::chrono::system_clock::now().time_since_epoch()
                             : std::chrono::file_clock::to_sys(time).time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(since).count();
}

serve::ServedModel served_model(ServeFlags const& flags, AnyModel const& model) {
  auto const& config = model.config();
  serve::ServedModel served;
  std::filesystem::path path = flags.model.value_or(flags.shape.preset.value_or(""));
  path = std::filesystem::absolute(path).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // DIR/
  served.name = serve::model_name(flags.server.name.empty() ? path.filename().string() : flags.server.name);
  served.context = config.transformer.max_position_embeddings;
  served.vocabulary = config.transformer.vocab_size;
  served.recursions = config.recursion.num_recursions;
  if (config.transformer.eos_token_id >= 0) served.end_token = config.transformer.eos_token_id;
  served.created = seconds_of(path);
  return served;
}

void serve_model(ServeFlags const& flags) {
  static_cast<void>(serve::limits_of(flags.server));  // a wrong option is told before the model is read
  if (flags.threads < 0) {
    mor::fail(mor::ErrorCode::InvalidArgument, "out of range", "--threads", "0 or more", mor::text_of(flags.threads));
  }
  auto const device = choose_device(flags.device, flags.dtype, flags.threads);
  auto const [model, tokenizer] = open_model(flags.model, flags.shape, device, true);
  auto const engine = model->make_engine(engine_options(flags, model->config()));
  serve::run_server(*engine, tokenizer, served_model(flags, *model), flags.server);
}

}  // namespace

int main(int argc, char** argv) {
  shorten_waits(argv);
  CLI::App app("Serves a model over HTTP, as the OpenAI API does.", "serve");
  ServeFlags flags;
  add_options(app, flags);
  return run_program(app, argc, argv, [&] { serve_model(flags); });
}
