// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/ops/rows.cuh"

using namespace mor;

namespace {

struct Shape {
  Index rows, cols, padding;
};

constexpr Shape kShapes[] = {{1, 1, 0},    {1, 7, 0},   {3, 7, 0},   {33, 33, 3},   {40, 100, 4}, {40, 64, 8},
                             {3000, 3, 0}, {300, 1, 0}, {71, 96, 0}, {200, 960, 8}, {13, 2568, 0}};

/// Every third row is left out; with `which` 0 all are.
std::vector<Row> some_rows(Index rows, int which) {
  std::vector<Row> list;
  for (Row i = 0; which != 0 && i < rows; ++i) {
    if (which == 2 || i % 3 != 1) list.push_back(i);
  }
  return list;
}

/// Batch and active rows of one shape on host and device.
template <class T>
struct Case {
  Case(test::Device& device_, Shape const& shape, int which)
      : device(device_),
        all(shape.rows),
        cols(shape.cols),
        padding(shape.padding),
        rows(some_rows(shape.rows, which)),
        kept(static_cast<Index>(rows.size())),
        device_rows(device, rows),
        x(test::random_values<T>(all * cols, 1)),
        y(test::random_values<T>(kept * cols, 2)),
        scale(test::random_values<float>(kept, 3)),
        keep(test::random_values<float>(kept, 4)),
        device_x(device, all, cols, x, padding),
        device_y(device, kept, cols, y, padding),
        device_scale(device, 1, kept, scale),
        device_keep(device, 1, kept, keep) {}

  test::Device& device;
  Index all, cols, padding;
  std::vector<Row> rows;
  Index kept;
  test::DeviceRows device_rows;
  std::vector<double> x, y, scale, keep;
  test::DeviceMatrix<T> device_x, device_y;
  test::DeviceMatrix<float> device_scale, device_keep;

  /// Runs the operation on two fresh matrices that start as `before` (poison where it is empty).
  template <class Operation>
  void check(Index height, std::vector<double> const& before, std::vector<double> const& expected, double tolerance,
             Operation operation) {
    test::DeviceMatrix<T> const out(device, height, cols, before, padding),
        again(device, height, cols, before, padding);
    operation(out.view());
    operation(again.view());
    REQUIRE(test::relative_error(out.values(), expected) <= tolerance);
    REQUIRE(out.intact());
    REQUIRE(out.raw_values() == again.raw_values());
  }
};

template <class T>
void check_moves(Case<T>& c) {
  cuda::Context const context = c.device.context();
  auto const rows = c.device_rows.read();
  test::Oracle oracle;
  View<double const> const x(c.x.data(), c.all, c.cols), y(c.y.data(), c.kept, c.cols);
  std::vector<Row> const from(c.rows.rbegin(), c.rows.rend());
  test::DeviceRows const device_from(c.device, from);
  auto const before = test::random_values<T>(c.all * c.cols, 7);
  auto gathered = c.y, scattered = c.x, moved = before, added = c.x, zeroed = c.x;
  oracle.gather_rows(x, c.rows, {gathered.data(), c.kept, c.cols});
  oracle.scatter_rows(y, c.rows, {scattered.data(), c.all, c.cols});
  oracle.move_rows(x, from, c.rows, {moved.data(), c.all, c.cols});
  oracle.scatter_add_rows(y, c.rows, {added.data(), c.all, c.cols});
  oracle.zero_rows(c.rows, {zeroed.data(), c.all, c.cols});
  c.check(c.kept, {}, gathered, 0.0, [&](View<T> out) { cuda::gather_rows<T>(context, c.device_x.read(), rows, out); });
  c.check(c.all, c.x, scattered, 0.0,
          [&](View<T> out) { cuda::scatter_rows<T>(context, c.device_y.read(), rows, out); });
  c.check(c.all, before, moved, 0.0,
          [&](View<T> out) { cuda::move_rows<T>(context, c.device_x.read(), device_from.read(), rows, out); });
  c.check(c.all, c.x, test::rounded<T>(added), 0.0,
          [&](View<T> out) { cuda::scatter_add_rows<T>(context, c.device_y.read(), rows, out); });
  c.check(c.all, c.x, zeroed, 0.0, [&](View<T> out) { cuda::zero_rows<T>(context, rows, out); });
}

/// combine with a base of its own and with the stream as base, and the gradient that goes to the base.
template <class T>
void check_combine(Case<T>& c, bool with_scale, bool with_keep) {
  CAPTURE(with_scale, with_keep);
  cuda::Context const context = c.device.context();
  auto const rows = c.device_rows.read();
  auto const scale = with_scale ? c.scale : std::vector<double>{}, keep = with_keep ? c.keep : std::vector<double>{};
  std::span<float const> device_scale, device_keep;
  if (with_scale) device_scale = c.device_scale.span();
  if (with_keep) device_keep = c.device_keep.span();
  auto const before = test::random_values<T>(c.all * c.cols, 5);
  View<double const> const x(c.x.data(), c.all, c.cols), y(c.y.data(), c.kept, c.cols);
  test::Oracle oracle;
  auto apart = before, in_place = before, to_base = before;
  oracle.combine(y, scale, keep, c.rows, x, {apart.data(), c.all, c.cols});
  oracle.combine(y, scale, keep, c.rows, {in_place.data(), c.all, c.cols}, {in_place.data(), c.all, c.cols});
  oracle.scale_add_rows(x, scale, c.rows, {to_base.data(), c.all, c.cols});
  double const tolerance = test::kTolerance<T>;
  c.check(c.all, before, apart, tolerance, [&](View<T> hidden) {
    cuda::combine<T>(context, c.device_y.read(), device_scale, device_keep, rows, c.device_x.read(), hidden);
  });
  c.check(c.all, before, in_place, tolerance, [&](View<T> hidden) {
    cuda::combine<T>(context, c.device_y.read(), device_scale, device_keep, rows, hidden, hidden);
  });
  c.check(c.all, before, to_base, tolerance,
          [&](View<T> out) { cuda::scale_add_rows<T>(context, c.device_x.read(), device_scale, rows, out); });
}

template <class T>
void check_combine_backward(Case<T>& c, bool with_scale) {
  CAPTURE(with_scale);
  cuda::Context const context = c.device.context();
  auto const scale = with_scale ? c.scale : std::vector<double>{};
  std::span<float const> device_scale;
  if (with_scale) device_scale = c.device_scale.span();
  std::vector<double> d_y(c.y.size()), d_scale(static_cast<std::size_t>(c.kept));
  test::Oracle().combine_backward({c.x.data(), c.all, c.cols}, {c.y.data(), c.kept, c.cols}, scale, c.rows,
                                  {d_y.data(), c.kept, c.cols}, d_scale);
  for (bool const wanted : {true, false}) {
    CAPTURE(wanted);
    std::vector<float> first;
    c.check(c.kept, {}, d_y, test::kTolerance<T>, [&](View<T> out) {
      test::DeviceMatrix<float> const device_d_scale(c.device, 1, c.kept);
      cuda::combine_backward<T>(context, c.device_x.read(), c.device_y.read(), device_scale, c.device_rows.read(), out,
                                wanted ? device_d_scale.span() : std::span<float>{});
      if (wanted) REQUIRE(test::relative_error(device_d_scale.values(), d_scale) < test::kTolerance<float>);
      REQUIRE(device_d_scale.intact());
      if (wanted && !first.empty()) REQUIRE(device_d_scale.raw_values() == first);
      if (wanted) first = device_d_scale.raw_values();
    });
  }
}

}  // namespace

