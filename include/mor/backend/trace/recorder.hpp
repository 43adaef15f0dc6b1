// SPDX-License-Identifier: Apache-2.0
/// @file
/// The part of the trace backend that is not a verb: counting memory, the arena, the list of operations, and the
/// functions with which a verb checks its shapes and states its cost.
#pragma once

#include "mor/backend/trace/counting_memory.hpp"
#include "mor/backend/trace/known_rows.hpp"
#include "mor/backend/trace/record.hpp"
#include "mor/backend/trace/report.hpp"
#include "mor/core/active_set.hpp"
#include "mor/core/error.hpp"
#include "mor/core/memory.hpp"
#include "mor/core/sampling.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mor::trace {

/// How many rows the trace says are left where a real backend would count them (`count_at_least`).
enum class AssumedDepth {
  /// Every candidate: bounds time from above, and memory but for the index arrays of a selection that leaves out only a
  /// few rows: at most five lists of one Row a candidate in each recursion.
  Worst,
  Uniform  ///< equal shares stop at each of n > 1 thresholds: (n - t) / n are left; `Options::share` with one threshold
};

/// What the trace assumes of the backend it stands for.
struct Options {
  AssumedDepth assumed_depth = AssumedDepth::Worst;
  double share = 0.5;              ///< Uniform, one threshold: the share of candidates that is left
  bool upload_uses_arena = false;  ///< whether `upload` copies into the arena (devices) or returns its argument (host)
  /// Arena bytes that a verb of the real backend takes while it runs; none by default. The operation is complete but
  /// for this. What the function returns is rounded up to `kAlignment`.
  std::function<Index(Operation const&)> scratch_bytes;
};

/// Memory, arena and record of a trace. Neither copied nor moved: memory resources point into it.
template <class Scalar, class Real>
class Recorder {
 public:
  using scalar_type = Scalar;
  using real_type = Real;

  explicit Recorder(Options options = {}) : options_(std::move(options)), arena_(arena_memory_.resource()) {
    require(options_.share >= 0.0 && options_.share <= 1.0, "the assumed share is 0 to 1", "trace::Options");
  }
  Recorder(Recorder const&) = delete;
  Recorder& operator=(Recorder const&) = delete;

  /// Memory that counts but cannot be read or written.
  [[nodiscard]] MemoryResource memory() { return persistent_memory_.resource(); }
  /// Its `peak_bytes()` is what the arena of the real backend needs.
  [[nodiscard]] Arena& arena() { return arena_; }
  [[nodiscard]] Options const& options() const { return options_; }

  /// Bytes now held in buffers from `memory()`: weights, optimizer state, caches; not the arena.
  [[nodiscard]] Index persistent_bytes() const { return persistent_memory_.live_bytes(); }
  /// The most that `persistent_bytes()` ever was.
  [[nodiscard]] Index persistent_peak_bytes() const { return persistent_memory_.peak_bytes(); }

  [[nodiscard]] std::vector<Operation> const& operations() const { return operations_; }
  [[nodiscard]] Index total_flops() const { return trace::total_flops(operations_); }
  [[nodiscard]] Index matrix_flops() const { return trace::matrix_flops(operations_); }
  [[nodiscard]] Index total_bytes() const { return trace::total_bytes(operations_); }
  /// The table of `format_table` for everything recorded.
  [[nodiscard]] std::string table() const { return format_table(summarize(operations_)); }
  /// Forgets the operations; memory and the contents of uploaded arrays stay as they are.
  void clear() { operations_.clear(); }

  /// An address for the rows; their contents are remembered, so that attention limits derived from them are exact.
  [[nodiscard]] std::span<Row const> upload(std::span<Row const> host) {
    auto const bytes = static_cast<Index>(host.size_bytes());
    if (options_.upload_uses_arena) static_cast<void>(arena_.template allocate<Row>(static_cast<Index>(host.size())));
    auto const* const address = static_cast<Row const*>(upload_memory_.take(bytes));
    known_.set_upload(address, host);
    log("upload", {shape(host)}, {bytes, bytes, 0});
    return {address, host.size()};
  }

