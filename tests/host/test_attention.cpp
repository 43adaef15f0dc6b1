// SPDX-License-Identifier: Apache-2.0
#include "host/attention_cases.hpp"
#include "support/catch.hpp"
#include "support/gradcheck.hpp"
#include "support/matrix.hpp"

#include "mor/backend/host/backend.hpp"

#include <cstring>

using namespace mor;
using mor::test::AttentionCase;
using mor::test::causal;
using mor::test::Matrix;

namespace {

std::vector<AttentionCase> large_cases() {
  std::vector<Row> ladder, constant(120, 130);
  for (Row i = 0; i < 200; ++i) ladder.push_back(3 * i / 2);
  return {{"one token", 2, 2, 8, {causal(1)}},
          {"two heads, several tiles", 2, 2, 16, {causal(230)}},
          {"grouped heads", 6, 2, 24, {causal(97), causal(96), causal(1)}},
          {"an odd head dimension, one key head", 3, 1, 5, {causal(33)}},
          {"ragged with empty sequences", 2, 1, 64, {causal(0), causal(64), causal(0), causal(7), causal(0)}},
          {"limits that start at zero and outrun the rows", 4, 4, 12, {{ladder, 300}, causal(5)}},
          {"queries that all see the same", 2, 2, 32, {{constant, 140}}},
          {"decode against long lists", 4, 2, 32, {{{500}, 500}, {{1}, 9}, {{96}, 96}, {{0}, 4}}},
          {"more query heads than a block has rows", 200, 1, 4, {causal(3)}},
          {"no queries", 2, 2, 8, {}}};
}

std::vector<AttentionCase> small_cases() {
  return {{"causal", 2, 2, 3, {causal(4)}},
          {"groups of two", 2, 1, 4, {causal(3), causal(2)}},
          {"groups of three", 3, 1, 2, {causal(5)}},
          {"a shared cache: limits skip keys", 2, 2, 3, {{{2, 3, 6}, 7}, {{1, 5}, 5}}},
          {"ragged and empty sequences", 2, 2, 2, {causal(0), causal(3), causal(0), causal(1)}},
          {"rows that see nothing", 2, 1, 2, {{{0, 0, 1, 2}, 2}, {{0}, 3}}},
          {"several tiles of keys", 1, 1, 2, {{{1, 98, 120}, 120}}}};
}

/// Inputs of a case. Key rows that belong to nobody hold NaN.
template <class T>
struct Problem {
  explicit Problem(AttentionCase const& problem)
      : q(Matrix<T>::random(problem.queries(), problem.shape.num_heads * problem.shape.head_dim, 1)),
        k(Matrix<T>::random(problem.num_keys, problem.shape.num_kv_heads * problem.shape.head_dim, 2)),
        v(Matrix<T>::random(problem.num_keys, problem.shape.num_kv_heads * problem.shape.head_dim, 3)),
        out(Matrix<T>::poisoned(q.rows(), q.cols())),
        lse(Matrix<T>::poisoned(q.rows(), problem.shape.num_heads)) {
    for (Row const begin : problem.key_begin) {
      for (Index j = 0; j < k.cols(); ++j) k(begin - 1, j) = v(begin - 1, j) = std::numeric_limits<T>::quiet_NaN();
    }
  }
  Matrix<T> q, k, v, out, lse;
};

template <class T>
void run(host::Backend<T>& backend, AttentionCase const& problem, Problem<T>& p) {
  backend.attention(p.q.read(), p.k.read(), p.v.read(), problem.keys(), problem.shape, p.out.view(), p.lse.view());
}

template <class T>
void compare_with_definition(double tolerance) {
  for (auto const& problem : large_cases()) {
    INFO(problem.name);
    for (int const threads : {1, 2}) {
      host::Backend<T> backend(threads);
      Problem<T> p(problem);
      run(backend, problem, p);
      Matrix<double> out(p.q.rows(), p.q.cols()), lse(p.q.rows(), problem.shape.num_heads);
      test::plain_attention(problem, p.q, p.k, p.v, out, lse);
      REQUIRE(test::worst_difference(p.out.values(), out.values()) < tolerance);
      REQUIRE(test::worst_difference(p.lse.values(), lse.values()) < tolerance);
      REQUIRE((p.out.intact() && p.lse.intact()));
      REQUIRE(backend.arena().in_use_bytes() == 0);
    }
  }
}

}  // namespace

TEST_CASE("attention follows its definition in double") { compare_with_definition<double>(1e-13); }

TEST_CASE("attention follows its definition in float") { compare_with_definition<float>(2e-6); }

