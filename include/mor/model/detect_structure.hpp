// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reads a model's architecture off the names and shapes of its tensors: official Mixture-of-Recursions checkpoints say
/// in no other place how their layers recur (mor-spec section 11).
#pragma once

#include "mor/core/config.hpp"
#include "mor/core/error.hpp"
#include "mor/core/printable.hpp"
#include "mor/core/tensor_source.hpp"
#include "mor/core/types.hpp"
#include "mor/model/model_tensors.hpp"

#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>

namespace mor {

/// Head dimension of every published model; files do not say it.
inline constexpr Index published_head_dim = 64;

namespace detail {

/// Collects what the names say, then puts a configuration together.
class StructureDetector {
 public:
  explicit StructureDetector(TensorSource const& source) : source_(source) {
    for (auto const& name : source.names()) read_name(name);
  }

  [[nodiscard]] bool is_routed() const { return !blocks_.empty() || !block_lists_.empty(); }

  /// Replaces the recursion of `config`, and its number of layers.
  void set_recursion(ModelConfig& config) const {
    if (!blocks_.empty() && !block_lists_.empty()) {
      refuse("both expert-choice and token-choice layers", "block. or block_list. names", "both");
    }
    RecursionConfig r;
    Index block = 0, first = 0, router_layers = 0;
    if (!blocks_.empty()) {
      r.router = RouterKind::ExpertChoice;
      first = blocks_.begin()->first;
      r.num_recursions = router_layers = count_of(blocks_, first, "recursion");
      block = count_inner(blocks_, blocks_.begin()->first);
    } else {
      r.router = RouterKind::TokenChoice;
      first = token_layer_;
      r.num_recursions = count_of(block_lists_, 0, "recursion");
      router_layers = 1;
      block = count_inner(block_lists_, 0);
    }
    r.num_prelude_layers = first;
    for (Index const layer : plain_layers_) {
      if (layer >= first && layer < first + router_layers) {
        refuse("layer " + text_of(layer) + " is both a recursion and a plain layer", "one of them", "both");
      }
    }
    r.num_coda_layers = static_cast<Index>(plain_layers_.size()) - first;
    Index expected = 0;
    for (Index const layer : plain_layers_) {
      if (expected == first) expected += router_layers;
      if (layer != expected++)
        refuse("the layers are not numbered without gaps", text_of(expected - 1), text_of(layer));
    }
    if ((r.num_prelude_layers > 0) != (r.num_coda_layers > 0)) {
      refuse("layers beside the recursions at one end only", "layers at both ends (middle cycle) or none (cycle)",
             text_of(r.num_prelude_layers) + " before, " + text_of(r.num_coda_layers) + " after");
    }
    r.sharing = r.num_prelude_layers > 0 ? SharingKind::MiddleCycle : SharingKind::Cycle;
    std::string const prefix = "model.layers." + text_of(first) + ".";
    if (!source_.contains(prefix + "mor_router.router.weight")) {
      if (!source_.contains(prefix + "mor_router.router.0.weight")) {
        refuse("the tensor of the router is missing", prefix + "mor_router.router.weight", "none");
      }
      r.router_network = RouterNetwork::Mlp;
    }
    if (source_.contains(prefix + "mlp_router.router.weight") ||
        source_.contains(prefix + "mlp_router.router.0.weight")) {
      r.sampling = RouterSampling::AuxRouter;
    }
    if (source_.contains(prefix + "router_bias")) r.balancing = Balancing::LossFree;
    config.recursion = r;
    config.num_hidden_layers = r.num_prelude_layers + r.num_recursions * block + r.num_coda_layers;
  }

  /// The widths, from the shapes of embedding and first layer.
  void set_widths(ModelConfig& config, Index head_dim) const {
    std::string const layer = first_layer();
    auto const rows = [&](std::string const& name) { return matrix(name).first; };
    auto& t = config.transformer;
    std::tie(t.vocab_size, t.hidden_size) = matrix(std::string(embedding_name));
    t.intermediate_size = rows(layer + "mlp.gate_proj.weight");
    t.head_dim = head_dim;
    t.num_attention_heads = heads(layer + "self_attn.q_proj.weight", head_dim);
    t.num_key_value_heads = heads(layer + "self_attn.k_proj.weight", head_dim);
    t.tie_word_embeddings =
        !source_.contains(head_name) || source_.same_bits(std::string(embedding_name), std::string(head_name));
    config.num_hidden_layers = static_cast<Index>(plain_layers_.size());
  }

 private:
  using Layers = std::map<Index, std::set<Index>>;

