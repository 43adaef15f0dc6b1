// SPDX-License-Identifier: Apache-2.0
#include "mor/backend/host/backend.hpp"
#include "mor/policy/expert_choice.hpp"
#include "served/served_holder.hpp"

namespace mor::test {

namespace {
template <class S>
std::unique_ptr<Served> with(ServedSetup const& setup, S scheduler) {
  return std::make_unique<ServedHolder<ExpertChoice<>, RecursionWiseCache, host::Backend<float>, S>>(setup, scheduler);
}
}  // namespace

std::unique_ptr<Served> make_served_shipped(ServedSetup const& setup) {
  switch (setup.scheduler) {
    case Schedulers::Tick: return with(setup, infer::TickScheduler{});
    case Schedulers::LazyTick: return with(setup, infer::LazyTickScheduler{setup.scheduled_rows});
    case Schedulers::FullBatch: return with(setup, infer::FullBatchScheduler{setup.scheduled_rows});
    case Schedulers::FullDepth: return with(setup, infer::FullDepthScheduler{});
    case Schedulers::NoRefill: return with(setup, infer::NoRefillScheduler{});
    case Schedulers::Homogeneous: return with(setup, infer::HomogeneousScheduler{});
  }
  return nullptr;
}

}  // namespace mor::test
