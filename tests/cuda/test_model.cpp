// SPDX-License-Identifier: Apache-2.0
// The whole model on the CUDA backend against the same model on the host, under every policy combination.
#include "support/catch.hpp"

#include "cuda/cuda_zoo.hpp"
#include "cuda/device_present.hpp"
#include "model/golden.hpp"

#include "mor/core/dtype.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

using namespace mor;
using namespace mor::test;

namespace {

double relative_error(std::vector<double> const& a, std::vector<double> const& b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  double difference = 0.0, size = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
  return difference == 0.0 ? 0.0 : std::sqrt(difference / std::max(size, 1e-300));
}

/// The same weights, which bf16 can hold, in both models.
void share_weights(ZooModel& host, ZooModel& device, std::uint64_t seed) {
  host.initialize(seed);
  for (auto const& info : host.layout().all()) {
    auto values = host.read(info.name);
    for (double& value : values) value = static_cast<double>(static_cast<float>(bfloat16(static_cast<float>(value))));
    host.write(info.name, values);
    device.write(info.name, values);
  }
}

/// Large enough for the tensor-core kernels: two heads of 64.
ModelConfig wide_config(ModelConfig config) {
  config.transformer.hidden_size = 128;
  config.transformer.intermediate_size = 192;
  config.transformer.head_dim = 64;
  config.transformer.vocab_size = 200;
  config.transformer.initializer_range = 0.08;
  return config;
}

struct Difference {
  double losses = 0.0, gradients = 0.0;
  std::string worst;
};

/// One training micro-batch on both.
Difference compare_training(ZooModel& host, ZooModel& device, OwnedBatch const& batch) {
  LossWeights const weights{0.1, 0.7};
  host.zero_gradients();
  device.zero_gradients();
  auto const expected = host.train(batch.view(), batch.targets(), {}, weights);
  auto const got = device.train(batch.view(), batch.targets(), {}, weights);
  Difference result;
  result.losses = relative_error({got.loss_sum, got.aux_loss, got.z_loss, got.balance_loss},
                                 {expected.loss_sum, expected.aux_loss, expected.z_loss, expected.balance_loss});
  for (auto const& info : host.layout().all()) {
    double const error = relative_error(device.gradient(info.name), host.gradient(info.name));
    if (error <= result.gradients) continue;
    result.gradients = error;
    result.worst = info.name;
  }
  return result;
}

/// Whether both took the same tokens through every recursion.
bool same_routing(ZooModel const& host, ZooModel const& device) {
  for (Index step = 0; step < host.config().recursion.num_recursions; ++step) {
    if (host.active_rows(step) != device.active_rows(step)) return false;
  }
  return host.depths() == device.depths();
}

}  // namespace

TEST_CASE("in float every policy combination trains as on the host", "[cuda]") {
  require_device();
  for (auto const& config : all_configs()) {
    CAPTURE(describe(config));
    auto const host = make_zoo_model(config), device = make_cuda_float(config);
    share_weights(*host, *device, 5);
    auto const difference = compare_training(*host, *device, random_batch({9, 1, 33, 20}, 13, 3));
    CAPTURE(difference.worst);
    REQUIRE(same_routing(*host, *device));
    REQUIRE(difference.losses < 1e-5);
    REQUIRE(difference.gradients < 5e-5);
  }
}

TEST_CASE("in float every routing mode gives the logits and depths of the host", "[cuda]") {
  require_device();
  for (auto config : all_configs()) {
    for (auto const sampling : {RouterSampling::AuxLoss, RouterSampling::AuxRouter}) {
      if (sampling == RouterSampling::AuxRouter && config.recursion.router != RouterKind::ExpertChoice) continue;
      config.recursion.sampling = sampling;
      auto const host = make_zoo_model(config), device = make_cuda_float(config);
      share_weights(*host, *device, 6);
      auto const batch = random_batch({9, 1, 33, 20}, 13, 4);
      for (auto const mode : {RoutingMode::TopK, RoutingMode::Threshold, RoutingMode::FullDepth}) {
        CAPTURE(describe(config), static_cast<int>(mode));
        auto const expected = host->forward(batch.view(), mode), got = device->forward(batch.view(), mode);
        REQUIRE(relative_error(got.values, expected.values) < 2e-5);
        REQUIRE(same_routing(*host, *device));
      }
    }
  }
}

