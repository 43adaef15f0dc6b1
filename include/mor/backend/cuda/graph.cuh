// SPDX-License-Identifier: Apache-2.0
/// @file
/// A piece of a stream's work as a CUDA graph.
#pragma once

#include "mor/backend/cuda/ops/error.cuh"

#include <utility>

namespace mor::cuda {

/// Owns an executable graph, or none. The stream must be done with a graph before it is forgotten: also by another capture, and by
/// the end of this object.
class Graph {
 public:
  Graph() = default;
  Graph(Graph&& other) noexcept
      : executable_(std::exchange(other.executable_, nullptr)), loop_(std::exchange(other.loop_, nullptr)) {}
  Graph& operator=(Graph&& other) noexcept {
    std::swap(executable_, other.executable_);
    std::swap(loop_, other.loop_);
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

  /// Captures what `work(condition)` enqueues as the body of a loop. A launch runs it once, and again each time that a
  /// kernel in it leaves the condition at 1 (`cudaGraphSetConditional`), without the host. A body holds kernels,
  /// copies and fills on one device: nothing in it may wait for another stream or call the host; kernels may be launched
  /// cooperatively except under MPS. False as in `capture`, and where the device knows no such loops.
  template <class Work>
  [[nodiscard]] bool capture_while(cudaStream_t stream, Work const& work) {
    forget();
    check(cudaGraphCreate(&loop_, 0), "cudaGraphCreate");
    cudaGraphConditionalHandle condition = 0;
    cudaGraphNodeParams node{};
    cudaError_t status = cudaGraphConditionalHandleCreate(&condition, loop_, 1, cudaGraphCondAssignDefault);
    if (status == cudaSuccess) status = add_loop(condition, node);
    if (status == cudaSuccess) {
      status = cudaStreamBeginCaptureToGraph(stream, node.conditional.phGraph_out[0], nullptr, nullptr, 0,
                                             cudaStreamCaptureModeRelaxed);
    }
    if (status == cudaSuccess) {
      try {
        work(condition);
      } catch (...) {
        static_cast<void>(end_body(stream));
        static_cast<void>(cudaGetLastError());
        forget();
        throw;
      }
      status = end_body(stream);
    }
    if (status == cudaSuccess) status = cudaGraphInstantiate(&executable_, loop_, 0);
    if (status != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      executable_ = nullptr;
      forget();
    }
    return captured();
  }

  void launch(cudaStream_t stream) const { check(cudaGraphLaunch(executable_, stream), "cudaGraphLaunch"); }
  void forget() {
    if (executable_ != nullptr) static_cast<void>(cudaGraphExecDestroy(executable_));
    if (loop_ != nullptr) static_cast<void>(cudaGraphDestroy(loop_));
    executable_ = nullptr;
    loop_ = nullptr;
  }

 private:
  [[nodiscard]] cudaError_t add_loop(cudaGraphConditionalHandle condition, cudaGraphNodeParams& params) const {
    params.type = cudaGraphNodeTypeConditional;
    params.conditional.handle = condition;
    params.conditional.type = cudaGraphCondTypeWhile;
    params.conditional.size = 1;
    cudaGraphNode_t node = nullptr;
#if CUDART_VERSION >= 13000
    return cudaGraphAddNode(&node, loop_, nullptr, nullptr, 0, &params);
#else
    return cudaGraphAddNode(&node, loop_, nullptr, 0, &params);
#endif
  }
  [[nodiscard]] cudaError_t end_body(cudaStream_t stream) {
    cudaGraph_t body = nullptr;
    cudaError_t const status = cudaStreamEndCapture(stream, &body);
    // A capture that was broken off takes the body with it, and to destroy its loop then crashes in the driver.
    if (status != cudaSuccess) loop_ = nullptr;
    return status;
  }

  cudaGraphExec_t executable_ = nullptr;
  cudaGraph_t loop_ = nullptr;  ///< the condition lives in it
};

}  // namespace mor::cuda
