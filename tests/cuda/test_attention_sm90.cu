// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"
#include "host/attention_cases.hpp"

#include "mor/backend/cuda/ops/attention_sm90.cuh"

#include <cstring>

using namespace mor;
using mor::test::AttentionCase;
using mor::test::causal;

namespace {

std::vector<AttentionCase> attention_cases(Index dim) {
  std::vector<Row> ladder, constant(120, 130), late;
  for (Row i = 0; i < 200; ++i) ladder.push_back(3 * i / 2);
  for (Row i = 0; i < 150; ++i) late.push_back(i < 70 ? 0 : i - 69);
  return {
      {"one token", 3, 1, dim, {causal(1)}},
      {"one head, several tiles", 1, 1, dim, {causal(700)}},
      {"as many key heads as heads", 4, 4, dim, {causal(230), causal(128), causal(64)}},
      {"groups of three", 15, 5, dim, {causal(129), causal(341)}},
      {"ragged with empty sequences", 6, 2, dim, {causal(0), causal(65), causal(0), causal(7), causal(128), causal(0)}},
      {"groups of two: warpgroups share tiles unevenly", 4, 2, dim, {causal(200), causal(63)}},
      {"groups of five", 5, 1, dim, {causal(100), causal(300)}},
      {"limits that start at zero and outrun the rows", 6, 2, dim, {{ladder, 300}, causal(5)}},
      {"queries that all see the same", 2, 1, dim, {{constant, 140}, causal(64)}},
      {"few queries of long lists", 3, 1, dim, {{{500}, 700}, {{1}, 9}, {{96, 97}, 99}, {{0}, 4}}},
      {"tiles that see nothing", 3, 1, dim, {{late, 90}, {{0, 0}, 1}}},
      {"nothing at all", 1, 1, dim, {{{0, 0, 0}, 0}}},
      {"no queries", 2, 2, dim, {}}};
}

/// The same, held against the size that a gradient usually has: some are zero but for rounding.
double gradient_error(std::vector<double> const& a, std::vector<double> const& b) {
  double size = 0.0, difference = 0.0;
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
  return std::sqrt(difference / std::max(size, 1e-4 * static_cast<double>(b.size()) + 1e-30));
}

/// A problem on the device. Key rows that belong to nobody hold NaN.
struct Problem {
  Problem(test::Device& device, AttentionCase const& problem, Index padding)
      : rows(problem.queries()),
        width(problem.shape.num_heads * problem.shape.head_dim),
        key_width(problem.shape.num_kv_heads * problem.shape.head_dim),
        q_values(test::random_values<bfloat16>(rows * width, 1)),
        k_values(keys_of(problem, 2)),
        v_values(keys_of(problem, 3)),
        d_out_values(test::random_values<bfloat16>(rows * width, 4)),
        d_k_before(test::random_values<bfloat16>(problem.num_keys * key_width, 5)),
        d_v_before(test::random_values<bfloat16>(problem.num_keys * key_width, 6)),
        q(device, rows, width, q_values, padding),
        k(device, problem.num_keys, key_width, k_values, padding),
        v(device, problem.num_keys, key_width, v_values, padding),
        d_out(device, rows, width, d_out_values, padding),
        out(device, rows, width, padding),
        d_q(device, rows, width, padding),
        d_k(device, problem.num_keys, key_width, d_k_before, padding),
        d_v(device, problem.num_keys, key_width, d_v_before, padding),
        lse(device, rows, problem.shape.num_heads, 1),
        offsets(device, problem.offsets),
        key_begin(device, problem.key_begin),
        limits(device, problem.limits) {
    host_keys = problem.keys();
    keys = host_keys;
    keys.query_offsets = offsets.read();
    keys.key_begin = key_begin.read();
    keys.limits = limits.read();
  }

  [[nodiscard]] std::vector<double> keys_of(AttentionCase const& problem, std::uint64_t seed) const {
    auto values = test::random_values<bfloat16>(problem.num_keys * key_width, seed);
    for (Row const begin : problem.key_begin) {
      std::fill_n(values.begin() + (begin - 1) * key_width, key_width, std::numeric_limits<double>::quiet_NaN());
    }
    return values;
  }
  void forward(test::Device& device, AttentionShape const& shape) {
    cuda::attention_sm90(device.context(), q.read(), k.read(), v.read(), keys, shape, out.view(), lse.view());
  }
  void backward(test::Device& device, AttentionShape const& shape) {
    cuda::attention_backward_sm90(device.context(), q.read(), k.read(), v.read(), keys, shape, out.read(),
                                  View<float const>(lse.view()), d_out.read(), d_q.view(), d_k.view(), d_v.view());
  }
  [[nodiscard]] bool intact() const {
    return q.intact() && k.intact() && v.intact() && d_out.intact() && out.intact() && lse.intact() && d_q.intact() &&
           d_k.intact() && d_v.intact();
  }

