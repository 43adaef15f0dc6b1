// SPDX-License-Identifier: Apache-2.0
/// @file
/// Block sizes of the routing kernels. Plain C++.
#pragma once

namespace mor::cuda {

/// Radix selection and radix sorting look at digits of 8 bits.
inline constexpr int kDigitBits = 8;
inline constexpr int kDigits = 1 << kDigitBits;

/// Selection of rows: one block a sequence, `items` candidates a thread at once. Sequences of at most one tile stay in
/// registers; the long tile serves those that the short one does not hold, and longer ones tile after tile.
struct SelectTiles {
  static constexpr int threads = 512, items = 4;
  static constexpr int long_threads = 1024, long_items = 8;
  static constexpr int count_threads = 256;
};

/// Router losses and gates: one thread a row, and fixed spans of rows a block, so that sums do not depend on the
/// device.
struct RouterTiles {
  static constexpr int threads = 256;
  static constexpr int items =
      4;  ///< candidates of one thread in the cross-entropy and rows of one in the balance loss
};

/// Logits of a router: a warp a row forward; backward a thread owns columns, and has some rows in flight.
struct LogitsTiles {
  static constexpr int threads = 256, loads = 4;
  static constexpr int backward_threads = 128, backward_rows = 4;
  static constexpr int backward_blocks = 4;    ///< resident blocks a multiprocessor
  static constexpr int backward_outputs = 4;   ///< of which one thread keeps the sums
  static constexpr int backward_groups = 528;  ///< blocks that share the rows out: 4 a multiprocessor of an H100
};

/// Copies of rows (embedding, keys): rows whose addresses one block works out, and then copies with all its threads.
struct RowCopyTiles {
  static constexpr int threads = 256;
  static constexpr int rows = 32;
};

/// The embedding's gradient: rows, in the order of their tokens, that one block sums.
struct EmbedTiles {
  static constexpr int threads = 128;
  static constexpr int chunk = 64;
  static constexpr int sort_items = 4;  ///< tokens of one thread in the sort
};

static_assert(EmbedTiles::chunk <= EmbedTiles::threads, "one thread describes one row of a chunk");
static_assert(RowCopyTiles::rows <= RowCopyTiles::threads, "one thread works out the addresses of one row");

}  // namespace mor::cuda
