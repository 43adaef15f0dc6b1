// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/graph.cuh"
#include "mor/backend/cuda/ops/few_rows.cuh"

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>

using namespace mor;
using cuda::Sm90;

namespace {

constexpr double eps = 1e-5;
constexpr Index most_rows = 100;
constexpr std::array<Index, 11> row_counts{1, 2, 7, 8, 9, 31, 32, 33, 64, 65, most_rows};

/// A device with the instructions of these kernels, or a skipped test.
class HopperDevice : public test::Device {
 public:
  HopperDevice() {
    if (facts().capability < 90) SKIP("no device of compute capability 9.0");
  }
};

template <class T>
[[nodiscard]] bool same_bits(T const* a, T const* b, Index count) {
  return std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(T)) == 0;
}
template <class T>
[[nodiscard]] bool same_bits(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && same_bits(a.data(), b.data(), static_cast<Index>(a.size()));
}

/// Runs `verb(first row, rows, out)` for many numbers of rows, twice each, and for single rows of the batch: the results are
/// near `expected` [most_rows, cols], have the same bits every time, and nothing else is written. `initial` fills the
/// output, for verbs that add to it.
template <class Out, class Verb>
void check_rows(test::Device& device, std::vector<double> const& expected, Index cols, double tolerance, Index padding,
                Verb const& verb, std::vector<double> const& initial = {}) {
  auto const run = [&](Index first, Index rows) {
    std::vector<double> before(static_cast<std::size_t>(rows * cols), 7.0);
    if (!initial.empty()) std::copy_n(initial.begin() + static_cast<std::ptrdiff_t>(first * cols), before.size(), before.begin());
    test::DeviceMatrix<Out> const out(device, rows, cols, before, padding);
    verb(first, rows, out.view());
    REQUIRE(out.intact());
    return out.raw_values();
  };
  auto const all = run(0, most_rows);
  std::vector<double> values;
  for (Out const value : all) values.push_back(static_cast<double>(static_cast<float>(value)));
  REQUIRE(test::relative_error(values, expected) < tolerance);
  for (Index const rows : row_counts) {
    CAPTURE(rows);
    auto const some = run(0, rows);
    REQUIRE(same_bits(some.data(), all.data(), rows * cols));
    REQUIRE(same_bits(some, run(0, rows)));
  }
  for (Index const first : {1, 13, 40, 63, 64, 99}) {
    CAPTURE(first);
    auto const alone = run(first, 1);
    REQUIRE(same_bits(alone.data(), all.data() + first * cols, cols));
  }
}

struct Shape {
  Index in, out, padding;
};

/// Operands of a layer: rows of many sizes, weights, weights of a norm.
template <class T>
struct Layer {
  Layer(test::Device& device, Index in_, Index out_, Index padding)
      : in(in_), out(out_), x(test::random_values<T>(most_rows * in, 1)), w(test::random_values<T>(out * in, 2)),
        norm(test::random_values<T>(in, 3)), normed(x.size()), rows(device, most_rows, in, scaled(), padding),
        weights(device, out, in, w, padding), norm_weights(device, 1, in, norm) {
    std::vector<double> rstd(static_cast<std::size_t>(most_rows));
    test::Oracle().rms_norm({x.data(), most_rows, in}, norm, eps, {normed.data(), most_rows, in}, rstd);
  }
  /// x w^T with x as it is or normed.
  [[nodiscard]] std::vector<double> product(std::vector<double> const& from) const {
    std::vector<double> result(static_cast<std::size_t>(most_rows * out));
    test::Oracle().linear({from.data(), most_rows, in}, {w.data(), out, in}, {result.data(), most_rows, out});
    return result;
  }
  [[nodiscard]] View<T const> some(Index first, Index count) const { return rows.read().row_range(first, count); }
  [[nodiscard]] std::span<T const> norm_span() const { return norm_weights.span(); }

  Index in, out;
  std::vector<double> x, w, norm, normed;
  test::DeviceMatrix<T> rows, weights, norm_weights;

