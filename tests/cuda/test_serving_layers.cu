// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/backend.cuh"

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>
#include <vector>

using namespace mor;

namespace {

/// Three roundings on the way where T is bf16.
template <class T>
inline constexpr double kLayerTolerance = std::is_same_v<T, float> ? 4e-6 : 1.2e-2;

/// Inputs of a layer: x and its norm, weights of `outputs` rows.
template <class T>
struct Layer {
  Index rows, hidden, outputs;
  std::vector<double> x, norm, weights;
  test::DeviceMatrix<T> device_x, device_norm, device_weights;

  Layer(test::Device& device, Index rows_, Index hidden_, Index outputs_)
      : rows(rows_),
        hidden(hidden_),
        outputs(outputs_),
        x(test::random_values<T>(rows * hidden, 1)),
        norm(test::random_values<T>(hidden, 2)),
        weights(test::random_values<T>(outputs * hidden, 3)),
        device_x(device, rows, hidden, x),
        device_norm(device, 1, hidden, norm),
        device_weights(device, outputs, hidden, weights) {}

  /// rms_norm(x) w^T in double.
  [[nodiscard]] std::vector<double> product() const {
    test::Oracle host;
    std::vector<double> normed(x.size()), rstd(static_cast<std::size_t>(rows)),
        out(static_cast<std::size_t>(rows * outputs));
    host.rms_norm({x.data(), rows, hidden}, norm, 1e-5, {normed.data(), rows, hidden}, rstd);
    host.linear({normed.data(), rows, hidden}, {weights.data(), outputs, hidden}, {out.data(), rows, outputs});
    return out;
  }
  [[nodiscard]] std::span<T const> norm_weights() const { return device_norm.span(); }
};

/// A list of keys for each `rows_of_list` rows, in pages of 8 that lie in reverse; some rows are not to be written.
struct Lists {
  std::vector<Row> offsets, begins, limits, pages, positions;
  Index planes;

