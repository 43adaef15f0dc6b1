// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/guarded_rows.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/ops/routing.cuh"

#include <cmath>
#include <limits>

using namespace mor;

namespace {

/// An active set over a batch, on the host and on the device: candidate i is row 2 i + 1, at position 3 i.
class Candidates {
 public:
  Candidates(test::Device& device, std::vector<Row> offsets)
      : offsets_(std::move(offsets)),
        rows_(every(2, 1)),
        positions_(every(3, 0)),
        device_offsets_(device, offsets_),
        device_rows_(device, rows_),
        device_positions_(device, positions_) {}

  [[nodiscard]] ActiveSet<double> on_host() const {
    ActiveSet<double> set;
    describe(set);
    set.rows = rows_;
    set.positions = positions_;
    set.sequence_offsets = offsets_;
    return set;
  }
  [[nodiscard]] ActiveSet<float> on_device() const {
    ActiveSet<float> set;
    describe(set);
    set.rows = device_rows_.read();
    set.positions = device_positions_.read();
    set.sequence_offsets = device_offsets_.read();
    return set;
  }

 private:
  [[nodiscard]] std::vector<Row> every(Row step, Row first) const {
    std::vector<Row> rows;
    for (Row i = 0; i < offsets_.back(); ++i) rows.push_back(step * i + first);
    return rows;
  }
  template <class T>
  void describe(ActiveSet<T>& set) const {
    set.num_rows = offsets_.back();
    set.num_sequences = static_cast<Index>(offsets_.size()) - 1;
    set.host_offsets = offsets_;
  }

