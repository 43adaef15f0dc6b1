// SPDX-License-Identifier: Apache-2.0
/// @file
/// The embedding and its gradient.
#pragma once

#include "mor/backend/cuda/kernels/embedding.cuh"
#include "mor/backend/cuda/kernels/token_sort.cuh"
#include "mor/backend/cuda/ops/alignment.cuh"
#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/row_units.cuh"
#include "mor/backend/cuda/tuning/routing.hpp"
#include "mor/backend/cuda/tuning/scratch.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <bit>
#include <cstdint>
#include <span>

namespace mor::cuda {

namespace detail {

template <class Tiles, class Unit, class T>
inline void embed_in(Context const& context, std::span<Token const> tokens, View<T const> table, View<T> out) {
  auto const count = static_cast<Index>(tokens.size());
  launch(context, "embed", {dim3(static_cast<unsigned>(divide_up(count, Tiles::rows))), Tiles::threads},
         &embed_kernel<Unit, Tiles::threads, Tiles::rows>, tokens.data(), count, units_of<Unit>(out),
         unit_rows<Unit const>(table), unit_rows<Unit>(out));
}

/// Rows 0, 1, 2, ... in the order of their tokens, of which there are `vocabulary`; in memory of `scratch`. A stable
/// radix sort, least digit first, that looks at no more digits than a token has.
template <class Tiles>
inline SortedTokens sort_tokens(Context const& context, std::span<Token const> tokens, Index vocabulary,
                                tuning::EmbedBackwardScratch<Tiles> const& sizes, Scratch& scratch) {
  int const count = static_cast<int>(tokens.size());
  auto const bits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(vocabulary - 1)));
  int* const counts = scratch.take<int>(sizes.digit_counts);
  SortedTokens sorted{tokens.data(), nullptr, count};
  Token* tokens_out[2] = {scratch.take<Token>(sizes.tokens), scratch.take<Token>(sizes.tokens)};
  Row* rows_out[2] = {scratch.take<Row>(sizes.tokens), scratch.take<Row>(sizes.tokens)};
  LaunchShape const shape{dim3(static_cast<unsigned>(sizes.blocks)), kDigits};
  for (int shift = 0, to = 0; shift == 0 || shift < bits; shift += kDigitBits, to = 1 - to) {
    launch(context, "embed_backward", shape, &count_token_digits_kernel<Tiles::sort_items>, sorted.tokens, count, shift,
           counts);
    launch(context, "embed_backward", shape, &place_tokens_kernel<Tiles::sort_items>, sorted.tokens, sorted.rows, count,
           shift, counts, tokens_out[to], rows_out[to]);
    sorted = {tokens_out[to], rows_out[to], count};
  }
  return sorted;
}

template <class Tiles, int Width, class T>
inline void add_sorted_rows(Context const& context, SortedTokens const& sorted, Index chunks, float* partial,
                            View<T const> d_out, View<float> d_table) {
  LaunchShape const shape{
      dim3(static_cast<unsigned>(chunks), static_cast<unsigned>(divide_up(d_out.cols, Index{Tiles::threads} * Width))),
      Tiles::threads};
  launch(context, "embed_backward", shape, &sum_chunks_kernel<T, Width, Tiles::threads, Tiles::chunk>, sorted, d_out,
         partial, d_table);
  launch(context, "embed_backward", shape, &join_chunks_kernel<Width, Tiles::threads, Tiles::chunk>, sorted, partial,
         d_table);
}

}  // namespace detail

/// Floor: the rows once in, once out.
template <class T, class Tiles = RowCopyTiles>
inline void embed(Context const& context, std::span<Token const> tokens, View<T const> table, View<T> out) {
  if (tokens.empty() || out.empty()) return;
  if (can_pack(table, View<T const>(out))) return detail::embed_in<Tiles, uint4>(context, tokens, table, out);
  detail::embed_in<Tiles, T>(context, tokens, table, out);
}

/// Floor: d_out once, and twice the rows of the table that occur. Sorts the rows by token, then sums chunks of fixed
/// size, so that a frequent token is the work of many blocks; the order of every sum depends on the tokens alone.
template <class T, class Tiles = EmbedTiles>
inline void embed_backward(Context const& context, std::span<Token const> tokens, View<T const> d_out,
                           View<float> d_table) {
  if (tokens.empty() || d_out.empty()) return;
  Scratch scratch(context);
  tuning::EmbedBackwardScratch<Tiles> const sizes(static_cast<Index>(tokens.size()), d_out.cols);
  SortedTokens const sorted = detail::sort_tokens<Tiles>(context, tokens, d_table.rows, sizes, scratch);
  float* const partial = scratch.take<float>(sizes.partial);
  if (can_pack(d_out, View<float const>(d_table))) {
    return detail::add_sorted_rows<Tiles, kPackSize<T>>(context, sorted, sizes.chunks, partial, d_out, d_table);
  }
  detail::add_sorted_rows<Tiles, 1>(context, sorted, sizes.chunks, partial, d_out, d_table);
}

}  // namespace mor::cuda