  explicit Lists(Index rows, Index rows_of_list = 1) : planes(rows * 16) {
    for (Row i = 0; i < rows; ++i) {
      if (i % rows_of_list == 0) {
        begins.push_back(2 * static_cast<Row>(offsets.size()));
        offsets.push_back(i);
      }
      limits.push_back(i % 5 == 3 ? 0 : 1 + i % 16);
      positions.push_back(i * 37 % 1000);
    }
    offsets.push_back(static_cast<Row>(rows));
    for (Row page = static_cast<Row>(2 * rows); page > 0; --page) pages.push_back(page - 1);
  }
  [[nodiscard]] KeyList host() const {
    KeyList list;
    list.num_sequences = static_cast<Index>(begins.size());
    list.num_queries = static_cast<Index>(limits.size());
    list.max_limit = 16;
    list.query_offsets = list.host_query_offsets = offsets;
    list.key_begin = begins;
    list.limits = limits;
    list.page_size = 8;
    list.pages = pages;
    return list;
  }
};

template <class T>
void check_norm_products(test::Device& device, cuda::Backend<T>& backend, Index rows, Index hidden, Index outputs) {
  CAPTURE(rows, hidden, outputs);
  Layer<T> const layer(device, rows, hidden, outputs);
  auto const expected = layer.product();
  test::DeviceMatrix<T> const out(device, rows, outputs);
  test::DeviceMatrix<float> const logits(device, rows, outputs);
  backend.norm_linear(layer.device_x.read(), layer.norm_weights(), 1e-5, layer.device_weights.read(), out.view());
  backend.norm_logits(layer.device_x.read(), layer.norm_weights(), 1e-5, layer.device_weights.read(), {}, logits.view());
  REQUIRE(test::relative_error(out.values(), expected) < kLayerTolerance<T>);
  REQUIRE(test::relative_error(logits.values(), expected) < kLayerTolerance<T>);
  REQUIRE((out.intact() && logits.intact()));
  if (outputs % 2 != 0) return;
  std::vector<double> activated(static_cast<std::size_t>(rows * outputs / 2));
  test::Oracle().swiglu({expected.data(), rows, outputs}, {activated.data(), rows, outputs / 2});
  test::DeviceMatrix<T> const half(device, rows, outputs / 2);
  backend.norm_swiglu(layer.device_x.read(), layer.norm_weights(), 1e-5, layer.device_weights.read(), half.view());
  REQUIRE(test::relative_error(half.values(), activated) < kLayerTolerance<T>);
  REQUIRE(half.intact());
}

template <class T>
void check_keys(test::Device& device, cuda::Backend<T>& backend, Index rows, Index heads, Index kv_heads,
                Index head_dim, Index rows_of_list = 1) {
  CAPTURE(rows, heads, kv_heads, head_dim, rows_of_list);
  Index const q_cols = heads * head_dim, k_cols = kv_heads * head_dim;
  Layer<T> const layer(device, rows, 96, q_cols + 2 * k_cols);
  Lists const lists(rows, rows_of_list);
  auto qkv = layer.product();
  View<double> const all(qkv.data(), rows, layer.outputs);
  test::Oracle host;
  host.rope(lists.positions, head_dim, 10000.0, Rotation::Forward, all.columns(0, q_cols + k_cols));
  auto plane_k = test::random_values<T>(lists.planes * k_cols, 5),
       plane_v = test::random_values<T>(lists.planes * k_cols, 6);
  test::DeviceMatrix<T> const device_k(device, lists.planes, k_cols, plane_k),
      device_v(device, lists.planes, k_cols, plane_v), q(device, rows, q_cols);
  std::vector<double> expected_q(static_cast<std::size_t>(rows * q_cols));
  host.copy(all.columns(0, q_cols), {expected_q.data(), rows, q_cols});
  host.write_keys(all.columns(q_cols, k_cols), lists.host(), {plane_k.data(), lists.planes, k_cols});
  host.write_keys(all.columns(q_cols + k_cols, k_cols), lists.host(), {plane_v.data(), lists.planes, k_cols});

  test::DeviceRows const offsets(device, lists.offsets), begins(device, lists.begins), limits(device, lists.limits),
      pages(device, lists.pages), positions(device, lists.positions);
  KeyList list = lists.host();
  list.query_offsets = offsets.read();
  list.key_begin = begins.read();
  list.limits = limits.read();
  list.pages = pages.read();
  backend.project_keys(layer.device_x.read(), layer.norm_weights(), 1e-5, layer.device_weights.read(), positions.read(),
                       head_dim, 10000.0, list, q.view(), device_k.view(), device_v.view());
  REQUIRE(test::relative_error(q.values(), expected_q) < kLayerTolerance<T>);
  REQUIRE(test::relative_error(device_k.values(), plane_k) < kLayerTolerance<T>);
  REQUIRE(test::relative_error(device_v.values(), plane_v) < kLayerTolerance<T>);
  REQUIRE((q.intact() && device_k.intact() && device_v.intact()));
}

/// Row `row` of the results of all products of rows, as they are stored.
template <class T>
struct Products {
  std::vector<T> linear, residual, norm_linear, swiglu;
  std::vector<float> logits, norm_logits;

  Products(test::Device& device, cuda::Backend<T>& backend, Layer<T> const& layer, Index first, Index rows) {
    View<T const> const x = layer.device_x.read().row_range(first, rows), weights = layer.device_weights.read();
    View<T const> const residual_in = layer.device_weights.read().row_range(first, rows);  // any numbers
    Index const outputs = layer.outputs;
    test::DeviceMatrix<T> const a(device, rows, outputs), b(device, rows, layer.hidden), c(device, rows, outputs),
        d(device, rows, outputs / 2);
    test::DeviceMatrix<float> const e(device, rows, outputs), f(device, rows, outputs);
    backend.linear(x, weights, a.view());
    backend.linear_residual(x, weights.row_range(0, layer.hidden), residual_in, b.view());
    backend.norm_linear(x, layer.norm_weights(), 1e-5, weights, c.view());
    backend.norm_swiglu(x, layer.norm_weights(), 1e-5, weights, d.view());
    backend.linear_logits(x, weights, 0.5, e.view());
    backend.norm_logits(x, layer.norm_weights(), 1e-5, weights, {}, f.view());
    linear = a.raw_values(), residual = b.raw_values(), norm_linear = c.raw_values(), swiglu = d.raw_values();
    logits = e.raw_values(), norm_logits = f.raw_values();
  }
};

/// Whether `part` is what `whole` has from its row `first` on, bit by bit.
template <class T>
[[nodiscard]] bool is_part(std::vector<T> const& part, std::vector<T> const& whole, Index first, Index rows) {
  auto const cols = part.size() / static_cast<std::size_t>(rows);
  return std::memcmp(part.data(), whole.data() + static_cast<std::size_t>(first) * cols, part.size() * sizeof(T)) == 0;
}

}  // namespace

