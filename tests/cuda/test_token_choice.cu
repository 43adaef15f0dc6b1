// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/ops/router_loss.cuh"
#include "mor/backend/cuda/ops/token_choice.cuh"

#include <algorithm>
#include <array>

using namespace mor;

namespace {

constexpr double kTolerance = test::kTolerance<float>;

std::vector<double> scaled(std::vector<double> values, double factor) {
  for (double& value : values) value *= factor;
  return test::rounded<float>(values);
}

/// The worst relative error of single elements: for statistics, which are sums of different things.
double worst_relative(std::vector<double> const& a, std::vector<double> const& b) {
  double worst = 0.0;
  for (std::size_t i = 0; i < b.size(); ++i) worst = std::max(worst, test::relative_error({a.at(i)}, {b[i]}));
  return a.size() == b.size() ? worst : 1.0;
}

/// The router's cross-entropy on both sides, twice on the device.
void check_bce(test::Device& device, std::vector<double> const& logits, std::vector<Row> const& slots,
               bool with_gradient) {
  auto const count = static_cast<Index>(logits.size());
  CAPTURE(count, slots.size(), with_gradient);
  double const weight = 0.4;
  std::vector<double> const before = test::random_values<float>(count, 3), start{10.0, 5.0};
  std::vector<double> statistics = start, d_logits = before;
  test::Oracle().router_bce(logits, slots, weight, statistics,
                            with_gradient ? std::span<double>(d_logits) : std::span<double>());
  test::DeviceRows const device_slots(device, slots);
  test::DeviceMatrix<float> const device_logits(device, count, 1, logits);
  std::vector<float> first_statistics, first_gradient;
  for (int run = 0; run < 2; ++run) {
    test::DeviceMatrix<float> const device_statistics(device, 2, 1, start), device_d_logits(device, count, 1, before);
    cuda::router_bce(device.context(), device_logits.span(), device_slots.read(), weight, device_statistics.span(),
                     with_gradient ? device_d_logits.span() : std::span<float>());
    REQUIRE(worst_relative(device_statistics.values(), statistics) < kTolerance);
    REQUIRE(device_statistics.values()[1] == statistics[1]);
    REQUIRE(test::relative_error(device_d_logits.values(), d_logits) < kTolerance);
    REQUIRE((device_statistics.intact() && device_d_logits.intact()));
    if (run == 1) REQUIRE(device_statistics.raw_values() == first_statistics);
    if (run == 1) REQUIRE(device_d_logits.raw_values() == first_gradient);
    first_statistics = device_statistics.raw_values();
    first_gradient = device_d_logits.raw_values();
  }
}

/// Logits that token choice sees, and a spread of choices.
struct Choices {
  Choices(Index rows, Index columns)
      : logits(scaled(test::random_values<float>(rows * columns, 1), 3.0)),
        probabilities(logits.size()),
        choice(static_cast<std::size_t>(rows)),
        gate(choice) {}
  std::vector<double> logits, probabilities, choice, gate;
};

}  // namespace

TEST_CASE("the router's cross-entropy on the device agrees with the host", "[cuda][quick]") {
  test::Device device;
  for (Index const count : {1, 3, 100, 1023, 1024, 1025, 5000, 131072}) {
    auto const logits = scaled(test::random_values<float>(count, 1), 4.0);
    std::vector<Row> some, all;
    for (Row i = 0; i < count; ++i) {
      all.push_back(i);
      if (i * 7919LL % 3 == 1) some.push_back(i);
    }
    check_bce(device, logits, some, true);
    check_bce(device, logits, some, false);
    check_bce(device, logits, all, true);
    check_bce(device, logits, {}, true);
    check_bce(device, logits, {static_cast<Row>(count - 1)}, true);
  }
  check_bce(device, {1000.0, -1000.0, 1000.0, -1000.0, 0.0}, {0, 1, 4}, true);
  check_bce(device, {}, {}, true);
}

