// SPDX-License-Identifier: Apache-2.0
#include "common/command_line.hpp"

#include "mor/core/config_text.hpp"
#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"

#include <algorithm>
#include <cmath>
#include <exception>
#include <filesystem>
#include <iostream>
#include <new>

namespace examples {

namespace {

using mor::Index;

/// The names of a choice for the help text.
template <class Enum>
std::string choices() {
  std::string names = mor::known_names<Enum>();
  for (std::size_t at = 0; (at = names.find(", ", at)) != std::string::npos;) names.replace(at, 2, " | ");
  return names;
}

template <class Enum, class Value>
void set_choice(std::optional<std::string> const& given, char const* option, Value& value) {
  if (given) value = mor::parse_choice<Enum>(*given, option);
}

template <class From, class To>
void set(std::optional<From> const& given, To& value) {
  if (given) value = *given;
}

void apply_widths(ModelFlags const& flags, mor::TransformerConfig& t) {
  mor::TransformerConfig const base = t;
  set(flags.hidden_size, t.hidden_size);
  set(flags.heads, t.num_attention_heads);
  set(flags.context, t.max_position_embeddings);
  t.tie_word_embeddings = t.tie_word_embeddings && !flags.untied;
  if (flags.head_dim) {
    t.head_dim = *flags.head_dim;
  } else if (flags.hidden_size || flags.heads) {
    if (t.num_attention_heads < 1 || t.hidden_size % t.num_attention_heads != 0) {
      mor::fail(mor::ErrorCode::InvalidConfig, "the heads do not divide the hidden size, and there is no --head-dim",
                "--heads", "a divisor of " + std::to_string(t.hidden_size), std::to_string(t.num_attention_heads));
    }
    t.head_dim = t.hidden_size / t.num_attention_heads;
  }
  if (flags.kv_heads) {
    t.num_key_value_heads = *flags.kv_heads;
  } else if (t.num_attention_heads % base.num_key_value_heads != 0) {
    t.num_key_value_heads = t.num_attention_heads;
  }
  if (flags.ffn) {
    t.intermediate_size = *flags.ffn;
  } else if (flags.hidden_size) {  // the same ratio, in multiples of 16
    double const ratio = static_cast<double>(base.intermediate_size) / static_cast<double>(base.hidden_size);
    t.intermediate_size = 16 * std::max<Index>(1, std::llround(ratio * static_cast<double>(t.hidden_size) / 16.0));
  }
}

void apply_layers(ModelFlags const& flags, mor::ModelConfig const& base, mor::ModelConfig& config) {
  auto& r = config.recursion;
  bool const middle = r.sharing == mor::SharingKind::MiddleCycle || r.sharing == mor::SharingKind::MiddleSequence;
  if (!middle) r.num_prelude_layers = r.num_coda_layers = 0;
  if (middle && base.recursion.num_prelude_layers == 0) r.num_prelude_layers = r.num_coda_layers = 1;
  set(flags.prelude, r.num_prelude_layers);
  set(flags.coda, r.num_coda_layers);
  if (r.sharing == mor::SharingKind::None) r.num_recursions = 1;
  set(flags.recursions, r.num_recursions);
  Index block = base.block_layers();
  // Without sharing, as many layers as the base has unrolled: the same depth.
  if (r.sharing == mor::SharingKind::None) block = base.num_hidden_layers;
  set(flags.layers, block);
  if (block < 1) {
    mor::fail(mor::ErrorCode::InvalidConfig, "a recursion needs a layer", "--layers", "at least 1",
              std::to_string(block));
  }
  config.num_hidden_layers = r.num_prelude_layers + r.num_recursions * block + r.num_coda_layers;
}

void apply_routing(ModelFlags const& flags, mor::RecursionConfig& r) {
  set_choice<mor::SharingKind>(flags.sharing, "--sharing", r.sharing);
  bool const one_block = r.sharing == mor::SharingKind::Cycle || r.sharing == mor::SharingKind::MiddleCycle;
  if (!one_block && r.router != mor::RouterKind::AllTokens && !flags.router) r.router = mor::RouterKind::AllTokens;
  set_choice<mor::RouterKind>(flags.router, "--router", r.router);
  if (r.sharing == mor::SharingKind::None) r.cache = mor::CacheKind::RecursionWise;
  set_choice<mor::CacheKind>(flags.cache, "--cache", r.cache);
  set_choice<mor::RouterNetwork>(flags.router_network, "--router-network", r.router_network);
  set_choice<mor::RouterActivation>(flags.router_activation, "--router-activation", r.router_activation);
  set_choice<mor::Gating>(flags.gating, "--gating", r.gating);
  set_choice<mor::RouterSampling>(flags.sampling, "--sampling", r.sampling);
  set_choice<mor::Balancing>(flags.balancing, "--balancing", r.balancing);
  set(flags.alpha, r.alpha);
  set(flags.temperature, r.temperature);
  set(flags.aux_coefficient, r.aux_coefficient);
  set(flags.balance_coefficient, r.balance_coefficient);
  set(flags.bias_update_rate, r.bias_update_rate);
  set(flags.z_coefficient, r.z_coefficient);
  if (!flags.capacities.empty()) r.capacities = flags.capacities;
  r.random_router = r.random_router || flags.random_router;
  r.paper_eq2 = r.paper_eq2 || flags.paper_eq2;
}

/// One line, whatever the text has in it.
std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

int report(CLI::App const& app, std::string const& message, int code) {
  std::cout.flush();
  std::cerr << app.get_name() << ": " << one_line(message) << '\n';
  return code;
}

/// An option given twice has its last value, so that a script can append to a list of defaults.
void take_last(CLI::App& app) {
  for (auto* const option : app.get_options()) {
    if (option->get_items_expected_max() == 1) option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
}

template <class Parse>
int guarded(CLI::App& app, Parse const& parse, std::function<void()> const& body) {
  try {
    take_last(app);
    try {
      parse();
      body();
    } catch (CLI::Success const& request) {  // --help
      app.exit(request);
    }
    std::cout.flush();
    if (!std::cout) mor::fail(mor::ErrorCode::IoFailure, "cannot write", "standard output");
    return 0;
  } catch (CLI::ParseError const& problem) {
    return report(app, std::string(problem.what()) + " (see " + app.get_name() + " --help)", 2);
  } catch (mor::error const& problem) {
    bool const of_the_machine = problem.code() == mor::ErrorCode::OutOfMemory ||
                                problem.code() == mor::ErrorCode::NonFinite ||
                                problem.code() == mor::ErrorCode::DeviceFailure;
    return report(app, problem.what(), of_the_machine ? 1 : 2);
  } catch (std::filesystem::filesystem_error const& problem) {
    return report(app, problem.what(), 2);
  } catch (std::bad_alloc const&) {
    return report(app, "out of memory: try a smaller --batch-size, --context or model", 1);
  } catch (std::exception const& problem) {
    return report(app, problem.what(), 1);
  }
}

}  // namespace

void add_model_options(CLI::App& app, ModelFlags& flags, std::string const& default_preset) {
  std::string const group = "Model";
  auto const add = [&](char const* name, auto& value, std::string const& help) {
    app.add_option(name, value, help)->group(group);
  };
  add("--preset", flags.preset, "starting point: " + preset_names() + " (default " + default_preset + ")");
  add("--router", flags.router, choices<mor::RouterKind>());
  add("--cache", flags.cache, choices<mor::CacheKind>());
  add("--sharing", flags.sharing, choices<mor::SharingKind>());
  add("--recursions", flags.recursions, "times that the recursion block runs");
  add("--layers", flags.layers, "layers of the recursion block");
  add("--prelude", flags.prelude, "layers before the recursions");
  add("--coda", flags.coda, "layers after the recursions");
  add("--hidden-size", flags.hidden_size, "width of the residual stream");
  add("--heads", flags.heads, "query heads");
  add("--kv-heads", flags.kv_heads, "key/value heads, a divisor of --heads");
  add("--head-dim", flags.head_dim, "default: hidden size / heads");
  add("--ffn", flags.ffn, "width of the MLP");
  add("--context", flags.context, "longest sequence in tokens");
  app.add_flag("--untied", flags.untied, "an output matrix of its own instead of the embedding")->group(group);
  std::string const routing = "Routing";
  auto const add_routing = [&](char const* name, auto& value, std::string const& help) {
    app.add_option(name, value, help)->group(routing);
  };
  add_routing("--router-network", flags.router_network, choices<mor::RouterNetwork>());
  add_routing("--router-activation", flags.router_activation, choices<mor::RouterActivation>());
  add_routing("--alpha", flags.alpha, "scale of the gate");
  add_routing("--temperature-router", flags.temperature, "divides the router's input");
  add_routing("--gating", flags.gating, choices<mor::Gating>());
  app.add_option("--capacities", flags.capacities, "share of tokens in each recursion, for example 1,0.667,0.333")
      ->delimiter(',')
      ->group(routing);
  add_routing("--sampling", flags.sampling, choices<mor::RouterSampling>());
  add_routing("--aux-coefficient", flags.aux_coefficient, "weight of the auxiliary loss");
  add_routing("--balancing", flags.balancing, choices<mor::Balancing>());
  add_routing("--balance-coefficient", flags.balance_coefficient, "weight of the balancing loss");
  add_routing("--bias-update-rate", flags.bias_update_rate, "step of loss-free balancing");
  add_routing("--z-coefficient", flags.z_coefficient, "weight of the router's z-loss");
  app.add_flag("--random-router", flags.random_router, "control experiment: random scores")->group(routing);
  app.add_flag("--paper-eq2", flags.paper_eq2, "token choice: gate the intermediate outputs too")->group(routing);
}

mor::ModelConfig apply_model_flags(mor::ModelConfig base, ModelFlags const& flags) {
  mor::ModelConfig config = base;
  apply_widths(flags, config.transformer);
  apply_routing(flags, config.recursion);
  apply_layers(flags, base, config);
  return config;
}

std::string config_difference(mor::ModelConfig const& saved, mor::ModelConfig const& wanted) {
  std::string text;
  auto const compare = [&](char const* field, auto const& was, auto const& now) {
    if (was == now) return;
    text += (text.empty() ? "" : ", ") + std::string(field) + " is " + mor::text_of(was) + " there, " +
            mor::text_of(now) + " here";
  };
  auto const &t = saved.transformer, &u = wanted.transformer;
  compare("vocab_size", t.vocab_size, u.vocab_size);
  compare("hidden_size", t.hidden_size, u.hidden_size);
  compare("intermediate_size", t.intermediate_size, u.intermediate_size);
  compare("num_attention_heads", t.num_attention_heads, u.num_attention_heads);
  compare("num_key_value_heads", t.num_key_value_heads, u.num_key_value_heads);
  compare("head_dim", t.head_dim, u.head_dim);
  compare("max_position_embeddings", t.max_position_embeddings, u.max_position_embeddings);
  compare("tie_word_embeddings", t.tie_word_embeddings, u.tie_word_embeddings);
  auto const &r = saved.recursion, &s = wanted.recursion;
  compare("router", mor::to_text(r.router), mor::to_text(s.router));
  compare("cache", mor::to_text(r.cache), mor::to_text(s.cache));
  compare("sharing", mor::to_text(r.sharing), mor::to_text(s.sharing));
  compare("num_recursions", r.num_recursions, s.num_recursions);
  compare("num_hidden_layers", saved.num_hidden_layers, wanted.num_hidden_layers);
  if (text.empty() && !(saved == wanted)) text = "the settings of the router are others";
  return text;
}

int run_program(CLI::App& app, int argc, char const* const* argv, std::function<void()> const& body) {
  return guarded(
      app, [&] { app.parse(argc, argv); }, body);
}

int run_program(CLI::App& app, std::vector<std::string> arguments, std::function<void()> const& body) {
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
  return guarded(
      app, [&] { app.parse(arguments); }, body);
}

}  // namespace examples