 private:
  /// Powers of two: a row that is read as another one's shows.
  std::vector<double> const& scaled() {
    for (Index i = 0; i < most_rows; ++i) {
      double const factor = std::exp2(static_cast<double>(i % 5 - 2));
      for (Index j = 0; j < in; ++j) x[static_cast<std::size_t>(i * in + j)] *= factor;
    }
    return x;
  }
};

template <class T>
void check_layer(test::Device& device, Shape const& shape) {
  auto const& [in, out, padding] = shape;
  CAPTURE(in, out, padding);
  Layer<T> const layer(device, in, out, padding);
  auto const context = device.context();
  double const tolerance = test::kTolerance<T>;
  auto expected = layer.product(layer.x);
  auto const residual = test::random_values<T>(most_rows * out, 4);
  auto sum = expected;
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += residual[i];
  auto const normed = layer.product(layer.normed);
  for (double& value : expected) value *= 0.75;

  check_rows<T>(device, expected, out, tolerance, padding, [&](Index first, Index rows, View<T> to) {
    cuda::few_rows_linear<Sm90, T, T>(context, layer.some(first, rows), layer.weights.read(), 0.75F, to);
  });
  // Tensor cores add with truncation.
  check_rows<float>(device, expected, out, std::is_same_v<T, float> ? 2e-6 : 1e-5, padding, [&](Index first, Index rows, View<float> to) {
    cuda::few_rows_linear<Sm90, T, float>(context, layer.some(first, rows), layer.weights.read(), 0.75F, to);
  });
  test::DeviceMatrix<T> const device_residual(device, most_rows, out, residual, padding);
  check_rows<T>(device, sum, out, tolerance, padding, [&](Index first, Index rows, View<T> to) {
    cuda::few_rows_linear_residual<Sm90, T>(context, layer.some(first, rows), layer.weights.read(),
                                            device_residual.read().row_range(first, rows), to);
  });
  auto const in_place = [&](Index first, Index rows, View<T> to) {
    cuda::few_rows_linear_residual<Sm90, T>(context, layer.some(first, rows), layer.weights.read(), to, to);
  };
  check_rows<T>(device, sum, out, tolerance, padding, in_place, residual);
  check_rows<T>(device, normed, out, tolerance, padding, [&](Index first, Index rows, View<T> to) {
    cuda::few_rows_norm_linear<Sm90, T, T>(context, layer.some(first, rows), layer.norm_span(), eps, layer.weights.read(), to);
  });
  check_rows<float>(device, normed, out, tolerance, padding, [&](Index first, Index rows, View<float> to) {
    cuda::few_rows_norm_linear<Sm90, T, float>(context, layer.some(first, rows), layer.norm_span(), eps, layer.weights.read(),
                                               to);
  });
}

template <class T>
void check_swiglu(test::Device& device, Shape const& shape) {
  auto const& [in, out, padding] = shape;
  CAPTURE(in, out, padding);
  Layer<T> const layer(device, in, 2 * out, padding);
  auto const gate_up = layer.product(layer.normed);
  std::vector<double> expected(static_cast<std::size_t>(most_rows * out));
  test::Oracle().swiglu({gate_up.data(), most_rows, 2 * out}, {expected.data(), most_rows, out});
  check_rows<T>(device, expected, out, test::kTolerance<T>, padding, [&](Index first, Index rows, View<T> to) {
    cuda::few_rows_norm_swiglu<Sm90, T>(device.context(), layer.some(first, rows), layer.norm_span(), eps,
                                        layer.weights.read(), to);
  });
}

