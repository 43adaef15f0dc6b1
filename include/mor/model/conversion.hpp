// SPDX-License-Identifier: Apache-2.0
/// @file
/// Turns the weights of one architecture into another's (mor-spec 2.2): a pretrained vanilla Transformer into a
/// recursive or Mixture-of-Recursions model, layers shared or unrolled, names official or own. Nothing is held in
/// memory: `ConvertedTensors` makes each value when it is read.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/normal_numbers.hpp"
#include "mor/core/tensor_source.hpp"
#include "mor/core/types.hpp"
#include "mor/model/model_tensors.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mor {

/// Where the layers of a recursion block take their weights from when the pretrained model has more of them.
enum class BlockInit {
  Stepwise,  ///< spread evenly over the source's layers
  Average,   ///< the mean of the layers that each shared layer stands for
  Lower,     ///< the first ones
  Upper,     ///< the last ones
  Random,    ///< a random choice, in ascending order
  Tied       ///< the source repeats its layers as the sharing says: copies are compared and kept once
};

/// The names of the choices on command lines.
inline constexpr std::array<std::pair<BlockInit, std::string_view>, 6> block_init_names{
    {{BlockInit::Stepwise, "stepwise"},
     {BlockInit::Average, "average"},
     {BlockInit::Lower, "lower"},
     {BlockInit::Upper, "upper"},
     {BlockInit::Random, "random"},
     {BlockInit::Tied, "tied"}}};

