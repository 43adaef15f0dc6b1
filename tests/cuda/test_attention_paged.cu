// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"
#include "host/attention_cases.hpp"

#include "mor/backend/cuda/graph.cuh"
#include "mor/backend/cuda/ops/attention.cuh"
#include "mor/backend/cuda/ops/attention_paged.cuh"
#include "mor/backend/cuda/ops/key_list.cuh"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

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

  /// The list on the device. `slack` loosens the bound of the limits, and with it the parts that a launch provides for.
  [[nodiscard]] KeyList keys(Index slack) const {
    KeyList list = problem->keys();
    list.max_limit += slack;
    list.query_offsets = offsets.read();
    list.key_begin = key_begin.read();
    list.limits = limits.read();
    list.pages = pages.read();
    list.page_size = lists.page_size;
    return list;
  }
  /// Starts the work on rows [first, first + count), each of a sequence of its own.
  template <class Arch>
  void enqueue(Index first, Index count, Index slack, View<T const> queries, View<T> results) {
    KeyList list = keys(slack);
    std::vector<Row> host_offsets;
    for (Index i = 0; i <= count; ++i) host_offsets.push_back(static_cast<Row>(i));
    list.num_sequences = list.num_queries = count;
    list.query_offsets = offsets.read().first(static_cast<std::size_t>(count + 1));
    list.host_query_offsets = host_offsets;
    list.key_begin = list.key_begin.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
    list.limits = list.limits.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
    cuda::attention_paged<Arch, T>(device->context(), queries.row_range(first, count), k.read(), v.read(), list,
                                   problem->shape, results.row_range(first, count), lse.view().row_range(first, count));
  }
  /// All rows; `Arch` says which kernel.
  template <class Arch>
  void run(Index slack) {
    if constexpr (std::is_same_v<Arch, cuda::Sm80>) {
      cuda::attention<Arch, T>(device->context(), q.read(), k.read(), v.read(), keys(slack), problem->shape, out.view(),
                               lse.view());
    } else {
      cuda::attention_paged<Arch, T>(device->context(), q.read(), k.read(), v.read(), keys(slack), problem->shape, out.view(),
                                     lse.view());
    }
    device->synchronize();
  }
  void forget_results() {
    out = test::DeviceMatrix<T>(*device, problem->queries(), width, 8);
    lse = test::DeviceMatrix<float>(*device, problem->queries(), heads, 8);
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
[[nodiscard]] bool runs_hopper_kernels(test::Device const& device) {
  return std::is_same_v<T, bfloat16> && device.facts().capability == 90;
}

template <class T>
void require_results(Problem<T> const& p, Matrix<double> const& out, Matrix<double> const& lse) {
  REQUIRE(test::relative_error(p.out.values(), out.values()) < test::kTolerance<T>);
  auto const got = p.lse.values(), expected = lse.values();
  for (std::size_t i = 0; i < got.size(); ++i) {
    REQUIRE((got[i] == expected[i] || std::abs(got[i] - expected[i]) < 1e-5));  // equal where both are -infinity
  }
  REQUIRE((p.out.intact() && p.lse.intact()));
}

/// Compares the kernels of both architectures with the definition, or with the host backend where `oracle` is given.
template <class T>
void check(test::Device& device, AttentionCase const& problem, Index page_size, Index padding = 8,
           test::Oracle* oracle = nullptr) {
  CAPTURE(problem.shape.num_heads, problem.shape.num_kv_heads, problem.shape.head_dim, page_size, padding);
  Problem<T> p(device, problem, page_size, padding);
  Matrix<double> out(problem.queries(), p.width), lse(problem.queries(), p.heads);
  if (oracle == nullptr) {
    test::plain_attention(problem, p.hq, p.hk, p.hv, out, lse);
  } else {
    auto const k = p.lists.storage(p.hk), v = p.lists.storage(p.hv);
    oracle->attention(p.hq.read(), k.read(), v.read(), p.lists.keys(), problem.shape, out.view(), lse.view());
  }
  p.template run<cuda::Sm80>(0);
  require_results(p, out, lse);
  if (!runs_hopper_kernels<T>(device)) return;
  p.forget_results();
  p.template run<cuda::Sm90>(0);
  require_results(p, out, lse);
}

template <class T>
bool same_bits(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
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

namespace {

/// Rows in batches of all sizes, which the device splits among its blocks in different ways, against all rows at once.
template <class T, class Arch>
void check_bits(test::Device& device, Index heads, Index kv_heads, Index head_dim) {
  CAPTURE(heads, kv_heads, head_dim);
  std::vector<Row> lengths{2000, 0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 500, 511, 512, 513, 1000};
  while (lengths.size() < 400) lengths.push_back(static_cast<Row>(lengths.size() % 97));
  auto const together = decoding(heads, kv_heads, head_dim, lengths);
  Problem<T> p(device, together, 64);
  p.template run<Arch>(0);
  auto const out = p.out.raw_values();
  auto const lse = p.lse.raw_values();
  auto const require_rows = [&](Index first, Index count, Index slack) {
    CAPTURE(first, count, slack);
    p.forget_results();
    p.template enqueue<Arch>(first, count, slack, p.q.read(), p.out.view());
    auto const rows = [&](auto const& from, Index cols) {
      auto const begin = from.begin() + static_cast<std::ptrdiff_t>(first * cols);
      return std::vector(begin, begin + static_cast<std::ptrdiff_t>(count * cols));
    };
    REQUIRE(same_bits(rows(p.out.raw_values(), p.width), rows(out, p.width)));
    REQUIRE(same_bits(rows(p.lse.raw_values(), p.heads), rows(lse, p.heads)));
    REQUIRE((p.out.intact() && p.lse.intact()));
  };
  auto const all = static_cast<Index>(lengths.size());
  for (Index const slack : {0, 1000, 50000}) require_rows(0, all, slack);
  for (Index const count : {2, 5, 20, 40, 80, 160}) require_rows(0, count, 0);
  for (Index first = 0; first < 20; ++first) require_rows(first, 1, 0);
  require_rows(3, 1, 50000);
  require_rows(19, 7, 3000);
}

}  // namespace

TEMPLATE_TEST_CASE("a row over pages has the same bits alone, in any batch and under any bound", "[cuda]", float, bfloat16) {
  test::Device device;
  check_bits<TestType, cuda::Sm80>(device, 6, 2, 64);
  if (!runs_hopper_kernels<TestType>(device)) return;
  check_bits<TestType, cuda::Sm90>(device, 6, 2, 64);
  check_bits<TestType, cuda::Sm90>(device, 2, 2, 64);
  check_bits<TestType, cuda::Sm90>(device, 8, 1, 128);
  check_bits<TestType, cuda::Sm90>(device, 12, 1, 64);
}

TEMPLATE_TEST_CASE("decoding from pages agrees with the host backend at every length and grouping", "[cuda]", float,
                   bfloat16) {
  test::Device device;
  test::Oracle oracle;
  std::vector<Row> const limits{0, 1, 63, 64, 65, 1000, 4097};
  for (Index const head_dim : {64, 128, 80}) {
    for (Index const group : {1, 3, 4, 8}) {
      check<TestType>(device, decoding(2 * group, 2, head_dim, limits), 64, 8, &oracle);
    }
  }
  for (Index const head_dim : {64, 128}) {
    for (Index const group : {5, 12, 16, 20}) {
      check<TestType>(device, decoding(group, 1, head_dim, {700, 0, 64, 33}), 64, 8, &oracle);
    }
  }
  check<TestType>(device, decoding(6, 2, 64, limits), 96, 8, &oracle);
  check<TestType>(device, decoding(6, 2, 64, limits), 16, 8, &oracle);
}

TEST_CASE("steps of decoding in a graph see what the step before wrote, with the limits of each launch", "[cuda]") {
  test::Device device;
  if (device.facts().capability != 90) SKIP("needs compute capability 9.0");
  auto const problem = decoding(15, 5, 64, {300, 0, 64, 1, 2000, 77});
  Index const rows = problem.queries();
  Problem<bfloat16> p(device, problem, 64);
  constexpr int steps = 6;  // the results of a step are the queries of the next
  std::vector<test::DeviceMatrix<bfloat16>> results;
  for (int i = 0; i < steps; ++i) results.emplace_back(device, rows, p.width, 8);
  auto const step = [&](int i) {
    auto const queries = i == 0 ? p.q.read() : results[static_cast<std::size_t>(i - 1)].read();
    p.enqueue<cuda::Sm90>(0, rows, 3000, queries, results[static_cast<std::size_t>(i)].view());
  };
  cudaStream_t const stream = device.context().stream;
  cuda::Graph graph;
  REQUIRE(graph.capture(stream, [&] {
    for (int i = 0; i < steps; ++i) step(i);
  }));
  for (std::vector<Row> const& limits : {problem.limits, {1, 299, 64, 0, 1999, 30}, problem.limits}) {
    cuda::check(cudaMemcpy(p.limits.span().data(), limits.data(), limits.size() * sizeof(Row), cudaMemcpyHostToDevice),
                "cudaMemcpy");
    cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    for (int i = 0; i < steps; ++i) {
      step(i);
      device.synchronize();
    }
    auto const expected = results.back().raw_values();
    for (auto const& result : results) {  // in place: the graph has the addresses
      auto const bytes = static_cast<std::size_t>(rows * result.view().stride) * sizeof(bfloat16);
      cuda::check(cudaMemset(result.view().data, 0xFF, bytes), "cudaMemset");
    }
    cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    REQUIRE_FALSE(same_bits(results.back().raw_values(), expected));
    graph.launch(stream);
    device.synchronize();
    REQUIRE(same_bits(results.back().raw_values(), expected));
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
