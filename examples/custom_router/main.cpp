// SPDX-License-Identifier: Apache-2.0
/// @file
/// Trains a model with the router of change_router.hpp and one in which every token takes every recursion, on the same
/// text, and shows what each costs, what it learns, and where the new router thinks longest:
/// `custom_router [--text FILE] [--steps N]`.
#include "change_router.hpp"
#include "mor/backend/host/backend.hpp"
#include "mor/io/depth_ansi.hpp"
#include "mor/io/file.hpp"
#include "mor/io/tokenizer.hpp"
#include "mor/model/recursive_transformer.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/cache.hpp"
#include "mor/policy/sharing.hpp"
#include "mor/train/adamw.hpp"
#include "mor/train/data_loader.hpp"
#include "mor/train/learning_rate.hpp"

#include <charconv>
#include <chrono>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Backend = mor::host::Backend<float>;
using Changing = mor::RecursiveTransformer<acme::ChangeRouter, mor::RecursionWiseCache, mor::MiddleCycle, Backend>;
using Plain = mor::RecursiveTransformer<mor::AllTokens, mor::RecursionWiseCache, mor::MiddleCycle, Backend>;

constexpr std::string_view built_in_text =
    "The river rises in the hills above the village, where the winter snow melts late and the grass stays wet until "
    "June. For the first mile it is hardly a river at all: a child can step across it, and the sheep drink it dry in a "
    "hot summer. Below the old mill a second stream joins it from the east, and from there the water is deep enough "
    "for a boat. The miller's house still stands, but the wheel is gone, and the pond behind the weir has filled with "
    "reeds. Herons fish there in the morning. In the evening, when the wind drops, the swallows come down to drink, "
    "and the whole surface of the pond breaks into small rings that widen and cross and disappear. The road follows "
    "the river as far as the bridge. It was built of the same grey stone as the mill, with three low arches, and the "
    "middle one is a little higher than the others so that the barges could pass. Nobody remembers the barges. The "
    "children of the village swim under the arches in the summer and shout to hear the echo. Beyond the bridge the "
    "valley opens, the fields grow wide and flat, and the river, which has been in a hurry until now, slows down and "
    "begins to wander. It goes to one side of the valley and then to the other, as if it had lost something on the way "
    "and was looking for it among the willows. At last it finds the sea, behind a bank of shingle that moves with "
    "every storm, so that no map of the mouth of the river has ever been right for longer than a year. ";

mor::ModelConfig make_config(mor::Index vocab_size) {
  mor::ModelConfig config;
  config.transformer.vocab_size = vocab_size;
  config.transformer.hidden_size = 96;
  config.transformer.intermediate_size = 256;
  config.transformer.num_attention_heads = 6;
  config.transformer.num_key_value_heads = 3;
  config.transformer.head_dim = 16;
  config.transformer.max_position_embeddings = 128;
  config.recursion.sharing = mor::SharingKind::MiddleCycle;
  config.recursion.num_recursions = 3;
  config.recursion.num_prelude_layers = config.recursion.num_coda_layers = 1;
  config.num_hidden_layers = 5;
  return config;
}