TEST_CASE("attention of one query gives the bits it has in a whole prompt") {
  host::Backend<float> backend(2);
  AttentionCase const prompt("prompt", 4, 2, 24, {causal(211)});
  Problem<float> whole(prompt);
  run(backend, prompt, whole);
  for (Row const last : {1, 95, 96, 97, 150, 211}) {
    AttentionCase const decode("decode", 4, 2, 24, {{{last}, 211}});
    Problem<float> one(decode);
    one.k = whole.k;
    one.v = whole.v;
    std::copy_n(whole.q.view().row(last - 1), whole.q.cols(), one.q.view().row(0));
    run(backend, decode, one);
    REQUIRE(std::memcmp(one.out.view().row(0), whole.out.view().row(last - 1), sizeof(float) * 96) == 0);
    REQUIRE(std::memcmp(one.lse.view().row(0), whole.lse.view().row(last - 1), sizeof(float) * 4) == 0);
  }
}

TEST_CASE("attention over keys in pages of any size gives the bits of the same keys side by side") {
  auto const compare = []<class T>(T) {
    host::Backend<T> backend(2);
    for (auto const& problem : large_cases()) {
      Problem<T> plain(problem), paged(problem);
      run(backend, problem, plain);
      for (Index const page_size : {1, 5, 16, 50, 64, 96, 192}) {
        INFO(problem.name << ", pages of " << page_size);
        test::PagedLists const lists(problem, page_size);
        auto const k = lists.storage(plain.k), v = lists.storage(plain.v);
        backend.attention(paged.q.read(), k.read(), v.read(), lists.keys(), problem.shape, paged.out.view(),
                          paged.lse.view());
        REQUIRE(paged.out.values() == plain.out.values());
        REQUIRE(paged.lse.values() == plain.lse.values());
        REQUIRE((paged.out.intact() && paged.lse.intact()));
        REQUIRE(backend.arena().in_use_bytes() == 0);
      }
    }
  };
  compare(0.0);
  compare(0.0F);
}

TEST_CASE("keys in pages have no gradient, and the error says so") {
  host::Backend<double> backend(1);
  AttentionCase const problem("refused", 2, 2, 4, {causal(5)});
  Problem<double> p(problem);
  test::PagedLists const lists(problem, 64);
  auto const d_out = Matrix<double>::random(5, 8, 4);
  Matrix<double> d_q(5, 8), d_k(p.k.rows(), 8), d_v(p.k.rows(), 8);
  REQUIRE_THROWS_AS(backend.attention_backward(p.q.read(), p.k.read(), p.v.read(), lists.keys(), problem.shape,
                                               p.out.read(), p.lse.read(), d_out.read(), d_q.view(), d_k.view(), d_v.view()),
                    mor::error);
}

TEST_CASE("keys written in pages land at their place") {
  host::Backend<double> backend(1);
  AttentionCase const problem("append", 2, 2, 4, {{{3, 4, 5}, 5}, {{1}, 1}, {{0, 1, 2}, 7}, {{130}, 130}});
  for (Index const page_size : {1, 2, 64}) {
    test::PagedLists const lists(problem, page_size);
    auto const x = Matrix<double>::random(problem.queries(), 8, 4);
    auto storage = Matrix<double>::poisoned(lists.num_rows, 8);
    backend.write_keys(x.read(), lists.keys(), storage.view());
    KeyList const keys = lists.keys();
    Index written = 0;
    for (std::size_t s = 0; s + 1 < problem.offsets.size(); ++s) {
      for (Row i = problem.offsets[s]; i < problem.offsets[s + 1]; ++i) {
        Row const limit = problem.limits[static_cast<std::size_t>(i)];
        if (limit == 0) continue;
        Index const row = key_row(keys, static_cast<Index>(s), limit - 1);
        for (Index j = 0; j < 8; ++j) REQUIRE(storage(row, j) == x(i, j));
        ++written;
      }
    }
    Index touched = 0;
    for (Index row = 0; row < lists.num_rows; ++row) touched += std::isnan(storage(row, 0)) ? 0 : 1;
    REQUIRE(touched == written);
  }
}