  Index rows, width, key_width;
  std::vector<double> q_values, k_values, v_values, d_out_values, d_k_before, d_v_before;
  test::DeviceMatrix<bfloat16> q, k, v, d_out, out, d_q, d_k, d_v;
  test::DeviceMatrix<float> lse;
  test::DeviceRows offsets, key_begin, limits;
  KeyList host_keys, keys;
};

void need_hopper(test::Device const& device) {
  if (device.facts().capability != 90) SKIP("needs compute capability 9.0");
}

void check_case(test::Device& device, AttentionCase const& problem, Index padding) {
  INFO(problem.name);
  CAPTURE(problem.shape.head_dim, padding);
  Problem p(device, problem, padding);
  REQUIRE(cuda::attention_sm90_supports(problem.shape, p.q.read(), p.k.read(), p.v.read(), p.out.view()));
  p.forward(device, problem.shape);
  p.backward(device, problem.shape);

  Index const num_keys = problem.num_keys, heads = problem.shape.num_heads;
  auto const cells = [](Index rows, Index cols) { return std::vector<double>(static_cast<std::size_t>(rows * cols)); };
  auto out = cells(p.rows, p.width), lse = cells(p.rows, heads), d_q = out, d_k = p.d_k_before, d_v = p.d_v_before;
  test::Oracle host;
  View<double const> const q(p.q_values.data(), p.rows, p.width), d_out(p.d_out_values.data(), p.rows, p.width);
  View<double const> const k(p.k_values.data(), num_keys, p.key_width), v(p.v_values.data(), num_keys, p.key_width);
  View<double> const out_view(out.data(), p.rows, p.width), lse_view(lse.data(), p.rows, heads);
  host.attention(q, k, v, p.host_keys, problem.shape, out_view, lse_view);
  host.attention_backward(q, k, v, p.host_keys, problem.shape, out_view, lse_view, d_out, {d_q.data(), p.rows, p.width},
                          {d_k.data(), num_keys, p.key_width}, {d_v.data(), num_keys, p.key_width});

  double const tolerance = test::kTolerance<bfloat16>;
  CHECK(test::relative_error(p.out.values(), out) < tolerance);
  CHECK(test::relative_error(p.lse.values(), lse) < 1e-5);
  CHECK(gradient_error(p.d_q.values(), d_q) < 2 * tolerance);
  CHECK(gradient_error(p.d_k.values(), d_k) < 2 * tolerance);
  CHECK(gradient_error(p.d_v.values(), d_v) < 2 * tolerance);
  CHECK(p.intact());
}

template <class T>
bool same_bits(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace

TEST_CASE("Hopper attention and its gradients agree with the host", "[cuda]") {
  test::Device device;
  need_hopper(device);
  for (Index const dim : {Index{64}, Index{128}}) {
    for (auto const& problem : attention_cases(dim)) {
      for (Index const padding : {Index{0}, Index{24}}) check_case(device, problem, padding);
    }
  }
}

TEST_CASE("Hopper attention agrees with the host on whole training sequences", "[cuda]") {
  test::Device device;
  need_hopper(device);
  check_case(device, {"three heads of 64", 3, 1, 64, {causal(2048), causal(1365)}}, 0);
  check_case(device, {"two heads of 128", 2, 2, 128, {causal(1024), causal(682)}}, 0);
}

TEST_CASE("Hopper attention gives the same bits in every run", "[cuda]") {
  test::Device device;
  need_hopper(device);
  for (Index const dim : {Index{64}, Index{128}}) {
    std::vector<AttentionCase::Sequence> sequences;
    for (Row length = 40; length < 900; length += 43) sequences.push_back(causal(length));
    AttentionCase const problem("many sequences", 6, 2, dim, sequences);
    Problem first(device, problem, 0), second(device, problem, 0);
    for (Problem* p : {&first, &second}) {
      p->forward(device, problem.shape);
      p->backward(device, problem.shape);
    }
    CHECK(same_bits(first.out.raw_values(), second.out.raw_values()));
    CHECK(same_bits(first.lse.raw_values(), second.lse.raw_values()));
    CHECK(same_bits(first.d_q.raw_values(), second.d_q.raw_values()));
    CHECK(same_bits(first.d_k.raw_values(), second.d_k.raw_values()));
    CHECK(same_bits(first.d_v.raw_values(), second.d_v.raw_values()));
  }
}

TEST_CASE("Hopper attention reads and writes column slices of one matrix", "[cuda][quick]") {
  test::Device device;
  need_hopper(device);
  AttentionShape const shape{3, 1, 64, 0.125};
  std::vector<Row> const offsets{0, 100, 230};
  std::vector<Row> limits;
  for (Row i = 0; i < 230; ++i) limits.push_back(i < 100 ? i + 1 : i - 99);
  Index const rows = 230, width = 5 * 64;
  auto const qkv_values = test::random_values<bfloat16>(rows * width, 1),
             d_out_values = test::random_values<bfloat16>(rows * 192, 2);
  test::DeviceMatrix<bfloat16> const qkv(device, rows, width, qkv_values), d_out(device, rows, 192, d_out_values);
  test::DeviceMatrix<bfloat16> const out(device, rows, 192),
      d_qkv(device, rows, width, std::vector<double>(qkv_values.size()));
  test::DeviceMatrix<float> const lse(device, rows, 3);
  test::DeviceRows const device_offsets(device, offsets), begin(device, {0, 100}), device_limits(device, limits);
  KeyList const keys{2, rows, 130, device_offsets.read(), offsets, begin.read(), device_limits.read()};
  auto const slice = [](auto view, Index first, Index count) { return view.columns(first * 64, count * 64); };
  cuda::attention_sm90(device.context(), slice(qkv.read(), 0, 3), slice(qkv.read(), 3, 1), slice(qkv.read(), 4, 1),
                       keys, shape, out.view(), lse.view());
  cuda::attention_backward_sm90(device.context(), slice(qkv.read(), 0, 3), slice(qkv.read(), 3, 1),
                                slice(qkv.read(), 4, 1), keys, shape, out.read(), View<float const>(lse.view()),
                                d_out.read(), slice(d_qkv.view(), 0, 3), slice(d_qkv.view(), 3, 1),
                                slice(d_qkv.view(), 4, 1));

  std::vector<Row> const host_begin{0, 100};
  KeyList const host_keys{2, rows, 130, offsets, offsets, host_begin, limits};
  std::vector<double> expected(static_cast<std::size_t>(rows * 192)), expected_lse(static_cast<std::size_t>(rows * 3));
  std::vector<double> gradients(qkv_values.size());
  View<double const> const x(qkv_values.data(), rows, width), dy(d_out_values.data(), rows, 192);
  View<double> const y(expected.data(), rows, 192), l(expected_lse.data(), rows, 3), dx(gradients.data(), rows, width);
  test::Oracle host;
  host.attention(slice(x, 0, 3), slice(x, 3, 1), slice(x, 4, 1), host_keys, shape, y, l);
  host.attention_backward(slice(x, 0, 3), slice(x, 3, 1), slice(x, 4, 1), host_keys, shape, y, l, dy, slice(dx, 0, 3),
                          slice(dx, 3, 1), slice(dx, 4, 1));
  CHECK(test::relative_error(out.values(), expected) < test::kTolerance<bfloat16>);
  CHECK(test::relative_error(lse.values(), expected_lse) < 1e-5);
  CHECK(test::relative_error(d_qkv.values(), gradients) < 2 * test::kTolerance<bfloat16>);
  CHECK((out.intact() && lse.intact() && d_qkv.intact()));
}

TEST_CASE("Hopper attention is refused where 16-byte accesses cannot reach", "[cuda]") {
  alignas(16) static bfloat16 storage[2];
  AttentionShape const good{6, 2, 64, 0.125};
  View<bfloat16> const aligned(storage, 1, 384, 384), shifted(storage + 1, 1, 384, 384), odd(storage, 2, 384, 387);
  CHECK(cuda::attention_sm90_supports(good, aligned));
  CHECK_FALSE(cuda::attention_sm90_supports(good, aligned, shifted));
  CHECK_FALSE(cuda::attention_sm90_supports(good, odd));
  CHECK_FALSE(cuda::attention_sm90_supports({6, 2, 32, 0.125}, aligned));
  CHECK_FALSE(cuda::attention_sm90_supports({6, 4, 64, 0.125}, aligned));
  CHECK_FALSE(cuda::attention_sm90_supports({6, 2, 64, -0.125}, aligned));
}
