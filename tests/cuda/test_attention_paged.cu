// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"
#include "host/attention_cases.hpp"

#include "mor/backend/cuda/ops/attention.cuh"
#include "mor/backend/cuda/ops/key_list.cuh"

#include <algorithm>
#include <cstring>
#include <limits>

using namespace mor;
using mor::test::AttentionCase;
using mor::test::Matrix;
using mor::test::PagedLists;

namespace {

/// Decoding: single rows against lists of many lengths, one of them empty.
AttentionCase decoding(Index heads, Index kv_heads, Index head_dim, std::vector<Row> const& lengths) {
  std::vector<AttentionCase::Sequence> sequences;
  for (Row const length : lengths) sequences.push_back({{length}, static_cast<Row>(length + 3)});
  return {"decoding", heads, kv_heads, head_dim, sequences};
}

template <class T>
Matrix<double> random_matrix(Index rows, Index cols, std::uint64_t seed) {
  Matrix<double> result(rows, cols);
  result.assign(test::random_values<T>(rows * cols, seed));
  return result;
}

/// A case's operands, its keys and values in pages.
template <class T>
struct Problem {
  Problem(test::Device& device_, AttentionCase const& problem_, Index page_size, Index padding = 8)
      : device(&device_), problem(&problem_), lists(problem_, page_size),
        heads(problem_.shape.num_heads), width(heads * problem_.shape.head_dim),
        hq(random_matrix<T>(problem_.queries(), width, 1)),
        hk(random_matrix<T>(problem_.num_keys, problem_.shape.num_kv_heads * problem_.shape.head_dim, 2)),
        hv(random_matrix<T>(problem_.num_keys, hk.cols(), 3)),
        q(device_, problem_.queries(), width, hq.values(), padding),
        k(device_, lists.num_rows, hk.cols(), lists.storage(hk).values(), padding),
        v(device_, lists.num_rows, hk.cols(), lists.storage(hv).values(), padding),
        out(device_, problem_.queries(), width, padding),
        lse(device_, problem_.queries(), heads, padding),
        offsets(device_, problem_.offsets), key_begin(device_, lists.key_begin), limits(device_, problem_.limits),
        pages(device_, lists.pages) {}

  /// `slack` loosens the bound of the limits, and with it the number of parts that the launch provides for.
  void run(Index slack) {
    KeyList keys = problem->keys();
    keys.max_limit += slack;
    keys.query_offsets = offsets.read();
    keys.key_begin = key_begin.read();
    keys.limits = limits.read();
    keys.pages = pages.read();
    keys.page_size = lists.page_size;
    cuda::attention<cuda::Sm80, T>(device->context(), q.read(), k.read(), v.read(), keys, problem->shape, out.view(),
                                   lse.view());
    device->synchronize();
  }

  test::Device* device;
  AttentionCase const* problem;
  PagedLists lists;
  Index heads, width;
  Matrix<double> hq, hk, hv;
  test::DeviceMatrix<T> q, k, v, out;
  test::DeviceMatrix<float> lse;
  test::DeviceRows offsets, key_begin, limits, pages;
};

template <class T>
void check(test::Device& device, AttentionCase const& problem, Index page_size, Index padding = 8) {
  CAPTURE(problem.shape.num_heads, problem.shape.num_kv_heads, problem.shape.head_dim, page_size, padding);
  Problem<T> p(device, problem, page_size, padding);
  p.run(0);
  Matrix<double> out(problem.queries(), p.width), lse(problem.queries(), p.heads);
  test::plain_attention(problem, p.hq, p.hk, p.hv, out, lse);
  REQUIRE(test::relative_error(p.out.values(), out.values()) < test::kTolerance<T>);
  auto const got = p.lse.values(), expected = lse.values();
  for (std::size_t i = 0; i < got.size(); ++i) {
    REQUIRE((got[i] == expected[i] || std::abs(got[i] - expected[i]) < 1e-5));  // equal where both are -infinity
  }
  REQUIRE((p.out.intact() && p.lse.intact()));
}

std::vector<Row> const lengths{1, 0, 63, 64, 65, 200, 511, 512, 513, 1500, 3, 130};

}  // namespace

TEMPLATE_TEST_CASE("attention over pages agrees with the definition", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  for (Index const head_dim : {64, 128}) {
    for (auto const& [heads, kv_heads] : {std::pair<Index, Index>{1, 1}, {3, 1}, {8, 2}, {14, 2}, {4, 4}}) {
      check<TestType>(device, decoding(heads, kv_heads, head_dim, lengths), 64);
    }
  }
}

