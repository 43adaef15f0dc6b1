// SPDX-License-Identifier: Apache-2.0
/// @file
/// `RecursiveTransformer`: a language model named by three policies and a backend. Vanilla and recursive Transformers are
/// the same class with the router `AllTokens`.
#pragma once

#include "mor/core/config_check.hpp"
#include "mor/model/policy_check.hpp"
#include "mor/model/recursive_model.hpp"

#include <concepts>
#include <utility>

namespace mor {

/// A Mixture-of-Recursions language model, or one of its baselines.
///
/// @tparam Router   who goes round again: `AllTokens`, `ExpertChoice<>`, `TokenChoice<>` or your own (policy/)
/// @tparam Cache    what attention may look at: `RecursionWiseCache`, `SharedCache`, `HybridCache` (policy/cache.hpp)
/// @tparam Sharing  which layers share weights: `NoSharing`, `Cycle`, `MiddleCycle`, ... (policy/sharing.hpp)
/// @tparam B        where it runs: `host::Backend<float>`, ... (backend/)
template <class Router, class Cache, class Sharing, class B>
class RecursiveTransformer : private detail::PolicyCheck<Router, Cache, Sharing, B>,
                             public detail::ModelBase<Router, Cache, Sharing, B>::type {
 public:
  using Base = typename detail::ModelBase<Router, Cache, Sharing, B>::type;
  using sharing_type = Sharing;

  /// The router is made from `config.recursion`. The policies' names in the configuration are set from the types.
  RecursiveTransformer(B& backend, ModelConfig const& config)
      : RecursiveTransformer(backend, config, make_router(named(config))) {}

  /// With a router that carries its own settings.
  RecursiveTransformer(B& backend, ModelConfig const& config, Router router)
      : Base(backend, named(config), std::move(router), Sharing::schedule(named(config))) {}

 private:
  static Router make_router(ModelConfig const& config) {
    if constexpr (std::constructible_from<Router, RecursionConfig const&>) {
      return Router(config.recursion);
    } else {
      static_assert(std::default_initializable<Router>,
                    "RecursiveTransformer: a router without a constructor from RecursionConfig or a default constructor "
                    "must be passed to the model's constructor.");
      return Router{};
    }
  }

  static ModelConfig named(ModelConfig config) {
    if constexpr (requires { Router::kind; }) config.recursion.router = Router::kind;
    if constexpr (requires { Cache::kind; }) config.recursion.cache = Cache::kind;
    if constexpr (requires { Sharing::kind; }) config.recursion.sharing = Sharing::kind;
    check(config, "RecursiveTransformer");
    return config;
  }
};

}  // namespace mor