TEST_CASE("the z-loss on the device agrees with the host", "[cuda][quick]") {
  test::Device device;
  for (auto const& [rows, columns, padding] :
       {std::array<Index, 3>{0, 3, 0}, {1, 1, 0}, {33, 3, 5}, {1000, 4, 0}, {777, 16, 1}, {131072, 1, 0}}) {
    CAPTURE(rows, columns);
    auto const logits = scaled(test::random_values<float>(rows * columns, 1), 3.0);
    auto const before = test::random_values<float>(rows * columns, 2);
    std::vector<double> statistics{2.0}, unused{2.0}, d_logits = before;
    test::Oracle().z_loss({logits.data(), rows, columns}, 0.4, statistics, {d_logits.data(), rows, columns});
    test::DeviceMatrix<float> const device_logits(device, rows, columns, logits, padding);
    std::vector<float> first_statistics, first_gradient;
    for (int run = 0; run < 2; ++run) {
      test::DeviceMatrix<float> const with(device, 1, 1, unused), without(device, 1, 1, unused);
      test::DeviceMatrix<float> const device_d_logits(device, rows, columns, before, padding);
      cuda::z_loss(device.context(), device_logits.read(), 0.4, with.span(), device_d_logits.view());
      cuda::z_loss(device.context(), device_logits.read(), 0.4, without.span(), View<float>{});
      REQUIRE(test::relative_error(with.values(), statistics) < kTolerance);
      REQUIRE(with.raw_values() == without.raw_values());
      REQUIRE(test::relative_error(device_d_logits.values(), d_logits) < kTolerance);
      REQUIRE((with.intact() && without.intact() && device_d_logits.intact()));
      if (run == 1) REQUIRE(with.raw_values() == first_statistics);
      if (run == 1) REQUIRE(device_d_logits.raw_values() == first_gradient);
      first_statistics = with.raw_values();
      first_gradient = device_d_logits.raw_values();
    }
  }
}

TEST_CASE("tokens on the device choose the host's depths", "[cuda][quick]") {
  test::Device device;
  test::Oracle host;
  auto const activation =
      GENERATE(RouterActivation::Softmax, RouterActivation::Sigmoid, RouterActivation::Tanh, RouterActivation::None);
  bool const full_depth = GENERATE(false, true);
  bool const with_bias = GENERATE(false, true);
  double const alpha = 0.3;
  for (auto const& [rows, columns, padding] :
       {std::array<Index, 3>{0, 3, 0}, {1, 1, 0}, {33, 3, 5}, {3000, 4, 0}, {777, 16, 1}}) {
    CAPTURE(rows, columns, full_depth, with_bias);
    Choices expected(rows, columns);
    if (rows > 2) std::fill_n(expected.logits.begin() + 2 * columns, columns, 0.5);  // a tie of all columns
    auto const bias = with_bias ? test::random_values<float>(columns, 4) : std::vector<double>{};
    host.token_choice({expected.logits.data(), rows, columns}, bias, activation, alpha, full_depth,
                      {expected.probabilities.data(), rows, columns}, expected.choice, expected.gate);
    test::DeviceMatrix<float> const logits(device, rows, columns, expected.logits, padding);
    test::DeviceMatrix<float> const device_bias(device, static_cast<Index>(bias.size()), 1, bias);
    test::DeviceMatrix<float> const probabilities(device, rows, columns, padding), choice(device, rows, 1),
        gate(device, rows, 1);
    cuda::token_choice(device.context(), logits.read(), device_bias.span(), activation, alpha, full_depth,
                       probabilities.view(), choice.span(), gate.span());
    REQUIRE(test::relative_error(probabilities.values(), expected.probabilities) < kTolerance);
    REQUIRE(choice.values() == expected.choice);
    REQUIRE(test::relative_error(gate.values(), expected.gate) < kTolerance);
    REQUIRE((probabilities.intact() && choice.intact() && gate.intact()));
  }
}

TEST_CASE("token-choice gradients on the device agree with the host", "[cuda][quick]") {
  test::Device device;
  test::Oracle host;
  auto const activation =
      GENERATE(RouterActivation::Softmax, RouterActivation::Sigmoid, RouterActivation::Tanh, RouterActivation::None);
  double const alpha = GENERATE(1.0, 0.1, 0.0);
  bool const with_gate = GENERATE(true, false);
  bool const with_probabilities = GENERATE(true, false);
  for (auto const& [rows, columns, padding] :
       {std::array<Index, 3>{0, 3, 0}, {1, 1, 0}, {33, 3, 5}, {3000, 4, 0}, {777, 16, 1}}) {
    CAPTURE(rows, columns, alpha, with_gate, with_probabilities);
    Choices forward(rows, columns);
    host.token_choice({forward.logits.data(), rows, columns}, {}, activation, alpha, false,
                      {forward.probabilities.data(), rows, columns}, forward.choice, forward.gate);
    auto const p = test::rounded<float>(forward.probabilities);
    auto const d_gate = test::random_values<float>(rows, 2), d_p = test::random_values<float>(rows * columns, 3);
    auto const before = test::random_values<float>(rows * columns, 4);
    auto d_logits = before;
    host.token_choice_backward(
        {p.data(), rows, columns}, forward.choice, activation, alpha,
        with_gate ? std::span<double const>(d_gate) : std::span<double const>(),
        with_probabilities ? View<double const>(d_p.data(), rows, columns) : View<double const>(),
        {d_logits.data(), rows, columns});
    test::DeviceMatrix<float> const device_p(device, rows, columns, p, padding),
        choice(device, rows, 1, forward.choice);
    test::DeviceMatrix<float> const device_d_gate(device, rows, 1, d_gate),
        device_d_p(device, rows, columns, d_p, padding);
    test::DeviceMatrix<float> const device_d_logits(device, rows, columns, before, padding);
    cuda::token_choice_backward(device.context(), device_p.read(), choice.span(), activation, alpha,
                                with_gate ? device_d_gate.span() : std::span<float>(),
                                with_probabilities ? device_d_p.read() : View<float const>(), device_d_logits.view());
    REQUIRE(test::relative_error(device_d_logits.values(), d_logits) < kTolerance);
    REQUIRE(device_d_logits.intact());
  }
}