/// Lists of keys with room for one key a row of x: in pages that lie in no order, or one behind the other; a sequence a
/// row, or a few long ones. Some rows have limit 0.
struct Lists {
  Lists(bool alone, Index page_size_) : page_size(page_size_) {
    for (Index i = 0; i <= most_rows; i += alone ? 1 : 20) offsets.push_back(static_cast<Row>(i));
    Index const sequences = static_cast<Index>(offsets.size()) - 1;
    Index const pages_each = page_size == 0 ? 0 : (room + page_size - 1) / page_size, count = sequences * pages_each;
    for (Index s = 0; s < sequences; ++s) begin.push_back(static_cast<Row>(s * (page_size == 0 ? room : pages_each)));
    for (Index i = 0; i < count; ++i) pages.push_back(static_cast<Row>(count - 1 - i));
    for (Index i = 0; i < most_rows; ++i) {
      limits.push_back(static_cast<Row>(alone ? i * 7 % (room + 1) : i % 20));
      positions.push_back(static_cast<Row>(i * 7919 % 4096));
    }
    storage_rows = page_size == 0 ? sequences * room : count * page_size;
  }
  /// The first rows only.
  [[nodiscard]] KeyList list(Index rows, std::vector<Row>& some_offsets) const {
    some_offsets.clear();
    for (Row const offset : offsets) {
      if (offset < rows) some_offsets.push_back(offset);
    }
    some_offsets.push_back(static_cast<Row>(rows));
    KeyList keys;
    keys.num_sequences = static_cast<Index>(some_offsets.size()) - 1;
    keys.num_queries = rows;
    keys.max_limit = room;
    keys.query_offsets = some_offsets;
    keys.host_query_offsets = some_offsets;
    keys.key_begin = begin;
    keys.limits = limits;
    keys.page_size = page_size;
    keys.pages = pages;
    return keys;
  }

  static constexpr Index room = 20;
  Index page_size, storage_rows = 0;
  std::vector<Row> offsets, begin, pages, limits, positions;
};

struct Heads {
  Index heads, kv_heads, head_dim, in, padding;
};

template <class T>
class Projection {
 public:
  Projection(test::Device& device, Heads const& heads, Lists const& lists)
      : device_(device), heads_(heads), lists_(lists), width_(heads.heads * heads.head_dim),
        key_width_(heads.kv_heads * heads.head_dim),
        layer_(device, heads.in, width_ + 2 * key_width_, heads.padding),
        before_(test::random_values<T>(lists.storage_rows * key_width_, 5)), begin_(device, lists.begin),
        pages_(device, lists.pages), limits_(device, lists.limits), positions_(device, lists.positions) {
    auto const all = layer_.product(layer_.normed);
    for (Index i = 0; i < most_rows; ++i) {
      auto const row = all.begin() + static_cast<std::ptrdiff_t>(i * layer_.out);
      q_.insert(q_.end(), row, row + width_);
      k_.insert(k_.end(), row + width_, row + width_ + key_width_);
      v_.insert(v_.end(), row + width_ + key_width_, row + layer_.out);
    }
    for (auto* const turned : {&q_, &k_}) {
      Index const cols = static_cast<Index>(turned->size()) / most_rows;
      test::Oracle().rope(lists.positions, heads.head_dim, 10000.0, Rotation::Forward, {turned->data(), most_rows, cols});
    }
  }

  struct Results {
    std::vector<T> q, k, v;
  };

  /// The first `rows` rows on the device.
  [[nodiscard]] Results run(Index rows) {
    std::vector<Row> offsets;
    KeyList keys = lists_.list(rows, offsets);
    test::DeviceRows const device_offsets(device_, offsets);
    keys.query_offsets = device_offsets.read();
    keys.key_begin = begin_.read();
    keys.pages = pages_.read();
    keys.limits = limits_.read();
    test::DeviceMatrix<T> const q(device_, rows, width_, heads_.padding);
    test::DeviceMatrix<T> const k(device_, lists_.storage_rows, key_width_, before_, heads_.padding);
    test::DeviceMatrix<T> const v(device_, lists_.storage_rows, key_width_, before_, heads_.padding);
    cuda::few_rows_project_keys<Sm90, T>(device_.context(), layer_.some(0, rows), layer_.norm_span(), eps,
                                         layer_.weights.read(), positions_.read(), heads_.head_dim, 10000.0, keys, q.view(),
                                         k.view(), v.view());
    REQUIRE((q.intact() && k.intact() && v.intact()));
    return {q.raw_values(), k.raw_values(), v.raw_values()};
  }

