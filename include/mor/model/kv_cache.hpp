// SPDX-License-Identifier: Apache-2.0
/// @file
/// `KvCache`: keys and values of earlier tokens, one plane per layer that projects them (mor-spec section 5.2).
#pragma once

#include "mor/contract/cache.hpp"
#include "mor/core/batch.hpp"
#include "mor/core/layer_schedule.hpp"

#include <string>
#include <utility>
#include <vector>

namespace mor {

/// Which storage plane each layer reads, as data: made from a schedule and a cache policy.
struct PlaneMap {
  std::vector<std::vector<Index>> block;           ///< [Nr][B] plane of inner layer j in recursion r
  std::vector<std::vector<KeySource>> source;      ///< [Nr][B]
  Index num_prelude = 0, num_planes = 0;

  [[nodiscard]] Index prelude(Index layer) const { return layer; }
  [[nodiscard]] Index coda(Index layer) const { return first_coda_ + layer; }

  template <class Cache>
  static PlaneMap make(LayerSchedule const& schedule) {
    PlaneMap map;
    map.num_prelude = static_cast<Index>(schedule.prelude.size());
    Index next = map.num_prelude;
    for (Index r = 0; r < schedule.num_recursions(); ++r) {
      auto& planes = map.block.emplace_back();
      auto& sources = map.source.emplace_back();
      for (Index j = 0; j < schedule.block_layers(); ++j) {
        KeySource const source = Cache::key_source(schedule.use_index(r, j));
        sources.push_back(source);
        if (source == KeySource::FirstUse) {
          auto const first = schedule.first_use(r, j);
          planes.push_back(map.block[static_cast<std::size_t>(first.recursion)][static_cast<std::size_t>(first.layer)]);
        } else {
          planes.push_back(next++);
        }
      }
    }
    map.first_coda_ = next;
    map.num_planes = next + static_cast<Index>(schedule.coda.size());
    return map;
  }

 private:
  Index first_coda_ = 0;
};

/// Storage for a fixed number of sequences of at most `capacity` tokens each. Planes that hold every token have the
/// sequence's length; a recursion's own planes hold its active tokens only, so each recursion has a length list.
template <class B>
class KvCache {
 public:
  using Scalar = typename B::scalar_type;
  struct Plane {
    Buffer<Scalar> k, v;  // (sequences * capacity, K*E)
  };

  KvCache(B& backend, TransformerConfig const& config, PlaneMap const& map, Index num_recursions, Index sequences,
          Index capacity)
      : columns_(config.key_value_size()), sequences_(sequences), capacity_(capacity) {
    if (sequences < 1 || capacity < 1) {
      fail(ErrorCode::InvalidArgument, "a cache needs sequences and room", "KvCache", "positive counts",
           text_of(sequences) + " sequences of " + text_of(capacity) + " tokens");
    }
    Index const elements = detail::checked_bytes(detail::checked_bytes(sequences, capacity), columns_);
    for (Index plane = 0; plane < map.num_planes; ++plane) {
      planes_.push_back({Buffer<Scalar>(backend.memory(), elements), Buffer<Scalar>(backend.memory(), elements)});
    }
    lengths_.assign(static_cast<std::size_t>(num_recursions) + 1, std::vector<Row>(static_cast<std::size_t>(sequences), 0));
    for (Index s = 0; s < sequences; ++s) begins_.push_back(static_cast<Row>(s * capacity));
  }

  [[nodiscard]] Index sequences() const { return sequences_; }
  [[nodiscard]] Index capacity() const { return capacity_; }
  [[nodiscard]] Index bytes() const {
    return 2 * static_cast<Index>(planes_.size()) * sequences_ * capacity_ * columns_ * static_cast<Index>(sizeof(Scalar));
  }
  /// Tokens of a sequence so far.
  [[nodiscard]] Row length(Index sequence) const { return lengths_[0][static_cast<std::size_t>(sequence)]; }
  /// Tokens of a sequence that entered recursion `step`.
  [[nodiscard]] Row active_length(Index step, Index sequence) const {
    return lengths_[static_cast<std::size_t>(step) + 1][static_cast<std::size_t>(sequence)];
  }

  /// Forgets all tokens.
  void clear() {
    for (auto& list : lengths_) std::fill(list.begin(), list.end(), Row{0});
  }

  // For the model:
  [[nodiscard]] View<Scalar> k(Index plane) const { return view(planes_[static_cast<std::size_t>(plane)].k); }
  [[nodiscard]] View<Scalar> v(Index plane) const { return view(planes_[static_cast<std::size_t>(plane)].v); }
  [[nodiscard]] std::span<Row const> begins() const { return begins_; }
  [[nodiscard]] std::span<Row const> lengths() const { return lengths_[0]; }
  [[nodiscard]] std::span<Row const> active_lengths(Index step) const {
    return lengths_[static_cast<std::size_t>(step) + 1];
  }
  /// Counts the rows of `host_offsets` as stored: list 0 is "all tokens", list 1 + step the active ones.
  void advance(Index list, std::span<Row const> host_offsets) {
    auto& lengths = lengths_[static_cast<std::size_t>(list)];
    for (std::size_t s = 0; s + 1 < host_offsets.size(); ++s) {
      lengths[s] = static_cast<Row>(lengths[s] + host_offsets[s + 1] - host_offsets[s]);
    }
  }
  /// Throws unless the batch has this cache's sequences and fits.
  void check_room(Batch const& batch) const {
    if (batch.sequences() != sequences_) {
      fail(ErrorCode::InvalidArgument, "the batch has another number of sequences than the cache", "KvCache",
           text_of(sequences_), text_of(batch.sequences()));
    }
    for (Index s = 0; s < sequences_; ++s) {
      auto const i = static_cast<std::size_t>(s);
      Index const wanted = length(s) + batch.sequence_offsets[i + 1] - batch.sequence_offsets[i];
      if (wanted > capacity_) {
        fail(ErrorCode::OutOfMemory, "a sequence is longer than its cache", "KvCache, sequence " + text_of(s),
             "at most " + text_of(capacity_) + " tokens", text_of(wanted));
      }
    }
  }

 private:
  [[nodiscard]] View<Scalar> view(Buffer<Scalar> const& buffer) const {
    return {buffer.data(), sequences_ * capacity_, columns_};
  }

  Index columns_, sequences_, capacity_;
  std::vector<Plane> planes_;
  std::vector<std::vector<Row>> lengths_;
  std::vector<Row> begins_;
};

}  // namespace mor
