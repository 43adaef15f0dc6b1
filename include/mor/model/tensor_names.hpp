// SPDX-License-Identifier: Apache-2.0
/// @file
/// Names of checkpoint tensors (mor-spec section 11): the Hugging Face Llama names, with the recursion in the prefix.
#pragma once

#include "mor/contract/router.hpp"
#include "mor/core/layer_schedule.hpp"

#include <string>
#include <vector>

namespace mor {

/// What stands before the tensor names of each unrolled layer, in execution order, e.g. "model.layers.2.block.0.".
[[nodiscard]] inline std::vector<std::string> layer_prefixes(LayerNaming naming, LayerSchedule const& schedule) {
  auto const numbered = [](Index layer) { return "model.layers." + std::to_string(layer) + "."; };
  Index const prelude = static_cast<Index>(schedule.prelude.size());
  Index const recursions = schedule.num_recursions();
  Index const block = schedule.block_layers();
  std::vector<std::string> prefixes;
  for (Index l = 0; l < prelude; ++l) prefixes.push_back(numbered(l));
  for (Index r = 0; r < recursions; ++r) {
    for (Index j = 0; j < block; ++j) {
      auto const inner = std::to_string(j) + ".";
      switch (naming) {
        case LayerNaming::Unrolled: prefixes.push_back(numbered(prelude + r * block + j)); break;
        case LayerNaming::BlockPerRecursion: prefixes.push_back(numbered(prelude + r) + "block." + inner); break;
        case LayerNaming::BlockList:
          prefixes.push_back(numbered(prelude) + "block_list." + std::to_string(r) + "." + inner);
          break;
      }
    }
  }
  Index const first_coda = naming == LayerNaming::Unrolled            ? prelude + recursions * block
                           : naming == LayerNaming::BlockPerRecursion ? prelude + recursions
                                                                      : prelude + 1;
  for (Index l = 0; l < static_cast<Index>(schedule.coda.size()); ++l) prefixes.push_back(numbered(first_coda + l));
  return prefixes;
}

/// What stands before `mor_router.` in each recursion.
[[nodiscard]] inline RouterNames router_names(LayerNaming naming, LayerSchedule const& schedule) {
  RouterNames names;
  Index const prelude = static_cast<Index>(schedule.prelude.size());
  for (Index r = 0; r < schedule.num_recursions(); ++r) {
    Index const layer = naming == LayerNaming::BlockList           ? prelude
                        : naming == LayerNaming::BlockPerRecursion ? prelude + r
                                                                   : prelude + r * schedule.block_layers();
    names.prefix.push_back("model.layers." + std::to_string(layer) + ".");
  }
  return names;
}

}  // namespace mor