/// @throws mor::error InvalidArgument that lists the known names
[[nodiscard]] inline BlockInit parse_block_init(std::string_view text, std::string const& where = "init") {
  std::string known;
  for (auto const& [value, name] : block_init_names) {
    if (name == text) return value;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  fail(ErrorCode::InvalidArgument, "unknown value", where, "one of " + known, printable(text));
}

namespace detail {

/// `count` numbers from `first` to `last`, evenly spaced and rounded, halves to the even neighbour: NumPy's
/// `linspace(first, last, count).round()`.
[[nodiscard]] inline std::vector<Index> rounded_steps(Index first, Index last, Index count) {
  std::vector<Index> steps;
  double const step = count > 1 ? static_cast<double>(last - first) / static_cast<double>(count - 1) : 0.0;
  for (Index i = 0; i < count; ++i) {
    double const place = static_cast<double>(first) + static_cast<double>(i) * step;
    steps.push_back(i > 0 && i + 1 == count ? last : static_cast<Index>(std::nearbyint(place)));
  }
  return steps;
}

/// `count` of the numbers from `first` to `last`, ascending, every choice equally likely.
[[nodiscard]] inline std::vector<Index> random_choice(Index first, Index last, Index count, std::uint64_t seed) {
  std::vector<Index> chosen;
  Philox const generator{stream_key(seed, 0x636f6e76)};
  for (Index layer = first; layer <= last; ++layer) {
    double const rest = static_cast<double>(last - layer + 1);
    double const draw = rest * uniform01(generator.block(static_cast<std::uint64_t>(layer))[0]);
    if (draw < static_cast<double>(count - static_cast<Index>(chosen.size()))) chosen.push_back(layer);
  }
  return chosen;
}

}  // namespace detail

/// For each parameter set of `to`, the layers of the source (counted unrolled, from 0) whose mean it is.
///
/// Prelude and coda keep the source's first and last layers. With one layer at either end, and B layers in a block, the
/// inner ones are those of mor-spec 2.2; `Average` of a source with another number of layers takes the layers that
/// remain after evenly spaced ones are dropped (mor-spec 2.1).
/// @param source_layers  unrolled
/// @throws mor::error InvalidConfig where the source has too few layers, or another number than `Tied` needs
[[nodiscard]] inline std::vector<std::vector<Index>> layer_sources(Index source_layers, LayerSchedule const& to,
                                                                   BlockInit init, std::uint64_t seed) {
  Index const prelude = static_cast<Index>(to.prelude.size()), coda = static_cast<Index>(to.coda.size());
  Index const inner = to.num_recursions() * to.block_layers();
  Index const first = prelude, last = source_layers - 1 - coda, available = last - first + 1;
  Index const sets = to.num_parameter_sets(), block = sets - prelude - coda;
  bool const takes_each = init == BlockInit::Lower || init == BlockInit::Upper || init == BlockInit::Random;
  Index const needed = init == BlockInit::Tied ? inner : takes_each ? block : 1;
  if (available < needed || (init == BlockInit::Tied && available != needed)) {
    fail(ErrorCode::InvalidConfig, "the source's layers do not fit the recursion", "num_hidden_layers of the source",
         (init == BlockInit::Tied ? "" : "at least ") + text_of(prelude) + " + " + text_of(needed) + " + " +
             text_of(coda),
         text_of(source_layers));
  }
  std::vector<std::vector<Index>> sources(static_cast<std::size_t>(sets));
  for (Index l = 0; l < prelude; ++l) sources[static_cast<std::size_t>(to.prelude[static_cast<std::size_t>(l)])] = {l};
  for (Index l = 0; l < coda; ++l) {
    sources[static_cast<std::size_t>(to.coda[static_cast<std::size_t>(l)])] = {source_layers - coda + l};
  }
  auto const each = [&](std::vector<Index> const& layers) {
    for (Index j = 0; j < block; ++j)
      sources[static_cast<std::size_t>(prelude + j)] = {layers[static_cast<std::size_t>(j)]};
  };
  switch (init) {
    case BlockInit::Stepwise: each(detail::rounded_steps(first, last, block)); break;
    case BlockInit::Lower: each(detail::rounded_steps(first, first + block - 1, block)); break;
    case BlockInit::Upper: each(detail::rounded_steps(last - block + 1, last, block)); break;
    case BlockInit::Random: each(detail::random_choice(first, last, block, seed)); break;
    case BlockInit::Average:
    case BlockInit::Tied: {
      auto const kept = detail::rounded_steps(first, last, inner);
      auto const unrolled = to.unrolled();
      for (Index k = 0; k < inner; ++k) {
        auto const set = unrolled[static_cast<std::size_t>(prelude + k)];
        sources[static_cast<std::size_t>(set)].push_back(kept[static_cast<std::size_t>(k)]);
      }
      break;
    }
  }
  return sources;
}

/// The tensors of a model `to`, made from those of a model `from`. Its names are those of `to`'s layout.
///
/// Equal schedules keep every layer, whatever the naming; other schedules follow `layer_sources`, and then the source
/// must be without a router. A router that both models have is copied, a new one is random as in a new model. A tied
/// head becomes a copy of the embedding where `to` has a head of its own.
class ConvertedTensors final : public TensorSource {
 public:
  /// @param source  outlives this
  /// @throws mor::error as StoredModel does; InvalidConfig where widths differ, where a router or a head of the source
  ///         would be lost, and as `layer_sources` does; ShapeMismatch where `Tied` finds copies that differ
  ConvertedTensors(TensorSource const& source, ModelTensors const& from, ModelTensors const& to, BlockInit init,
                   std::uint64_t seed)
      : source_(&source), layout_(to.layout), seed_(seed), deviation_(to.config.transformer.initializer_range) {
    check_widths(from.config.transformer, to.config.transformer);
    auto const aliases = tensor_aliases(from);
    StoredModel const stored(source, from.layout, aliases);
    for (Index i = 0; i < from.layout.count(); ++i) stored_[from.layout[i].name] = stored.stored_name(i);
    bool const same_layers = from.schedule == to.schedule;
    refuse_losses(from, to, same_layers);
    std::vector<std::vector<Index>> sets =
        same_layers ? first_uses(to.schedule) : layer_sources(from.schedule.num_layers(), to.schedule, init, seed);
    plan_layers(from, to, sets);
    if (!same_layers && init == BlockInit::Tied) demand_equal_copies();
    for (Index i = 0; i < layout_.count(); ++i) plan_rest(i);
  }

  [[nodiscard]] std::string label() const override { return source_->label(); }
  [[nodiscard]] std::vector<std::string> names() const override {
    std::vector<std::string> names;
    for (auto const& info : layout_.all()) names.push_back(info.name);
    return names;
  }
  [[nodiscard]] std::optional<TensorFacts> find(std::string_view name) const override {
    std::string const key(name);
    if (!layout_.contains(key)) return std::nullopt;
    return TensorFacts{DType::F32, file_shape(layout_.find(key))};
  }
  void read(std::string_view name, Index first, std::span<float> into) const override {
    Recipe const& recipe = recipes_.at(std::string(name));
    if (recipe.sources.empty()) return fill(recipe, first, into);
    if (recipe.sources.size() == 1) return source_->read(recipe.sources[0], first, into);
    std::vector<double> sum(into.size(), 0.0);
    for (std::string const& from : recipe.sources) {
      source_->read(from, first, into);
      for (std::size_t n = 0; n < into.size(); ++n) sum[n] += static_cast<double>(into[n]);
    }
    auto const count = static_cast<double>(recipe.sources.size());
    for (std::size_t n = 0; n < into.size(); ++n) into[n] = static_cast<float>(sum[n] / count);
  }
  void release(std::string_view name) const override {
    for (std::string const& from : recipes_.at(std::string(name)).sources) source_->release(from);
  }

  /// The tensors of the source whose mean a tensor is; empty for new weights.
  [[nodiscard]] std::vector<std::string> const& sources_of(std::string const& name) const {
    return recipes_.at(name).sources;
  }

 private:
  struct Recipe {
    std::vector<std::string> sources;
    Index place = 0;  ///< in the layout: the stream of new weights, as ParameterSet::initialize numbers them
    Initializer initializer = Initializer::Normal;
  };

  static void check_widths(TransformerConfig const& from, TransformerConfig const& to) {
    auto const demand = [](char const* field, Index expected, Index got) {
      if (expected == got) return;
      fail(ErrorCode::InvalidConfig, "a conversion keeps the width of the model", field, text_of(expected),
           text_of(got));
    };
    demand("vocab_size", from.vocab_size, to.vocab_size);
    demand("hidden_size", from.hidden_size, to.hidden_size);
    demand("intermediate_size", from.intermediate_size, to.intermediate_size);
    demand("num_attention_heads", from.num_attention_heads, to.num_attention_heads);
    demand("num_key_value_heads", from.num_key_value_heads, to.num_key_value_heads);
    demand("head_dim", from.head_dim, to.head_dim);
    if (to.tie_word_embeddings && !from.tie_word_embeddings) {
      fail(ErrorCode::InvalidConfig, "the output matrix of the source would be lost", "tie_word_embeddings", "false",
           "true");
    }
  }

  static void refuse_losses(ModelTensors const& from, ModelTensors const& to, bool same_layers) {
    if (from.naming == LayerNaming::Unrolled || (same_layers && from.naming == to.naming)) return;
    fail(ErrorCode::InvalidConfig, "a routed model keeps its router and its recursions",
         same_layers ? "mor.router" : "num_hidden_layers, mor.num_recursions, mor.sharing", "those of the source",
         "others");
  }

  /// The unrolled layer that each set is first used by.
  static std::vector<std::vector<Index>> first_uses(LayerSchedule const& schedule) {
    std::vector<std::vector<Index>> sets(static_cast<std::size_t>(schedule.num_parameter_sets()));
    auto const unrolled = schedule.unrolled();
    for (std::size_t l = 0; l < unrolled.size(); ++l) {
      auto& layers = sets[static_cast<std::size_t>(unrolled[l])];
      if (layers.empty()) layers.push_back(static_cast<Index>(l));
    }
    return sets;
  }

  void plan_layers(ModelTensors const& from, ModelTensors const& to, std::vector<std::vector<Index>> const& sets) {
    auto const source_prefixes = layer_prefixes(from.naming, from.schedule);
    auto const source_sets = from.schedule.unrolled();
    auto const prefixes = layer_prefixes(to.naming, to.schedule);
    auto const uses = first_uses(to.schedule);
    for (std::size_t set = 0; set < sets.size(); ++set) {
      for (std::string_view const suffix : layer_suffixes) {
        Recipe& recipe = recipes_[prefixes[static_cast<std::size_t>(uses[set][0])] + std::string(suffix)];
        for (Index const layer : sets[set]) {
          auto const wanted = source_sets[static_cast<std::size_t>(layer)];
          auto const first = std::find(source_sets.begin(), source_sets.end(), wanted) - source_sets.begin();
          recipe.sources.push_back(stored_.at(source_prefixes[static_cast<std::size_t>(first)] + std::string(suffix)));
        }
      }
    }
  }

  void demand_equal_copies() {
    for (auto& [name, recipe] : recipes_) {
      for (std::string const& copy : recipe.sources) {
        if (source_->same_bits(recipe.sources[0], copy)) continue;
        fail(ErrorCode::ShapeMismatch, "copies of one shared tensor differ", source_->where(copy),
             "the same bits as " + recipe.sources[0], "others");
      }
      recipe.sources.resize(1);
    }
  }

  /// Embedding, final norm, head, and routers.
  void plan_rest(Index i) {
    auto const& info = layout_[i];
    Recipe& recipe = recipes_[info.name];
    recipe.place = i;
    recipe.initializer = info.initializer;
    if (!recipe.sources.empty()) return;
    auto stored = stored_.find(info.name);
    if (stored == stored_.end() && info.name == head_name) stored = stored_.find(std::string(embedding_name));
    if (stored == stored_.end()) return;  // a new router
    auto const shape = source_->facts(stored->second).shape;
    if (shape != file_shape(info)) {
      fail(ErrorCode::ShapeMismatch, "wrong shape", source_->where(stored->second), shape_text(file_shape(info)),
           shape_text(shape));
    }
    recipe.sources.push_back(stored->second);
  }

  void fill(Recipe const& recipe, Index first, std::span<float> into) const {
    if (recipe.initializer == Initializer::Normal) {
      Philox const generator{stream_key(seed_, static_cast<std::uint64_t>(recipe.place))};
      return fill_normal(generator, deviation_, first, into);
    }
    std::fill(into.begin(), into.end(), recipe.initializer == Initializer::Ones ? 1.0F : 0.0F);
  }

  TensorSource const* source_;
  ParameterLayout layout_;
  std::uint64_t seed_;
  double deviation_;
  std::map<std::string, std::string> stored_;  ///< name in the source's layout -> name in the source
  std::map<std::string, Recipe> recipes_;
};

}  // namespace mor