TEST_CASE("on the device prefill and one token at a time give the logits of the whole", "[cuda]") {
  require_device();
  for (auto const& config : all_configs()) {
    CAPTURE(describe(config));
    auto const device = make_cuda_float(config);
    device->initialize(7);
    auto const whole = random_batch({24}, 13, 5);
    auto const expected = device->forward(whole.view(), RoutingMode::Threshold);
    device->start_cache(1, 24);
    std::vector<double> got;
    Index first = 0;
    for (Index const count : {Index{10}, Index{5}, Index{1}, Index{1}, Index{7}}) {
      auto const at = static_cast<std::size_t>(first), size = static_cast<std::size_t>(count);
      std::vector<Row> const offsets{0, static_cast<Row>(count)};
      Batch const part{std::span(whole.tokens).subspan(at, size), std::span(whole.positions).subspan(at, size), offsets};
      auto const logits = device->advance(part, RoutingMode::Threshold);
      got.insert(got.end(), logits.values.begin(), logits.values.end());
      first += count;
    }
    REQUIRE(relative_error(got, expected.values) < 2e-5);
  }
}

TEST_CASE("in bf16 every policy combination trains near the host", "[cuda]") {
  require_device();
  for (auto const& small : all_configs()) {
    auto const config = wide_config(small);
    CAPTURE(describe(config));
    auto const host = make_zoo_model(config), device = make_cuda_bfloat16(config);
    share_weights(*host, *device, 5);
    auto const batch = random_batch({150, 1, 70}, 200, 3);
    auto const difference = compare_training(*host, *device, batch);
    CAPTURE(difference.worst);
    // A rounding may move a token at the edge of a selection, and its gradient with it.
    bool const same = same_routing(*host, *device);
    REQUIRE(difference.losses < (same ? 1e-2 : 3e-2));
    REQUIRE(difference.gradients < (same ? 0.06 : 0.6));
  }
}

TEST_CASE("two runs on the device give the same bits", "[cuda]") {
  require_device();
  for (auto const& small : all_configs()) {
    auto const config = wide_config(small);
    CAPTURE(describe(config));
    auto const run = [&] {
      auto const device = make_cuda_bfloat16(config);
      device->initialize(9);
      device->zero_gradients();
      auto const batch = random_batch({150, 1, 70}, 200, 3);
      device->train(batch.view(), batch.targets(), {}, {0.1, 0.7});
      return all_gradients(*device);
    };
    REQUIRE(run() == run());
  }
}

TEST_CASE("activation recompute on the device gives the same bits", "[cuda]") {
  require_device();
  for (auto const& small : all_configs()) {
    auto const config = wide_config(small);
    CAPTURE(describe(config));
    auto const gradients = [&](Recompute level) {
      auto const device = make_cuda_bfloat16(config);
      device->initialize(9);
      device->set_recompute(level);
      device->zero_gradients();
      auto const batch = random_batch({150, 1, 70}, 200, 3);
      device->train(batch.view(), batch.targets(), {}, {0.1, 0.7});
      return all_gradients(*device);
    };
    auto const kept = gradients(Recompute::None);
    REQUIRE(gradients(Recompute::Pointwise) == kept);
    REQUIRE(gradients(Recompute::Mlp) == kept);
  }
}

TEST_CASE("in float the device gives every golden value of the specification", "[cuda]") {
  require_device();
  check_every_golden_value(make_cuda_float, 20.0);
}

TEST_CASE("a second step on the device asks for no memory", "[cuda][quick]") {
  require_device();
  for (auto const& config : all_configs()) {
    CAPTURE(describe(config));
    auto const device = make_cuda_float(config);
    device->initialize(9);
    auto const batch = random_batch({40, 30}, 13, 3);
    device->zero_gradients();
    device->train(batch.view(), batch.targets(), {}, {0.1, 0.7});
    device->train(batch.view(), batch.targets(), {}, {0.1, 0.7});
    Index const after = device->arena_allocations();
    device->train(batch.view(), batch.targets(), {}, {0.1, 0.7});
    REQUIRE(device->arena_allocations() == after);
  }
}
