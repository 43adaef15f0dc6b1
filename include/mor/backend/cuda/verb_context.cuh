// SPDX-License-Identifier: Apache-2.0
/// @file
/// The context of one call of a verb: while it lives, a profiler shows a range of the verb's name.
#pragma once

#include "mor/backend/cuda/ops/context.cuh"
#include "mor/backend/cuda/tuning/profiling.hpp"

#include <nvtx3/nvToolsExt.h>

namespace mor::cuda {

/// A range of the domain "mor" on the time line of whatever profiler is attached, from here to the end of the scope.
class ProfilerRange {
 public:
  /// `name` outlives the range.
  explicit ProfilerRange(char const* name) {
    if constexpr (tuning::kProfilerRanges) {
      if (domain() == nullptr) return;  // no profiler
      nvtxEventAttributes_t attributes{};
      attributes.version = NVTX_VERSION;
      attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
      attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
      attributes.message.ascii = name;
      static_cast<void>(nvtxDomainRangePushEx(domain(), &attributes));
    }
  }
  ProfilerRange(ProfilerRange const&) = delete;
  ProfilerRange& operator=(ProfilerRange const&) = delete;
  ~ProfilerRange() {
    if constexpr (tuning::kProfilerRanges) {
      if (domain() != nullptr) static_cast<void>(nvtxDomainRangePop(domain()));
    }
  }

 private:
  [[nodiscard]] static nvtxDomainHandle_t domain() {
    static nvtxDomainHandle_t const handle = nvtxDomainCreateA("mor");
    return handle;
  }
};

/// A context that is also the verb's range: a temporary of this type, as an argument, lasts as long as the call.
struct VerbContext : Context {
  VerbContext(Context const& context, char const* verb) : Context(context), range(verb) {}

  ProfilerRange range;
};

}  // namespace mor::cuda
