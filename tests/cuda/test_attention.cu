// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"
#include "host/attention_cases.hpp"

#include "mor/backend/cuda/ops/attention.cuh"
#include "mor/backend/cuda/ops/attention_backward.cuh"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

using namespace mor;
using mor::test::AttentionCase;
using mor::test::causal;

namespace {

/// Limits base + 1, base + 2, ...: a prompt that goes on from cached keys.
AttentionCase::Sequence shifted(Row count, Row base) {
  AttentionCase::Sequence sequence{{}, static_cast<Row>(base + count)};
  for (Row i = 1; i <= count; ++i) sequence.limits.push_back(base + i);
  return sequence;
}

/// Limits that start at 0, stay for three rows and then jump by `step`.
AttentionCase::Sequence ladder(Row count, Row step) {
  AttentionCase::Sequence sequence{{}, 3};
  for (Row i = 0; i < count; ++i) sequence.limits.push_back(i / 3 * step);
  sequence.keys += sequence.limits.back();
  return sequence;
}

std::vector<AttentionCase> cases(Index heads, Index kv_heads, Index head_dim) {
  std::vector<Row> const same(120, 130), nothing(40, 0);
  return {{"causal, ragged",
           heads,
           kv_heads,
           head_dim,
           {causal(0), causal(300), causal(0), causal(129), causal(7), causal(0)}},
          {"cached keys before", heads, kv_heads, head_dim, {shifted(64, 200), shifted(1, 77), shifted(130, 1)}},
          {"limits that stay and jump", heads, kv_heads, head_dim, {ladder(200, 1), ladder(50, 29), ladder(9, 64)}},
          {"queries that all see the same", heads, kv_heads, head_dim, {{same, 140}, {nothing, 3}}},
          {"decoding", heads, kv_heads, head_dim, {{{500}, 500}, {{9}, 9}, {{96}, 96}, {{0}, 4}, {{300, 301}, 301}}},
          {"short decoding", heads, kv_heads, head_dim, {{{50}, 50}, {{33}, 33}}}};
}

/// A case's inputs on the device and in double. Key rows that belong to nobody hold NaN.
template <class T>
struct Problem {
  Problem(test::Device& device, AttentionCase const& problem, Index padding)
      : device(&device),
        problem(&problem),
        padding(padding),
        width(problem.shape.num_heads * problem.shape.head_dim),
        kv_width(problem.shape.num_kv_heads * problem.shape.head_dim),
        offsets(device, problem.offsets),
        key_begin(device, problem.key_begin),
        limits(device, problem.limits),
        hq(test::random_values<T>(problem.queries() * width, 1)),
        hk(keys(2)),
        hv(keys(3)),
        h_d_out(test::random_values<T>(problem.queries() * width, 4)),
        q(device, problem.queries(), width, hq, padding),
        k(device, problem.num_keys, kv_width, hk, padding),
        v(device, problem.num_keys, kv_width, hv, padding),
        d_out(device, problem.queries(), width, h_d_out, padding) {}

  [[nodiscard]] std::vector<double> keys(std::uint64_t seed) const {
    auto values = test::random_values<T>(problem->num_keys * kv_width, seed);
    for (Row const begin : problem->key_begin) {
      std::fill_n(values.begin() + static_cast<std::ptrdiff_t>((begin - 1) * kv_width), kv_width,
                  std::numeric_limits<double>::quiet_NaN());
    }
    return values;
  }
  /// The bound of the limits is loose: keys up to there need not exist.
  [[nodiscard]] KeyList key_list() const {
    KeyList const host = problem->keys();
    return {host.num_sequences, host.num_queries, host.max_limit + 70, offsets.read(),
            problem->offsets,   key_begin.read(), limits.read()};
  }
  /// Key rows that some query sees.
  [[nodiscard]] std::vector<bool> seen() const {
    std::vector<bool> rows(static_cast<std::size_t>(problem->num_keys));
    for (std::size_t s = 0; s + 1 < problem->offsets.size(); ++s) {
      if (problem->offsets[s] == problem->offsets[s + 1]) continue;
      Row const last = problem->limits[static_cast<std::size_t>(problem->offsets[s + 1] - 1)];
      std::fill_n(rows.begin() + problem->key_begin[s], last, true);
    }
    return rows;
  }