TEMPLATE_TEST_CASE("attention over pages takes any head dimension, page and alignment", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  for (Index const head_dim : {1, 5, 40, 96, 256}) check<TestType>(device, decoding(6, 2, head_dim, {0, 1, 70, 700}), 64);
  for (Index const page_size : {1, 7, 256}) check<TestType>(device, decoding(3, 1, 64, {0, 1, 70, 700}), page_size);
  check<TestType>(device, decoding(6, 2, 64, {5, 600}), 64, 3);
}

TEMPLATE_TEST_CASE("prompts over pages agree with the definition", "[cuda]", float, bfloat16) {
  test::Device device;
  AttentionCase::Sequence chunk{{}, 180};
  for (Row i = 0; i < 60; ++i) chunk.limits.push_back(121 + i);
  check<TestType>(device, {"prompts", 6, 2, 64, {test::causal(90), test::causal(0), chunk, {{7}, 9}}}, 64);
}

TEMPLATE_TEST_CASE("a row over pages has the same bits alone, in any batch and under any bound", "[cuda]", float, bfloat16) {
  test::Device device;
  auto const together = decoding(6, 2, 64, lengths);
  Problem<TestType> all(device, together, 64);
  all.run(0);
  auto const bits = all.out.raw_values();
  all.run(5000);
  REQUIRE(std::memcmp(all.out.raw_values().data(), bits.data(), bits.size() * sizeof(TestType)) == 0);
  for (std::size_t s = 0; s < lengths.size(); ++s) {
    auto const one = decoding(6, 2, 64, {lengths[s]});
    Problem<TestType> alone(device, one, 64);
    // The row's own operands in place of the random ones of a smaller problem.
    KeyList const from = together.keys(), to = one.keys();
    Matrix<double> q(1, all.width), k(one.num_keys, all.hk.cols()), v(one.num_keys, all.hk.cols());
    for (Index j = 0; j < all.width; ++j) q(0, j) = all.hq(static_cast<Index>(s), j);
    for (Index key = 0; key < lengths[s]; ++key) {
      for (Index j = 0; j < k.cols(); ++j) {
        k(key_row(to, 0, key), j) = all.hk(key_row(from, static_cast<Index>(s), key), j);
        v(key_row(to, 0, key), j) = all.hv(key_row(from, static_cast<Index>(s), key), j);
      }
    }
    alone.q = test::DeviceMatrix<TestType>(device, 1, all.width, q.values(), 8);
    alone.k = test::DeviceMatrix<TestType>(device, alone.lists.num_rows, k.cols(), alone.lists.storage(k).values(), 8);
    alone.v = test::DeviceMatrix<TestType>(device, alone.lists.num_rows, k.cols(), alone.lists.storage(v).values(), 8);
    alone.run(0);
    auto const row = alone.out.raw_values();
    REQUIRE(std::memcmp(row.data(), bits.data() + static_cast<std::ptrdiff_t>(s) * all.width,
                        row.size() * sizeof(TestType)) == 0);
  }
}

TEMPLATE_TEST_CASE("keys on the device are written at their places in pages and nowhere else", "[cuda][quick]", float,
                   bfloat16) {
  test::Device device;
  AttentionCase const problem("append", 2, 2, 32, {{{3, 4, 5}, 5}, {{1}, 1}, {{0, 1, 2}, 7}, {{130}, 130}});
  for (Index const page_size : {1, 2, 64}) {
    for (Index const padding : {0, 3}) {
      PagedLists const lists(problem, page_size);
      auto const x = random_matrix<TestType>(problem.queries(), 64, 4);
      Matrix<double> storage(lists.num_rows, 64, 7.0);
      test::DeviceMatrix<TestType> const device_x(device, problem.queries(), 64, x.values(), padding),
          device_storage(device, lists.num_rows, 64, storage.values(), padding);
      test::Oracle().write_keys(x.read(), lists.keys(), storage.view());
      test::DeviceRows const offsets(device, problem.offsets), begin(device, lists.key_begin),
          limits(device, problem.limits), pages(device, lists.pages);
      KeyList keys = lists.keys();
      keys.query_offsets = offsets.read();
      keys.key_begin = begin.read();
      keys.limits = limits.read();
      keys.pages = pages.read();
      cuda::write_keys(device.context(), device_x.read(), keys, device_storage.view());
      REQUIRE(device_storage.values() == storage.values());
      REQUIRE(device_storage.intact());
    }
  }
}
