// SPDX-License-Identifier: Apache-2.0
/// @file
/// The backward pass: the forward pass's calls in reverse, each with its hand-written gradient. Weights that several
/// layers share accumulate their gradients.
#pragma once

#include "mor/model/forward_pass.hpp"

#include <vector>

namespace mor::detail {

/// Runs after a `ForwardPass` with `context.training`, on the same record and router state.
template <class Router, class B>
class BackwardPass {
 public:
  using Scalar = typename B::scalar_type;
  using Real = typename B::real_type;
  using RouterState = typename Router::template State<B>;

  BackwardPass(RouterContext<B>& context, Router const& router, RouterState& state, LayerSchedule const& schedule,
               PlaneMap const& planes, ModelParameters const& parameters, PassRecord<B> const& record,
               std::vector<KeyGradients<B>>& key_gradients)
      : context_(context), router_(router), state_(state), schedule_(schedule), planes_(planes), parameters_(parameters),
        record_(record), key_gradients_(key_gradients) {}

  /// `d_normed` (rows, D) is the gradient of the loss with respect to the final norm's output.
  void run(View<Scalar const> d_normed) {
    B& b = context_.backend;
    auto d = b.arena().template matrix<Scalar>(d_normed.rows, d_normed.cols);
    b.fill(d, 0.0);
    b.rms_norm_backward(d_normed, record_.last_hidden, context_.parameters.weight_vector(parameters_.final_norm),
                        record_.final_rstd, d, context_.parameters.gradient_vector(parameters_.final_norm));
    run_ends(record_.coda, schedule_.coda, d);
    context_.d_hidden = d;
    run_recursions();
    run_ends(record_.prelude, schedule_.prelude, context_.d_hidden);
    b.embed_backward(record_.tokens, context_.d_hidden, context_.parameters.gradient(parameters_.embedding));
  }

 private:
  void run_ends(std::vector<LayerRecord<B>> const& records, std::vector<Index> const& sets, View<Scalar> d) {
    for (std::size_t l = sets.size(); l-- > 0;) {
      run_layer(records[l], sets[l], context_.batch.positions, {}, d);
    }
  }

  void run_recursions() {
    B& b = context_.backend;
    router_.prepare_backward(context_, state_);
    prepare_key_gradients();
    for (Index r = schedule_.num_recursions(); r-- > 0;) {
      auto const recursion = static_cast<std::size_t>(r);
      auto const& step = record_.steps[recursion];
      auto const& sets = schedule_.recursions[recursion];
      auto const mark = b.arena().mark();
      View<Scalar> d = router_.combine_backward(context_, state_, r, step.active, step.output);
      for (std::size_t j = sets.size(); j-- > 0;) {
        run_layer(step.layers[j], sets[j], step.active.positions, key_gradients(recursion, j), d);
      }
      router_.select_backward(context_, state_, r, step.active, d);
      b.arena().release(mark);
    }
    router_.begin_backward(context_, state_);
  }

  /// One accumulator for each parameter set whose keys a later layer reads.
  void prepare_key_gradients() {
    key_gradients_.assign(parameters_.layers.size(), {});
    Index const columns = 2 * context_.transformer.key_value_size();
    for (std::size_t r = 0; r < planes_.source.size(); ++r) {
      for (std::size_t j = 0; j < planes_.source[r].size(); ++j) {
        auto& gradients = key_gradients_[static_cast<std::size_t>(schedule_.recursions[r][j])];
        if (planes_.source[r][j] == KeySource::OwnRows || !gradients.shared.empty()) continue;
        gradients.shared = context_.backend.arena().template matrix<Scalar>(context_.batch.num_rows, columns);
        context_.backend.fill(gradients.shared, 0.0);
      }
    }
  }

  KeyGradients<B> key_gradients(std::size_t recursion, std::size_t j) const {
    auto gradients = key_gradients_[static_cast<std::size_t>(schedule_.recursions[recursion][j])];
    KeySource const source = planes_.source[recursion][j];
    gradients.owner = source == KeySource::OwnRows && !gradients.shared.empty();
    if (source == KeySource::Overlay) gradients.overlay_rows = record_.steps[recursion].active.rows;
    return gradients;
  }

  void run_layer(LayerRecord<B> const& record, Index set, std::span<Row const> positions,
                 KeyGradients<B> const& gradients, View<Scalar> d) {
    DecoderLayer<B>::backward(context_.backend, context_.transformer, context_.parameters,
                              parameters_.layers[static_cast<std::size_t>(set)], positions, record.keys, record.saved,
                              gradients, d);
  }

  RouterContext<B>& context_;
  Router const& router_;
  RouterState& state_;
  LayerSchedule const& schedule_;
  PlaneMap const& planes_;
  ModelParameters const& parameters_;
  PassRecord<B> const& record_;
  std::vector<KeyGradients<B>>& key_gradients_;
};

}  // namespace mor::detail
