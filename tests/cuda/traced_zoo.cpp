// SPDX-License-Identifier: Apache-2.0
#include "cuda/cuda_zoo.hpp"
#include "zoo/zoo_holder.hpp"

#include "mor/backend/cuda/scratch_size.hpp"
#include "mor/backend/trace/backend.hpp"
#include "mor/core/dtype.hpp"
#include "mor/policy/all_tokens.hpp"
#include "mor/policy/expert_choice.hpp"
#include "mor/policy/token_choice.hpp"

namespace mor::test {

namespace {

/// A trace that stands for `cuda::Backend<T>`.
template <class T>
class TracedCuda : public trace::Backend<T, float> {
 public:
  TracedCuda() : trace::Backend<T, float>(options()) {}

 private:
  static trace::Options options() {
    trace::Options result;
    result.upload_uses_arena = true;
    result.scratch_bytes = cuda::ScratchSize<T>();
    return result;
  }
};

template <class T>
std::unique_ptr<ZooModel> make_traced(ModelConfig const& config) {
  switch (config.recursion.router) {
    case RouterKind::AllTokens: return make_with_router<AllTokens, TracedCuda<T>>(config);
    case RouterKind::ExpertChoice: return make_with_router<ExpertChoice<>, TracedCuda<T>>(config);
    case RouterKind::TokenChoice: return make_with_router<TokenChoice<>, TracedCuda<T>>(config);
  }
  return nullptr;
}

}  // namespace

std::unique_ptr<ZooModel> make_traced_float(ModelConfig const& config) { return make_traced<float>(config); }
std::unique_ptr<ZooModel> make_traced_bfloat16(ModelConfig const& config) { return make_traced<bfloat16>(config); }

}  // namespace mor::test