/// Trains for `steps` steps and prints one line every tenth of them.
template <class Model>
void train(Model& model, char const* name, std::vector<mor::Token> const& tokens, mor::Index steps) {
  auto source = mor::train::TokenSource::from_tokens(tokens, model.config().transformer.vocab_size);
  mor::train::DataLoader loader(std::move(source), {64, 8, 1, true});
  model.initialize(1);
  model.parameters().enable_gradients();
  mor::train::Adamw<Backend> optimizer(model.backend(), model.parameters(), {});
  mor::train::LearningRateSchedule schedule;
  schedule.kind = mor::train::LearningRateSchedule::Kind::Cosine;
  schedule.peak = 3e-3;
  schedule.total_steps = steps;
  schedule.warmup_steps = steps / 10;
  auto const begin = std::chrono::steady_clock::now();
  for (mor::Index step = 0; step < steps; ++step) {
    auto const batch = loader.next();
    mor::TrainingProgress progress;
    progress.forward_calls = step + 1;
    model.parameters().zero_gradients();
    model.forward_backward({batch.inputs, batch.positions, batch.sequence_offsets}, batch.targets, progress,
                           {1.0 / static_cast<double>(batch.num_rows()), 1.0});
    optimizer.step(schedule.at(step));
    if ((step + 1) % std::max<mor::Index>(1, steps / 10) != 0) continue;
    auto const report = model.report();
    std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - begin;
    std::printf("%-13s step %5lld  loss %.4f  depth %.2f  %.0f ms a step\n", name, static_cast<long long>(step + 1),
                report.loss_sum / static_cast<double>(report.num_rows), report.mean_depth(),
                1e3 * seconds.count() / static_cast<double>(step + 1));
    std::fflush(stdout);
  }
}

/// Prints the beginning of the text, coloured by the recursions that each token took.
template <class Model>
void show_depths(Model& model, mor::io::Tokenizer const& tokenizer, std::vector<mor::Token> const& tokens,
                 mor::RoutingMode mode, char const* title) {
  auto const rows = static_cast<mor::Row>(std::min<std::size_t>(tokens.size(), 128));
  std::vector<mor::Row> positions;
  for (mor::Row i = 0; i < rows; ++i) positions.push_back(i);
  std::vector<mor::Row> const offsets{0, rows};
  static_cast<void>(model.forward({std::span(tokens).first(static_cast<std::size_t>(rows)), positions, offsets}, mode));
  auto const depths = model.depths();
  int const recursions = static_cast<int>(model.config().recursion.num_recursions);
  std::vector<mor::Index> counts(static_cast<std::size_t>(recursions), 0);
  std::string text;
  mor::Utf8Stream characters;
  for (std::size_t i = 0; i < depths.size(); ++i) {
    ++counts[static_cast<std::size_t>(depths[i]) - 1];
    text += mor::io::ansi_depth(characters.push(tokenizer.token_bytes(tokens[i])), depths[i], recursions);
  }
  std::printf("\n%s\n%s\n%s\n", title, text.c_str(), mor::io::ansi_depth_legend(counts).c_str());
}

void run(std::string const& file, mor::Index steps) {
  auto const tokenizer = mor::io::Tokenizer::byte_level();
  auto const tokens = tokenizer.encode(file.empty() ? std::string(built_in_text) : mor::io::read_file(file));
  auto const config = make_config(tokenizer.vocab_size());
  Backend backend;
  Plain plain(backend, config);
  train(plain, "AllTokens", tokens, steps);
  Backend other_backend;
  Changing changing(other_backend, config);
  train(changing, "ChangeRouter", tokens, steps);
  show_depths(changing, tokenizer, tokens, mor::RoutingMode::TopK, "Depths as in training, the best of each sequence:");
  show_depths(changing, tokenizer, tokens, mor::RoutingMode::Threshold, "Depths by the causal rule:");
}

}  // namespace

int main(int argc, char** argv) {
  std::string file;
  mor::Index steps = 200;
  for (int i = 1; i < argc; i += 2) {
    std::string_view const option = argv[i];
    std::string_view const value = i + 1 < argc ? argv[i + 1] : "";
    auto const [end, problem] = std::from_chars(value.data(), value.data() + value.size(), steps);
    bool const number = problem == std::errc{} && end == value.data() + value.size() && steps > 0;
    if (option == "--text" && !value.empty()) {
      file = value;
    } else if (option != "--steps" || !number) {
      std::fprintf(stderr, "usage: custom_router [--text FILE] [--steps N]\n");
      return option == "--help" ? 0 : 2;
    }
  }
  try {
    run(file, steps);
  } catch (std::exception const& problem) {
    std::fprintf(stderr, "custom_router: %s\n", problem.what());
    return 2;
  }
  return 0;
}
