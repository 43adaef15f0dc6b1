// SPDX-License-Identifier: Apache-2.0
#include "mor/policy/expert_choice.hpp"
#include "zoo/zoo_impl.hpp"

namespace mor::test {
std::unique_ptr<ZooModel> make_expert_choice(ModelConfig const& config) { return make_with_router<ExpertChoice<>>(config); }
}  // namespace mor::test