  /// Near the oracle's, and in the planes nothing but the rows' keys is written.
  void check(Index rows, Results const& results) {
    std::vector<Row> offsets;
    KeyList const keys = lists_.list(rows, offsets);
    REQUIRE(near(results.q, {q_.begin(), q_.begin() + static_cast<std::ptrdiff_t>(rows * width_)}));
    for (auto const& [plane, from] : {std::pair{&results.k, &k_}, std::pair{&results.v, &v_}}) {
      auto expected = before_;
      test::Oracle().write_keys({from->data(), rows, key_width_}, keys, {expected.data(), lists_.storage_rows, key_width_});
      std::vector<double> written, wanted;
      bool untouched = true;
      for (std::size_t i = 0; i < expected.size(); ++i) {
        auto const value = static_cast<double>(static_cast<float>((*plane)[i]));
        if (expected[i] == before_[i]) {
          untouched = untouched && value == before_[i];
        } else {
          written.push_back(value);
          wanted.push_back(expected[i]);
        }
      }
      REQUIRE(untouched);
      REQUIRE(test::relative_error(written, wanted) < test::kTolerance<T>);
    }
  }
  [[nodiscard]] Index width() const { return width_; }

 private:
  [[nodiscard]] static bool near(std::vector<T> const& raw, std::vector<double> const& expected) {
    std::vector<double> values;
    for (T const value : raw) values.push_back(static_cast<double>(static_cast<float>(value)));
    return test::relative_error(values, expected) < test::kTolerance<T>;
  }

  test::Device& device_;
  Heads heads_;
  Lists const& lists_;
  Index width_, key_width_;
  Layer<T> layer_;
  std::vector<double> before_, q_, k_, v_;
  test::DeviceRows begin_, pages_, limits_, positions_;
};

template <class T>
void check_keys(test::Device& device, Heads const& heads) {
  for (auto const& [alone, page_size] : {std::pair<bool, Index>{true, 8}, {true, 0}, {false, 7}, {false, 0}}) {
    CAPTURE(heads.heads, heads.kv_heads, heads.head_dim, heads.in, heads.padding, alone, page_size);
    Lists const lists(alone, page_size);
    Projection<T> projection(device, heads, lists);
    auto const all = projection.run(most_rows);
    projection.check(most_rows, all);
    for (Index const rows : {1, 7, 9, 33, 64, 65}) {
      CAPTURE(rows);
      auto const some = projection.run(rows), again = projection.run(rows);
      projection.check(rows, some);
      REQUIRE(same_bits(some.q.data(), all.q.data(), rows * projection.width()));
      REQUIRE((same_bits(some.q, again.q) && same_bits(some.k, again.k) && same_bits(some.v, again.v)));
    }
  }
}

}  // namespace

TEST_CASE("products of few rows on tensor cores agree with the host, and each row has its bits in any batch", "[cuda][quick]") {
  HopperDevice device;
  for (Shape const& shape : {Shape{960, 1600, 0}, {2560, 960, 0}, {576, 200, 8}, {8, 8, 0}, {40, 24, 16}, {104, 20, 0},
                             {1032, 3, 0}, {256, 12288, 0}, {96, 9000, 0}, {96, 49152, 0}}) {
    check_layer<bfloat16>(device, shape);
  }
}

TEMPLATE_TEST_CASE("products of few rows take any shape and alignment", "[cuda][quick]", float, bfloat16) {
  HopperDevice device;
  for (Shape const& shape : {Shape{1, 1, 0}, {33, 17, 0}, {64, 40, 3}, {100, 7, 1}, {960, 64, 0}, {12, 130, 0}}) {
    check_layer<TestType>(device, shape);
  }
}