TEST_CASE("combine weights on the device are the host's", "[cuda][quick]") {
  test::Device device;
  test::Oracle host;
  bool const gate_intermediate = GENERATE(true, false);
  bool const additive = GENERATE(true, false);
  for (Index const count : {0, 1, 7, 3000}) {
    CAPTURE(count, gate_intermediate, additive);
    std::vector<double> choice;
    std::vector<Row> rows;
    for (Row i = 0; i < count; ++i) {
      choice.push_back(i * 7919 % 4);
      if (i % 3 != 1) rows.push_back(i);
    }
    auto const kept = static_cast<Index>(rows.size());
    auto const gate = test::random_values<float>(count, 1), d_scale = test::random_values<float>(kept, 2);
    auto const before = test::random_values<float>(count, 3);
    std::vector<double> scale(rows.size()), keep(rows.size()), d_gate = before;
    host.token_choice_weights(choice, gate, rows, 2, gate_intermediate, additive, scale, keep);
    host.token_choice_weights_backward(choice, rows, 2, gate_intermediate, d_scale, d_gate);

    test::DeviceRows const device_rows(device, rows);
    test::DeviceMatrix<float> const device_choice(device, count, 1, choice), device_gate(device, count, 1, gate);
    test::DeviceMatrix<float> const device_d_scale(device, kept, 1, d_scale), device_d_gate(device, count, 1, before);
    test::DeviceMatrix<float> const device_scale(device, kept, 1), device_keep(device, kept, 1);
    cuda::token_choice_weights(device.context(), device_choice.span(), device_gate.span(), device_rows.read(), 2,
                               gate_intermediate, additive, device_scale.span(), device_keep.span());
    cuda::token_choice_weights_backward(device.context(), device_choice.span(), device_rows.read(), 2,
                                        gate_intermediate, device_d_scale.span(), device_d_gate.span());
    REQUIRE(device_scale.values() == scale);
    REQUIRE(device_keep.values() == keep);
    REQUIRE(test::relative_error(device_d_gate.values(), d_gate) < kTolerance);
    REQUIRE((device_scale.intact() && device_keep.intact() && device_d_gate.intact()));
  }
}

TEST_CASE("the balance loss on the device agrees with the host", "[cuda][quick]") {
  test::Device device;
  for (auto const& [rows, columns, padding] :
       {std::array<Index, 3>{0, 3, 0}, {1, 1, 0}, {5, 3, 2}, {1023, 4, 0}, {1025, 16, 1}, {131072, 3, 0}}) {
    CAPTURE(rows, columns);
    std::vector<double> p = test::random_values<float>(rows * columns, 1), choice;
    for (double& value : p) value = static_cast<double>(static_cast<float>(value * value));
    for (Index i = 0; i < rows; ++i) choice.push_back(static_cast<double>(i * 7919 % 5 % columns));
    std::vector<double> const start(static_cast<std::size_t>(columns + 1), 0.5);
    std::vector<double> statistics = start, d_p(p.size());
    test::Oracle().balance_loss({p.data(), rows, columns}, choice, 0.3, statistics, {d_p.data(), rows, columns});
    test::DeviceMatrix<float> const device_p(device, rows, columns, p, padding), device_choice(device, rows, 1, choice);
    std::vector<float> first;
    for (int run = 0; run < 2; ++run) {
      test::DeviceMatrix<float> const with(device, columns + 1, 1, start), without(device, columns + 1, 1, start);
      test::DeviceMatrix<float> const device_d_p(device, rows, columns, padding);
      cuda::balance_loss(device.context(), device_p.read(), device_choice.span(), 0.3, with.span(), device_d_p.view());
      cuda::balance_loss(device.context(), device_p.read(), device_choice.span(), 0.3, without.span(), View<float>{});
      REQUIRE(worst_relative(with.values(), statistics) < kTolerance);
      REQUIRE(with.raw_values() == without.raw_values());
      REQUIRE(test::relative_error(device_d_p.values(), d_p) < kTolerance);
      REQUIRE((with.intact() && without.intact() && device_d_p.intact()));
      if (run == 1) REQUIRE(with.raw_values() == first);
      first = with.raw_values();
    }
  }
}
