// SPDX-License-Identifier: Apache-2.0
/// @file
/// The CUDA backend: every verb of the contract as kernels on one stream. Verbs enqueue and return; those that the
/// contract lets wait (`download`, `sum`, `count_at_least`) do.
#pragma once

#include "mor/backend/cuda/device.cuh"
#include "mor/backend/cuda/memory.cuh"
#include "mor/backend/cuda/ops/attention.cuh"
#include "mor/backend/cuda/ops/attention_backward.cuh"
#include "mor/backend/cuda/ops/blas.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/elementwise.cuh"
#include "mor/backend/cuda/ops/embedding.cuh"
#include "mor/backend/cuda/ops/head.cuh"
#include "mor/backend/cuda/ops/key_list.cuh"
#include "mor/backend/cuda/ops/linear.cuh"
#include "mor/backend/cuda/ops/logits.cuh"
#include "mor/backend/cuda/ops/norm.cuh"
#include "mor/backend/cuda/ops/optimizer.cuh"
#include "mor/backend/cuda/ops/pointwise.cuh"
#include "mor/backend/cuda/ops/rope.cuh"
#include "mor/backend/cuda/ops/router_loss.cuh"
#include "mor/backend/cuda/ops/routing.cuh"
#include "mor/backend/cuda/ops/rows.cuh"
#include "mor/backend/cuda/ops/sampling.cuh"
#include "mor/backend/cuda/ops/serving_log.cuh"
#include "mor/backend/cuda/ops/token_choice.cuh"
#include "mor/backend/cuda/repetition.cuh"
#include "mor/backend/cuda/serving_verbs.cuh"
#include "mor/backend/cuda/stream.cuh"
#include "mor/backend/cuda/tuning/architecture.hpp"
#include "mor/backend/cuda/verb_context.cuh"
#include "mor/contract/backend.hpp"
#include "mor/contract/device_pacing.hpp"
#include "mor/contract/serving.hpp"

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

namespace mor::cuda {

/// Where a backend runs, and how cuBLASLt's algorithms are chosen.
struct BackendOptions {
  int device = 0;  ///< as CUDA numbers them
  BlasOptions blas;
};

/// Verbs as `mor::Backend` defines them; shapes and meaning are written there. One thread may call a backend at a time,
/// and the backend's device becomes that thread's current one.
///
/// @tparam T     bfloat16 (weights and activations; logits, losses, gradients of weights and moments stay float) or float
/// @tparam Arch  Sm80 or Sm90: which instructions attention is built from
template <class T, class Arch = Sm90>
class Backend : public ServingVerbs<Backend<T, Arch>, T, Arch> {
 public:
  using scalar_type = T;
  using real_type = float;
  using architecture = Arch;
  using repetition_type = Repetition;
  using In = View<T const>;
  using Out = View<T>;
  using RealIn = View<float const>;
  using RealOut = View<float>;
  using Vector = std::span<T const>;
  using Reals = std::span<float const>;
  using RealResults = std::span<float>;
  using Rows = std::span<Row const>;
  using Rules = std::span<SamplingRule const>;
  using Record = std::span<UpdateRecord<float>>;
  using Records = std::span<UpdateRecord<float> const>;

  /// Throws `mor::error` (Unsupported) where there is no such device or it is of another architecture.
  explicit Backend(BackendOptions const& options = {})
      : device_(std::make_unique<DeviceFacts>(open_device<Arch>(options.device))),
        stream_(std::make_unique<Stream>()),
        memory_(std::make_unique<DeviceMemory>(device_->ordinal)),
        uploads_(std::make_unique<UploadRing>()),
        log_(std::make_unique<WorkLog>()),
        blas_(std::make_unique<Blas>(memory_->resource(), *device_, options.blas)),
        results_(memory_->resource(), 2),
        arena_(memory_->resource()) {}
  Backend(Backend&&) = default;
  Backend& operator=(Backend&&) = delete;  // member by member, memory would go before what is freed into it
  ~Backend() {
    if (stream_ != nullptr) static_cast<void>(cudaStreamSynchronize(stream_->get()));  // before its memory goes
  }