TEMPLATE_TEST_CASE("row moves on the device touch exactly the listed rows", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  for (auto const& shape : kShapes) {
    for (int const which : {0, 1, 2}) {
      CAPTURE(shape.rows, shape.cols, shape.padding, which);
      Case<TestType> c(device, shape, which);
      check_moves(c);
    }
  }
}

TEMPLATE_TEST_CASE("combine on the device blends the listed rows, also in place", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  for (auto const& shape : kShapes) {
    for (int const which : {0, 1, 2}) {
      CAPTURE(shape.rows, shape.cols, shape.padding, which);
      Case<TestType> c(device, shape, which);
      check_combine(c, true, true);
      if (which == 1) check_combine(c, false, false);
      if (which == 1) check_combine(c, true, false);
    }
  }
}

TEMPLATE_TEST_CASE("combine_backward on the device gives both gradients, or only that of the update", "[cuda][quick]", float,
                   bfloat16) {
  test::Device device;
  for (auto const& shape : kShapes) {
    for (int const which : {0, 1, 2}) {
      CAPTURE(shape.rows, shape.cols, shape.padding, which);
      Case<TestType> c(device, shape, which);
      check_combine_backward(c, true);
      if (which == 1) check_combine_backward(c, false);
    }
  }
}

TEST_CASE("gather_values on the device reads the listed numbers", "[cuda][quick]") {
  test::Device device;
  for (Index const count : {1, 7, 5000}) {
    for (int const which : {0, 1, 2}) {
      CAPTURE(count, which);
      auto const rows = some_rows(count, which);
      auto const x = test::random_values<float>(count, 1);
      std::vector<double> expected(rows.size());
      test::Oracle().gather_values(x, rows, expected);
      test::DeviceRows const device_rows(device, rows);
      test::DeviceMatrix<float> const device_x(device, 1, count, x), out(device, 1, static_cast<Index>(rows.size()));
      cuda::gather_values(device.context(), device_x.span(), device_rows.read(), out.span());
      REQUIRE(out.values() == expected);
      REQUIRE(out.intact());
    }
  }
}
