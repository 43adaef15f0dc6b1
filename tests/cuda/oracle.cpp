// SPDX-License-Identifier: Apache-2.0
#include "cuda/oracle.hpp"

#include "mor/backend/host/backend.hpp"

namespace mor::test {

Oracle::Oracle() : backend_(std::make_unique<host::Backend<double>>(2)) {}
Oracle::~Oracle() = default;

void Oracle::fill(Out out, double value) {
  backend_->fill(out, value);
}
void Oracle::copy(In x, Out out) {
  backend_->copy(x, out);
}
void Oracle::add(In x, Out out) {
  backend_->add(x, out);
}
void Oracle::embed(std::span<Token const> tokens, In table, Out out) {
  backend_->embed(tokens, table, out);
}
void Oracle::embed_backward(std::span<Token const> tokens, In d_out, Out d_table) {
  backend_->embed_backward(tokens, d_out, d_table);
}
void Oracle::gather_rows(In x, Rows rows, Out out) {
  backend_->gather_rows(x, rows, out);
}
void Oracle::scatter_rows(In x, Rows rows, Out out) {
  backend_->scatter_rows(x, rows, out);
}
void Oracle::move_rows(In x, Rows from, Rows to, Out out) {
  backend_->move_rows(x, from, to, out);
}
void Oracle::scatter_add_rows(In x, Rows rows, Out out) {
  backend_->scatter_add_rows(x, rows, out);
}
void Oracle::zero_rows(Rows rows, Out out) {
  backend_->zero_rows(rows, out);
}
void Oracle::gather_values(Values x, Rows rows, Results out) {
  backend_->gather_values(x, rows, out);
}
void Oracle::combine(In y, Values scale, Values keep, Rows rows, In base, Out hidden) {
  backend_->combine(y, scale, keep, rows, base, hidden);
}
void Oracle::combine_backward(In d_hidden, In y, Values scale, Rows rows, Out d_y, Results d_scale) {
  backend_->combine_backward(d_hidden, y, scale, rows, d_y, d_scale);
}
void Oracle::scale_add_rows(In x, Values scale, Rows rows, Out out) {
  backend_->scale_add_rows(x, scale, rows, out);
}
void Oracle::count_rows(Rows rows, std::span<Row> counts) {
  backend_->count_rows(rows, counts);
}
void Oracle::linear(In x, In weights, Out out) {
  backend_->linear(x, weights, out);
}
void Oracle::linear_residual(In x, In weights, In residual, Out out) {
  backend_->linear_residual(x, weights, residual, out);
}
void Oracle::linear_backward_input(In d_out, In weights, bool accumulate, Out d_x) {
  backend_->linear_backward_input(d_out, weights, accumulate, d_x);
}
void Oracle::linear_backward_weight(In d_out, In x, Out d_weights) {
  backend_->linear_backward_weight(d_out, x, d_weights);
}
void Oracle::linear_logits(In x, In weights, double scale, Out out) {
  backend_->linear_logits(x, weights, scale, out);
}
void Oracle::linear_logits_backward(In d_out, In x, In weights, double scale, Out d_x, Out d_weights) {
  backend_->linear_logits_backward(d_out, x, weights, scale, d_x, d_weights);
}
void Oracle::rms_norm(In x, Values weights, double eps, Out out, Results rstd) {
  backend_->rms_norm(x, weights, eps, out, rstd);
}
void Oracle::rms_norm_backward(In d_out, In x, Values weights, Values rstd, Out d_x, Results d_weights) {
  backend_->rms_norm_backward(d_out, x, weights, rstd, d_x, d_weights);
}
void Oracle::rope(Rows positions, Index head_dim, double theta, Rotation rotation, Out x) {
  backend_->rope(positions, head_dim, theta, rotation, x);
}
void Oracle::swiglu(In gate_up, Out out) {
  backend_->swiglu(gate_up, out);
}
void Oracle::swiglu_backward(In d_out, In gate_up, Out d_gate_up, Out out) {
  backend_->swiglu_backward(d_out, gate_up, d_gate_up, out);
}
void Oracle::gelu(In x, double scale, Out out) {
  backend_->gelu(x, scale, out);
}
void Oracle::gelu_backward(In d_out, In x, double scale, Out d_x) {
  backend_->gelu_backward(d_out, x, scale, d_x);
}
void Oracle::attention(In q, In k, In v, KeyList const& keys, AttentionShape const& shape, Out out, Out lse) {
  backend_->attention(q, k, v, keys, shape, out, lse);
}
void Oracle::attention_backward(In q, In k, In v, KeyList const& keys, AttentionShape const& shape, In out, In lse,
                                In d_out, Out d_q, Out d_k, Out d_v) {
  backend_->attention_backward(q, k, v, keys, shape, out, lse, d_out, d_q, d_k, d_v);
}
void Oracle::causal_limits(Rows set_offsets, Rows rows, Rows batch_offsets, Rows base, std::span<Row> limits) {
  backend_->causal_limits(set_offsets, rows, batch_offsets, base, limits);
}
void Oracle::write_keys(In x, KeyList const& keys, Out storage) {
  backend_->write_keys(x, keys, storage);
}
void Oracle::head_loss(In x, In weights, std::span<Token const> targets, Results losses) {
  backend_->head_loss(x, weights, targets, losses);
}
void Oracle::head_loss_backward(In x, In weights, std::span<Token const> targets, double weight, Results losses,
                                Out d_x, Out d_weights) {
  backend_->head_loss_backward(x, weights, targets, weight, losses, d_x, d_weights);
}
double Oracle::sum(Values values) {
  return backend_->sum(values);
}
void Oracle::select_top_k(Values scores, Set const& candidates, Rows host_offsets, Selection selection) {
  backend_->select_top_k(scores, candidates, host_offsets, selection);
}
void Oracle::count_at_least(Values scores, Set const& candidates, std::span<double const> thresholds,
                            std::span<Row> counts) {
  backend_->count_at_least(scores, candidates, thresholds, counts);
}
void Oracle::select_at_least(Values scores, double threshold, Set const& candidates, Rows host_offsets,
                             Selection selection) {
  backend_->select_at_least(scores, threshold, candidates, host_offsets, selection);
}
void Oracle::random_scores(std::uint64_t key, std::uint64_t counter, Rows positions, Out out) {
  backend_->random_scores(key, counter, positions, out);
}
void Oracle::router_gate(Values logits, Rows slots, RouterActivation activation, double alpha, Results gate) {
  backend_->router_gate(logits, slots, activation, alpha, gate);
}
void Oracle::router_gate_backward(Values logits, Rows slots, RouterActivation activation, double alpha, Values d_gate,
                                  Results d_logits) {
  backend_->router_gate_backward(logits, slots, activation, alpha, d_gate, d_logits);
}
void Oracle::router_bce(Values logits, Rows slots, double weight, Results statistics, Results d_logits) {
  backend_->router_bce(logits, slots, weight, statistics, d_logits);
}
void Oracle::z_loss(In logits, double weight, Results statistics, Out d_logits) {
  backend_->z_loss(logits, weight, statistics, d_logits);
}
void Oracle::token_choice(In logits, Values bias, RouterActivation activation, double alpha, bool full_depth,
                          Out probabilities, Results choice, Results gate) {
  backend_->token_choice(logits, bias, activation, alpha, full_depth, probabilities, choice, gate);
}
void Oracle::token_choice_backward(In probabilities, Values choice, RouterActivation activation, double alpha,
                                   Values d_gate, In d_probabilities, Out d_logits) {
  backend_->token_choice_backward(probabilities, choice, activation, alpha, d_gate, d_probabilities, d_logits);
}
void Oracle::token_choice_weights(Values choice, Values gate, Rows rows, Index step, bool gate_intermediate,
                                  bool additive, Results scale, Results keep) {
  backend_->token_choice_weights(choice, gate, rows, step, gate_intermediate, additive, scale, keep);
}
void Oracle::token_choice_weights_backward(Values choice, Rows rows, Index step, bool gate_intermediate,
                                           Values d_scale, Results d_gate) {
  backend_->token_choice_weights_backward(choice, rows, step, gate_intermediate, d_scale, d_gate);
}
void Oracle::balance_loss(In probabilities, Values choice, double weight, Results statistics, Out d_probabilities) {
  backend_->balance_loss(probabilities, choice, weight, statistics, d_probabilities);
}
void Oracle::adamw(Values gradients, AdamwSettings const& settings, ParameterGroup group,
                   std::span<UpdateRecord<double> const> record, Results weights, Results first_moment,
                   Results second_moment) {
  backend_->adamw(gradients, settings, group, record, weights, first_moment, second_moment, {});
}

}  // namespace mor::test