TEMPLATE_TEST_CASE("compound verbs of a layer are the verbs they are made of", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  cuda::Backend<TestType> backend;
  bool const row_invariant = GENERATE(false, true);
  backend.set_row_invariant(row_invariant);
  for (Index const rows : {0, 1, 7, 64, 65, 150}) {
    check_norm_products(device, backend, rows, 96, 160);
    check_norm_products(device, backend, rows, 100, 33);
    check_norm_products(device, backend, rows, 320, 66);
    check_keys(device, backend, rows, 3, 1, 32);
    check_keys(device, backend, rows, 2, 2, 16);
    check_keys(device, backend, rows, 1, 1, 6);
    check_keys(device, backend, rows, 3, 1, 16, 4);
  }
}

TEMPLATE_TEST_CASE("logits of as many rows as the device counts are those of all rows", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  cuda::Backend<TestType> backend;
  Layer<TestType> const layer(device, 64, 128, 256);
  auto const logits = [&](std::span<Row const> count) {
    test::DeviceMatrix<float> const out(device, 64, 256);
    backend.norm_logits(layer.device_x.read(), layer.norm_weights(), 1e-5, layer.device_weights.read(), count, out.view());
    REQUIRE(out.intact());
    return out.raw_values();
  };
  auto const all = logits({});
  for (Row const rows : {0, 1, 9, 33, 64, 100}) {
    CAPTURE(rows);
    test::DeviceRows const count(device, {rows});
    auto some = logits(count.read());
    some.resize(static_cast<std::size_t>(std::min<Row>(rows, 64)) * 256);
    REQUIRE(std::memcmp(some.data(), all.data(), some.size() * sizeof(float)) == 0);
  }
}

TEMPLATE_TEST_CASE("row-invariant products give a row the same bits whatever the other rows are", "[cuda][quick]",
                   float, bfloat16) {
  test::Device device;
  cuda::Backend<TestType> backend;
  backend.set_row_invariant(true);
  Layer<TestType> const layer(device, 200, 128, 256);
  Products<TestType> const whole(device, backend, layer, 0, 200);
  for (auto const& [first, rows] :
       {std::array<Index, 2>{0, 1}, {199, 1}, {3, 8}, {60, 33}, {100, 64}, {0, 65}, {77, 123}}) {
    CAPTURE(first, rows);
    Products<TestType> const part(device, backend, layer, first, rows);
    REQUIRE(is_part(part.linear, whole.linear, first, rows));
    REQUIRE(is_part(part.residual, whole.residual, first, rows));
    REQUIRE(is_part(part.norm_linear, whole.norm_linear, first, rows));
    REQUIRE(is_part(part.swiglu, whole.swiglu, first, rows));
    REQUIRE(is_part(part.logits, whole.logits, first, rows));
    REQUIRE(is_part(part.norm_logits, whole.norm_logits, first, rows));
  }
}

TEST_CASE("products of training keep their bits unless the backend serves", "[cuda][quick]") {
  test::Device device;
  cuda::Backend<bfloat16> backend;
  Layer<bfloat16> const layer(device, 40, 512, 512);
  auto const run = [&] { return Products<bfloat16>(device, backend, layer, 0, 40); };
  test::DeviceMatrix<bfloat16> const direct(device, 40, 512);
  cuda::linear_residual(backend.context(), layer.device_x.read(), layer.device_weights.read(),
                        layer.device_weights.read().row_range(0, 40), direct.view());
  auto const whole = direct.raw_values();
  auto const same = [](auto const& a, auto const& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0;
  };
  auto const training = run();
  REQUIRE(same(training.residual, whole));
  backend.set_serving(true);
  auto const serving = run();
  backend.set_row_invariant(true);
  auto const invariant = run();
  REQUIRE(same(serving.residual, invariant.residual));  // so few rows have the same kernels in both
  REQUIRE(same(serving.linear, invariant.linear));
  REQUIRE(same(serving.logits, invariant.logits));
  REQUIRE(same(training.norm_linear, invariant.norm_linear));
  backend.set_serving(false);
  backend.set_row_invariant(false);
  REQUIRE(same(run().residual, whole));
  REQUIRE(same(run().linear, training.linear));
}
