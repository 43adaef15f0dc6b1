// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/ops/norm.cuh"

using namespace mor;

namespace {

struct Shape {
  Index rows, cols, padding;
};

/// Rows for a warp, for a block in registers, wider ones, and ones that 16-byte accesses do not fit.
constexpr Shape kShapes[] = {{0, 8, 0},     {1, 1, 0},    {1, 7, 0},      {1, 16, 0},    {3, 7, 0},
                             {5, 33, 3},    {9, 100, 4},  {3000, 24, 8},  {9001, 40, 8},  {2500, 33, 0}, {300, 576, 8},
                             {257, 960, 0}, {6, 1024, 1}, {5, 1032, 0},   {700, 968, 8}, {40, 2048, 8},
                             {9, 4096, 0},  {7, 4104, 8}, {600, 4104, 0}, {5, 5001, 0}};

template <class T>
void check_backward(Shape const& shape, Index offset) {
  auto const [rows, cols, padding] = shape;
  CAPTURE(rows, cols, padding, offset);
  test::Device device;
  auto const x = test::random_values<T>(rows * cols, 1), d_out = test::random_values<T>(rows * cols, 2);
  auto const w = test::random_values<T>(cols, 3), d_x_before = test::random_values<T>(rows * cols, 4);
  auto const d_w_before = test::random_values<float>(cols, 5);
  auto rstd = test::random_values<float>(rows, 6);
  for (double& value : rstd) value = std::abs(value) + 0.5;
  auto d_x = d_x_before, d_w = d_w_before;
  test::Oracle().rms_norm_backward({d_out.data(), rows, cols}, {x.data(), rows, cols}, w, rstd,
                                   {d_x.data(), rows, cols}, d_w);

  // `offset` elements in front of each row and of the weights spoil the alignment.
  auto const shifted = [offset](std::vector<double> const& values, Index height, Index width) {
    std::vector<double> result;
    for (Index i = 0; i < height; ++i) {
      result.insert(result.end(), static_cast<std::size_t>(offset), 1.0);
      result.insert(result.end(), values.begin() + i * width, values.begin() + (i + 1) * width);
    }
    return result;
  };
  Index const width = cols + offset;
  test::DeviceMatrix<T> const device_x(device, rows, width, shifted(x, rows, cols), padding);
  test::DeviceMatrix<T> const device_d_out(device, rows, width, shifted(d_out, rows, cols), padding);
  test::DeviceMatrix<T> const device_w(device, 1, width, shifted(w, 1, cols));
  test::DeviceMatrix<float> const device_rstd(device, 1, rows, rstd);
  std::vector<T> first_d_x;
  std::vector<float> first_d_w;
  for (int run = 0; run < 2; ++run) {
    test::DeviceMatrix<T> const device_d_x(device, rows, width, shifted(d_x_before, rows, cols), padding);
    test::DeviceMatrix<float> const device_d_w(device, 1, cols, d_w_before);
    cuda::rms_norm_backward<T>(device.context(), device_d_out.read().columns(offset, cols),
                               device_x.read().columns(offset, cols),
                               device_w.span().subspan(static_cast<std::size_t>(offset)), device_rstd.span(),
                               device_d_x.view().columns(offset, cols), device_d_w.span());
    REQUIRE(test::relative_error(device_d_x.values(), shifted(d_x, rows, cols)) < test::kTolerance<T>);
    REQUIRE(test::relative_error(device_d_w.values(), d_w) < test::kTolerance<float>);
    REQUIRE((device_d_x.intact() && device_d_w.intact()));
    if (run == 1) REQUIRE((device_d_x.raw_values() == first_d_x && device_d_w.raw_values() == first_d_w));
    first_d_x = device_d_x.raw_values();
    first_d_w = device_d_w.raw_values();
  }
}

}  // namespace

TEMPLATE_TEST_CASE("rms_norm on the device follows its definition", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  for (auto const& [rows, cols, padding] : kShapes) {
    CAPTURE(rows, cols, padding);
    auto const x = test::random_values<TestType>(rows * cols, 1), w = test::random_values<TestType>(cols, 2);
    std::vector<double> out(x.size()), rstd(static_cast<std::size_t>(rows));
    test::Oracle().rms_norm({x.data(), rows, cols}, w, 1e-5, {out.data(), rows, cols}, rstd);
    test::DeviceMatrix<TestType> const device_x(device, rows, cols, x, padding), device_w(device, 1, cols, w);
    test::DeviceMatrix<TestType> const device_out(device, rows, cols, padding), again(device, rows, cols);
    test::DeviceMatrix<float> const device_rstd(device, 1, rows), rstd_again(device, 1, rows);
    cuda::rms_norm<TestType>(device.context(), device_x.read(), device_w.span(), 1e-5, device_out.view(),
                             device_rstd.span());
    cuda::rms_norm<TestType>(device.context(), device_x.read(), device_w.span(), 1e-5, again.view(), rstd_again.span());
    REQUIRE(test::relative_error(device_out.values(), out) < test::kTolerance<TestType>);
    REQUIRE(test::relative_error(device_rstd.values(), rstd) < test::kTolerance<float>);
    REQUIRE((device_out.intact() && device_rstd.intact() && again.intact()));
    if (padding == 0) REQUIRE(device_out.raw_values() == again.raw_values());
    if (padding == 0) REQUIRE(device_rstd.raw_values() == rstd_again.raw_values());
  }
}

TEST_CASE("rms_norm on the device rounds the normalised value before the weight", "[cuda][quick]") {
  test::Device device;
  for (Index const cols : {Index{33}, Index{960}, Index{2048}}) {
    CAPTURE(cols);
    auto const x = test::random_values<bfloat16>(50 * cols, 1), w = test::random_values<bfloat16>(cols, 2);
    test::DeviceMatrix<bfloat16> const device_x(device, 50, cols, x), device_w(device, 1, cols, w);
    test::DeviceMatrix<bfloat16> const out(device, 50, cols);
    test::DeviceMatrix<float> const rstd(device, 1, 50);
    cuda::rms_norm<bfloat16>(device.context(), device_x.read(), device_w.span(), 1e-5, out.view(), rstd.span());
    auto const factors = rstd.raw_values();
    std::vector<double> expected;
    for (std::size_t n = 0; n < x.size(); ++n) {
      std::size_t const i = n / static_cast<std::size_t>(cols), j = n % static_cast<std::size_t>(cols);
      bfloat16 const normalised(static_cast<float>(x[n]) * factors[i]);
      expected.push_back(
          static_cast<double>(static_cast<float>(bfloat16(float{normalised} * static_cast<float>(w[j])))));
    }
    REQUIRE(out.values() == expected);
  }
}

TEMPLATE_TEST_CASE("rms_norm_backward on the device accumulates both gradients, the same bits in every run", "[cuda][quick]",
                   float, bfloat16) {
  for (auto const& shape : kShapes) check_backward<TestType>(shape, 0);
  for (auto const& shape : {Shape{20, 96, 0}, {3, 2048, 8}}) check_backward<TestType>(shape, 1);
}
