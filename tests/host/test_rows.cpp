// SPDX-License-Identifier: Apache-2.0
#include "support/catch.hpp"
#include "support/gradcheck.hpp"
#include "support/matrix.hpp"

#include "mor/backend/host/backend.hpp"

#include <numeric>

using namespace mor;
using mor::test::Matrix;

namespace {

/// Some ascending rows out of `count`: every third, and the last.
std::vector<Row> some_rows(Row count) {
  std::vector<Row> rows;
  for (Row i = 1; i + 1 < count; i += 3) rows.push_back(i);
  if (count > 0) rows.push_back(count - 1);
  return rows;
}

}  // namespace

TEMPLATE_TEST_CASE("rows are gathered, scattered, moved, added and zeroed, and no others touched", "", float, double) {
  host::Backend<TestType> backend(2);
  for (auto const& [count, cols] : {std::pair<Row, Index>{0, 4}, {1, 1}, {40, 7}, {900, 70}}) {
    CAPTURE(count, cols);
    auto const rows = some_rows(count);
    auto const kept = static_cast<Index>(rows.size());
    auto const x = Matrix<TestType>::random(count, cols, 1), y = Matrix<TestType>::random(kept, cols, 2);

    auto out = Matrix<TestType>::poisoned(kept, cols);
    backend.gather_rows(x.read(), rows, out.view());
    auto scattered = x, moved = x, added = x, zeroed = x;
    backend.scatter_rows(y.read(), rows, scattered.view());
    std::vector<Row> const from(rows.rbegin(), rows.rend());
    auto const other = Matrix<TestType>::random(count, cols, 3);
    backend.move_rows(other.read(), from, rows, moved.view());
    backend.scatter_add_rows(y.read(), rows, added.view());
    backend.zero_rows(rows, zeroed.view());
    auto expected_scattered = x, expected_moved = x, expected_added = x, expected_zeroed = x;
    for (Index i = 0; i < kept; ++i) {
      Index const row = rows[static_cast<std::size_t>(i)];
      for (Index j = 0; j < cols; ++j) {
        REQUIRE(out(i, j) == x(row, j));
        expected_scattered(row, j) = y(i, j);
        expected_moved(row, j) = other(from[static_cast<std::size_t>(i)], j);
        expected_added(row, j) = x(row, j) + y(i, j);
        expected_zeroed(row, j) = TestType(0);
      }
    }
    REQUIRE((out.intact() && scattered.intact() && moved.intact() && added.intact() && zeroed.intact()));
    REQUIRE(scattered.values() == expected_scattered.values());
    REQUIRE(moved.values() == expected_moved.values());
    REQUIRE(added.values() == expected_added.values());
    REQUIRE(zeroed.values() == expected_zeroed.values());
  }
}

TEST_CASE("fill, copy and add are element-wise and respect strides") {
  host::Backend<float> backend(2);
  auto const x = Matrix<float>::random(300, 65, 1), y = Matrix<float>::random(300, 65, 2);
  auto filled = Matrix<float>::poisoned(300, 65), copied = Matrix<float>::poisoned(300, 65);
  backend.fill(filled.view(), 2.5);
  backend.copy(x.read(), copied.view());
  REQUIRE(filled.values() == std::vector<float>(300 * 65, 2.5F));
  REQUIRE(copied.values() == x.values());
  backend.add(y.read(), copied.view());
  REQUIRE(copied(299, 64) == x(299, 64) + y(299, 64));
  REQUIRE(copied(0, 0) == x(0, 0) + y(0, 0));
  REQUIRE((filled.intact() && copied.intact()));
  std::vector<Row> counts(5, 9);
  backend.fill(std::span<Row>(counts), Row{3});
  REQUIRE(counts == std::vector<Row>(5, 3));
}

TEST_CASE("vectors are uploaded, stored, downloaded, gathered and counted") {
  host::Backend<float> backend(1);
  std::vector<float> const values{1, 2, 3, 4};
  std::vector<Row> const rows{0, 2, 3};
  REQUIRE(backend.upload(rows).data() == rows.data());
  std::vector<float> some(3), all(4), stored(4);
  backend.gather_values(values, rows, some);
  backend.download(values, all);
  backend.store(values, stored);
  REQUIRE(some == std::vector<float>{1, 3, 4});
  REQUIRE(all == values);
  REQUIRE(stored == values);
  std::vector<Row> counts{5, 0, 0, 1}, back(3);
  backend.count_rows(rows, counts);
  backend.download(rows, back);
  REQUIRE(counts == std::vector<Row>{6, 0, 1, 2});
  REQUIRE(back == rows);
}

