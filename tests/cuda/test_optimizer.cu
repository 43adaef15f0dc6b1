// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/guarded_rows.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/ops/optimizer.cuh"

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

/// Three updates next to the oracle's. `offsets` are those of gradients, weights, first and second moment.
void check_adamw(Index count, std::array<Index, 4> const& offsets) {
  CAPTURE(count, offsets[0], offsets[1], offsets[2], offsets[3]);
  test::Device device;
  auto w = test::random_values<float>(count, 1);
  std::vector<double> m(w.size()), v(w.size());
  Flat const weights(device, w, offsets[1]), first(device, m, offsets[2]), second(device, v, offsets[3]);
  test::DeviceMatrix<bfloat16> const narrow(device, 1, count + offsets[1]);
  AdamwStep step;
  step.learning_rate = 0.01;
  step.weight_decay = 0.1;
  step.gradient_scale = 0.5;
  test::Oracle oracle;
  for (step.step = 1; step.step <= 3; ++step.step) {
    auto const g = test::random_values<float>(count, 10 + static_cast<std::uint64_t>(step.step));
    Flat const gradients(device, g, offsets[0]);
    oracle.adamw(g, step, w, m, v);
    cuda::adamw(device.context(), gradients.span(), step, weights.span(), first.span(), second.span(),
                {nullptr, nullptr, narrow.span().data() + offsets[1]});
    REQUIRE(gradients.values() == g);
  }
  REQUIRE(test::relative_error(weights.values(), w) < test::kTolerance<float>);
  REQUIRE(test::relative_error(first.values(), m) < test::kTolerance<float>);
  REQUIRE(test::relative_error(second.values(), v) < test::kTolerance<float>);
  REQUIRE((weights.intact() && first.intact() && second.intact() && narrow.intact()));
  auto const all = narrow.values();
  REQUIRE(std::vector<double>(all.begin() + offsets[1], all.end()) == test::rounded<bfloat16>(weights.values()));
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

TEST_CASE("AdamW on the device takes a gradient scale from device memory, and may be told there to do nothing",
          "[cuda]") {
  test::Device device;
  Index const count = 1003;
  auto const w = test::random_values<float>(count, 1), g = test::random_values<float>(count, 2);
  auto const m = test::random_values<float>(count, 3);
  std::vector<double> const v(w.size(), 0.25);
  test::DeviceMatrix<float> const scale(device, 1, 1, std::vector<double>{0.25});
  test::DeviceRows const flags(device, {0, 1});
  test::settle();
  Flat const gradients(device, g, 0);
  AdamwStep step;
  step.learning_rate = 0.01;
  auto const run = [&](AdamwStep const& now, cuda::AdamwExtras const& extras) {
    Flat const weights(device, w, 0), first(device, m, 0), second(device, v, 0);
    cuda::adamw(device.context(), gradients.span(), now, weights.span(), first.span(), second.span(), extras);
    return std::array{weights.values(), first.values(), second.values()};
  };
  AdamwStep half = step, eighth = step;
  half.gradient_scale = 0.5;
  eighth.gradient_scale = 0.125;
  REQUIRE(run(half, {scale.span().data(), flags.read().data(), nullptr}) == run(eighth, {}));
  REQUIRE(run(half, {nullptr, flags.read().data() + 1, nullptr}) == std::array{w, m, v});
}

TEST_CASE("sums on the device are exact to a double, repeatable, and keep NaN and infinity", "[cuda]") {
  test::Device device;
  Buffer<double> const result(device.memory(), 2);
  for (Index const count : {Index{0}, Index{1}, Index{5}, Index{4096}, Index{4097}, Index{50021}, Index{5000000}}) {
    for (Index const offset : {Index{0}, Index{3}}) {
      CAPTURE(count, offset);
      auto values = test::random_values<float>(count, 1);
      double sum = 0.0, squares = 0.0, magnitude = 0.0;
      for (double const value : values) sum += value, squares += value * value, magnitude += std::abs(value);
      Flat const flat(device, values, offset);
      double first[2] = {};
      for (int run = 0; run < 2; ++run) {
        cuda::sum(device.context(), flat.span(), result.data());
        cuda::squared_norm(device.context(), flat.span(), result.data() + 1);
        double const now[2] = {read_one(result.data()), read_one(result.data() + 1)};
        REQUIRE(std::abs(now[0] - sum) <= 1e-12 * magnitude);
        REQUIRE(now[1] == Approx(squares).epsilon(1e-12));
        if (run == 1) REQUIRE((now[0] == first[0] && now[1] == first[1]));
        first[0] = now[0], first[1] = now[1];
      }
    }
  }
  auto values = test::random_values<float>(50021, 1);
  values[40000] = std::numeric_limits<double>::infinity();
  Flat const infinite(device, values, 0);
  values[10] = std::numeric_limits<double>::quiet_NaN();
  Flat const not_a_number(device, values, 0);
  Flat const large(device, std::vector<double>(3, 1e30), 0);
  cuda::squared_norm(device.context(), infinite.span(), result.data());
  REQUIRE(std::isinf(read_one(result.data())));
  cuda::squared_norm(device.context(), not_a_number.span(), result.data());
  REQUIRE(std::isnan(read_one(result.data())));
  cuda::squared_norm(device.context(), large.span(), result.data());
  REQUIRE(read_one(result.data()) == Approx(3e60));
}

TEST_CASE("the clipping factor on the device is the optimizer's", "[cuda]") {
  struct Clip {
    std::vector<double> squares;
    double max_norm, scale;
    Row not_finite;
  };
  double const infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  test::Device device;
  test::DeviceMatrix<float> const scale(device, 1, 1);
  test::GuardedRows const not_finite(device, 1);
  for (auto const& clip : {Clip{{16.0}, 1.0, 0.25, 0},
                           {{9.0, 16.0}, 1.0, 0.2, 0},
                           {{0.25}, 1.0, 1.0, 0},
                           {{16.0}, 0.0, 1.0, 0},
                           {{1.0}, 1.0, 1.0, 0},
                           {{infinity}, 1.0, 0.0, 1},
                           {{1.0, nan}, 1.0, 1.0, 1},
                           {{0.0}, 1.0, 1.0, 0}}) {
    CAPTURE(clip.squares, clip.max_norm);
    Buffer<double> const squares(device.memory(), static_cast<Index>(clip.squares.size()));
    cuda::check(
        cudaMemcpy(squares.data(), clip.squares.data(), clip.squares.size() * sizeof(double), cudaMemcpyHostToDevice),
        "cudaMemcpy");
    test::settle();
    cuda::clip_scale(device.context(), squares.span(), clip.max_norm, scale.span().data(), not_finite.span().data());
    REQUIRE(scale.values()[0] == static_cast<double>(static_cast<float>(clip.scale)));
    REQUIRE(not_finite.values()[0] == clip.not_finite);
    if (clip.squares.size() > 1) continue;
    cuda::fill(device.context(), not_finite.span(), Row{-1});
    cuda::clip_scale(device.context(), squares.data(), clip.max_norm, scale.span().data(), not_finite.span().data());
    REQUIRE(scale.values()[0] == static_cast<double>(static_cast<float>(clip.scale)));
    REQUIRE(not_finite.values()[0] == clip.not_finite);
  }
  REQUIRE((scale.intact() && not_finite.intact()));
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
