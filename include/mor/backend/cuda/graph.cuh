// SPDX-License-Identifier: Apache-2.0
/// @file
/// A piece of a stream's work as a CUDA graph.
#pragma once

#include "mor/backend/cuda/ops/error.cuh"

#include <utility>

namespace mor::cuda {

/// Owns an executable graph, or none. The stream must be done with a graph that is forgotten.
class Graph {
 public:
  Graph() = default;
  Graph(Graph&& other) noexcept : executable_(std::exchange(other.executable_, nullptr)) {}
  Graph& operator=(Graph&& other) noexcept {
    std::swap(executable_, other.executable_);
    return *this;
  }
  Graph(Graph const&) = delete;
  Graph& operator=(Graph const&) = delete;
  ~Graph() { forget(); }

  [[nodiscard]] bool captured() const { return executable_ != nullptr; }

  /// Captures what `work()` enqueues, none of which runs. False, and no graph, where something in it cannot be
  /// captured.
  template <class Work>
  [[nodiscard]] bool capture(cudaStream_t stream, Work const& work) {
    forget();
    cudaGraph_t graph = nullptr;
    // Relaxed: work may take memory, page-locked too, the first time that it needs some.
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
    try {
      work();
    } catch (...) {
      static_cast<void>(cudaStreamEndCapture(stream, &graph));
      if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
      static_cast<void>(cudaGetLastError());
      throw;
    }
    cudaError_t status = cudaStreamEndCapture(stream, &graph);
    if (status == cudaSuccess) status = cudaGraphInstantiate(&executable_, graph, 0);
    if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
    if (status != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      executable_ = nullptr;
    }
    return captured();
  }

  void launch(cudaStream_t stream) const { check(cudaGraphLaunch(executable_, stream), "cudaGraphLaunch"); }
  void forget() {
    if (executable_ != nullptr) static_cast<void>(cudaGraphExecDestroy(executable_));
    executable_ = nullptr;
  }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace mor::cuda
