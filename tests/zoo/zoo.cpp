// SPDX-License-Identifier: Apache-2.0
#include "zoo/zoo.hpp"

#include "mor/core/config_check.hpp"
#include "mor/core/philox.hpp"

namespace mor::test {

std::unique_ptr<ZooModel> make_zoo_model(ModelConfig const& config) {
  check(config, "zoo");
  switch (config.recursion.router) {
    case RouterKind::AllTokens: return make_all_tokens(config);
    case RouterKind::ExpertChoice: return make_expert_choice(config);
    case RouterKind::TokenChoice: return make_token_choice(config);
  }
  return nullptr;
}

std::vector<ModelConfig> all_configs() {
  std::vector<ModelConfig> configs;
  configs.push_back(tiny_config(RouterKind::AllTokens, CacheKind::RecursionWise, SharingKind::None));
  for (auto const cache : {CacheKind::RecursionWise, CacheKind::Shared, CacheKind::Hybrid}) {
    for (auto const sharing :
         {SharingKind::Cycle, SharingKind::MiddleCycle, SharingKind::Sequence, SharingKind::MiddleSequence}) {
      configs.push_back(tiny_config(RouterKind::AllTokens, cache, sharing));
    }
    for (auto const router : {RouterKind::ExpertChoice, RouterKind::TokenChoice}) {
      configs.push_back(tiny_config(router, cache, SharingKind::Cycle));
      configs.push_back(tiny_config(router, cache, SharingKind::MiddleCycle));
    }
  }
  return configs;
}

std::vector<double> all_gradients(ZooModel const& model) {
  std::vector<double> all;
  for (auto const& info : model.layout().all()) {
    auto const gradient = model.gradient(info.name);
    all.insert(all.end(), gradient.begin(), gradient.end());
  }
  return all;
}

std::vector<Token> OwnedBatch::targets() const {
  std::vector<Token> next(tokens.size(), -1);
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
    for (Row i = offsets[s]; i + 1 < offsets[s + 1]; ++i) {
      next[static_cast<std::size_t>(i)] = tokens[static_cast<std::size_t>(i) + 1];
    }
  }
  return next;
}

OwnedBatch random_batch(std::vector<Index> const& lengths, Index vocab_size, std::uint64_t seed) {
  OwnedBatch batch;
  batch.offsets.push_back(0);
  Philox const generator{stream_key(seed, 77)};
  for (Index const length : lengths) {
    for (Index i = 0; i < length; ++i) {
      auto const bits = generator.block(batch.tokens.size())[0];
      batch.tokens.push_back(static_cast<Token>(bits % static_cast<std::uint32_t>(vocab_size)));
      batch.positions.push_back(static_cast<Row>(i));
    }
    batch.offsets.push_back(static_cast<Row>(batch.tokens.size()));
  }
  return batch;
}

}  // namespace mor::test