  test::Device* device;
  AttentionCase const* problem;
  Index padding, width, kv_width;
  test::DeviceRows offsets, key_begin, limits;
  std::vector<double> hq, hk, hv, h_d_out;
  test::DeviceMatrix<T> q, k, v, d_out;
};

template <class T>
struct Results {
  explicit Results(Problem<T> const& p, std::uint64_t seed = 5)
      : h_d_k(test::random_values<T>(p.problem->num_keys * p.kv_width, seed)),
        h_d_v(test::random_values<T>(p.problem->num_keys * p.kv_width, seed + 1)),
        out(*p.device, p.problem->queries(), p.width, p.padding),
        lse(*p.device, p.problem->queries(), p.problem->shape.num_heads, p.padding),
        d_q(*p.device, p.problem->queries(), p.width, p.padding),
        d_k(*p.device, p.problem->num_keys, p.kv_width, h_d_k, p.padding),
        d_v(*p.device, p.problem->num_keys, p.kv_width, h_d_v, p.padding) {
    cuda::Context const context = p.device->context();
    cuda::attention<cuda::Sm80, T>(context, p.q.read(), p.k.read(), p.v.read(), p.key_list(), p.problem->shape,
                                   out.view(), lse.view());
    cuda::attention_backward<cuda::Sm80, T>(context, p.q.read(), p.k.read(), p.v.read(), p.key_list(), p.problem->shape,
                                            out.read(), lse.read(), p.d_out.read(), d_q.view(), d_k.view(), d_v.view());
    p.device->synchronize();
  }
  std::vector<double> h_d_k, h_d_v;
  test::DeviceMatrix<T> out;
  test::DeviceMatrix<float> lse;
  test::DeviceMatrix<T> d_q, d_k, d_v;
};

template <class T>
bool same_bits(test::DeviceMatrix<T> const& a, test::DeviceMatrix<T> const& b) {
  auto const left = a.raw_values(), right = b.raw_values();
  return left.size() == right.size() &&
         (left.empty() || std::memcmp(left.data(), right.data(), left.size() * sizeof(T)) == 0);
}

/// Both passes against the host, which takes the device's rounded out and lse for the backward pass.
template <class T>
void check_case(test::Device& device, AttentionCase const& problem, Index padding) {
  INFO(problem.name);
  CAPTURE(problem.shape.num_heads, problem.shape.num_kv_heads, problem.shape.head_dim, padding);
  Problem<T> const p(device, problem, padding);
  Results<T> const results(p);
  Index const rows = problem.queries(), keys = problem.num_keys;
  View<double const> const q(p.hq.data(), rows, p.width), k(p.hk.data(), keys, p.kv_width),
      v(p.hv.data(), keys, p.kv_width);
  View<double const> const d_out(p.h_d_out.data(), rows, p.width);
  std::vector<double> out(p.hq.size()), lse(static_cast<std::size_t>(rows * problem.shape.num_heads)), d_q(p.hq.size());
  test::Oracle host;
  host.attention(q, k, v, problem.keys(), problem.shape, {out.data(), rows, p.width},
                 {lse.data(), rows, problem.shape.num_heads});
  REQUIRE(test::relative_error(results.out.values(), out) < test::kTolerance<T>);
  REQUIRE(test::relative_error(results.lse.values(), lse) < 2e-6);
  REQUIRE((results.out.intact() && results.lse.intact()));

  out = results.out.values();
  lse = results.lse.values();
  auto d_k = results.h_d_k, d_v = results.h_d_v;
  host.attention_backward(q, k, v, problem.keys(), problem.shape, {out.data(), rows, p.width},
                          {lse.data(), rows, problem.shape.num_heads}, d_out, {d_q.data(), rows, p.width},
                          {d_k.data(), keys, p.kv_width}, {d_v.data(), keys, p.kv_width});
  REQUIRE(test::relative_error(results.d_q.values(), d_q) < test::kTolerance<T>);
  REQUIRE(test::relative_error(results.d_k.values(), d_k) < test::kTolerance<T>);
  REQUIRE(test::relative_error(results.d_v.values(), d_v) < test::kTolerance<T>);
  REQUIRE((results.d_q.intact() && results.d_k.intact() && results.d_v.intact()));

  auto const seen = p.seen();
  auto const after_k = results.d_k.values(), after_v = results.d_v.values();
  for (std::size_t at = 0; at < after_k.size(); ++at) {
    if (seen[at / static_cast<std::size_t>(p.kv_width)]) continue;
    REQUIRE((after_k[at] == results.h_d_k[at] && after_v[at] == results.h_d_v[at]));
  }
  auto const zeros = [&](std::vector<double> const& values, Row row) {
    auto const first = values.begin() + static_cast<std::ptrdiff_t>(row * p.width);
    return std::all_of(first, first + static_cast<std::ptrdiff_t>(p.width), [](double value) { return value == 0.0; });
  };
  auto const after_q = results.d_q.values();
  for (Row i = 0; i < rows; ++i) {
    if (problem.limits[static_cast<std::size_t>(i)] == 0) REQUIRE((zeros(out, i) && zeros(after_q, i)));
  }

  Results<T> const again(p);
  REQUIRE(
      (same_bits(results.out, again.out) && same_bits(results.lse, again.lse) && same_bits(results.d_q, again.d_q)));
  REQUIRE((same_bits(results.d_k, again.d_k) && same_bits(results.d_v, again.d_v)));
}

}  // namespace

