// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sizes and limits of a serving engine, and what it counts.
#pragma once

#include "mor/core/config.hpp"
#include "mor/core/error.hpp"
#include "mor/core/types.hpp"

#include <cmath>
#include <optional>
#include <string>
#include <vector>

namespace mor::infer {

struct EngineOptions {
  Index slots = 32;              ///< requests served at once
  Index context = 0;             ///< tokens of a text at most; 0: the model's
  Index page_size = 64;          ///< tokens of a page of keys
  /// Room for keys and values. 0: as much as every slot can need, and with `prefix_cache` a quarter more, for one text at
  /// least, so that kept keys have room beside the longest texts.
  Index cache_bytes = 0;
  Index prefill_chunk = 512;     ///< prompt tokens of a request in one tick at most
  /// Prompt tokens in flight at most. More of them are read faster, and hold up those that decode for longer. (With 64 slots all rows
  /// in flight are one pass of CUDA's kernels for lists.)
  Index prefill_rows = 960;
  Index queue = 1 << 20;         ///< requests that may wait
  /// A launch of more rows costs more, so where there may be more, and many of those may have left already (rows of prompts), the
  /// host waits to know how many there are; so it does where a scheduler has rows wait for others. Up to so many rows an upper bound does.
  Index few_rows = 64;
  Index ticks_in_flight = 2;     ///< launches that the host runs ahead of the device, where the device is not the host
  /// Ticks that a launch goes on for by itself, where the backend can (`PacesTicks`) and recursions run the same
  /// layers. It stops early where the host has something to do: a text has ended, or rows of a prompt are through.
  Index ticks_per_launch = 1;
  RoutingMode mode = RoutingMode::Threshold;  ///< or AuxRouter, or FullDepth
  /// Standard deviations of pages that are kept free for the requests that run; below 0 more are admitted than are expected to fit.
  double admission_margin = 1.0;
  bool prefix_cache = true;      ///< keep the keys of prompts for later requests that begin alike
  /// What a request gets depends on its own rows alone, bit for bit. The host always computes so; on CUDA products of many
  /// rows (prompts) are slower with it.
  bool row_invariant = false;
  std::optional<bool> pad_rows = {};  ///< launches have one of a few sizes; default: where launches are captured

  void check() const {
    auto const positive = [](Index value, char const* field, Index most = 1 << 20) {
      if (value >= 1 && value <= most) return;
      fail(ErrorCode::InvalidArgument, "an option of the engine is out of range", std::string("EngineOptions, ") + field,
           "1 .. " + text_of(most), text_of(value));
    };
    positive(slots, "slots");
    positive(page_size, "page_size");
    positive(prefill_chunk, "prefill_chunk");
    positive(prefill_rows, "prefill_rows");
    positive(queue, "queue");
    positive(ticks_in_flight, "ticks_in_flight");
    positive(ticks_per_launch, "ticks_per_launch", 1024);
    require(context >= 0 && cache_bytes >= 0, "an option of the engine is negative", "EngineOptions");
    require(std::isfinite(admission_margin), "an option of the engine is not finite", "EngineOptions, admission_margin");
    require(mode != RoutingMode::TopK, "top-k over a sequence is not causal: serve with Threshold, AuxRouter or FullDepth",
            "EngineOptions, mode");
  }
};

/// What an engine has counted since it was made, and how it stands.
struct EngineStatistics {
  Index queued = 0, running = 0;                ///< requests now
  Index submitted = 0, finished = 0, cancelled = 0, preempted = 0;
  Index free_pages = 0, total_pages = 0;        ///< of the recursion block
  Index free_end_pages = 0, total_end_pages = 0;  ///< of the unique layers
  Index cached_pages = 0;                       ///< held by the prefix cache alone
  Index prefix_hits = 0, prefix_tokens = 0;     ///< requests that began with kept keys, tokens saved
  Index ticks = 0, coda_ticks = 0;
  Index counted_ticks = 0;                      ///< of the ticks, those for which the host waited to know the number of rows
  Index launches = 0;                           ///< that ran these ticks: fewer where the device goes on by itself
  Index recursion_rows = 0, launched_rows = 0;  ///< rows that took a recursion; rows launched for them, padding included
  Index prompt_tokens = 0, new_tokens = 0;      ///< started as rows of prompts, again after a pre-emption; made
  std::vector<Index> depths = {};               ///< [Nr + 1] tokens read that took so many recursions
  /// Recursions of a token on average.
  [[nodiscard]] double mean_depth() const {
    double tokens = 0.0, taken = 0.0;
    for (std::size_t d = 0; d < depths.size(); ++d) {
      tokens += static_cast<double>(depths[d]);
      taken += static_cast<double>(d) * static_cast<double>(depths[d]);
    }
    return tokens > 0.0 ? taken / tokens : 0.0;
  }
};

}  // namespace mor::infer