TEST_CASE("attention gradients agree with differences") {
  host::Backend<double> backend(2);
  for (auto const& problem : small_cases()) {
    INFO(problem.name);
    Problem<double> p(problem);
    auto const upstream = test::random_vector<double>(p.q.rows() * p.q.cols(), 9);
    Matrix<double> d_out(p.q.rows(), p.q.cols());
    d_out.assign(upstream);
    auto q = p.q.values(), k = p.k.values(), v = p.v.values();
    // Rows that belong to nobody are not inputs; with zeros their derivative is an exact zero.
    for (auto* values : {&k, &v}) {
      for (double& value : *values) value = std::isnan(value) ? 0.0 : value;
    }
    auto const forward = [&] {
      p.q.assign(q);
      p.k.assign(k);
      p.v.assign(v);
      run(backend, problem, p);
    };
    auto const loss = [&] {
      forward();
      return test::weighted_sum(upstream, p.out.values());
    };
    auto const gradients = [&] {
      forward();
      auto d_q = Matrix<double>::poisoned(p.q.rows(), p.q.cols());
      Matrix<double> d_k(p.k.rows(), p.k.cols()), d_v(p.v.rows(), p.v.cols());
      backend.attention_backward(p.q.read(), p.k.read(), p.v.read(), problem.keys(), problem.shape, p.out.read(),
                                 p.lse.read(), d_out.read(), d_q.view(), d_k.view(), d_v.view());
      REQUIRE((d_q.intact() && d_k.intact() && d_v.intact()));
      return std::vector{d_q.values(), d_k.values(), d_v.values()};
    };
    test::check_gradients({{{"q", &q}, {"k", &k}, {"v", &v}}, loss, gradients});
  }
}

TEST_CASE("backward attention accumulates into keys and values and agrees between float and double") {
  for (auto const& problem : large_cases()) {
    INFO(problem.name);
    auto const gradients = [&]<class T>(T, int threads) {
      host::Backend<T> backend(threads);
      Problem<T> p(problem);
      run(backend, problem, p);
      auto const d_out = Matrix<T>::random(p.q.rows(), p.q.cols(), 4);
      auto d_q = Matrix<T>::poisoned(p.q.rows(), p.q.cols());
      Matrix<T> d_k(p.k.rows(), p.k.cols(), T(1)), d_v(p.v.rows(), p.v.cols(), T(1));
      backend.attention_backward(p.q.read(), p.k.read(), p.v.read(), problem.keys(), problem.shape, p.out.read(),
                                 p.lse.read(), d_out.read(), d_q.view(), d_k.view(), d_v.view());
      REQUIRE(backend.arena().in_use_bytes() == 0);
      return std::vector{d_q.values(), d_k.values(), d_v.values()};
    };
    auto const exact = gradients(0.0, 2), serial = gradients(0.0, 1);
    auto const rounded = gradients(0.0F, 2);
    for (std::size_t i = 0; i < exact.size(); ++i) {
      REQUIRE(exact[i] == serial[i]);
      REQUIRE(test::worst_difference(rounded[i], exact[i]) < 2e-5);
    }
  }
}

TEST_CASE("limits count ranks in the set or in the batch, above a base") {
  host::Backend<float> backend(1);
  std::vector<Row> const set{0, 2, 2, 5}, batch{0, 4, 6, 12}, rows{1, 3, 6, 8, 11}, base{10, 20, 30};
  std::vector<Row> limits(5);
  backend.causal_limits(set, {}, {}, {}, limits);
  REQUIRE(limits == std::vector<Row>{1, 2, 1, 2, 3});
  backend.causal_limits(set, {}, {}, base, limits);
  REQUIRE(limits == std::vector<Row>{11, 12, 31, 32, 33});
  backend.causal_limits(set, rows, batch, {}, limits);
  REQUIRE(limits == std::vector<Row>{2, 4, 1, 3, 6});
  backend.causal_limits(set, rows, batch, base, limits);
  REQUIRE(limits == std::vector<Row>{12, 14, 31, 33, 36});
}

TEST_CASE("written keys land at their place in the list") {
  host::Backend<float> backend(2);
  AttentionCase const problem("cache", 1, 1, 4, {{{3, 4}, 6}, {}, {{0, 1}, 2}});
  auto const x = Matrix<float>::random(4, 4, 5);
  Matrix<float> storage(problem.num_keys, 4, 7.0F);
  backend.write_keys(x.read(), problem.keys(), storage.view());
  Matrix<float> expected(problem.num_keys, 4, 7.0F);
  for (auto const& [from, to] : {std::pair<Index, Index>{0, 1 + 2}, {1, 1 + 3}, {3, 9}}) {
    std::copy_n(x.view().row(from), 4, expected.view().row(to));
  }
  REQUIRE(storage.values() == expected.values());
}

TEST_CASE("attention refuses heads that do not form groups") {
  host::Backend<float> backend(1);
  AttentionCase problem("bad", 3, 2, 4, {causal(2)});
  Problem<float> p(problem);
  REQUIRE_THROWS_AS(run(backend, problem, p), mor::error);
}
