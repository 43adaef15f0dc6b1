// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/guarded_rows.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/ops/optimizer.cuh"
#include "mor/math/update.hpp"

#include <array>
#include <cmath>
#include <limits>

using namespace mor;

namespace {

constexpr Index kCounts[] = {0, 1, 3, 7, 16, 1021, 10007, 70000};

/// A flat buffer whose first element is `offset` floats past a 16-byte boundary.
class Flat {
 public:
  Flat(test::Device& device, std::vector<double> const& values, Index offset)
      : offset_(static_cast<std::size_t>(offset)), matrix_(device, 1, static_cast<Index>(values.size()) + offset, [&] {
          std::vector<double> all(static_cast<std::size_t>(offset), 3.0);
          all.insert(all.end(), values.begin(), values.end());
          return all;
        }()) {}
  [[nodiscard]] std::span<float> span() const { return matrix_.span().subspan(offset_); }
  [[nodiscard]] std::vector<double> values() const {
    auto const all = matrix_.values();
    for (std::size_t i = 0; i < offset_; ++i) REQUIRE(all[i] == 3.0);
    return {all.begin() + static_cast<std::ptrdiff_t>(offset_), all.end()};
  }
  [[nodiscard]] bool intact() const { return matrix_.intact(); }

 private:
  std::size_t offset_;
  test::DeviceMatrix<float> matrix_;
};

/// One value of device memory, after all work is done.
template <class T>
T read_one(T const* pointer) {
  test::settle();
  T value{};
  cuda::check(cudaMemcpy(&value, pointer, sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
  return value;
}

/// A record on the device.
class DeviceRecord {
 public:
  DeviceRecord(test::Device& device, UpdateRecord<float> const& record) : buffer_(device.memory(), 1) { write(record); }
  void write(UpdateRecord<float> const& record) {
    test::settle();
    cuda::check(cudaMemcpy(buffer_.data(), &record, sizeof record, cudaMemcpyHostToDevice), "cudaMemcpy");
    test::settle();
  }
  [[nodiscard]] UpdateRecord<float>* data() const { return buffer_.data(); }
  [[nodiscard]] UpdateRecord<float> value() const {
    UpdateRecord<float> const* const record = buffer_.data();
    return read_one(record);
  }

 private:
  Buffer<UpdateRecord<float>> buffer_;
};

/// Where update number `t` is made, or not.
UpdateRecord<float> record_of(AdamwSettings const& settings, int t, bool applied) {
  UpdateRecord<float> record;
  record.main.gradient_scale = 3.0F;  // of the other group: must not be used
  record.aux_router.gradient_scale = 0.5F;
  record.aux_router.learning_rate = 0.01F;
  record.first_correction = static_cast<float>(1.0 / (1.0 - std::pow(settings.beta1, t)));
  record.second_correction = static_cast<float>(1.0 / (1.0 - std::pow(settings.beta2, t)));
  record.applied = applied ? 1 : 0;
  return record;
}
UpdateRecord<double> wide(UpdateRecord<float> const& record) {
  UpdateRecord<double> result;
  result.aux_router.gradient_scale = record.aux_router.gradient_scale;
  result.aux_router.learning_rate = record.aux_router.learning_rate;
  result.first_correction = record.first_correction;
  result.second_correction = record.second_correction;
  result.applied = record.applied;
  return result;
}

/// Three updates next to the oracle's, and one that is not made. `offsets` are those of gradients, weights, first and
/// second moment.
void check_adamw(Index count, std::array<Index, 4> const& offsets) {
  CAPTURE(count, offsets[0], offsets[1], offsets[2], offsets[3]);
  test::Device device;
  auto w = test::random_values<float>(count, 1);
  std::vector<double> m(w.size()), v(w.size());
  Flat const weights(device, w, offsets[1]), first(device, m, offsets[2]), second(device, v, offsets[3]);
  test::DeviceMatrix<bfloat16> const narrow(device, 1, count + offsets[1]);
  AdamwSettings const settings;
  test::Oracle oracle;
  DeviceRecord record(device, {});
  for (int t = 1; t <= 4; ++t) {
    auto const g = test::random_values<float>(count, 10 + static_cast<std::uint64_t>(t));
    Flat const gradients(device, g, offsets[0]);
    auto const of_step = record_of(settings, t, t < 4);
    record.write(of_step);
    auto const of_oracle = wide(of_step);
    auto const group = ParameterGroup::AuxRouter;
    oracle.adamw(g, settings, group, std::span<UpdateRecord<double> const>(&of_oracle, 1), w, m, v);
    cuda::adamw(device.context(), gradients.span(), settings, group, record.data(), weights.span(), first.span(),
                second.span(), narrow.span().data() + offsets[1]);
    REQUIRE(gradients.values() == g);
  }
  REQUIRE(test::relative_error(weights.values(), w) < test::kTolerance<float>);
  REQUIRE(test::relative_error(first.values(), m) < test::kTolerance<float>);
  REQUIRE(test::relative_error(second.values(), v) < test::kTolerance<float>);
  REQUIRE((weights.intact() && first.intact() && second.intact() && narrow.intact()));
  auto const all = narrow.values();
  REQUIRE(std::vector<double>(all.begin() + offsets[1], all.end()) == test::rounded<bfloat16>(weights.values()));
}

/// The squares of the main group that the device collects, beside those that were there.
double squares(test::Device& device, Flat const& values, double before = 0.0) {
  UpdateRecord<float> start;
  start.main.squares = before;
  start.aux_router.squares = 5.0;
  DeviceRecord const record(device, start);
  cuda::add_squares(device.context(), values.span(), ParameterGroup::Main, record.data());
  REQUIRE(record.value().aux_router.squares == 5.0);
  return record.value().main.squares;
}

}  // namespace

TEST_CASE("AdamW on the device follows its formula on buffers of any alignment", "[cuda][quick]") {
  for (Index const count : kCounts) {
    check_adamw(count, {0, 0, 0, 0});
    check_adamw(count, {3, 3, 3, 3});
    check_adamw(count, {1, 1, 1, 1});
    check_adamw(count, {0, 1, 2, 3});
  }
}

TEST_CASE("an update that the record forbids writes nothing on the device", "[cuda]") {
  test::Device device;
  Index const count = 1003;
  auto const w = test::random_values<float>(count, 1), m = test::random_values<float>(count, 3);
  std::vector<double> const v(w.size(), 0.25);
  AdamwSettings const settings;
  DeviceRecord const record(device, record_of(settings, 1, false));
  for (Index const offset : {Index{0}, Index{1}}) {
    Flat const gradients(device, std::vector<double>(w.size(), std::numeric_limits<double>::quiet_NaN()), 0);
    Flat const weights(device, w, offset), first(device, m, 0), second(device, v, 0);
    test::DeviceMatrix<bfloat16> const narrow(device, 1, count, test::rounded<bfloat16>(m));
    cuda::adamw(device.context(), gradients.span(), settings, ParameterGroup::Main, record.data(), weights.span(),
                first.span(), second.span(), narrow.span().data());
    REQUIRE(weights.values() == w);
    REQUIRE(first.values() == m);
    REQUIRE(second.values() == v);
    REQUIRE(narrow.values() == test::rounded<bfloat16>(m));
  }
}

TEST_CASE("sums on the device are exact to a double, repeatable, and keep NaN and infinity", "[cuda]") {
  test::Device device;
  Buffer<double> const result(device.memory(), 1);
  for (Index const count : {Index{0}, Index{1}, Index{5}, Index{4096}, Index{4097}, Index{50021}, Index{5000000}}) {
    for (Index const offset : {Index{0}, Index{3}}) {
      CAPTURE(count, offset);
      auto values = test::random_values<float>(count, 1);
      double sum = 0.0, squared = 0.0, magnitude = 0.0;
      for (double const value : values) sum += value, squared += value * value, magnitude += std::abs(value);
      Flat const flat(device, values, offset);
      double first[3] = {};
      for (int run = 0; run < 2; ++run) {
        UpdateRecord<float> start;
        start.collected_loss = 2.0;
        DeviceRecord const record(device, start);
        cuda::sum(device.context(), flat.span(), result.data());
        cuda::add_loss(device.context(), flat.span(), 0.25, record.data());
        double const now[3] = {read_one(result.data()), squares(device, flat, 3.0), record.value().collected_loss};
        REQUIRE(std::abs(now[0] - sum) <= 1e-12 * magnitude);
        REQUIRE(now[1] == Approx(3.0 + squared).epsilon(1e-12));
        REQUIRE(std::abs(now[2] - (2.0 + 0.25 * sum)) <= 1e-12 * (2.0 + magnitude));
        if (run == 1) REQUIRE((now[0] == first[0] && now[1] == first[1] && now[2] == first[2]));
        for (int i = 0; i < 3; ++i) first[i] = now[i];
      }
    }
  }
  auto values = test::random_values<float>(50021, 1);
  values[40000] = std::numeric_limits<double>::infinity();
  REQUIRE(std::isinf(squares(device, Flat(device, values, 0))));
  values[10] = std::numeric_limits<double>::quiet_NaN();
  REQUIRE(std::isnan(squares(device, Flat(device, values, 0))));
  REQUIRE(squares(device, Flat(device, std::vector<double>(3, 1e30), 0)) == Approx(3e60));
}

TEST_CASE("the device decides on an update as the host does", "[cuda]") {
  struct Collected {
    double main, aux_router, loss;
  };
  double const infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  test::Device device;
  test::DeviceMatrix<float> const learning_rate(device, 1, 1, std::vector<double>{0.25});
  AdamwSettings settings;
  UpdateRecord<float> expected;
  expected.updates = 41;
  DeviceRecord record(device, expected);
  for (double const clip : {1.0, 0.0}) {
    settings.clip_norm = clip;
    for (auto const& collected : {Collected{16.0, 0.25, 3.0},
                                  {2.0, 7.0, 0.0},
                                  {0.0, 0.0, -1.0},
                                  {infinity, 1.0, 1.0},
                                  {1.0, nan, 1.0},
                                  {1.0, 1.0, nan},
                                  {1.0, 1.0, -infinity},
                                  {1e41, 1.0, 1.0},
                                  {1.0, 1.0, 1e21},
                                  {1e38, 1e39, 1e19}}) {
      CAPTURE(clip, collected.main, collected.aux_router, collected.loss);
      expected.main.squares = collected.main;
      expected.aux_router.squares = collected.aux_router;
      expected.collected_loss = collected.loss;
      record.write(expected);
      cuda::decide_update(device.context(), settings, learning_rate.read().data, record.data());
      math::decide_update(settings, 0.25F, expected);
      auto const got = record.value();
      auto const same = [](double a, double b) { return std::isnan(b) ? std::isnan(a) : a == b; };
      for (auto const group : {ParameterGroup::Main, ParameterGroup::AuxRouter}) {
        REQUIRE(got.group(group).squares == 0.0);
        REQUIRE(same(got.group(group).norm, expected.group(group).norm));
        REQUIRE(got.group(group).gradient_scale == expected.group(group).gradient_scale);
        REQUIRE(got.group(group).learning_rate == expected.group(group).learning_rate);
      }
      REQUIRE(same(got.loss, expected.loss));
      REQUIRE(got.collected_loss == 0.0);
      REQUIRE((got.applied == expected.applied && got.updates == expected.updates && got.skipped == expected.skipped));
      REQUIRE(got.first_correction == Approx(expected.first_correction).epsilon(1e-6));
      REQUIRE(got.second_correction == Approx(expected.second_correction).epsilon(1e-6));
    }
  }
  REQUIRE((expected.updates == 49 && expected.skipped == 12));
}

TEMPLATE_TEST_CASE("casting weights on the device rounds to nearest even", "[cuda]", float, bfloat16) {
  test::Device device;
  for (Index const count : kCounts) {
    for (Index const offset : {Index{0}, Index{1}}) {
      CAPTURE(count, offset);
      auto const master = test::random_values<float>(count, 1);
      Flat const from(device, master, offset);
      test::DeviceMatrix<TestType> const to(device, 1, count);
      cuda::cast_weights<TestType>(device.context(), from.span(), to.span());
      REQUIRE(to.values() == test::rounded<TestType>(master));
      REQUIRE(to.intact());
    }
  }
}