TEMPLATE_TEST_CASE("attention of heads of 64 and 128 agrees with the host", "[cuda]", float, bfloat16) {
  test::Device device;
  for (Index const head_dim : {64, 128}) {
    for (auto const& [heads, kv_heads] : {std::pair<Index, Index>{1, 1}, {3, 1}, {8, 2}}) {
      for (auto const& problem : cases(heads, kv_heads, head_dim)) check_case<TestType>(device, problem, 8);
    }
  }
}

TEMPLATE_TEST_CASE("attention of any head dimension agrees with the host", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  for (Index const head_dim : {1, 5, 32, 40, 96, 256}) {
    for (auto const& problem : cases(6, 2, head_dim)) check_case<TestType>(device, problem, 8);
  }
}

TEMPLATE_TEST_CASE("attention of rows that are not aligned agrees with the host", "[cuda]", float, bfloat16) {
  test::Device device;
  for (Index const head_dim : {64, 128, 256}) {
    for (auto const& problem : cases(3, 3, head_dim)) check_case<TestType>(device, problem, 3);
  }
}

TEST_CASE("attention of long sequences agrees with the host", "[cuda]") {
  test::Device device;
  AttentionCase const training("training", 3, 1, 64, {causal(2048), causal(1365)});
  check_case<bfloat16>(device, training, 0);
  check_case<float>(device, training, 0);
  check_case<bfloat16>(device, {"training", 2, 2, 128, {causal(1500)}}, 0);
  check_case<bfloat16>(device, {"shared keys", 3, 1, 64, {ladder(600, 9), shifted(700, 1300)}}, 16);
  check_case<bfloat16>(device, {"many sequences", 3, 1, 64, std::vector<AttentionCase::Sequence>(700, causal(9))}, 0);
}

TEST_CASE("attention of scores far apart stays exact", "[cuda]") {
  test::Device device;
  // Factors that make scores of hundreds: the running reference is raised again and again.
  for (Index const head_dim : {64, 128, 24}) {
    AttentionCase problem("steep", 2, 1, head_dim, {causal(400), shifted(40, 300)});
    problem.shape.scale = 20.0;
    Problem<bfloat16> const p(device, problem, 0);
    Results<bfloat16> const results(p);
    Index const rows = problem.queries();
    std::vector<double> out(p.hq.size()), lse(static_cast<std::size_t>(rows * 2));
    test::Oracle host;
    host.attention({p.hq.data(), rows, p.width}, {p.hk.data(), problem.num_keys, p.kv_width},
                   {p.hv.data(), problem.num_keys, p.kv_width}, problem.keys(), problem.shape,
                   {out.data(), rows, p.width}, {lse.data(), rows, 2});
    REQUIRE(test::relative_error(results.out.values(), out) < test::kTolerance<bfloat16>);
    REQUIRE(test::relative_error(results.lse.values(), lse) < 2e-6);
  }
}

