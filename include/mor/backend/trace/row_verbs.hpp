// SPDX-License-Identifier: Apache-2.0
/// @file
/// The trace's verbs on memory and rows, and the optimizer's: shapes and bytes, hardly any FLOPs.
#pragma once

#include "mor/backend/trace/recorder.hpp"
#include "mor/contract/backend.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <span>
#include <string_view>
#include <type_traits>

namespace mor::trace {

/// Verbs of BackendMemory, BackendRows and BackendOptimizer; what each does is in the contract.
template <class Scalar, class Real>
class RowVerbs : public Recorder<Scalar, Real> {
  using Base = Recorder<Scalar, Real>;

 public:
  using Base::Base;

  /// Writes zeros to `host`: there is nothing to download.
  void download(std::span<Real const> x, std::span<Real> host) { download_zeros("download", x, host); }
  void download(std::span<Row const> x, std::span<Row> host) { download_zeros("download", x, host); }
  void download(std::span<UpdateRecord<Real> const> x, std::span<UpdateRecord<Real>> host) {
    download_zeros("download", x, host);
  }
  void store(std::span<Real const> host, std::span<Real> out) { log_store(host, out); }
  void store(std::span<UpdateRecord<Real> const> host, std::span<UpdateRecord<Real>> out) { log_store(host, out); }
  void synchronize() { log("synchronize", {}, {}); }

  template <class T>
    requires(std::is_same_v<T, Scalar> || std::is_same_v<T, Real>)
  void fill(View<T> out, double) {
    log("fill", {shape(out)}, {0, bytes(out), 0});
  }
  void fill(std::span<Row> out, Row) {
    log("fill", {shape(out)}, {0, bytes(out), 0});
  }
  void copy(View<Scalar const> x, View<Scalar> out) {
    check_same("copy", x, out);
    log("copy", {shape(x), shape(out)}, {bytes(x), bytes(out), 0});
  }
  void add(View<Scalar const> x, View<Scalar> out) {
    check_same("add", x, out);
    log("add", {shape(x), shape(out)}, {bytes(x, out), bytes(out), out.size()});
  }

  void embed(std::span<Token const> tokens, View<Scalar const> table, View<Scalar> out) {
    check_rows("embed", count(tokens), table.cols, out);
    Index const used = std::min(count(tokens), table.rows);
    log("embed", {shape(tokens), shape(table), shape(out)}, {bytes(tokens) + row_bytes(used, table), bytes(out), 0});
  }
  void embed_backward(std::span<Token const> tokens, View<Scalar const> d_out, View<Real> d_table) {
    check_rows("embed_backward", count(tokens), d_table.cols, d_out);
    Index const used = row_bytes(std::min(count(tokens), d_table.rows), d_table);
    log("embed_backward", {shape(tokens), shape(d_out), shape(d_table)},
        {bytes(tokens) + bytes(d_out) + used, used, d_out.size()});
  }
  void gather_rows(View<Scalar const> x, std::span<Row const> rows, View<Scalar> out) {
    check_rows("gather_rows", count(rows), x.cols, out);
    log("gather_rows", {shape(x), shape(rows), shape(out)}, {bytes(rows, out), bytes(out), 0}, rows.empty());
  }
  void scatter_rows(View<Scalar const> x, std::span<Row const> rows, View<Scalar> out) {
    check_rows("scatter_rows", count(rows), out.cols, x);
    log("scatter_rows", {shape(x), shape(rows), shape(out)}, {bytes(x) + bytes(rows), bytes(x), 0});
  }
  void scatter_add_rows(View<Scalar const> x, std::span<Row const> rows, View<Scalar> out) {
    check_rows("scatter_add_rows", count(rows), out.cols, x);
    log("scatter_add_rows", {shape(x), shape(rows), shape(out)}, {2 * bytes(x) + bytes(rows), bytes(x), x.size()});
  }
  void zero_rows(std::span<Row const> rows, View<Scalar> out) {
    log("zero_rows", {shape(rows), shape(out)}, {bytes(rows), row_bytes(count(rows), out), 0});
  }
  void gather_values(std::span<Real const> x, std::span<Row const> rows, std::span<Real> out) {
    check("gather_values", "the lengths of rows and out", count(rows), count(out));
    log("gather_values", {shape(x), shape(rows), shape(out)}, {bytes(rows) + bytes(out), bytes(out), 0}, rows.empty());
  }
  void combine(View<Scalar const> y, std::span<Real const> scale, std::span<Real const> keep, std::span<Row const> rows,
               View<Scalar const> base, View<Scalar> hidden) {
    check_rows("combine", count(rows), hidden.cols, y);
    check_same("combine", base, hidden);
    check_optional("combine", "the lengths of scale and rows", count(rows), count(scale));
    check_optional("combine", "the lengths of keep and rows", count(rows), count(keep));
    Index const steps = 1 + (scale.empty() ? 0 : 1) + (keep.empty() ? 0 : 1);
    log("combine", {shape(y), shape(scale), shape(keep), shape(rows), shape(base), shape(hidden)},
        {2 * bytes(y) + bytes(scale, keep) + bytes(rows), bytes(y), steps * y.size()}, rows.empty());
  }
  void combine_backward(View<Scalar const> d_hidden, View<Scalar const> y, std::span<Real const> scale,
                        std::span<Row const> rows, View<Scalar> d_y, std::span<Real> d_scale) {
    check_rows("combine_backward", count(rows), d_hidden.cols, d_y);
    check_optional("combine_backward", "the lengths of scale and rows", count(rows), count(scale));
    check_optional("combine_backward", "the lengths of d_scale and rows", count(rows), count(d_scale));
    Index read = bytes(d_y) + bytes(scale) + bytes(rows), flops = scale.empty() ? 0 : d_y.size();
    if (!d_scale.empty()) {
      check_same("combine_backward", y, d_y);
      read += bytes(y);
      flops += 2 * d_y.size();
    }
    log("combine_backward", {shape(d_hidden), shape(y), shape(scale), shape(rows), shape(d_y), shape(d_scale)},
        {read, bytes(d_y) + bytes(d_scale), flops}, rows.empty());
  }
  void scale_add_rows(View<Scalar const> x, std::span<Real const> scale, std::span<Row const> rows, View<Scalar> out) {
    check_same("scale_add_rows", x, out);
    check_optional("scale_add_rows", "the lengths of scale and rows", count(rows), count(scale));
    Index const used = row_bytes(count(rows), out);
    log("scale_add_rows", {shape(x), shape(scale), shape(rows), shape(out)},
        {2 * used + bytes(scale) + bytes(rows), used, (scale.empty() ? 1 : 2) * count(rows) * out.cols});
  }
  void count_rows(std::span<Row const> rows, std::span<Row> counts) {
    log("count_rows", {shape(rows), shape(counts)}, {2 * bytes(rows), bytes(rows), 0});
  }

