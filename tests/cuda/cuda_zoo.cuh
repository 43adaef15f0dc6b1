// SPDX-License-Identifier: Apache-2.0
/// @file
/// Chooses the policies of a model on the CUDA backend by name.
#pragma once

#include "cuda/cuda_zoo.hpp"
#include "zoo/zoo_holder.hpp"

#include "mor/mor.cuh"

namespace mor::test {

template <class B>
std::unique_ptr<ZooModel> make_on_cuda(ModelConfig const& config) {
  switch (config.recursion.router) {
    case RouterKind::AllTokens: return make_with_router<AllTokens, B>(config);
    case RouterKind::ExpertChoice: return make_with_router<ExpertChoice<>, B>(config);
    case RouterKind::TokenChoice: return make_with_router<TokenChoice<>, B>(config);
  }
  return nullptr;
}

}  // namespace mor::test
