// SPDX-License-Identifier: Apache-2.0
/// @file
/// Memory of a backend: `MemoryResource` gets it, `Buffer` owns one piece, `Arena` hands out a step's activations.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <algorithm>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace mor {

/// Alignment of every allocation, in bytes: a cache line, and what vector and TMA loads want.
inline constexpr Index kAlignment = 256;

/// Where memory comes from. Two function pointers, so that owners need no template parameter.
struct MemoryResource {
  void* context = nullptr;
  void* (*allocate_bytes)(void* context, Index bytes) = nullptr;            ///< throws mor::error OutOfMemory
  void (*deallocate_bytes)(void* context, void* pointer, Index bytes) = nullptr;  ///< never throws
  bool addressable = true;  ///< false: pointers are for counting only and must not be read (trace backend)
};

namespace detail {
/// elements * size, checked: a product that wraps must not become a small allocation.
[[nodiscard]] inline Index checked_bytes(Index elements, Index size) {
  if (elements < 0 || (size > 0 && elements > (std::numeric_limits<Index>::max() - kAlignment) / size)) {
    fail(ErrorCode::OutOfMemory, "the size of an allocation overflows", "memory", "a count of elements that fits 63 bits",
         text_of(elements) + " x " + text_of(size) + " bytes");
  }
  return elements * size;
}
[[nodiscard]] constexpr Index aligned(Index bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
}  // namespace detail

/// Owns `size()` elements in a backend's memory; moves, never copies. Contents start undefined.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(MemoryResource resource, Index size)
      : resource_(resource),
        data_(static_cast<T*>(
            resource.allocate_bytes(resource.context, detail::checked_bytes(size, static_cast<Index>(sizeof(T)))))),
        size_(size) {}
  Buffer(Buffer&& other) noexcept
      : resource_(other.resource_), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(resource_, other.resource_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  Buffer(Buffer const&) = delete;
  Buffer& operator=(Buffer const&) = delete;
  ~Buffer() {
    if (data_ != nullptr) {
      resource_.deallocate_bytes(resource_.context, data_, size_ * static_cast<Index>(sizeof(T)));
    }
  }

  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] Index size() const { return size_; }
  [[nodiscard]] std::span<T> span() const { return {data_, static_cast<std::size_t>(size_)}; }

 private:
  MemoryResource resource_{};
  T* data_ = nullptr;
  Index size_ = 0;
};

/// A stack of activations. `allocate` bumps a pointer; `reset` starts the next step with the same memory.
///
/// Reserve the size that the trace backend predicts and a step never allocates. Without that, the first step
/// takes several blocks and `reset` merges them into one, so later steps of the same size allocate nothing.
class Arena {
 public:
  /// A position to return to; everything allocated after it is released.
  struct Mark {
    std::size_t block = 0;
    Index offset = 0;
    Index in_use = 0;
  };

  explicit Arena(MemoryResource resource) : resource_(resource) {}

  /// Makes sure that `bytes` can be handed out without a further allocation. Only on an empty arena.
  void reserve(Index bytes) {
    require(in_use_ == 0, "reserve() needs an empty arena", "Arena");
    if (blocks_.size() == 1 && blocks_.front().size() >= bytes) return;
    if (bytes == 0) return;
    blocks_.clear();
    add_block(bytes);
  }

  /// Uninitialised room for `count` elements of T.
  template <class T>
  [[nodiscard]] std::span<T> allocate(Index count) {
    Index const bytes = detail::aligned(detail::checked_bytes(count, static_cast<Index>(sizeof(T))));
    return {reinterpret_cast<T*>(take(bytes)), static_cast<std::size_t>(count)};
  }

  /// Uninitialised room for a contiguous matrix.
  template <class T>
  [[nodiscard]] View<T> matrix(Index rows, Index cols) {
    return {allocate<T>(detail::checked_bytes(rows, cols)).data(), rows, cols};
  }

  [[nodiscard]] Mark mark() const { return {current_, offset_, in_use_}; }
  void release(Mark mark) {
    current_ = mark.block;
    offset_ = mark.offset;
    in_use_ = mark.in_use;
  }

  /// Releases everything; merges blocks so that a step of the same size fits one.
  void reset() {
    release({});
    if (blocks_.size() > 1) {
      blocks_.clear();
      add_block(peak_);
    }
  }

  [[nodiscard]] Index peak_bytes() const { return peak_; }
  [[nodiscard]] Index in_use_bytes() const { return in_use_; }
  [[nodiscard]] Index capacity_bytes() const {
    Index total = 0;
    for (auto const& block : blocks_) total += block.size();
    return total;
  }
  /// How often memory was asked from the resource: constant after the first step.
  [[nodiscard]] Index allocations() const { return allocations_; }

 private:
  void add_block(Index bytes) {
    blocks_.emplace_back(resource_, bytes);
    ++allocations_;
  }

  std::byte* take(Index bytes) {
    while (current_ < blocks_.size() && offset_ + bytes > blocks_[current_].size()) {
      ++current_;
      offset_ = 0;
    }
    if (current_ == blocks_.size()) {
      Index const smallest = Index{1} << 20;
      add_block(std::max({bytes, smallest, capacity_bytes()}));
      offset_ = 0;
    }
    std::byte* const result = blocks_[current_].data() + offset_;
    offset_ += bytes;
    in_use_ += bytes;
    peak_ = std::max(peak_, in_use_);
    return result;
  }

  MemoryResource resource_;
  std::vector<Buffer<std::byte>> blocks_;
  std::size_t current_ = 0;
  Index offset_ = 0, in_use_ = 0, peak_ = 0, allocations_ = 0;
};

}  // namespace mor
