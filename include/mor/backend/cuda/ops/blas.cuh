// SPDX-License-Identifier: Apache-2.0
/// @file
/// Matrix products by cuBLASLt: one descriptor and one algorithm a problem, found at its first use and kept.
#pragma once

#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/ops/gemm_problem.cuh"
#include "mor/backend/cuda/ops/gemm_record.cuh"
#include "mor/backend/cuda/tuning/blas.hpp"
#include "mor/core/memory.hpp"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace mor::cuda {

/// How algorithms are chosen.
struct BlasOptions {
  Index workspace_bytes = tuning::kBlasWorkspaceBytes;  ///< for split sums
  /// Time the candidates of a large problem at its first use, and take the fastest. Otherwise cuBLASLt's first proposal.
  bool search = false;
  /// Where choices are kept between runs; empty: nowhere. With a record, a run repeats the choices of the one before, and
  /// so its bits.
  std::string record_path;
};

/// Owns the cuBLASLt handle, its workspace, and a plan for each problem met so far.
class Blas {
 public:
  Blas(MemoryResource memory, DeviceFacts const& device, BlasOptions options)
      : options_(std::move(options)), workspace_(memory, options_.workspace_bytes), memory_(memory),
        record_(options_.record_path, device.name) {
    check(cublasLtCreate(&handle_), "cublasLtCreate");
  }
  Blas(Blas const&) = delete;
  Blas& operator=(Blas const&) = delete;
  ~Blas() {
    plans_.clear();
    static_cast<void>(cublasLtDestroy(handle_));
  }

  /// d = alpha * a b + beta * c in the library's column-major terms; `c` may be `d`.
  void multiply(Context const& context, char const* verb, GemmProblem const& problem, float alpha, GemmOperands const& at) {
    if (WorkLog* const log = context.log) {
      log->note(GemmProblem::Hash{}(problem));
      log->note(alpha);
      log->note(at.a);
      log->note(at.b);
      log->note(at.c);
      log->note(at.d);
      if (log->compares()) return;
    }
    GemmPlan const& plan = find(context, verb, problem, alpha, at);
    run(context.stream, verb, problem, plan, plan.algorithm, alpha, at, at.d);
  }

 private:
  static constexpr int kCandidates = 12;

  /// Has a name, which the library's type lacks: nvcc 13.0 fails on a vector of a type without one.
  struct Candidate {
    cublasLtMatmulAlgo_t algorithm;
  };
  /// Owns what is asked of a proposal.
  struct Preference {
    Preference() = default;
    Preference(Preference const&) = delete;
    Preference& operator=(Preference const&) = delete;
    ~Preference() {
      if (handle != nullptr) static_cast<void>(cublasLtMatmulPreferenceDestroy(handle));
    }

    cublasLtMatmulPreference_t handle = nullptr;
  };
  /// Owns events.
  struct Marks {
    explicit Marks(std::size_t count) : events(count) {}
    Marks(Marks const&) = delete;
    Marks& operator=(Marks const&) = delete;
    ~Marks() {
      for (cudaEvent_t const event : events) {
        if (event != nullptr) static_cast<void>(cudaEventDestroy(event));
      }
    }

    std::vector<cudaEvent_t> events;
  };

  GemmPlan const& find(Context const& context, char const* verb, GemmProblem const& problem, float alpha,
                       GemmOperands const& at) {
    if (auto const found = plans_.find(problem); found != plans_.end()) return found->second;
    GemmPlan plan = GemmPlan::describe(verb, problem);
    auto candidates = propose(verb, problem, plan);
    plan.algorithm = candidates.front().algorithm;
    if (auto const* recorded = record_.find(problem)) {
      plan.algorithm = *recorded;
      // Another version of the library may refuse what it once proposed.
      if (!accepts(plan)) plan.algorithm = candidates.front().algorithm;
    } else if (options_.search && problem.flops() > 1e9) {
      if (context.log != nullptr) context.log->wait_once();
      plan.algorithm = fastest(context.stream, verb, problem, plan, candidates, alpha, at);
      record_.add(problem, plan.algorithm);
    }
    return plans_.emplace(problem, std::move(plan)).first->second;
  }

  [[nodiscard]] bool accepts(GemmPlan const& plan) const {
    cublasLtMatmulHeuristicResult_t result{};
    return cublasLtMatmulAlgoCheck(handle_, plan.operation, plan.a, plan.b, plan.c, plan.d, &plan.algorithm, &result) ==
               CUBLAS_STATUS_SUCCESS &&
           result.workspaceSize <= static_cast<std::size_t>(workspace_.size());
  }

