// SPDX-License-Identifier: Apache-2.0
// Launches of one depth: the depth that most rows wait for, and no row left behind.
#include "served/served.hpp"
#include "support/catch.hpp"

#include "mor/backend/host/serving_tables.hpp"

#include <algorithm>
#include <array>
#include <random>
#include <vector>

using namespace mor;
using namespace mor::test;

namespace {

/// Cells that come, go deeper and leave at random, and how many launches have left each of them waiting.
class Crowd {
 public:
  Crowd(Index cells, Index recursions, unsigned seed)
      : shape_{cells, 0, recursions, 4, 4, false},
        words_(static_cast<std::size_t>(ServingTables{shape_, nullptr}.size()), 0),
        passed_over_(static_cast<std::size_t>(cells), 0),
        engine_(seed) {
    for (Index cell = 0; cell < cells; ++cell) tables().at(tables().slot(cell)) = static_cast<Row>(cell);
  }

  /// Idle cells become Ready with probability `share`, at `popular` but for one in ten.
  void arrive(double share, Index popular) {
    for (Index cell = 0; cell < shape_.cells(); ++cell) {
      if (ready(cell) || std::uniform_real_distribution<double>()(engine_) >= share) continue;
      tables().at(tables().status(cell)) = static_cast<Row>(CellStatus::Ready);
      tables().at(tables().depth(cell)) = static_cast<Row>(draw(0, 9) == 0 ? draw(0, shape_.recursions - 1) : popular);
      passed_over_[static_cast<std::size_t>(cell)] = 0;
    }
  }
  /// Half of the cells of a launch go one deeper, the others leave.
  void launch() {
    std::vector<Row> at(static_cast<std::size_t>(shape_.recursions), 0);
    Row longest = 0;
    for (Index cell = 0; cell < shape_.cells(); ++cell) {
      if (!ready(cell)) continue;
      ++at[static_cast<std::size_t>(depth(cell))];
      longest = std::max(longest, passed_over_[static_cast<std::size_t>(cell)]);
    }
    std::array<std::vector<Row>, 8> lists;
    for (auto& list : lists) list.resize(static_cast<std::size_t>(shape_.cells()));
    std::vector<Row> count(1);
    host::start_recursion(tables(), {.one_depth = true}, {lists[0], lists[1], lists[2], lists[3], lists[4], lists[5], lists[6], lists[7],
                                           {}, {}, count});
    auto const rows = static_cast<std::size_t>(count[0]);
    auto const most = std::max_element(at.begin(), at.end());
    REQUIRE((rows > 0) == (*most > 0));
    if (rows == 0) return;
    auto const taken = static_cast<std::size_t>(lists[2][0]);
    REQUIRE(rows == static_cast<std::size_t>(at[taken]));  // all of the depth, and no other
    REQUIRE(std::all_of(lists[2].begin(), lists[2].begin() + count[0], [&](Row d) { return d == lists[2][0]; }));
    if (longest <= math::kPatience) REQUIRE(at[taken] == *most);
    for (std::size_t i = 0; i < rows; ++i) {
      Index const cell = lists[0][i];
      bool const on = depth(cell) + 1 < shape_.recursions && draw(0, 1) == 0;
      tables().at(tables().status(cell)) = static_cast<Row>(on ? CellStatus::Ready : CellStatus::Idle);
      if (on) ++tables().at(tables().depth(cell));
      passed_over_[static_cast<std::size_t>(cell)] = -1;
    }
    for (Index cell = 0; cell < shape_.cells(); ++cell) {
      if (ready(cell)) longest_ = std::max(longest_, ++passed_over_[static_cast<std::size_t>(cell)]);
    }
  }
  [[nodiscard]] Row longest() const { return longest_; }
  [[nodiscard]] Index draw(Index least, Index most) { return std::uniform_int_distribution<Index>(least, most)(engine_); }

 private:
  [[nodiscard]] ServingTables tables() { return {shape_, words_.data()}; }
  [[nodiscard]] bool ready(Index cell) { return tables().at(tables().status(cell)) == static_cast<Row>(CellStatus::Ready); }
  [[nodiscard]] Index depth(Index cell) { return tables().at(tables().depth(cell)); }

  ServingShape shape_;
  std::vector<Row> words_, passed_over_;
  std::mt19937 engine_;
  Row longest_ = 0;
};

}  // namespace

TEST_CASE("launches of one depth take all rows of the commonest one, and pass over none more often than they may") {
  for (Index const recursions : {1, 2, 3, 6}) {
    Row longest = 0;
    for (unsigned seed = 0; seed < 20; ++seed) {
      CAPTURE(recursions, seed);
      Crowd crowd(30, recursions, seed);
      Index popular = 0;
      for (int tick = 0; tick < 400; ++tick) {
        if (tick % 80 == 0) popular = crowd.draw(0, recursions - 1);
        crowd.arrive(seed % 4 == 0 ? 1.0 : 0.2 * (seed % 4), popular);
        crowd.launch();
      }
      REQUIRE(crowd.longest() <= math::kPatience + recursions);
      longest = std::max(longest, crowd.longest());
    }
    CHECK((longest > math::kPatience) == (recursions > 1));  // patience was tried
  }
}

TEST_CASE("with one depth a launch, a text that goes deep ends while shallow ones keep coming") {
  ServedSetup setup = tiny_setup();
  setup.options.slots = 8;
  setup.scheduler = Schedulers::Homogeneous;
  auto const served = make_served(setup);
  infer::Request deep, shallow;
  deep.prompt = shallow.prompt = {1, 2};
  deep.depth.min_depth = 3;
  deep.max_new_tokens = 5;
  shallow.depth.max_depth = 1;
  for (Index i = 0; i < 7; ++i) {
    shallow.max_new_tokens = 28 + 2 * i;  // they do not end together
    served->submit(shallow);
  }
  auto const id = served->submit(deep);
  bool ended = false;
  // The prompt at once and four tokens after it, each at 3 depths.
  Index const bound = 5 * 3 * (math::kPatience + 3 + 1) + 10;
  for (Index tick = 0; tick < bound && !ended; ++tick) {
    for (auto const& event : served->step()) {
      if (event.kind != infer::EventKind::Finished) continue;
      ended = ended || event.request == id;
      if (event.request != id) served->submit(shallow);
    }
  }
  CHECK(ended);
  CHECK(served->statistics().running == 7);
}
