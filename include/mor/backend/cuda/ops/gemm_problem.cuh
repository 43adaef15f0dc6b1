// SPDX-License-Identifier: Apache-2.0
/// @file
/// A matrix product as cuBLASLt sees it: sizes, types, alignments, and the descriptors made from them.
#pragma once

#include "mor/backend/cuda/ops/error.cuh"
#include "mor/core/dtype.hpp"
#include "mor/core/types.hpp"
#include "mor/core/view.hpp"

#include <cublasLt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace mor::cuda {

/// Throws where `status` is an error of cuBLASLt.
template <class... Sizes>
inline void check(cublasStatus_t status, char const* operation, Sizes... sizes) {
  if (status == CUBLAS_STATUS_SUCCESS) [[likely]] return;
  std::string const shape = detail::shape_text(sizes...);
  fail(status == CUBLAS_STATUS_ALLOC_FAILED ? ErrorCode::OutOfMemory : ErrorCode::DeviceFailure,
       std::string("cuBLASLt: ") + cublasLtGetStatusString(status),
       shape.empty() ? std::string(operation) : std::string(operation) + " " + shape);
}

/// One stored matrix in column-major terms: `rows` is the contiguous direction.
struct GemmMatrix {
  Index rows = 0, cols = 0, stride = 0;
  DType dtype = DType::F32;
  Index alignment = 0;  ///< bytes that divide the address, at most 16: an algorithm with wide loads needs 16

  bool operator==(GemmMatrix const&) const = default;
  [[nodiscard]] Index bytes() const { return stride * cols * byte_size(dtype); }
};

/// A row-major view, seen column-major (that is, transposed).
template <class T>
[[nodiscard]] GemmMatrix describe(View<T const> x) {
  auto const address = reinterpret_cast<std::uintptr_t>(x.data);
  Index alignment = 16;
  while (address % static_cast<std::uintptr_t>(alignment) != 0) alignment /= 2;
  return {x.cols, x.rows, std::max<Index>(x.stride, 1), dtype_of<T>, alignment};
}

/// d (m x n) = op(a) (m x k) op(b) (k x n) + [add_c] c.
struct GemmProblem {
  Index m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false, add_c = false, c_is_d = true;
  GemmMatrix a, b, c, d;

  bool operator==(GemmProblem const&) const = default;
  [[nodiscard]] double flops() const {
    return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  }
  /// Every field in one line: the key in a record of choices.
  [[nodiscard]] std::string text() const {
    std::string line = std::string(transpose_a ? "t" : "n") + (transpose_b ? "t" : "n") + (add_c ? "+" : "=") +
                       (c_is_d ? "d" : "c");
    for (Index const size : {m, n, k}) line += " " + std::to_string(size);
    for (GemmMatrix const* matrix : {&a, &b, &c, &d}) {
      line += " " + std::string(to_text(matrix->dtype)) + ":" + std::to_string(matrix->stride) + ":" +
              std::to_string(matrix->alignment);
    }
    return line;
  }

  struct Hash {
    [[nodiscard]] std::size_t operator()(GemmProblem const& p) const {
      std::size_t hash = 1469598103934665603ULL;  // FNV-1a over the sizes that differ in practice
      for (Index const value : {p.m, p.n, p.k, p.a.stride, p.b.stride, p.d.stride, Index{p.transpose_a},
                                Index{p.transpose_b}, Index{p.add_c}, Index{p.c_is_d}}) {
        hash = (hash ^ static_cast<std::size_t>(value)) * 1099511628211ULL;
      }
      return hash;
    }
  };
};

/// Addresses of one product's operands; `c` null means in place.
struct GemmOperands {
  void const* a = nullptr;
  void const* b = nullptr;
  void const* c = nullptr;
  void* d = nullptr;
};

/// Owns the library's descriptors of a problem, and has the algorithm that was chosen.
struct GemmPlan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr, d = nullptr;
  cublasLtMatmulAlgo_t algorithm{};

  GemmPlan() = default;
  GemmPlan(GemmPlan&& other) noexcept
      : operation(std::exchange(other.operation, nullptr)), a(std::exchange(other.a, nullptr)), b(std::exchange(other.b, nullptr)),
        c(std::exchange(other.c, nullptr)), d(std::exchange(other.d, nullptr)), algorithm(other.algorithm) {}
  GemmPlan(GemmPlan const&) = delete;
  GemmPlan& operator=(GemmPlan const&) = delete;
  ~GemmPlan() {
    for (cublasLtMatrixLayout_t const matrix : {a, b, c, d}) {
      if (matrix != nullptr) static_cast<void>(cublasLtMatrixLayoutDestroy(matrix));
    }
    if (operation != nullptr) static_cast<void>(cublasLtMatmulDescDestroy(operation));
  }

  [[nodiscard]] static GemmPlan describe(char const* verb, GemmProblem const& problem) {
    GemmPlan plan;
    // Float products in full precision: the float mode exists to be compared with.
    check(cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), verb);
    auto const transpose = [&](cublasLtMatmulDescAttributes_t attribute, bool yes) {
      cublasOperation_t const value = yes ? CUBLAS_OP_T : CUBLAS_OP_N;
      check(cublasLtMatmulDescSetAttribute(plan.operation, attribute, &value, sizeof(value)), verb);
    };
    transpose(CUBLASLT_MATMUL_DESC_TRANSA, problem.transpose_a);
    transpose(CUBLASLT_MATMUL_DESC_TRANSB, problem.transpose_b);
    plan.a = layout(verb, problem.a);
    plan.b = layout(verb, problem.b);
    plan.c = layout(verb, problem.c);
    plan.d = layout(verb, problem.d);
    return plan;
  }

 private:
  static cublasLtMatrixLayout_t layout(char const* verb, GemmMatrix const& matrix) {
    cublasLtMatrixLayout_t result = nullptr;
    check(cublasLtMatrixLayoutCreate(&result, matrix.dtype == DType::BF16 ? CUDA_R_16BF : CUDA_R_32F,
                                     static_cast<std::uint64_t>(matrix.rows), static_cast<std::uint64_t>(matrix.cols),
                                     matrix.stride),
          verb, matrix.rows, matrix.cols, matrix.stride);
    return result;
  }
};

}  // namespace mor::cuda