  /// @name Memory
  /// @{
  [[nodiscard]] MemoryResource memory() { return memory_->resource(); }
  [[nodiscard]] Arena& arena() { return arena_; }
  [[nodiscard]] MemoryStatistics memory_statistics() const { return memory_->statistics(); }
  [[nodiscard]] DeviceFacts const& device() const { return *device_; }
  [[nodiscard]] Context context() {
    make_current(device_->ordinal);
    return {stream_->get(), &arena_, device_.get(), blas_.get(), log_.get()};
  }
  [[nodiscard]] Rows upload(Rows values) { return upload_array(values); }
  [[nodiscard]] Reals upload(Reals values) { return upload_array(values); }
  [[nodiscard]] Rules upload(Rules values) { return upload_array(values); }
  [[nodiscard]] std::span<TableEdit const> upload(std::span<TableEdit const> values) { return upload_array(values); }
  void download(Reals from, RealResults to) { download_array(from, to); }
  void download(Rows from, std::span<Row> to) { download_array(from, to); }
  void store(Reals from, RealResults to) { copy_to_device(from.data(), to.data(), bytes(from)); }
  void store(Rows from, std::span<Row> to) { copy_to_device(from.data(), to.data(), bytes(from)); }
  void download(Records from, Record to) { download_array(from, to); }
  void store(Records from, Record to) { copy_to_device(from.data(), to.data(), bytes(from)); }
  void synchronize() {
    ProfilerRange const range("synchronize");
    log_->wait("synchronize");
    stream_->synchronize();
  }
  /// Runs `work()`, calls of verbs that come again and again with the same shapes, and captures it in a CUDA graph once it
  /// has settled (see `Repetition`). Each such piece of work has a repetition of its own, which the backend must outlive.
  template <class Work>
  void repeat(Repetition& repetition, Work const& work) {
    repetition.run(context().stream, *log_, slots_, work);
  }
  template <class U>
  void fill(View<U> out, double value) {
    cuda::fill(verb("fill"), out, value);
  }
  void fill(std::span<Row> out, Row value) { cuda::fill(verb("fill"), out, value); }
  void copy(In x, Out out) { cuda::copy(verb("copy"), x, out); }
  void add(In x, Out out) { cuda::add(verb("add"), x, out); }
  /// @}

  /// @name Rows
  /// @{
  void embed(std::span<Token const> tokens, In table, Out out) { cuda::embed(verb("embed"), tokens, table, out); }
  void embed_backward(std::span<Token const> tokens, In d_out, RealOut d_table) {
    cuda::embed_backward(verb("embed_backward"), tokens, d_out, d_table);
  }
  void gather_rows(In x, Rows rows, Out out) { cuda::gather_rows(verb("gather_rows"), x, rows, out); }
  void scatter_rows(In x, Rows rows, Out out) { cuda::scatter_rows(verb("scatter_rows"), x, rows, out); }
  void scatter_add_rows(In x, Rows rows, Out out) { cuda::scatter_add_rows(verb("scatter_add_rows"), x, rows, out); }
  void zero_rows(Rows rows, Out out) { cuda::zero_rows(verb("zero_rows"), rows, out); }
  void gather_values(Reals x, Rows rows, RealResults out) { cuda::gather_values(verb("gather_values"), x, rows, out); }
  void combine(In y, Reals scale, Reals keep, Rows rows, In base, Out hidden) {
    cuda::combine(verb("combine"), y, scale, keep, rows, base, hidden);
  }
  void combine_backward(In d_hidden, In y, Reals scale, Rows rows, Out d_y, RealResults d_scale) {
    cuda::combine_backward(verb("combine_backward"), d_hidden, y, scale, rows, d_y, d_scale);
  }
  void scale_add_rows(In x, Reals scale, Rows rows, Out out) {
    cuda::scale_add_rows(verb("scale_add_rows"), x, scale, rows, out);
  }
  void count_rows(Rows rows, std::span<Row> counts) { cuda::count_rows(verb("count_rows"), rows, counts); }
  /// @}