  // The record of updates is a few numbers: its traffic is not counted.
  void add_squares(std::span<Real const> gradients, ParameterGroup, std::span<UpdateRecord<Real>> record) {
    check_record("add_squares", record);
    log("add_squares", {shape(gradients), shape(record)}, {bytes(gradients), 0, 2 * count(gradients)});
  }
  void add_loss(std::span<Real const> losses, double, std::span<UpdateRecord<Real>> record) {
    check_record("add_loss", record);
    log("add_loss", {shape(losses), shape(record)}, {bytes(losses), 0, count(losses)});
  }
  void decide_update(AdamwSettings const&, std::span<Real const> learning_rate, std::span<UpdateRecord<Real>> record) {
    check("decide_update", "one and the number of learning rates", 1, count(learning_rate));
    check_record("decide_update", record);
    log("decide_update", {shape(learning_rate), shape(record)}, {});
  }
  void adamw(std::span<Real const> gradients, AdamwSettings const&, ParameterGroup,
             std::span<UpdateRecord<Real> const> record, std::span<Real> weights, std::span<Real> first_moment,
             std::span<Real> second_moment, std::span<Scalar> narrow) {
    for (Index const size : {count(weights), count(first_moment), count(second_moment)}) {
      check("adamw", "the lengths of gradients, weights and moments", count(gradients), size);
    }
    check("adamw", "the lengths of gradients and narrow weights", one_type ? 0 : count(gradients), count(narrow));
    check_record("adamw", record);
    // Clip 1, both moments 3 + 4, two bias corrections 2, root, epsilon and quotient 3, decay and update 4.
    log("adamw",
        {shape(gradients), shape(record), shape(weights), shape(first_moment), shape(second_moment), shape(narrow)},
        {4 * bytes(gradients), 3 * bytes(gradients) + bytes(narrow), 17 * count(gradients)});
  }
  void cast_weights(std::span<Real const> master, std::span<Scalar> weights) {
    check("cast_weights", "the lengths of the weights", count(master), count(weights));
    log("cast_weights", {shape(master), shape(weights)}, {bytes(master), bytes(weights), 0});
  }

 protected:
  using Base::bytes;
  using Base::check;
  using Base::check_optional;
  using Base::count;
  using Base::log;
  using Base::row_bytes;
  using Base::shape;

  /// Throws ShapeMismatch unless the matrix is [rows, cols].
  template <class T>
  static void check_rows(std::string_view verb, Index rows, Index cols, View<T> x) {
    check(verb, "the rows of two operands", rows, x.rows);
    check(verb, "the columns of two operands", cols, x.cols);
  }
  template <class T, class U>
  static void check_same(std::string_view verb, View<T> x, View<U> y) {
    check_rows(verb, x.rows, x.cols, y);
  }

 private:
  static constexpr bool one_type = std::is_same_v<Scalar, Real>;

  template <class Record>
  static void check_record(std::string_view verb, std::span<Record> record) {
    check(verb, "one and the number of records", 1, count(record));
  }
  template <class T>
  void log_store(std::span<T const> host, std::span<T> out) {
    check("store", "the lengths of source and destination", count(host), count(out));
    log("store", {shape(host), shape(out)}, {bytes(host), bytes(out), 0});
  }
  template <class T>
  void download_zeros(std::string_view name, std::span<T const> x, std::span<T> host) {
    check(name, "the lengths of source and destination", count(x), count(host));
    std::fill(host.begin(), host.end(), T{});
    log(name, {shape(x)}, {bytes(x), bytes(host), 0});
  }
};

}  // namespace mor::trace
