// SPDX-License-Identifier: Apache-2.0
/// @file
/// How large an engine's tables and its storage of keys are, from its model and options.
#pragma once

#include "mor/core/error.hpp"
#include "mor/core/types.hpp"
#include "mor/infer/engine_options.hpp"
#include "mor/infer/list_rules.hpp"
#include "mor/infer/planner_setup.hpp"

#include <algorithm>

namespace mor::infer {

/// Sizes of an engine's tables and storage. @param full_depth  every token takes every recursion, whatever the options say
template <class Model>
[[nodiscard]] PlannerSetup planner_setup(Model const& model, EngineOptions const& options, ListRules const& rules, bool full_depth) {
  auto const& config = model.config();
  auto const& schedule = model.schedule();
  PlannerSetup setup;
  setup.options = options;
  setup.vocab_size = config.transformer.vocab_size;
  setup.full_depth = full_depth || options.mode == RoutingMode::FullDepth || !Model::router_type::routes;
  Index const recursions = schedule.num_recursions();
  double visits = 0.0;
  for (Index r = 0; r < recursions; ++r) {
    setup.survival.push_back(setup.full_depth ? 1.0
                                              : static_cast<double>(recursions - r) / static_cast<double>(recursions));
    visits += r < rules.lists ? (rules.dense ? 1.0 : setup.survival.back()) : 0.0;
  }
  setup.shape = {options.slots, options.prefill_rows, recursions, options.context, options.page_size, rules.dense};
  setup.block_lists = rules.lists;
  setup.has_ends = !schedule.prelude.empty() || !schedule.coda.empty();
  check_sizes(setup);
  Index const per_list = setup.shape.pages_per_list();
  if (options.cache_bytes == 0) {
    Index const texts = options.slots + (options.prefix_cache ? std::max<Index>(options.slots / 4, 1) : 0);
    setup.block_pages = texts * rules.lists * per_list;
    setup.end_pages = setup.has_ends ? texts * per_list : 0;
  } else {
    using Scalar = typename Model::backend_type::scalar_type;
    double const layer = 2.0 * static_cast<double>(config.transformer.key_value_size() * options.page_size) * sizeof(Scalar);
    double const block = layer * static_cast<double>(schedule.block_layers());
    double const ends = layer * static_cast<double>(schedule.prelude.size() + schedule.coda.size());
    // Every token needs a place in the unique layers' pages, and `visits` in the block's; a tenth more for the rest of pages.
    double const share = 1.1 / visits;
    setup.block_pages = static_cast<Index>(static_cast<double>(options.cache_bytes) / (block + share * ends));
    setup.end_pages = setup.has_ends ? static_cast<Index>(share * static_cast<double>(setup.block_pages)) : 0;
    if (setup.block_pages < rules.lists || (setup.has_ends && setup.end_pages < 1)) {
      fail(ErrorCode::OutOfMemory, "the key storage has no room for one page of each list", "EngineOptions, cache_bytes",
           text_of(static_cast<Index>((block + ends) * static_cast<double>(rules.lists))) + " bytes or more",
           text_of(options.cache_bytes));
    }
  }
  check_sizes(setup);
  return setup;
}

}  // namespace mor::infer