  /// @name Dense layers
  /// @{
  void linear(In x, In weights, Out out) {
    served_linear<Arch>(verb("linear"), this->few_rows(), x, weights, out);
  }
  void linear_residual(In x, In weights, In residual, Out out) {
    served_linear_residual<Arch>(verb("linear_residual"), this->few_rows(), x, weights, residual, out);
  }
  void linear_backward_input(In d_out, In weights, bool accumulate, Out d_x) {
    cuda::linear_backward_input(verb("linear_backward_input"), d_out, weights, accumulate, d_x);
  }
  void linear_backward_weight(In d_out, In x, RealOut d_weights) {
    cuda::linear_backward_weight(verb("linear_backward_weight"), d_out, x, d_weights);
  }
  void linear_logits(In x, In weights, double scale, RealOut out) {
    served_linear_logits<Arch>(verb("linear_logits"), this->few_rows(), x, weights, scale, out);
  }
  void linear_logits_backward(RealIn d_out, In x, In weights, double scale, Out d_x, RealOut d_weights) {
    cuda::linear_logits_backward(verb("linear_logits_backward"), d_out, x, weights, scale, d_x, d_weights);
  }
  /// @}

  /// @name Pointwise layers
  /// @{
  void rms_norm(In x, Vector weights, double eps, Out out, RealResults rstd) {
    cuda::rms_norm(verb("rms_norm"), x, weights, eps, out, rstd);
  }
  void rms_norm_backward(In d_out, In x, Vector weights, Reals rstd, Out d_x, RealResults d_weights) {
    cuda::rms_norm_backward(verb("rms_norm_backward"), d_out, x, weights, rstd, d_x, d_weights);
  }
  void rope(Rows positions, Index head_dim, double theta, Rotation rotation, Out x) {
    cuda::rope(verb("rope"), positions, head_dim, theta, rotation, x);
  }
  void swiglu(In gate_up, Out out) { cuda::swiglu(verb("swiglu"), gate_up, out); }
  void swiglu_backward(In d_out, In gate_up, Out d_gate_up, Out out) {
    cuda::swiglu_backward(verb("swiglu_backward"), d_out, gate_up, d_gate_up, out);
  }
  void gelu(In x, double scale, Out out) { cuda::gelu(verb("gelu"), x, scale, out); }
  void gelu_backward(In d_out, In x, double scale, Out d_x) {
    cuda::gelu_backward(verb("gelu_backward"), d_out, x, scale, d_x);
  }
  /// @}

  /// @name Attention
  /// @{
  void attention(In q, In k, In v, KeyList const& keys, AttentionShape const& shape, Out out, RealOut lse) {
    cuda::attention<Arch>(verb("attention"), q, k, v, keys, shape, out, lse);
  }
  void attention_backward(In q, In k, In v, KeyList const& keys, AttentionShape const& shape, In out, RealIn lse,
                          In d_out, Out d_q, Out d_k, Out d_v) {
    cuda::attention_backward<Arch>(verb("attention_backward"), q, k, v, keys, shape, out, lse, d_out, d_q, d_k, d_v);
  }
  void causal_limits(Rows set_offsets, Rows rows, Rows batch_offsets, Rows base, std::span<Row> limits) {
    cuda::causal_limits(verb("causal_limits"), set_offsets, rows, batch_offsets, base, limits);
  }
  void write_keys(In x, KeyList const& keys, Out storage) { cuda::write_keys(verb("write_keys"), x, keys, storage); }
  /// @}

  /// @name Head
  /// @{
  void head_loss(In x, In weights, std::span<Token const> targets, RealResults losses) {
    cuda::head_loss(verb("head_loss"), x, weights, targets, losses);
  }
  void head_loss_backward(In x, In weights, std::span<Token const> targets, double weight, RealResults losses, Out d_x,
                          RealOut d_weights) {
    cuda::head_loss_backward(verb("head_loss_backward"), x, weights, targets, weight, losses, d_x, d_weights);
  }
  [[nodiscard]] double sum(Reals values) {
    cuda::sum(verb("sum"), values, results_.data());
    return result();
  }
  /// @}