TEST_CASE("products of long rows agree with the host", "[cuda]") {
  HopperDevice device;
  for (Shape const& shape : {Shape{8192, 128, 0}, {14336, 64, 0}, {40960, 16, 0}}) check_layer<bfloat16>(device, shape);
}

TEMPLATE_TEST_CASE("gated activations of few rows agree with the host", "[cuda][quick]", float, bfloat16) {
  HopperDevice device;
  for (Shape const& shape : {Shape{960, 2560, 0}, {64, 20, 8}, {40, 7, 0}, {33, 9, 0}, {128, 8, 1}, {64, 8192, 0}}) {
    if (std::is_same_v<TestType, float> && shape.out > 1000) continue;
    check_swiglu<TestType>(device, shape);
  }
}

TEMPLATE_TEST_CASE("queries, keys and values of few rows are turned and put at their places", "[cuda][quick]", float, bfloat16) {
  HopperDevice device;
  for (Heads const& heads : {Heads{3, 1, 64, 192, 0}, {2, 2, 128, 256, 8}, {4, 2, 16, 40, 0}, {3, 3, 48, 64, 8},
                             {2, 1, 6, 64, 0}, {2, 1, 32, 33, 1}}) {
    check_keys<TestType>(device, heads);
  }
}

TEST_CASE("the layers of SmolLM-360M project keys as the host does", "[cuda]") {
  HopperDevice device;
  check_keys<bfloat16>(device, {15, 5, 64, 960, 0});
}

TEMPLATE_TEST_CASE("rows from a count in device memory on are left alone", "[cuda][quick]", float, bfloat16) {
  HopperDevice device;
  Index const in = 256, out = 128;
  Layer<TestType> const layer(device, in, out, 0);
  for (Index const rows : {Index{8}, Index{32}, Index{64}, most_rows}) {
    auto const run = [&](Row const* count) {
      test::DeviceMatrix<TestType> const to(device, rows, out);
      cuda::few_rows_norm_linear<Sm90, TestType, TestType>(device.context(), layer.some(0, rows), layer.norm_span(), eps,
                                                           layer.weights.read(), to.view(), count);
      REQUIRE(to.intact());
      return to.raw_values();
    };
    auto const all = run(nullptr);
    std::vector<TestType> poison(all.size());
    std::memset(static_cast<void*>(poison.data()), 0xFF, poison.size() * sizeof(TestType));
    for (Row const count : {0, 1, 5, 8, 33, 64, 70, 1000}) {
      CAPTURE(rows, count);
      test::DeviceRows const device_count(device, {count});
      auto const some = run(device_count.read().data());
      Index const done = std::min<Index>(count, rows) * out;
      REQUIRE(same_bits(some.data(), all.data(), done));
      REQUIRE(same_bits(some.data() + done, poison.data() + done, rows * out - done));
    }
  }
}

