// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a backend may add to `ServingBackend` so that several ticks of an engine run in one launch: work that goes
/// round again without the host, and the verb that ends such a tick.
#pragma once

#include "mor/contract/serving.hpp"
#include "mor/core/serving_tables.hpp"

#include <cstdint>

namespace mor {

namespace detail {
/// Work that `run_while` might run; has a name, since nvcc takes no lambda in a concept.
template <class Loop>
struct LoopedWork {
  void operator()(Loop const&) const {}
};
}  // namespace detail

/// Optional. `Replays::run_while(key, work)`: as `run`, but the work goes round again, without the host, for as long as
/// the `end_tick` in it says so. It may also run once, where the work has still to be captured, or cannot be.
/// `Replays::Loop`: what the work is called with, for `end_tick`.
/// end_tick(tables, report, log, loop): the last verb of a tick. Adds the tick's report to the log. The work goes round
/// again where it can, unless the launch has run `log.most` ticks, or some tick that calls for the host is not yet
/// answered (`TickLog::Calls`, `ServingTables::answered`), or no rows remain (`math::rows_remain`).
template <class B>
concept PacesTicks =
    ServingControl<B> && requires(B& b, ServingTables const& tables, ServingReport const& report, TickLog const& log,
                                  typename B::Replays& replays, typename B::Replays::Loop const& loop) {
      b.end_tick(tables, report, log, loop);
      replays.run_while(std::uint64_t{0}, detail::LoopedWork<typename B::Replays::Loop>{});
    };

}  // namespace mor
