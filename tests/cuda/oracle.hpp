// SPDX-License-Identifier: Apache-2.0
/// @file
/// `host::Backend<double>` for tests that nvcc compiles: nvcc cannot read the host backend's vector code, so its verbs are
/// called through this class, which g++ compiles (oracle.cpp). Names, arguments and meaning are the contract's.
#pragma once

#include "mor/contract/backend.hpp"

#include <memory>
#include <span>

namespace mor::host {
template <class T>
class Backend;
}

namespace mor::test {

class Oracle {
 public:
  using In = View<double const>;
  using Out = View<double>;
  using Values = std::span<double const>;
  using Results = std::span<double>;
  using Rows = std::span<Row const>;
  using Set = ActiveSet<double>;

  Oracle();
  Oracle(Oracle const&) = delete;
  Oracle& operator=(Oracle const&) = delete;
  ~Oracle();

  void fill(Out out, double value);
  void copy(In x, Out out);
  void add(In x, Out out);
  void embed(std::span<Token const> tokens, In table, Out out);
  void embed_backward(std::span<Token const> tokens, In d_out, Out d_table);
  void gather_rows(In x, Rows rows, Out out);
  void scatter_rows(In x, Rows rows, Out out);
  void move_rows(In x, Rows from, Rows to, Out out);
  void scatter_add_rows(In x, Rows rows, Out out);
  void zero_rows(Rows rows, Out out);
  void gather_values(Values x, Rows rows, Results out);
  void combine(In y, Values scale, Values keep, Rows rows, In base, Out hidden);
  void combine_backward(In d_hidden, In y, Values scale, Rows rows, Out d_y, Results d_scale);
  void scale_add_rows(In x, Values scale, Rows rows, Out out);
  void count_rows(Rows rows, std::span<Row> counts);
  void linear(In x, In weights, Out out);
  void linear_residual(In x, In weights, In residual, Out out);
  void linear_backward_input(In d_out, In weights, bool accumulate, Out d_x);
  void linear_backward_weight(In d_out, In x, Out d_weights);
  void linear_logits(In x, In weights, double scale, Out out);
  void linear_logits_backward(In d_out, In x, In weights, double scale, Out d_x, Out d_weights);
  void rms_norm(In x, Values weights, double eps, Out out, Results rstd);
  void rms_norm_backward(In d_out, In x, Values weights, Values rstd, Out d_x, Results d_weights);
  void rope(Rows positions, Index head_dim, double theta, Rotation rotation, Out x);
  void swiglu(In gate_up, Out out);
  void swiglu_backward(In d_out, In gate_up, Out d_gate_up, Out out);
  void gelu(In x, double scale, Out out);
  void gelu_backward(In d_out, In x, double scale, Out d_x);
  void attention(In q, In k, In v, KeyList const& keys, AttentionShape const& shape, Out out, Out lse);
  void attention_backward(In q, In k, In v, KeyList const& keys, AttentionShape const& shape, In out, In lse, In d_out,
                          Out d_q, Out d_k, Out d_v);
  void causal_limits(Rows set_offsets, Rows rows, Rows batch_offsets, Rows base, std::span<Row> limits);
  void write_keys(In x, KeyList const& keys, Out storage);
  void head_loss(In x, In weights, std::span<Token const> targets, Results losses);
  void head_loss_backward(In x, In weights, std::span<Token const> targets, double weight, Results losses, Out d_x,
                          Out d_weights);
  double sum(Values values);
  void select_top_k(Values scores, Set const& candidates, Rows host_offsets, Selection selection);
  void count_at_least(Values scores, Set const& candidates, std::span<double const> thresholds, std::span<Row> counts);
  void select_at_least(Values scores, double threshold, Set const& candidates, Rows host_offsets, Selection selection);
  void random_scores(std::uint64_t key, std::uint64_t counter, Rows positions, Out out);
  void router_gate(Values logits, Rows slots, RouterActivation activation, double alpha, Results gate);
  void router_gate_backward(Values logits, Rows slots, RouterActivation activation, double alpha, Values d_gate,
                            Results d_logits);
  void router_bce(Values logits, Rows slots, double weight, Results statistics, Results d_logits);
  void z_loss(In logits, double weight, Results statistics, Out d_logits);
  void token_choice(In logits, Values bias, RouterActivation activation, double alpha, bool full_depth,
                    Out probabilities, Results choice, Results gate);
  void token_choice_backward(In probabilities, Values choice, RouterActivation activation, double alpha, Values d_gate,
                             In d_probabilities, Out d_logits);
  void token_choice_weights(Values choice, Values gate, Rows rows, Index step, bool gate_intermediate, bool additive,
                            Results scale, Results keep);
  void token_choice_weights_backward(Values choice, Rows rows, Index step, bool gate_intermediate, Values d_scale,
                                     Results d_gate);
  void balance_loss(In probabilities, Values choice, double weight, Results statistics, Out d_probabilities);
  void adamw(Values gradients, AdamwSettings const& settings, ParameterGroup group,
             std::span<UpdateRecord<double> const> record, Results weights, Results first_moment, Results second_moment);

 private:
  std::unique_ptr<host::Backend<double>> backend_;
};

}  // namespace mor::test
