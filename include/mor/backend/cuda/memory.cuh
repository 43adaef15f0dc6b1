// SPDX-License-Identifier: Apache-2.0
/// @file
/// Device memory with a count of what is in use, and page-locked host memory that uploads pass through.
#pragma once

#include "mor/backend/cuda/device.cuh"
#include "mor/backend/cuda/ops/error.cuh"
#include "mor/core/memory.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

namespace mor::cuda {

/// What a backend's memory resource has handed out so far.
struct MemoryStatistics {
  Index current_bytes = 0;
  Index peak_bytes = 0;
  Index allocations = 0;  ///< how often memory was asked for; constant once a program has warmed up
};

/// Gives device memory (cudaMalloc, so aligned to 256 bytes). Lives at a fixed address, because buffers keep a pointer
/// to it.
class DeviceMemory {
 public:
  /// @param device  as CUDA numbers them
  explicit DeviceMemory(int device = 0) : device_(device) {}
  DeviceMemory(DeviceMemory const&) = delete;
  DeviceMemory& operator=(DeviceMemory const&) = delete;

  [[nodiscard]] MemoryResource resource() { return {this, &allocate, &deallocate, false}; }
  [[nodiscard]] MemoryStatistics const& statistics() const { return statistics_; }

 private:
  static void* allocate(void* context, Index bytes) {
    auto& self = *static_cast<DeviceMemory*>(context);
    Index const size = std::max(mor::detail::aligned(bytes), kAlignment);
    void* pointer = nullptr;
    make_current(self.device_);
    cudaError_t const status = cudaMalloc(&pointer, static_cast<std::size_t>(size));
    if (status == cudaErrorMemoryAllocation) {
      static_cast<void>(cudaGetLastError());  // this error does not stick: the device goes on
      fail(ErrorCode::OutOfMemory, "the device gave no memory", "cuda::Backend", text_of(bytes) + " bytes",
           text_of(self.statistics_.current_bytes) + " bytes already in use");
    }
    check(status, "cudaMalloc", size);
    self.statistics_.current_bytes += size;
    self.statistics_.peak_bytes = std::max(self.statistics_.peak_bytes, self.statistics_.current_bytes);
    ++self.statistics_.allocations;
    return pointer;
  }

  static void deallocate(void* context, void* pointer, Index bytes) {
    auto& self = *static_cast<DeviceMemory*>(context);
    self.statistics_.current_bytes -= std::max(mor::detail::aligned(bytes), kAlignment);
    static_cast<void>(cudaFree(pointer));  // of any device; never throws; an error shows in the next call that is checked
  }

  int device_;
  MemoryStatistics statistics_;
};

/// Page-locked host memory for the uploads of work that repeats: handed out in the same pieces each time.
class PinnedSlots {
 public:
  PinnedSlots() = default;
  PinnedSlots(PinnedSlots const&) = delete;
  PinnedSlots& operator=(PinnedSlots const&) = delete;
  ~PinnedSlots() {
    for (auto const& block : blocks_) static_cast<void>(cudaFreeHost(block.data));
  }

  /// Starts from the first piece again.
  void rewind() { current_ = 0, offset_ = 0; }
  /// The next piece.
  [[nodiscard]] std::byte* take(Index bytes) {
    bytes = mor::detail::aligned(bytes);
    while (current_ < blocks_.size() && offset_ + bytes > blocks_[current_].size) {
      ++current_;
      offset_ = 0;
    }
    if (current_ == blocks_.size()) {
      Block block{nullptr, std::max(bytes, Index{1} << 20)};
      void* pointer = nullptr;
      check(cudaMallocHost(&pointer, static_cast<std::size_t>(block.size)), "cudaMallocHost", block.size);
      block.data = static_cast<std::byte*>(pointer);
      blocks_.push_back(block);
    }
    std::byte* const result = blocks_[current_].data + offset_;
    offset_ += bytes;
    return result;
  }

 private:
  struct Block {
    std::byte* data;
    Index size;
  };
  std::vector<Block> blocks_;
  std::size_t current_ = 0;
  Index offset_ = 0;
};

/// Page-locked host memory that copies to the device pass through: the caller's memory is free again at once, and the
/// host runs ahead of the device. A ring of segments; the host waits only when it is a whole ring ahead.
class UploadRing {
 public:
  UploadRing() = default;
  UploadRing(UploadRing const&) = delete;
  UploadRing& operator=(UploadRing const&) = delete;
  ~UploadRing() {
    for (Segment const& segment : segments_) {
      static_cast<void>(cudaEventDestroy(segment.done));
      static_cast<void>(cudaFreeHost(segment.data));
    }
  }

  /// Enqueues a copy of `bytes` bytes to device memory at `to`.
  void copy(cudaStream_t stream, void const* from, void* to, Index bytes) {
    auto const* source = static_cast<std::byte const*>(from);
    auto* target = static_cast<std::byte*>(to);
    while (bytes > 0) {
      if (segments_.empty() || offset_ == kSegmentBytes) advance(stream);
      Index const part = std::min(bytes, kSegmentBytes - offset_);
      std::byte* const staged = segments_[current_].data + offset_;
      std::memcpy(staged, source, static_cast<std::size_t>(part));
      check(cudaMemcpyAsync(target, staged, static_cast<std::size_t>(part), cudaMemcpyHostToDevice, stream), "upload", part);
      offset_ = std::min(kSegmentBytes, offset_ + mor::detail::aligned(part));
      source += part;
      target += part;
      bytes -= part;
    }
  }

 private:
  static constexpr Index kSegmentBytes = Index{1} << 20;
  static constexpr std::size_t kSegments = 8;

  struct Segment {
    std::byte* data = nullptr;
    cudaEvent_t done = nullptr;  ///< after the last copy from this segment
  };

  void advance(cudaStream_t stream) {
    if (!segments_.empty()) check(cudaEventRecord(segments_[current_].done, stream), "cudaEventRecord");
    std::size_t next = segments_.size();
    if (next < kSegments) {
      grow();
    } else {
      next = (current_ + 1) % kSegments;
      check(cudaEventSynchronize(segments_[next].done), "cudaEventSynchronize");
    }
    current_ = next;
    offset_ = 0;  // last: after a failure the segment before is still full
  }
  void grow() {
    segments_.reserve(kSegments);  // nothing below may throw while it owns something that no segment does
    Segment segment;
    check(cudaEventCreateWithFlags(&segment.done, cudaEventDisableTiming), "cudaEventCreate");
    void* pointer = nullptr;
    cudaError_t const status = cudaMallocHost(&pointer, static_cast<std::size_t>(kSegmentBytes));
    if (status != cudaSuccess) static_cast<void>(cudaEventDestroy(segment.done));
    check(status, "cudaMallocHost", kSegmentBytes);
    segment.data = static_cast<std::byte*>(pointer);
    segments_.push_back(segment);
  }

  std::vector<Segment> segments_;
  std::size_t current_ = 0;
  Index offset_ = 0;
};

}  // namespace mor::cuda