  std::vector<Row> offsets_, rows_, positions_;
  test::DeviceRows device_offsets_, device_rows_, device_positions_;
};

/// Room for a selection on the device.
struct Chosen {
  Chosen(test::Device& device, Row count)
      : rows(device, static_cast<std::size_t>(count)),
        positions(device, static_cast<std::size_t>(count)),
        slots(device, static_cast<std::size_t>(count)) {}
  [[nodiscard]] Selection selection() const { return {rows.span(), positions.span(), slots.span()}; }
  [[nodiscard]] bool intact() const { return rows.intact() && positions.intact() && slots.intact(); }
  test::GuardedRows rows, positions, slots;
};

/// The same on the host.
struct Expected {
  explicit Expected(Row count) : rows(static_cast<std::size_t>(count), -1), positions(rows), slots(rows) {}
  [[nodiscard]] Selection selection() { return {rows, positions, slots}; }
  std::vector<Row> rows, positions, slots;
};

void require_equal(Chosen const& chosen, Expected const& expected) {
  REQUIRE(chosen.slots.values() == expected.slots);
  REQUIRE(chosen.rows.values() == expected.rows);
  REQUIRE(chosen.positions.values() == expected.positions);
  REQUIRE(chosen.intact());
}

/// Selects `kept[s + 1] - kept[s]` candidates of every sequence on both sides, twice on the device.
void check_top_k(test::Device& device, std::vector<double> const& scores, std::vector<Row> const& offsets,
                 std::vector<Row> const& kept) {
  CAPTURE(offsets.size(), offsets.back(), kept.back());
  Candidates const candidates(device, offsets);
  Expected expected(kept.back());
  test::Oracle().select_top_k(scores, candidates.on_host(), kept, expected.selection());
  test::DeviceRows const device_kept(device, kept);
  test::DeviceMatrix<float> const device_scores(device, static_cast<Index>(scores.size()), 1, scores);
  for (int run = 0; run < 2; ++run) {
    Chosen const chosen(device, kept.back());
    cuda::select_top_k(device.context(), device_scores.span(), candidates.on_device(), kept, device_kept.read(),
                       chosen.selection());
    require_equal(chosen, expected);
  }
}

/// Offsets of sequences of these lengths.
std::vector<Row> offsets_of(std::vector<Row> const& lengths) {
  std::vector<Row> offsets{0};
  for (Row const length : lengths) offsets.push_back(offsets.back() + length);
  return offsets;
}

/// Random scores, on a grid of `levels` steps where that is not 0 (many ties).
std::vector<double> random_scores(Index count, std::uint64_t seed, double levels) {
  auto scores = test::random_values<float>(count, seed);
  for (double& score : scores) score = levels > 0 ? std::round(score * levels) / 16 : score;
  return scores;
}

double constexpr kInfinity = std::numeric_limits<double>::infinity();
double constexpr kNan = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("top-k on the device chooses the host's rows, ties to the lower position", "[cuda][quick]") {
  test::Device device;
  std::vector<double> const scores{3, 1, 3, 2, 3, /**/ -1, -1, -1, /**/ 5, /**/ 0, -0.0, 0};
  std::vector<Row> const offsets{0, 5, 8, 8, 9, 12};
  for (auto const& kept : std::vector<std::vector<Row>>{
           {0, 2, 3, 3, 4, 6}, {0, 4, 6, 6, 7, 8}, {0, 5, 8, 8, 9, 12}, {0, 0, 1, 1, 1, 1}, {0, 0, 0, 0, 0, 0}}) {
    check_top_k(device, scores, offsets, kept);
  }
}

TEST_CASE("top-k on the device ranks infinities in order and NaN last", "[cuda][quick]") {
  test::Device device;
  std::vector<double> const scores{kNan, -kInfinity, 1, kInfinity, -1, kNan, 1e-42, -1e-42};
  for (Row keep = 0; keep <= 8; ++keep) check_top_k(device, scores, {0, 8}, {0, keep});
}

TEST_CASE("top-k on the device agrees with the host for short, long and very long sequences", "[cuda][quick]") {
  test::Device device;
  double const levels = GENERATE(0.0, 20.0, 1.0);
  for (auto const& lengths : std::vector<std::vector<Row>>{{1},
                                                           {31, 32, 33, 0, 1},
                                                           {2048, 2047, 1, 2048},
                                                           {2049, 3, 0, 5000},
                                                           {8192, 100},
                                                           {8193},
                                                           {20000, 7, 0, 16384, 33}}) {
    auto const offsets = offsets_of(lengths);
    auto const scores = random_scores(offsets.back(), 5, levels);
    for (int const share : {1, 2, 7}) {
      std::vector<Row> kept;
      for (std::size_t s = 0; s < lengths.size(); ++s) {
        kept.push_back(std::min(lengths[s], static_cast<Row>(lengths[s] * share / 7 + static_cast<Row>(s % 2))));
      }
      check_top_k(device, scores, offsets, offsets_of(kept));
    }
  }
}

TEST_CASE("top-k on the device serves a training batch", "[cuda][quick]") {
  test::Device device;
  auto const offsets = offsets_of(std::vector<Row>(64, 2048));
  auto const scores = random_scores(offsets.back(), 9, 0.0);
  for (Row const keep : {1, 682, 1365, 2047, 2048})
    check_top_k(device, scores, offsets, offsets_of(std::vector<Row>(64, keep)));
}

TEST_CASE("thresholds count and choose the host's rows", "[cuda][quick]") {
  test::Device device;
  auto const offsets = offsets_of({3, 0, 2500, 1, 300, 8200});
  auto scores = random_scores(offsets.back(), 3, 0.0);
  scores[1] = kNan;
  scores[2] = -kInfinity;
  scores[10] = static_cast<double>(0.1F);
  Candidates const candidates(device, offsets);
  std::size_t const sequences = offsets.size() - 1;
  std::vector<double> thresholds{0.0,        0.1, static_cast<double>(0.1F), static_cast<double>(0.1F) + 1e-12,
                                 -kInfinity, kNan};
  for (int t = 0; t < 40; ++t) thresholds.push_back(0.05 * (t - 20));
  std::vector<Row> counts(thresholds.size() * sequences, -1), expected_counts(counts);
  test::Oracle host;
  host.count_at_least(scores, candidates.on_host(), thresholds, expected_counts);
  test::DeviceMatrix<float> const device_scores(device, static_cast<Index>(scores.size()), 1, scores);
  cuda::count_at_least(device.context(), device_scores.span(), candidates.on_device(), thresholds, counts);
  REQUIRE(counts == expected_counts);

  for (std::size_t const t : {0U, 1U, 2U, 3U, 4U, 5U, 30U}) {
    CAPTURE(thresholds[t]);
    auto const first = counts.begin() + static_cast<std::ptrdiff_t>(t * sequences);
    auto const kept = offsets_of({first, first + static_cast<std::ptrdiff_t>(sequences)});
    Expected expected(kept.back());
    host.select_at_least(scores, thresholds[t], candidates.on_host(), kept, expected.selection());
    test::DeviceRows const device_kept(device, kept);
    Chosen const chosen(device, kept.back());
    cuda::select_at_least(device.context(), device_scores.span(), thresholds[t], candidates.on_device(), kept,
                          device_kept.read(), chosen.selection());
    require_equal(chosen, expected);
  }
}

TEST_CASE("a threshold never writes more rows than were announced", "[cuda][quick]") {
  test::Device device;
  Candidates const candidates(device, {0, 4, 8});
  test::DeviceMatrix<float> const scores(device, 8, 1, std::vector<double>(8, 1.0));
  std::vector<Row> const kept{0, 2, 5};
  test::DeviceRows const device_kept(device, kept);
  Chosen const chosen(device, 5);
  cuda::select_at_least(device.context(), scores.span(), 0.5, candidates.on_device(), kept, device_kept.read(),
                        chosen.selection());
  REQUIRE(chosen.slots.values() == std::vector<Row>{0, 1, 4, 5, 6});
  REQUIRE(chosen.intact());
}

TEST_CASE("selections of nothing do nothing", "[cuda][quick]") {
  test::Device device;
  check_top_k(device, {}, {0}, {0});
  check_top_k(device, {}, {0, 0, 0}, {0, 0, 0});
  Candidates const candidates(device, {0, 0, 0});
  std::vector<Row> counts(2, -1);
  cuda::count_at_least(device.context(), {}, candidates.on_device(), std::vector<double>{0.0}, counts);
  REQUIRE(counts == std::vector<Row>{0, 0});
  cuda::count_at_least(device.context(), {}, candidates.on_device(), {}, {});
}

TEST_CASE("random scores on the device are the host's, bit for bit", "[cuda][quick]") {
  test::Device device;
  for (auto const& [rows, columns, padding] : {std::array<Index, 3>{0, 3, 0}, {1, 1, 0}, {33, 3, 5}, {4000, 2, 0}}) {
    CAPTURE(rows, columns);
    std::vector<Row> positions;
    for (Index i = 0; i < rows; ++i) positions.push_back(static_cast<Row>(i * 7919 % 100003));
    std::vector<double> expected(static_cast<std::size_t>(rows * columns));
    std::uint64_t const key = 0x123456789abcdef0ULL;
    test::Oracle().random_scores(key, 3, positions, {expected.data(), rows, columns});
    test::DeviceRows const device_positions(device, positions);
    test::DeviceMatrix<float> const out(device, rows, columns, padding);
    cuda::random_scores(device.context(), key, 3, device_positions.read(), out.view());
    REQUIRE(out.values() == test::rounded<float>(expected));
    REQUIRE(out.intact());
  }
}

TEST_CASE("gates and their gradients on the device follow the activation", "[cuda][quick]") {
  test::Device device;
  test::Oracle host;
  auto const activation = GENERATE(RouterActivation::Sigmoid, RouterActivation::Tanh, RouterActivation::None);
  double const alpha = 0.3;
  for (Index const candidates : {1, 7, 1000, 40000}) {
    CAPTURE(candidates);
    std::vector<Row> slots;
    for (Row i = 0; i < candidates; i += 1 + i % 3) slots.push_back(i);
    auto const count = static_cast<Index>(slots.size());
    auto logits = test::random_values<float>(candidates, 1);
    for (double& logit : logits) logit *= 4.0;
    auto const upstream = test::random_values<float>(count, 2), before = test::random_values<float>(candidates, 3);
    std::vector<double> gate(slots.size()), d_logits = before;
    host.router_gate(logits, slots, activation, alpha, gate);
    host.router_gate_backward(logits, slots, activation, alpha, upstream, d_logits);

    test::DeviceRows const device_slots(device, slots);
    test::DeviceMatrix<float> const device_logits(device, candidates, 1, logits),
        device_upstream(device, count, 1, upstream);
    test::DeviceMatrix<float> const device_gate(device, count, 1), device_d_logits(device, candidates, 1, before);
    cuda::router_gate(device.context(), device_logits.span(), device_slots.read(), activation, alpha,
                      device_gate.span());
    cuda::router_gate_backward(device.context(), device_logits.span(), device_slots.read(), activation, alpha,
                               device_upstream.span(), device_d_logits.span());
    REQUIRE(test::relative_error(device_gate.values(), gate) < test::kTolerance<float>);
    REQUIRE(test::relative_error(device_d_logits.values(), d_logits) < test::kTolerance<float>);
    REQUIRE((device_gate.intact() && device_d_logits.intact()));
  }
}

TEST_CASE("a gate of one logit on the device refuses softmax", "[cuda][quick]") {
  test::Device device;
  REQUIRE_THROWS_AS(cuda::router_gate(device.context(), {}, {}, RouterActivation::Softmax, 1.0, {}), mor::error);
  REQUIRE_THROWS_AS(cuda::router_gate_backward(device.context(), {}, {}, RouterActivation::Softmax, 1.0, {}, {}),
                    mor::error);
}
