// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/ops/expert_step.cuh"
#include "mor/backend/cuda/tuning/architecture.hpp"

#include <cmath>

using namespace mor;

namespace {

/// Rows at mixed depths, in scattered cells.
template <class T>
struct Case {
  Case(test::Device& device_, Index rows_, Index cols_, Index padding, bool aux)
      : device(device_), rows(rows_), cols(cols_), cells_count(3 * rows_ + 1),
        y(test::random_values<T>(rows * cols, 1)), hidden(test::random_values<T>(cells_count * cols, 2)),
        routers(test::random_values<T>(3 * cols, 3)), deciders(test::random_values<T>(3 * cols, 4)),
        gate(test::random_values<float>(cells_count, 5)),
        device_y(device, rows, cols, y, padding), device_hidden(device, cells_count, cols, hidden, padding),
        device_routers(device, 3, cols, routers), device_deciders(device, 3, cols, deciders),
        device_gate(device, 1, cells_count, gate), scores(device, 1, rows) {
    for (Index i = 0; i < rows; ++i) {
      cells.push_back(static_cast<Row>(3 * (rows - 1 - i) + 1));  // any order
      depths.push_back(static_cast<Row>(i % 4));                 // the last recursion has no next router: the last one is read
    }
    step.routers.count = 3;
    step.deciders.count = aux ? 3 : 0;
    for (std::size_t r = 0; r < 3; ++r) {
      step.routers.vectors[r] = device_routers.read().row(static_cast<Index>(r));
      step.deciders.vectors[r] = device_deciders.read().row(static_cast<Index>(r));
    }
    step.scale = 0.5;
    step.alpha = 0.1;
  }
  [[nodiscard]] double dot(std::vector<double> const& weights, Index which, double const* x) const {
    double sum = 0.0;
    for (Index c = 0; c < cols; ++c) sum += x[c] * weights[static_cast<std::size_t>(which * cols + c)];
    return 0.5 * sum;
  }

  test::Device& device;
  Index rows, cols, cells_count;
  std::vector<double> y, hidden, routers, deciders, gate;
  test::DeviceMatrix<T> device_y, device_hidden, device_routers, device_deciders;
  test::DeviceMatrix<float> device_gate, scores;
  std::vector<Row> cells, depths;
  ExpertStep<T> step;
};

template <class T, class Arch>
void check_step(Index rows, Index cols, Index padding, bool aux, bool entry) {
  CAPTURE(rows, cols, padding, aux, entry);
  test::Device device;
  Case<T> c(device, rows, cols, padding, aux);
  if (entry) c.step.entry = c.step.deciders.vectors[2];  // a vector of its own
  test::DeviceRows const cells(device, c.cells), depths(device, c.depths);
  auto hidden = c.hidden, gate = c.gate;
  std::vector<double> scores;
  for (Index i = 0; i < rows; ++i) {
    auto const row = static_cast<std::size_t>(i);
    Index const cell = c.cells[row];
    Index const which = std::min<Index>(c.depths[row], 2);
    double* const h = &hidden[static_cast<std::size_t>(cell * cols)];
    if (entry && c.depths[row] == 0) gate[static_cast<std::size_t>(cell)] = 0.1 / (1.0 + std::exp(-c.dot(c.deciders, 2, h)));
    for (Index k = 0; k < cols; ++k) h[k] += gate[static_cast<std::size_t>(cell)] * c.y[static_cast<std::size_t>(i * cols + k)];
    auto const stored = test::rounded<T>(std::vector<double>(h, h + cols));
    double const logit = c.dot(c.routers, which, stored.data());
    gate[static_cast<std::size_t>(cell)] = 0.1 / (1.0 + std::exp(-logit));
    scores.push_back(aux ? c.dot(c.deciders, which, stored.data()) : logit);
  }
  cuda::expert_step<Arch>(device.context(), c.step, c.device_y.read(), cells.read(), depths.read(), c.device_hidden.view(),
                          c.device_gate.span(), c.scores.span());
  device.synchronize();
  CHECK(test::relative_error(c.device_hidden.values(), hidden) < test::kTolerance<T>);
  CHECK(test::relative_error(c.device_gate.values(), gate) < 5 * test::kTolerance<T>);
  CHECK(test::relative_error(c.scores.values(), scores) < 5 * test::kTolerance<T>);
  CHECK((c.device_hidden.intact() && c.device_gate.intact() && c.scores.intact()));
}

}  // namespace

TEST_CASE("an expert's step updates every row at its own depth and scores it with its own router", "[cuda]") {
  for (Index const rows : {1, 5, 67}) {
    for (bool const aux : {false, true}) {
      for (bool const entry : {false, true}) {
        check_step<bfloat16, cuda::Sm90>(rows, 960, 0, aux, entry);
        check_step<bfloat16, cuda::Sm90>(rows, 1400, 0, aux, entry);
        check_step<bfloat16, cuda::Sm80>(rows, 33, 3, aux, entry);
        check_step<float, cuda::Sm90>(rows, 96, 4, aux, entry);
      }
    }
  }
}

TEST_CASE("an expert's step gives a row the same bits alone and among others", "[cuda]") {
  test::Device device;
  Case<bfloat16> many(device, 67, 960, 0, false), again(device, 67, 960, 0, false);
  test::DeviceRows const cells(device, many.cells), depths(device, many.depths);
  cuda::expert_step<cuda::Sm90>(device.context(), many.step, many.device_y.read(), cells.read(), depths.read(),
                                many.device_hidden.view(), many.device_gate.span(), many.scores.span());
  device.synchronize();
  for (Index const row : {0, 5, 66}) {
    auto const at = static_cast<std::size_t>(row);
    cuda::expert_step<cuda::Sm90>(device.context(), again.step, again.device_y.read().row_range(row, 1),
                                  cells.read().subspan(at, 1), depths.read().subspan(at, 1), again.device_hidden.view(),
                                  again.device_gate.span(), again.scores.span());
    device.synchronize();
    CHECK(again.scores.raw_values()[0] == many.scores.raw_values()[at]);
  }
}