  /// Takes a number and a dot off the front.
  static std::optional<Index> take_number(std::string_view& text) {
    Index value = 0;
    auto const [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
    auto const digits = static_cast<std::size_t>(end - text.data());
    if (problem != std::errc{} || digits == text.size() || *end != '.' || value < 0 || value > 1'000'000) return {};
    text.remove_prefix(digits + 1);
    return value;
  }

  static bool take(std::string_view& text, std::string_view prefix) {
    if (!text.starts_with(prefix)) return false;
    text.remove_prefix(prefix.size());
    return true;
  }

  void read_name(std::string_view name) {
    if (!take(name, "model.layers.")) return;
    auto const layer = take_number(name);
    if (!layer) return;
    if (take(name, "block.")) {
      if (auto const inner = take_number(name)) blocks_[*layer].insert(*inner);
    } else if (take(name, "block_list.")) {
      auto const recursion = take_number(name);
      auto const inner = recursion ? take_number(name) : std::nullopt;
      if (!inner) return;
      if (!block_lists_.empty() && token_layer_ != *layer) {
        refuse("recursions in two layers", "model.layers." + text_of(token_layer_), "model.layers." + text_of(*layer));
      }
      token_layer_ = *layer;
      block_lists_[*recursion].insert(*inner);
    } else if (name.starts_with("self_attn.") || name.starts_with("mlp.") || name.ends_with("layernorm.weight")) {
      plain_layers_.insert(*layer);
    }
  }

  /// How many layers there are, numbered on from `first`.
  [[nodiscard]] Index count_of(Layers const& layers, Index first, char const* what) const {
    Index expected = first;
    for (auto const& [number, inner] : layers) {
      if (number != expected) refuse(std::string("a ") + what + " is missing", text_of(expected), text_of(number));
      ++expected;
    }
    return expected - first;
  }

  /// How many inner layers the recursions have, each the same.
  [[nodiscard]] Index count_inner(Layers const& layers, Index first) const {
    auto const& inner = layers.begin()->second;
    Index const count = *inner.rbegin() + 1;
    for (auto const& [number, members] : layers) {
      if (members.size() == inner.size() && *members.rbegin() + 1 == count &&
          static_cast<Index>(members.size()) == count) {
        continue;
      }
      refuse("recursion " + text_of(number - first) + " has other layers than the first",
             text_of(count) + " layers numbered from 0", text_of(members.size()));
    }
    return count;
  }

  [[nodiscard]] std::string first_layer() const {
    if (!plain_layers_.empty() && *plain_layers_.begin() == 0) return "model.layers.0.";
    if (!blocks_.empty()) return "model.layers." + text_of(blocks_.begin()->first) + ".block.0.";
    if (!block_lists_.empty()) return "model.layers." + text_of(token_layer_) + ".block_list.0.0.";
    refuse("the layers are not numbered without gaps", "model.layers.0", "none");
  }

  [[nodiscard]] std::pair<Index, Index> matrix(std::string const& name) const {
    auto const shape = source_.facts(name).shape;
    if (shape.size() != 2) {
      fail(ErrorCode::ShapeMismatch, "wrong shape", source_.where(name), "two dimensions", shape_text(shape));
    }
    return {shape[0], shape[1]};
  }

  [[nodiscard]] Index heads(std::string const& name, Index head_dim) const {
    Index const rows = matrix(name).first;
    if (rows % head_dim != 0 || rows == 0) {
      fail(ErrorCode::ShapeMismatch, "no whole number of heads, and there is no config.json that says more",
           source_.where(name), "a multiple of " + text_of(head_dim) + " rows", text_of(rows));
    }
    return rows / head_dim;
  }

  [[noreturn]] void refuse(std::string what, std::string expected, std::string got) const {
    fail(ErrorCode::ShapeMismatch, std::move(what), source_.label(), std::move(expected), std::move(got));
  }

  TensorSource const& source_;
  Layers blocks_;       ///< by layer of the checkpoint: expert choice
  Layers block_lists_;  ///< by recursion: token choice
  Index token_layer_ = 0;
  std::set<Index> plain_layers_;
};

}  // namespace detail

/// The recursion that the names of an official checkpoint show: router, network, auxiliary router, loss-free bias,
/// recursions, layers. `config` has the widths, from a `config.json` that knows no recursion. Nothing changes where no
/// layer recurs. Gate scale, activation, capacities and the like keep their defaults: no file says them.
/// @throws mor::error ShapeMismatch where the names make no model
[[nodiscard]] inline ModelConfig detect_recursion(TensorSource const& source, ModelConfig config) {
  detail::StructureDetector const detector(source);
  if (detector.is_routed()) detector.set_recursion(config);
  return config;
}

/// The same for a checkpoint without `config.json`: widths from the shapes, the rest as the published models have it
/// (RMSNorm 1e-5, RoPE base 10,000, context 2,048).
[[nodiscard]] inline ModelConfig detect_structure(TensorSource const& source, Index head_dim = published_head_dim) {
  detail::StructureDetector const detector(source);
  ModelConfig config;
  config.transformer.max_position_embeddings = 2048;
  detector.set_widths(config, head_dim);
  if (detector.is_routed()) detector.set_recursion(config);
  return config;
}

}  // namespace mor