TEST_CASE("kernels of few rows that follow one another see each other's results, also in a graph", "[cuda][quick]") {
  HopperDevice device;
  Index const width = 960, inner = 2560;
  auto const down = test::random_values<bfloat16>(width * inner, 6);
  for (Index const rows : {1, 8, 32, 64}) {
    CAPTURE(rows);
    Layer<bfloat16> const layer(device, width, 2 * inner, 0);
    test::DeviceMatrix<bfloat16> const down_weights(device, width, inner, down), gated(device, rows, inner);
    std::vector<double> const start(layer.x.begin(), layer.x.begin() + static_cast<std::ptrdiff_t>(rows * width));
    // x += down(swiglu(x)) again and again, in place: any read that comes too early changes the bits.
    auto const run = [&](View<bfloat16> x, int times, std::function<void()> const& after_each) {
      for (int i = 0; i < times; ++i) {
        cuda::few_rows_norm_swiglu<Sm90, bfloat16>(device.context(), x, layer.norm_span(), eps, layer.weights.read(), gated.view());
        after_each();
        cuda::few_rows_linear_residual<Sm90, bfloat16>(device.context(), gated.read(), down_weights.read(), x, x);
        after_each();
      }
    };
    int const times = 12;
    test::DeviceMatrix<bfloat16> const one_by_one(device, rows, width, start), at_once(device, rows, width, start),
        in_graph(device, rows, width, start);
    run(one_by_one.view(), 2 * times, [&] { device.synchronize(); });
    run(at_once.view(), 2 * times, [] {});
    device.synchronize();
    cudaStream_t const stream = device.context().stream;
    cuda::Graph graph;
    REQUIRE(graph.capture(stream, [&] { run(in_graph.view(), times, [] {}); }));
    for (int i = 0; i < 2; ++i) graph.launch(stream);
    device.synchronize();
    REQUIRE(same_bits(one_by_one.raw_values(), at_once.raw_values()));
    REQUIRE(same_bits(one_by_one.raw_values(), in_graph.raw_values()));
    for (double const value : in_graph.values()) REQUIRE(std::isfinite(value));
  }
}

TEST_CASE("products of few rows refuse operands that do not fit", "[cuda][quick]") {
  HopperDevice device;
  test::DeviceMatrix<float> const x(device, 2, 8, std::vector<double>(16, 1.0)), w(device, 12, 8, std::vector<double>(96, 1.0)),
      narrow(device, 12, 4, std::vector<double>(48, 1.0)), out(device, 2, 12), odd(device, 2, 5), tall(device, 3, 12), half(device, 3, 6), q(device, 3, 4),
      plane(device, 8, 4);
  test::DeviceMatrix<float> const norm(device, 1, 8, std::vector<double>(8, 1.0));
  test::DeviceRows const positions(device, {0, 1});
  auto const context = device.context();
  std::span<float const> const norm_weights = norm.span();
  REQUIRE_THROWS_AS((cuda::few_rows_linear<Sm90, float, float>(context, x.read(), narrow.read(), 1.0F, out.view())), mor::error);
  REQUIRE_THROWS_AS((cuda::few_rows_norm_swiglu<Sm90, float>(context, x.read(), norm_weights, eps, w.read(), odd.view())),
                    mor::error);
  REQUIRE_THROWS_AS((cuda::few_rows_project_keys<Sm90, float>(context, x.read(), norm_weights, eps, w.read(), positions.read(), 3,
                                                              10000.0, KeyList{}, out.view(), odd.view(), odd.view())),
                    mor::error);
  for (View<float> const wrong : {odd.view(), tall.view(), out.view().row_range(0, 1)}) {
    View<float const> const wrong_residual(wrong);
    REQUIRE_THROWS_AS((cuda::few_rows_linear<Sm90, float, float>(context, x.read(), w.read(), 1.0F, wrong)), mor::error);
    REQUIRE_THROWS_AS((cuda::few_rows_norm_linear<Sm90, float, float>(context, x.read(), norm_weights, eps, w.read(), wrong)), mor::error);
    REQUIRE_THROWS_AS((cuda::few_rows_linear_residual<Sm90, float>(context, x.read(), w.read(), out.read(), wrong)), mor::error);
    REQUIRE_THROWS_AS((cuda::few_rows_linear_residual<Sm90, float>(context, x.read(), w.read(), wrong_residual, out.view())), mor::error);
  }
  REQUIRE_THROWS_AS((cuda::few_rows_norm_swiglu<Sm90, float>(context, x.read(), norm_weights, eps, w.read(), half.view())), mor::error);
  REQUIRE_THROWS_AS((cuda::few_rows_project_keys<Sm90, float>(context, x.read(), norm_weights, eps, w.read(), positions.read(), 2,
                                                              10000.0, KeyList{}, q.view(), plane.view(), plane.view())),
                    mor::error);
  cuda::few_rows_linear<Sm90, float, float>(context, View<float const>{}, w.read(), 1.0F, View<float>{});
}
