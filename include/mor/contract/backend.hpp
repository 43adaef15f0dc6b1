// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a backend is: about fifty verbs on views, with the same names on the host, in the trace and on CUDA. The model
/// and the policies call these and nothing else.
///
/// Symbols: N rows, S sequences, D hidden size, H heads, K key/value heads, E head dimension, F MLP width, V vocabulary,
/// C columns, Nr recursions. `Scalar` is the type of weights and activations, `Real` that of logits, losses, gradients
/// of weights and optimizer state (float for bf16 and float, double for double).
///
/// Rules for every verb: outputs come last; an empty input is legal and does nothing; nothing is allocated but scratch
/// from the backend's arena, released before the verb returns; the result is the same bits in every run on one machine;
/// a verb that says "accumulates" adds to its output, every other verb overwrites it. Rows in an index list are distinct
/// and ascending unless said otherwise.
#pragma once

#include "mor/core/active_set.hpp"
#include "mor/core/config.hpp"
#include "mor/core/memory.hpp"
#include "mor/core/parameter_layout.hpp"
#include "mor/core/sampling.hpp"
#include "mor/core/types.hpp"
#include "mor/core/update.hpp"
#include "mor/core/view.hpp"

#include <concepts>
#include <span>
#include <type_traits>

namespace mor {

/// Where a selection verb writes the rows it chose; the sizes are known before, from `host_offsets`.
struct Selection {
  std::span<Row> rows;       ///< [kept] indices into the batch
  std::span<Row> positions;  ///< [kept]
  std::span<Row> slots;      ///< [kept] indices into the candidates
};

/// Which way `rope` turns: the backward pass of a rotation is the opposite rotation.
enum class Rotation { Forward, Backward };

namespace detail {
/// Arguments of every verb, so that each concept below reads like the call it asks for.
template <class B>
struct VerbArguments {
  using Scalar = typename B::scalar_type;
  using Real = typename B::real_type;
  B& b;
  View<Scalar const> x;
  View<Scalar> out;
  View<Real const> real_in;
  View<Real> real_out;
  std::span<Scalar const> vector;
  std::span<Scalar> vector_out;
  std::span<Real const> reals;
  std::span<Real> reals_out;
  std::span<Row const> rows;
  std::span<Row> rows_out;
  std::span<Token const> tokens;
  KeyList keys;
  AttentionShape shape;
  ActiveSet<Real> set;
  Selection selection;
  std::span<SamplingRule const> rules;
  std::span<UpdateRecord<Real> const> record_in;
  std::span<UpdateRecord<Real>> record;
};
}  // namespace detail

/// Memory. `upload` makes a host array readable by verbs until the arena is reset (the host backend returns its
/// argument); `download` waits for the result; `store` copies host values into backend memory. `fill`, `copy` and `add` are element-wise: out = value, out = x, out += x.
template <class B>
concept BackendMemory = requires(detail::VerbArguments<B> a, B& b, std::span<Index> host) {
  typename B::scalar_type;
  typename B::real_type;
  { b.memory() } -> std::same_as<MemoryResource>;
  { b.arena() } -> std::same_as<Arena&>;
  { b.upload(a.rows) } -> std::same_as<std::span<Row const>>;
  { b.download(a.reals, a.reals_out) } -> std::same_as<void>;
  { b.download(a.rows, a.rows_out) } -> std::same_as<void>;
  b.store(a.reals, a.reals_out);
  b.synchronize();
  b.fill(a.out, 0.0);
  b.fill(a.real_out, 0.0);
  b.fill(a.rows_out, Row{0});
  b.copy(a.x, a.out);
  b.add(a.x, a.out);
};

/// Rows. embed: out[i] = table[tokens[i]] (tokens repeat); embed_backward accumulates d_table (Real).
/// gather_rows: out[i] = x[rows[i]]; scatter_rows: out[rows[i]] = x[i]; scatter_add_rows: out[rows[i]] += x[i];
/// zero_rows: out[rows[i]] = 0; gather_values the same as gather_rows for a vector of Real.
/// combine: hidden[rows[i]] = scale[i] * y[i] + keep[i] * base[rows[i]]; an empty `scale` or `keep` means all ones;
/// `base` may be `hidden` itself. combine_backward: d_y[i] = scale[i] * d_hidden[rows[i]] and, where `d_scale` is not
/// empty, d_scale[i] = <d_hidden[rows[i]], y[i]>.
/// scale_add_rows: out[rows[i]] += scale[i] * x[rows[i]] (the gradient that `combine` sends to `base`).
/// count_rows: counts[rows[i]] += 1.
template <class B>
concept BackendRows = requires(detail::VerbArguments<B> a, B& b) {
  b.embed(a.tokens, a.x, a.out);
  b.embed_backward(a.tokens, a.x, a.real_out);
  b.gather_rows(a.x, a.rows, a.out);
  b.scatter_rows(a.x, a.rows, a.out);
  b.scatter_add_rows(a.x, a.rows, a.out);
  b.zero_rows(a.rows, a.out);
  b.gather_values(a.reals, a.rows, a.reals_out);
  b.combine(a.x, a.reals, a.reals, a.rows, a.x, a.out);
  b.combine_backward(a.x, a.x, a.reals, a.rows, a.out, a.reals_out);
  b.scale_add_rows(a.x, a.reals, a.rows, a.out);
  b.count_rows(a.rows, a.rows_out);
};

/// Dense layers, weights [out, in] row-major. linear: out = x w^T; linear_residual: out = residual + x w^T (`residual`
/// may be `out`). linear_backward_input(d_out, w, accumulate, d_x): d_x (+)= d_out w;
/// linear_backward_weight(d_out, x, d_w): accumulates d_w += d_out^T x.
/// linear_logits: out(Real) = scale * x w^T; linear_logits_backward(d_out, x, w, scale, d_x, d_w) accumulates both; an
/// empty d_x means "do not send a gradient to x".
template <class B>
concept BackendLinear = requires(detail::VerbArguments<B> a, B& b) {
  b.linear(a.x, a.x, a.out);
  b.linear_residual(a.x, a.x, a.x, a.out);
  b.linear_backward_input(a.x, a.x, true, a.out);
  b.linear_backward_weight(a.x, a.x, a.real_out);
  b.linear_logits(a.x, a.x, 1.0, a.real_out);
  b.linear_logits_backward(a.real_in, a.x, a.x, 1.0, a.out, a.real_out);
};

/// Pointwise layers.
/// rms_norm(x, w, eps, out, rstd): rstd[i] = 1 / sqrt(mean_j x[i,j]^2 + eps); out = (x * rstd) * w (the normalised value
/// is rounded to Scalar before the weight, as Hugging Face Llama does). rms_norm_backward(d_out, x, w, rstd, d_x, d_w)
/// accumulates both.
/// rope(positions, head_dim, theta, rotation, x): x is [N, heads * head_dim], in place; dimension i pairs with
/// i + head_dim / 2; angle = position * theta^(-2i / head_dim).
/// swiglu(gate_up, out): gate_up is [N, 2F] with the gate first; out = silu(gate) * up. swiglu_backward(d_out, gate_up, d_gate_up,
/// out): where `out` is not empty it becomes swiglu(gate_up) again, the same bits; `d_gate_up` may be `gate_up`, `out` may
/// be `d_out`.
/// gelu(x, scale, out): exact GELU of scale * x; gelu_backward(d_out, x, scale, d_x).
template <class B>
concept BackendPointwise = requires(detail::VerbArguments<B> a, B& b) {
  b.rms_norm(a.x, a.vector, 1e-5, a.out, a.reals_out);
  b.rms_norm_backward(a.x, a.x, a.vector, a.reals, a.out, a.reals_out);
  b.rope(a.rows, Index{64}, 10000.0, Rotation::Forward, a.out);
  b.swiglu(a.x, a.out);
  b.swiglu_backward(a.x, a.x, a.out, a.out);
  b.gelu(a.x, 1.0, a.out);
  b.gelu_backward(a.x, a.x, 1.0, a.out);
};

/// Row-limited attention (design section 1). q is [N, H*E]; k and v are key storage [rows, K*E]; query head h reads
/// key/value head h / (H/K). lse is [N, H]: log-sum-exp of the scaled scores, natural logarithm. A row with limit 0
/// gives zeros and lse = -infinity.
/// attention_backward(q, k, v, keys, shape, out, lse, d_out, d_q, d_k, d_v): overwrites d_q, accumulates d_k and d_v.
/// causal_limits(set_offsets, rows, batch_offsets, base, limits): for row i of sequence s, with `rows` empty:
/// base[s] + (i - set_offsets[s]) + 1 (rank in the set); else base[s] + (rows[i] - batch_offsets[s]) + 1 (rank in the
/// batch). An empty `base` is all zeros.
/// write_keys(x, keys, storage): storage[place of key limits[i] - 1 of s] = x[i]: appends a row at its place in the list; a
/// row with limit 0 is left out. `attention` and `write_keys` take lists in pages too, `attention_backward` does not.
template <class B>
concept BackendAttention = requires(detail::VerbArguments<B> a, B& b) {
  b.attention(a.x, a.x, a.x, a.keys, a.shape, a.out, a.real_out);
  b.attention_backward(a.x, a.x, a.x, a.keys, a.shape, a.x, a.real_in, a.x, a.out, a.out, a.out);
  b.causal_limits(a.rows, a.rows, a.rows, a.rows, a.rows_out);
  b.write_keys(a.x, a.keys, a.out);
};

/// Language-model head and loss: logits = x w^T, never held whole. head_loss(x, w, targets, losses): losses[i] =
/// -log softmax(logits[i])[targets[i]], 0 where targets[i] < 0. head_loss_backward(x, w, targets, weight, losses, d_x,
/// d_w): the same losses, overwrites d_x and accumulates d_w with the gradients of weight * sum(losses).
/// sum: the sum of a vector as a host double (waits for the device).
template <class B>
concept BackendHead = requires(detail::VerbArguments<B> a, B& b) {
  b.head_loss(a.x, a.x, a.tokens, a.reals_out);
  b.head_loss_backward(a.x, a.x, a.tokens, 1.0, a.reals_out, a.out, a.real_out);
  { b.sum(a.reals) } -> std::same_as<double>;
};

/// Routing. `scores` has one entry a candidate. `host_offsets` [S+1] are the offsets of the set to be chosen.
/// select_top_k(scores, candidates, host_offsets, selection): in each sequence the rows with the largest scores, ties to
/// the lower position, written in ascending order. count_at_least(scores, candidates, thresholds, counts): counts
/// [thresholds * S] in host memory, counts[t * S + s] = candidates of sequence s with score >= thresholds[t] (waits).
/// select_at_least(scores, threshold, candidates, host_offsets, selection): exactly those rows.
/// random_scores(key, counter, positions, out [N, C]): uniform in (0,1), a pure function of (key, counter, position,
/// column): out(i, c) = uniform01(Philox{key}.block(positions[i], counter * 64 + c)[0]).
/// router_gate(logits, slots, activation, alpha, gate): gate[i] = alpha * act(logits[slots[i]]), identity for `None`;
/// router_gate_backward(logits, slots, activation, alpha, d_gate, d_logits) accumulates d_logits[slots[i]].
/// router_bce(logits, slots, weight, statistics, d_logits): target 1 at `slots`, 0 elsewhere; accumulates
/// statistics[0] += mean BCE-with-logits, statistics[1] += candidates with (logit >= 0) == target, and, where d_logits is
/// not empty, d_logits += weight * gradient of the mean.
/// z_loss(logits [N, C], weight, statistics, d_logits): accumulates statistics[0] += mean(logsumexp(row)^2) and
/// d_logits (may be empty).
template <class B>
concept BackendRouting = requires(detail::VerbArguments<B> a, B& b, std::span<double const> thresholds,
                                  std::span<Row> host_counts) {
  b.select_top_k(a.reals, a.set, a.rows, a.selection);
  b.count_at_least(a.reals, a.set, thresholds, host_counts);
  b.select_at_least(a.reals, 0.0, a.set, a.rows, a.selection);
  b.random_scores(std::uint64_t{1}, std::uint64_t{1}, a.rows, a.real_out);
  b.router_gate(a.reals, a.rows, RouterActivation::Sigmoid, 0.1, a.reals_out);
  b.router_gate_backward(a.reals, a.rows, RouterActivation::Sigmoid, 0.1, a.reals, a.reals_out);
  b.router_bce(a.reals, a.rows, 1.0, a.reals_out, a.reals_out);
  b.z_loss(a.real_in, 1.0, a.reals_out, a.real_out);
};

/// Token choice (mor-spec section 4). token_choice(logits [N, Nr], bias, activation, alpha, full_depth, probabilities
/// [N, Nr], choice [N], gate [N]): p = alpha * softmax or sigmoid, choice = argmax_j(p_j + bias_j) (lowest j on a tie;
/// Nr - 1 when full_depth), gate = p[choice]; `bias` may be empty. choice is stored as Real.
/// token_choice_backward(probabilities, choice, activation, alpha, d_gate, d_probabilities, d_logits): accumulates
/// d_logits from d_p = d_probabilities (may be empty: zero) + d_gate at the choice.
/// token_choice_weights(choice, gate, rows, step, gate_intermediate, additive, scale, keep): the arguments of `combine` for
/// the active rows: keep[i] = 1 where choice[rows[i]] == step (the token finishes here) and else 0; scale[i] =
/// gate[rows[i]] where it finishes or gate_intermediate, else 1; with `additive` every scale is 1.
/// token_choice_weights_backward(choice, rows, step, gate_intermediate, d_scale, d_gate): accumulates
/// d_gate[rows[i]] += d_scale[i] where scale[i] was the gate (not called when additive).
/// balance_loss(probabilities, choice, weight, statistics, d_probabilities): load_i = fraction of tokens that chose i;
/// accumulates statistics[0] += Nr * sum_i load_i * mean(p_i) and statistics[1 + i] += load_i; overwrites
/// d_probabilities with weight times the gradient (load is constant).
template <class B>
concept BackendTokenChoice = requires(detail::VerbArguments<B> a, B& b) {
  b.token_choice(a.real_in, a.reals, RouterActivation::Softmax, 1.0, false, a.real_out, a.reals_out, a.reals_out);
  b.token_choice_backward(a.real_in, a.reals, RouterActivation::Softmax, 1.0, a.reals, a.real_in, a.real_out);
  b.token_choice_weights(a.reals, a.reals, a.rows, Index{0}, false, false, a.reals_out, a.reals_out);
  b.token_choice_weights_backward(a.reals, a.rows, Index{0}, false, a.reals, a.reals_out);
  b.balance_loss(a.real_in, a.reals, 1.0, a.reals_out, a.real_out);
};

/// Optimizer. A step is decided and made where the weights are; no verb of it waits. `record` [1] is an `UpdateRecord` in
/// the backend's memory; `store` and `download` (which waits) take it there and back.
/// add_squares(gradients, group, record): collects the sum of squares for the norm of `group`; add_loss(losses, weight,
/// record): collects weight * sum(losses). Both in double; NaN and infinity stay.
/// decide_update(settings, learning_rate [1], record): from what was collected, in double: norm = sqrt(squares) and the
/// clipping factor clip_norm / norm where that is less than 1, of each group, and its learning rate; the update is made
/// if the norms and the loss are finite and of magnitude at most `largest_accepted`, and then it counts, and its number t
/// gives the bias corrections. Collecting starts anew.
/// adamw(gradients, settings, group, record, weights, first_moment, second_moment, narrow): nothing where the decision
/// was against the update; else g = gradient_scale * gradient; m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
/// w -= lr * (m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + weight_decay * w), and `narrow`, the weights that verbs read
/// (Scalar), is w rounded; it is empty where Scalar and Real are one type.
/// cast_weights: master weights (Real) to the weights that verbs read, outside of updates; where both are one type the
/// model keeps one buffer and does not call it.
template <class B>
concept BackendOptimizer = requires(detail::VerbArguments<B> a, B& b, AdamwSettings const& settings, ParameterGroup group) {
  b.store(a.record_in, a.record);
  { b.download(a.record_in, a.record) } -> std::same_as<void>;
  b.add_squares(a.reals, group, a.record);
  b.add_loss(a.reals, 1.0, a.record);
  b.decide_update(settings, a.reals, a.record);
  b.adamw(a.reals, settings, group, a.record_in, a.reals_out, a.reals_out, a.reals_out, a.vector_out);
  b.cast_weights(a.reals, a.vector_out);
};

/// Sampling. sample(logits [N, V], rules [N], history, tokens [N], log_probabilities [N]): draws a token for each row by
/// its rule (`mor::math::sample_row` is the law), and gives the logarithm of its probability under the unmodified model.
/// `history` holds the lists that the rules name parts of. The same logits, as numbers of Real, give the same token on
/// every backend, whatever the other rows are. A row whose logits are not numbers gives the token -1 and NaN.
template <class B>
concept BackendSampling = requires(detail::VerbArguments<B> a, B& b) {
  { b.upload(a.rules) } -> std::same_as<std::span<SamplingRule const>>;
  b.sample(a.real_in, a.rules, a.tokens, a.rows_out, a.reals_out);
};

/// A complete backend.
template <class B>
concept Backend = BackendMemory<B> && BackendRows<B> && BackendLinear<B> && BackendPointwise<B> && BackendAttention<B> &&
                  BackendHead<B> && BackendRouting<B> && BackendTokenChoice<B> && BackendSampling<B> && BackendOptimizer<B>;

}  // namespace mor
