// SPDX-License-Identifier: Apache-2.0
// What a user who trains one kind of model compiles: test_cuda_compile.py times it. ARCHITECTURE is the backend's tag.
#include "mor/mor.cuh"

using Backend = mor::cuda::Backend<mor::bfloat16, mor::cuda::ARCHITECTURE>;
using Model = mor::RecursiveTransformer<mor::ExpertChoice<>, mor::RecursionWiseCache, mor::MiddleCycle, Backend>;

void train(Backend& backend, Model& model, mor::Batch const& batch, std::span<mor::Token const> targets) {
  model.parameters().enable_gradients();
  mor::train::Adamw<Backend> optimizer(backend, model.parameters(), {});
  model.parameters().zero_gradients();
  model.forward_backward(batch, targets, {}, {});
  optimizer.step(3e-4);
}