  [[nodiscard]] std::vector<Candidate> propose(char const* verb, GemmProblem const& problem,
                                               GemmPlan const& plan) const {
    Preference preference;
    check(cublasLtMatmulPreferenceCreate(&preference.handle), verb);
    auto const set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
      check(cublasLtMatmulPreferenceSetAttribute(preference.handle, attribute, &value, sizeof(value)), verb);
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<std::uint64_t>(workspace_.size()));
    // Sums of split products in a fixed order: the in-place scheme adds them as blocks finish.
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<std::uint32_t>(problem.a.alignment));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<std::uint32_t>(problem.b.alignment));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<std::uint32_t>(problem.c.alignment));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<std::uint32_t>(problem.d.alignment));
    cublasLtMatmulHeuristicResult_t results[kCandidates];
    int count = 0;
    cublasStatus_t const status = cublasLtMatmulAlgoGetHeuristic(
        handle_, plan.operation, plan.a, plan.b, plan.c, plan.d, preference.handle, kCandidates, results, &count);
    check(status, verb, problem.m, problem.n, problem.k);
    std::vector<Candidate> algorithms;
    for (int i = 0; i < count; ++i) {
      if (results[i].state == CUBLAS_STATUS_SUCCESS) algorithms.push_back({results[i].algo});
    }
    if (algorithms.empty()) check(CUBLAS_STATUS_NOT_SUPPORTED, verb, problem.m, problem.n, problem.k);
    return algorithms;
  }

  /// Times each candidate on the operands themselves, into memory of its own. The device stays busy throughout, as it is
  /// in training, because its clock depends on that; candidates take turns, each round in another order.
  [[nodiscard]] cublasLtMatmulAlgo_t fastest(cudaStream_t stream, char const* verb, GemmProblem const& problem,
                                             GemmPlan const& plan, std::vector<Candidate> const& candidates,
                                             float alpha, GemmOperands const& at) {
    constexpr std::size_t rounds = 7;
    std::size_t const count = candidates.size();
    Buffer<std::byte> const output(memory_, problem.d.bytes());
    Marks marks(count + 1);
    for (cudaEvent_t& mark : marks.events) check(cudaEventCreate(&mark), verb);
    std::vector<std::array<float, rounds>> times(count);
    for (std::size_t round = 0; round < rounds + 1; ++round) {  // the first one warms up and is not counted
      auto const turn = [&](std::size_t i) { return (i + round * 5) % count; };
      check(cudaEventRecord(marks.events[0], stream), verb);
      for (std::size_t i = 0; i < count; ++i) {
        for (int n = 0; n < 2; ++n) {
          run(stream, verb, problem, plan, candidates[turn(i)].algorithm, alpha, at, output.data());
        }
        check(cudaEventRecord(marks.events[i + 1], stream), verb);
      }
      check(cudaEventSynchronize(marks.events.back()), verb);
      for (std::size_t i = 0; i < count && round > 0; ++i) {
        check(cudaEventElapsedTime(&times[turn(i)][round - 1], marks.events[i], marks.events[i + 1]), verb);
      }
    }
    std::size_t best = 0;
    for (std::size_t i = 0; i < count; ++i) {
      std::nth_element(times[i].begin(), times[i].begin() + rounds / 2, times[i].end());
      if (times[i][rounds / 2] < times[best][rounds / 2]) best = i;
    }
    return candidates[best].algorithm;
  }

  void run(cudaStream_t stream, char const* verb, GemmProblem const& problem, GemmPlan const& plan,
           cublasLtMatmulAlgo_t const& algorithm, float alpha, GemmOperands const& at, void* d) {
    float const beta = problem.add_c ? 1.0F : 0.0F;
    check(cublasLtMatmul(handle_, plan.operation, &alpha, at.a, plan.a, at.b, plan.b, &beta, at.c != nullptr ? at.c : d,
                         plan.c, d, plan.d, &algorithm, workspace_.data(), static_cast<std::size_t>(workspace_.size()),
                         stream),
          verb, problem.m, problem.n, problem.k);
  }

  BlasOptions options_;
  cublasLtHandle_t handle_ = nullptr;
  Buffer<std::byte> workspace_;
  MemoryResource memory_;
  GemmRecord record_;
  std::unordered_map<GemmProblem, GemmPlan, GemmProblem::Hash> plans_;
};

}  // namespace mor::cuda