  /// @name Routing
  /// @{
  void select_top_k(Reals scores, ActiveSet<float> const& candidates, Rows host_offsets, Selection selection) {
    Scope const scope(arena_);
    cuda::select_top_k(verb("select_top_k"), scores, candidates, host_offsets, upload(host_offsets), selection);
  }
  void count_at_least(Reals scores, ActiveSet<float> const& candidates, std::span<double const> thresholds,
                      std::span<Row> counts) {
    cuda::count_at_least(verb("count_at_least"), scores, candidates, thresholds, counts);
  }
  void select_at_least(Reals scores, double threshold, ActiveSet<float> const& candidates, Rows host_offsets,
                       Selection selection) {
    Scope const scope(arena_);
    cuda::select_at_least(verb("select_at_least"), scores, threshold, candidates, host_offsets, upload(host_offsets),
                          selection);
  }
  void random_scores(std::uint64_t key, std::uint64_t counter, Rows positions, RealOut out) {
    cuda::random_scores(verb("random_scores"), key, counter, positions, out);
  }
  void router_gate(Reals logits, Rows slots, RouterActivation activation, double alpha, RealResults gate) {
    cuda::router_gate(verb("router_gate"), logits, slots, activation, alpha, gate);
  }
  void router_gate_backward(Reals logits, Rows slots, RouterActivation activation, double alpha, Reals d_gate,
                            RealResults d_logits) {
    cuda::router_gate_backward(verb("router_gate_backward"), logits, slots, activation, alpha, d_gate, d_logits);
  }
  void router_bce(Reals logits, Rows slots, double weight, RealResults statistics, RealResults d_logits) {
    cuda::router_bce(verb("router_bce"), logits, slots, weight, statistics, d_logits);
  }
  void z_loss(RealIn logits, double weight, RealResults statistics, RealOut d_logits) {
    cuda::z_loss(verb("z_loss"), logits, weight, statistics, d_logits);
  }
  /// @}

  /// @name Token choice
  /// @{
  void token_choice(RealIn logits, Reals bias, RouterActivation activation, double alpha, bool full_depth,
                    RealOut probabilities, RealResults choice, RealResults gate) {
    cuda::token_choice(verb("token_choice"), logits, bias, activation, alpha, full_depth, probabilities, choice, gate);
  }
  void token_choice_backward(RealIn probabilities, Reals choice, RouterActivation activation, double alpha, Reals d_gate,
                             RealIn d_probabilities, RealOut d_logits) {
    cuda::token_choice_backward(verb("token_choice_backward"), probabilities, choice, activation, alpha, d_gate,
                                d_probabilities, d_logits);
  }
  void token_choice_weights(Reals choice, Reals gate, Rows rows, Index step, bool gate_intermediate, bool additive,
                            RealResults scale, RealResults keep) {
    cuda::token_choice_weights(verb("token_choice_weights"), choice, gate, rows, step, gate_intermediate, additive,
                               scale, keep);
  }
  void token_choice_weights_backward(Reals choice, Rows rows, Index step, bool gate_intermediate, Reals d_scale,
                                     RealResults d_gate) {
    cuda::token_choice_weights_backward(verb("token_choice_weights_backward"), choice, rows, step, gate_intermediate,
                                        d_scale, d_gate);
  }
  void balance_loss(RealIn probabilities, Reals choice, double weight, RealResults statistics, RealOut d_probabilities) {
    cuda::balance_loss(verb("balance_loss"), probabilities, choice, weight, statistics, d_probabilities);
  }
  /// @}

  /// @name Sampling
  /// @{
  void sample(RealIn logits, Rules rules, std::span<Token const> history, std::span<Token> tokens,
              RealResults log_probabilities) {
    cuda::sample<Arch>(verb("sample"), logits, rules, history, tokens, log_probabilities);
  }
  /// @}

  /// @name Ticks without the host
  /// @{
  void end_tick(ServingTables const& tables, ServingReport const& report, TickLog const& log, Loop const& loop) {
    cuda::end_tick<Arch>(verb("end_tick"), tables, report, log, loop);
  }
  /// @}

