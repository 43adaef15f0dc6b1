// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a trace is made of: one `Operation` for each verb that was called, and questions about a list of them.
#pragma once

#include "mor/core/types.hpp"

#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

namespace mor::trace {

/// Rows and columns of one operand; a vector is [size, 1].
struct Shape {
  Index rows = 0;
  Index cols = 1;
  /// Whether 16-byte accesses reach the whole operand: address, length and distance of rows are multiples of 16 bytes (of
  /// a vector the address). Addresses of a trace are aligned as a real backend's.
  bool packed = true;

  /// Of the sizes alone.
  bool operator==(Shape const& other) const { return rows == other.rows && cols == other.cols; }
};

/// One call of a verb and what it costs at least.
///
/// Bytes: each operand once, only the rows that are used; what is accumulated is read and written; scratch and logits
/// that are never held whole count nothing. FLOPs: a multiplication with its addition is 2, exp, log, erf, division and
/// square root are 1 each, comparisons and index arithmetic nothing. Matrix products (linear, attention, head) count
/// their products alone: no softmax, no residual addition. Attention counts the visible scores only, so a causal square
/// counts half: 4 * sum(limits) * H * E forward, 2.5 times that backward.
struct Operation {
  std::string_view name;      ///< the verb's, from the contract
  /// Operands in the order of the call; empty optional ones are [0, 1]. An attention's key list is
  /// [sequences, max_limit], a set of candidates [sequences, candidates]; scalars and host arrays are left out.
  std::vector<Shape> shapes;
  Index bytes_read = 0;
  Index bytes_written = 0;
  Index flops = 0;
  bool is_matrix = false;   ///< a matrix product: what a model's FLOPs usually count
  Index scratch_bytes = 0;  ///< arena bytes the verb itself takes, by `Options::scratch_bytes`
  /// Of an attention: the first query row of each sequence, and their number. Empty for other verbs.
  std::vector<Row> query_offsets{};
  Index page_size = 0;  ///< of an attention: keys of a page, 0 where the keys of a sequence are neighbours

  [[nodiscard]] Index bytes() const { return bytes_read + bytes_written; }
};

/// FLOPs of all operations.
[[nodiscard]] inline Index total_flops(std::span<Operation const> operations) {
  Index total = 0;
  for (auto const& operation : operations) total += operation.flops;
  return total;
}

/// FLOPs of matrix products alone: the count that model FLOP utilisation is defined by.
[[nodiscard]] inline Index matrix_flops(std::span<Operation const> operations) {
  Index total = 0;
  for (auto const& operation : operations) total += operation.is_matrix ? operation.flops : 0;
  return total;
}

/// Bytes read and written by all operations.
[[nodiscard]] inline Index total_bytes(std::span<Operation const> operations) {
  Index total = 0;
  for (auto const& operation : operations) total += operation.bytes();
  return total;
}

/// How often the verb `name` was called.
[[nodiscard]] inline Index count_calls(std::span<Operation const> operations, std::string_view name) {
  Index count = 0;
  for (auto const& operation : operations) count += operation.name == name ? 1 : 0;
  return count;
}

/// Whether the verbs `names` were called in this order, with anything between them. Returns the first that was not
/// called after the ones before it, or an empty name when all were: for tests of call order.
[[nodiscard]] inline std::string_view first_out_of_order(std::span<Operation const> operations,
                                                         std::initializer_list<std::string_view> names) {
  auto next = names.begin();
  for (auto const& operation : operations) {
    if (next == names.end()) break;
    if (operation.name == *next) ++next;
  }
  return next == names.end() ? std::string_view{} : *next;
}

/// Seconds that a machine with these two limits needs at least, one operation after the other (roofline model:
/// Williams, Waterman, Patterson, CACM 2009).
[[nodiscard]] inline double roofline_seconds(std::span<Operation const> operations, double flops_per_second,
                                             double bytes_per_second) {
  double seconds = 0.0;
  for (auto const& operation : operations) {
    double const compute = static_cast<double>(operation.flops) / flops_per_second;
    double const transfer = static_cast<double>(operation.bytes()) / bytes_per_second;
    seconds += compute > transfer ? compute : transfer;
  }
  return seconds;
}

}  // namespace mor::trace