TEST_CASE("embedding reads repeated tokens, and its gradient sums them in row order") {
  for (int const threads : {1, 2, 3}) {
    host::Backend<double> backend(threads);
    for (auto const& [count, cols] : {std::pair<Index, Index>{0, 3}, {5, 3}, {400, 100}}) {
      std::vector<Token> tokens(static_cast<std::size_t>(count));
      for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<Token>(i * i % 7);
      auto const table = Matrix<double>::random(7, cols, 1), d_out = Matrix<double>::random(count, cols, 2);
      auto out = Matrix<double>::poisoned(count, cols);
      backend.embed(tokens, table.read(), out.view());
      Matrix<double> d_table(7, cols, 1.0), expected(7, cols, 1.0);
      backend.embed_backward(tokens, d_out.read(), d_table.view());
      for (Index i = 0; i < count; ++i) {
        Index const token = tokens[static_cast<std::size_t>(i)];
        for (Index j = 0; j < cols; ++j) {
          REQUIRE(out(i, j) == table(token, j));
          expected(token, j) += d_out(i, j);
        }
      }
      REQUIRE(d_table.values() == expected.values());
      REQUIRE(d_table.intact());
    }
  }
}

TEST_CASE("combine blends updates into the stream, in place and out of place") {
  host::Backend<double> backend(2);
  auto const rows = some_rows(20);
  auto const kept = static_cast<Index>(rows.size());
  auto const base = Matrix<double>::random(20, 6, 1), y = Matrix<double>::random(kept, 6, 2);
  auto const scale = test::random_vector<double>(kept, 3), keep = test::random_vector<double>(kept, 4);
  std::vector<double> const ones(static_cast<std::size_t>(kept), 1.0), none;
  for (auto const& [s, k] : {std::pair{scale, keep}, {none, keep}, {scale, none}, {none, none}}) {
    Matrix<double> hidden(20, 6, -7.0), in_place = base;
    backend.combine(y.read(), s, k, rows, base.read(), hidden.view());
    backend.combine(y.read(), s, k, rows, in_place.read(), in_place.view());
    for (Index i = 0; i < kept; ++i) {
      auto const at = static_cast<std::size_t>(i);
      for (Index j = 0; j < 6; ++j) {
        double const expected = (s.empty() ? 1.0 : s[at]) * y(i, j) + (k.empty() ? 1.0 : k[at]) * base(rows[at], j);
        REQUIRE(hidden(rows[at], j) == Approx(expected).epsilon(1e-14).margin(1e-15));
        REQUIRE(in_place(rows[at], j) == hidden(rows[at], j));
      }
    }
    REQUIRE(hidden(0, 0) == -7.0);
    REQUIRE(in_place(0, 0) == base(0, 0));
  }
}

TEST_CASE("gradients of combine agree with differences") {
  host::Backend<double> backend(2);
  std::vector<Row> const rows{0, 2, 3};
  auto y = test::random_vector<double>(9, 1), scale = test::random_vector<double>(3, 2),
       base = test::random_vector<double>(12, 3);
  auto const keep = test::random_vector<double>(3, 4), upstream = test::random_vector<double>(12, 5);
  Matrix<double> my(3, 3), mb(4, 3), d_hidden(4, 3);
  d_hidden.assign(upstream);
  auto const loss = [&] {
    my.assign(y);
    mb.assign(base);
    Matrix<double> hidden = mb;
    backend.combine(my.read(), scale, keep, rows, mb.read(), hidden.view());
    return test::weighted_sum(upstream, hidden.values());
  };
  auto const gradients = [&] {
    loss();
    auto d_y = Matrix<double>::poisoned(3, 3);
    std::vector<double> d_scale(3, std::numeric_limits<double>::quiet_NaN());
    backend.combine_backward(d_hidden.read(), my.read(), scale, rows, d_y.view(), d_scale);
    Matrix<double> d_base = d_hidden;  // rows that are not combined pass their gradient on
    backend.zero_rows(rows, d_base.view());
    backend.scale_add_rows(d_hidden.read(), keep, rows, d_base.view());
    auto again = Matrix<double>::poisoned(3, 3);
    backend.combine_backward(d_hidden.read(), my.read(), scale, rows, again.view(), {});
    REQUIRE(again.values() == d_y.values());
    return std::vector{d_y.values(), d_scale, d_base.values()};
  };
  test::check_gradients({{{"y", &y}, {"scale", &scale}, {"base", &base}}, loss, gradients});
}