  /// @name Optimizer
  /// @{
  void add_squares(Reals gradients, ParameterGroup group, Record record) {
    cuda::add_squares(verb("add_squares"), gradients, group, record.data());
  }
  void add_loss(Reals losses, double weight, Record record) {
    cuda::add_loss(verb("add_loss"), losses, weight, record.data());
  }
  void decide_update(AdamwSettings const& settings, Reals learning_rate, Record record) {
    cuda::decide_update(verb("decide_update"), settings, learning_rate.data(), record.data());
  }
  void adamw(Reals gradients, AdamwSettings const& settings, ParameterGroup group, Records record, RealResults weights,
             RealResults first_moment, RealResults second_moment, std::span<T> narrow) {
    bfloat16* copy = nullptr;
    if constexpr (std::is_same_v<T, bfloat16>) copy = narrow.data();
    cuda::adamw(verb("adamw"), gradients, settings, group, record.data(), weights, first_moment, second_moment, copy);
  }
  void cast_weights(Reals master, std::span<T> weights) { cuda::cast_weights(verb("cast_weights"), master, weights); }
  /// @}

 private:
  /// The context of a call of the verb `name`.
  [[nodiscard]] VerbContext verb(char const* name) { return {context(), name}; }

  /// Releases the uploads of one verb; the stream's order keeps them until the verb has read them.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
    Scope(Scope const&) = delete;
    Scope& operator=(Scope const&) = delete;
    ~Scope() { arena_.release(mark_); }

   private:
    Arena& arena_;
    Arena::Mark mark_;
  };

  template <class U>
  [[nodiscard]] static Index bytes(std::span<U> values) {
    return static_cast<Index>(values.size_bytes());
  }
  template <class U>
  [[nodiscard]] std::span<U const> upload_array(std::span<U const> values) {
    ProfilerRange const range("upload");
    std::span<U> const target = arena_.template allocate<U>(static_cast<Index>(values.size()));
    copy_to_device(values.data(), target.data(), bytes(values));
    return target;
  }
  void copy_to_device(void const* from, void* to, Index size) {
    if (size == 0) return;
    log_->needs_host("upload");
    log_->note(to);
    log_->note(size);
    cudaStream_t const stream = context().stream;
    if (slots_ == nullptr) return uploads_->copy(stream, from, to, size);
    std::byte* const staged = slots_->take(size);
    std::memcpy(staged, from, static_cast<std::size_t>(size));
    if (log_->compares()) return;
    check(cudaMemcpyAsync(to, staged, static_cast<std::size_t>(size), cudaMemcpyHostToDevice, stream), "upload", size);
  }
  template <class U>
  void download_array(std::span<U const> from, std::span<U> to) {
    if (from.empty()) return;
    ProfilerRange const range("download");
    log_->wait("download");
    check(cudaMemcpyAsync(to.data(), from.data(), from.size_bytes(), cudaMemcpyDeviceToHost, context().stream), "download",
          from.size());
    stream_->synchronize();
  }
  [[nodiscard]] double result() {
    double value = 0.0;
    download_array(std::span<double const>(results_.data(), 1), std::span<double>(&value, 1));
    return value;
  }

  // In the order of dependence: each uses those before it, also while it is destroyed.
  std::unique_ptr<DeviceFacts> device_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<DeviceMemory> memory_;
  std::unique_ptr<UploadRing> uploads_;
  std::unique_ptr<WorkLog> log_;
  PinnedSlots* slots_ = nullptr;  ///< where uploads pass through while work is captured or compared
  std::unique_ptr<Blas> blas_;
  Buffer<double> results_;
  Arena arena_;
};

static_assert(mor::Backend<Backend<bfloat16>>);
static_assert(mor::Backend<Backend<float>>);
static_assert(mor::ServingBackend<Backend<bfloat16>>);
static_assert(mor::ServingBackend<Backend<float>>);
static_assert(mor::PacesTicks<Backend<bfloat16>>);
static_assert(mor::JoinsLists<Backend<bfloat16>>);
static_assert(mor::PacesTicks<Backend<float>>);
static_assert(mor::JoinsLists<Backend<float>>);

}  // namespace mor::cuda
