// SPDX-License-Identifier: Apache-2.0
/// @file
/// The stream that a backend's work runs on.
#pragma once

#include "mor/backend/cuda/ops/error.cuh"

#include <utility>

namespace mor::cuda {

/// Owns a stream of its own, which never waits for the default stream.
class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }
  Stream(Stream const&) = delete;
  Stream& operator=(Stream const&) = delete;
  ~Stream() { static_cast<void>(cudaStreamDestroy(stream_)); }

  [[nodiscard]] cudaStream_t get() const { return stream_; }
  /// Waits until all work is done; errors of kernels show here.
  void synchronize() const { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace mor::cuda
