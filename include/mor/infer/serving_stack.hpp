// SPDX-License-Identifier: Apache-2.0
/// @file
/// The layers of a stage collected for a backend that runs them in one pass; without such a backend, none ever are.
#pragma once

#include "mor/contract/serving.hpp"
#include "mor/infer/serving_layer.hpp"

#include <optional>
#include <span>
#include <vector>

namespace mor::infer {

template <class B>
class ServingStack {
 public:
  using Scalar = typename B::scalar_type;

  ServingStack(B&, TransformerConfig const&, bool) {}
  void clear() {}
  template <class Views>
  bool add(Index, Views const&, LayerParameters const&, ServedKeys<B> const&) {
    return false;
  }
  [[nodiscard]] std::size_t size() const { return 0; }
  void run(B&, StackRows<Scalar> const&) {}
};

template <StacksLayers B>
class ServingStack<B> {
 public:
  using Scalar = typename B::scalar_type;

  /// @param wanted  false: no layer is taken
  ServingStack(B& b, TransformerConfig const& config, bool wanted) {
    if (!wanted) return;
    stack_.emplace(b, LayerSizes{config.hidden_size, config.intermediate_size, DecoderLayer<B>::shape(config), config.rms_norm_eps,
                                 config.rope_theta});
  }
  void clear() { layers_.clear(); }
  /// @return whether the layer can follow those before it: all of them see the same lists, and write to the same one
  template <class Views>
  bool add(Index rows, Views const& views, LayerParameters const& p, ServedKeys<B> const& keys) {
    if (!stack_ || !keys.project || !keys.copies.empty()) return false;
    if (!stack_->takes(rows, keys.read.max_limit, keys.read.page_size)) return false;
    auto const same = [](KeyList const& a, KeyList const& b) {
      return a.key_begin.data() == b.key_begin.data() && a.limits.data() == b.limits.data() && a.pages.data() == b.pages.data();
    };
    if (!layers_.empty() && !(same(keys.read, read_) && same(keys.write, write_))) return false;
    if (keys.read.pages.data() != keys.write.pages.data() || keys.read.page_size != keys.write.page_size) return false;
    StackedLayer<Scalar> const layer{views.fused_weight(p.q, 3),         views.weight(p.o),
                                     views.fused_weight(p.gate, 2),      views.weight(p.down),
                                     views.weight_vector(p.input_norm),  views.weight_vector(p.post_attention_norm),
                                     keys.plane_k,                       keys.plane_v};
    if (!stack_->takes(layer)) return false;
    read_ = keys.read;
    write_ = keys.write;
    layers_.push_back(layer);
    return true;
  }
  [[nodiscard]] std::size_t size() const { return layers_.size(); }
  /// The layers that were added, one after the other.
  void run(B& b, StackRows<Scalar> const& rows) const { stack_->run(b.context(), layers_, rows, read_, write_); }

 private:
  std::optional<typename B::LayerStack> stack_;
  std::vector<StackedLayer<Scalar>> layers_;
  KeyList read_, write_;
};

}  // namespace mor::infer