TEMPLATE_TEST_CASE("attention of columns of one wide matrix gives the bits it has on matrices of their own", "[cuda][quick]",
                   float, bfloat16) {
  test::Device device;
  Index const heads = 4, kv_heads = 2, head_dim = 64, width = heads * head_dim, kv_width = kv_heads * head_dim;
  std::vector<Row> const offsets{0, 150, 201}, begins{0, 150};
  std::vector<Row> limits;
  for (Row i = 0; i < 201; ++i) limits.push_back(i < 150 ? i + 1 : i - 149);
  test::DeviceRows const device_offsets(device, offsets), device_begins(device, begins), device_limits(device, limits);
  KeyList const keys{2, 201, 150, device_offsets.read(), offsets, device_begins.read(), device_limits.read()};
  AttentionShape const shape{heads, kv_heads, head_dim, 0.125};
  Index const all = width + 2 * kv_width;
  test::DeviceMatrix<TestType> const wide(device, 201, all, test::random_values<TestType>(201 * all, 1));
  test::DeviceMatrix<TestType> const d_out(device, 201, width, test::random_values<TestType>(201 * width, 2));
  auto const part = [&](Index first, Index count) {
    auto const values = wide.values();
    std::vector<double> columns;
    for (Index i = 0; i < 201; ++i) {
      auto const from = values.begin() + static_cast<std::ptrdiff_t>(i * all + first);
      columns.insert(columns.end(), from, from + static_cast<std::ptrdiff_t>(count));
    }
    return test::DeviceMatrix<TestType>(device, 201, count, columns);
  };
  auto const run = [&](View<TestType const> q, View<TestType const> k, View<TestType const> v, View<TestType> d_q,
                       View<TestType> d_k, View<TestType> d_v) {
    test::DeviceMatrix<TestType> out(device, 201, width);
    test::DeviceMatrix<float> lse(device, 201, heads);
    cuda::attention<cuda::Sm80, TestType>(device.context(), q, k, v, keys, shape, out.view(), lse.view());
    cuda::attention_backward<cuda::Sm80, TestType>(device.context(), q, k, v, keys, shape, out.read(), lse.read(),
                                                   d_out.read(), d_q, d_k, d_v);
    device.synchronize();
    return out.values();
  };
  auto const q = part(0, width), k = part(width, kv_width), v = part(width + kv_width, kv_width);
  std::vector<double> const zeros(static_cast<std::size_t>(201 * all));
  test::DeviceMatrix<TestType> const d_wide(device, 201, all, zeros), d_q(device, 201, width),
      d_k(device, 201, kv_width, std::vector<double>(static_cast<std::size_t>(201 * kv_width))),
      d_v(device, 201, kv_width, std::vector<double>(static_cast<std::size_t>(201 * kv_width)));
  auto const of_slices = run(wide.read().columns(0, width), wide.read().columns(width, kv_width),
                             wide.read().columns(width + kv_width, kv_width), d_wide.view().columns(0, width),
                             d_wide.view().columns(width, kv_width), d_wide.view().columns(width + kv_width, kv_width));
  auto const of_own = run(q.read(), k.read(), v.read(), d_q.view(), d_k.view(), d_v.view());
  REQUIRE(of_slices == of_own);
  auto const joined = d_wide.values(), left = d_q.values(), middle = d_k.values(), right = d_v.values();
  bool equal = true;
  for (Index i = 0; i < 201; ++i) {
    for (Index j = 0; j < all; ++j) {
      double const own = j < width              ? left[static_cast<std::size_t>(i * width + j)]
                         : j < width + kv_width ? middle[static_cast<std::size_t>(i * kv_width + j - width)]
                                                : right[static_cast<std::size_t>(i * kv_width + j - width - kv_width)];
      equal = equal && joined[static_cast<std::size_t>(i * all + j)] == own;
    }
  }
  REQUIRE(equal);
}

TEMPLATE_TEST_CASE("attention of no queries, or of queries that see nothing, is empty", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  AttentionCase const none("no queries", 2, 2, 64, {causal(0)});
  Problem<TestType> const nothing(device, none, 0);
  Results<TestType> const unchanged(nothing);
  REQUIRE(unchanged.d_k.values() == unchanged.h_d_k);
  AttentionCase const blind("no keys", 2, 2, 64, {{std::vector<Row>(20, 0), 5}});
  Problem<TestType> const p(device, blind, 0);
  Results<TestType> const results(p);
  std::vector<double> const zeros(p.hq.size());
  REQUIRE(results.out.values() == zeros);
  REQUIRE(results.d_q.values() == zeros);
  REQUIRE(results.d_k.values() == results.h_d_k);
  REQUIRE(results.d_v.values() == results.h_d_v);
  for (double const lse : results.lse.values()) REQUIRE(lse == -std::numeric_limits<double>::infinity());
}

TEST_CASE("attention refuses heads that do not form groups or are too large", "[cuda]") {
  test::Device device;
  AttentionCase const uneven("uneven", 3, 2, 4, {causal(2)}), large("large", 1, 1, 257, {causal(2)});
  Problem<float> const p(device, uneven, 0), too_large(device, large, 0);
  REQUIRE_THROWS_AS(Results<float>(p), mor::error);
  REQUIRE_THROWS_AS(Results<float>(too_large), mor::error);
}