  /// An address for the rules.
  [[nodiscard]] std::span<SamplingRule const> upload(std::span<SamplingRule const> host) {
    auto const bytes = static_cast<Index>(host.size_bytes());
    if (options_.upload_uses_arena) {
      static_cast<void>(arena_.template allocate<SamplingRule>(static_cast<Index>(host.size())));
    }
    auto const* const address = static_cast<SamplingRule const*>(upload_memory_.take(bytes));
    log("upload", {shape(host)}, {bytes, bytes, 0});
    return {address, host.size()};
  }

 protected:
  struct Cost {
    Index read = 0;
    Index written = 0;
    Index flops = 0;
    bool is_matrix = false;
  };

  /// Records a call. An operation whose first operand is empty does nothing and costs nothing.
  void log(std::string_view name, std::vector<Shape> shapes, Cost cost, bool does_nothing = false,
           KeyList const& keys = {}) {
    if (!shapes.empty()) does_nothing = does_nothing || shapes.front().rows == 0 || shapes.front().cols == 0;
    if (does_nothing) cost = {0, 0, 0, cost.is_matrix};
    Operation operation;
    operation.name = name;
    operation.shapes = std::move(shapes);
    operation.query_offsets.assign(keys.host_query_offsets.begin(), keys.host_query_offsets.end());
    operation.page_size = keys.page_size;
    operation.bytes_read = cost.read;
    operation.bytes_written = cost.written;
    operation.flops = cost.flops;
    operation.is_matrix = cost.is_matrix;
    if (options_.scratch_bytes) {
      operation.scratch_bytes = options_.scratch_bytes(operation);
      auto const mark = arena_.mark();
      static_cast<void>(arena_.template allocate<std::byte>(operation.scratch_bytes));
      arena_.release(mark);
    }
    operations_.push_back(std::move(operation));
  }

  [[nodiscard]] static bool on_boundary(void const* address) {
    return reinterpret_cast<std::uintptr_t>(address) % 16 == 0;
  }
  /// Throws ShapeMismatch unless `got` is `expected`.
  static void check(std::string_view verb, char const* what, Index expected, Index got) {
    if (expected != got) {
      fail(ErrorCode::ShapeMismatch, std::string(what) + " disagree", std::string(verb), text_of(expected),
           text_of(got));
    }
  }
  /// The same, but nothing at all is right too.
  static void check_optional(std::string_view verb, char const* what, Index expected, Index got) {
    if (got != 0) check(verb, what, expected, got);
  }

  template <class T>
  [[nodiscard]] static Shape shape(View<T> view) {
    constexpr auto size = static_cast<Index>(sizeof(T));
    return {view.rows, view.cols, on_boundary(view.data) && view.cols * size % 16 == 0 && view.stride * size % 16 == 0};
  }
  template <class T>
  [[nodiscard]] static Shape shape(std::span<T> values) {
    return {static_cast<Index>(values.size()), 1, on_boundary(values.data())};
  }
  template <class T>
  [[nodiscard]] static Index count(std::span<T> values) {
    return static_cast<Index>(values.size());
  }
  /// Bytes of all operands together.
  template <class... Operands>
  [[nodiscard]] static Index bytes(Operands... operands) {
    return (Index{0} + ... + bytes_of(operands));
  }
  template <class T>
  [[nodiscard]] static Index bytes_of(View<T> view) {
    return view.size() * static_cast<Index>(sizeof(T));
  }
  template <class T>
  [[nodiscard]] static Index bytes_of(std::span<T> values) {
    return static_cast<Index>(values.size_bytes());
  }
  /// Bytes of `rows` rows of a matrix.
  template <class T>
  [[nodiscard]] static Index row_bytes(Index rows, View<T> view) {
    return rows * view.cols * static_cast<Index>(sizeof(T));
  }

  [[nodiscard]] KnownRows& known() { return known_; }

 private:
  Options options_;
  CountingMemory persistent_memory_{1}, arena_memory_{2}, upload_memory_{3};
  Arena arena_;
  KnownRows known_;
  std::vector<Operation> operations_;
};

}  // namespace mor::trace
