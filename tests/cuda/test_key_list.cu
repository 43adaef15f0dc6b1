// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/guarded_rows.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/ops/key_list.cuh"

#include <array>

using namespace mor;

namespace {

/// Limits on both sides; `rows` and `base` may be empty.
void check_limits(test::Device& device, std::vector<Row> const& set_offsets, std::vector<Row> const& rows,
                  std::vector<Row> const& batch_offsets, std::vector<Row> const& base) {
  auto const count = static_cast<std::size_t>(set_offsets.back());
  CAPTURE(count, rows.size(), base.size());
  std::vector<Row> expected(count, -1);
  test::Oracle().causal_limits(set_offsets, rows, batch_offsets, base, expected);
  test::DeviceRows const device_offsets(device, set_offsets), device_rows(device, rows),
      device_batch(device, batch_offsets), device_base(device, base);
  test::GuardedRows const limits(device, count);
  cuda::causal_limits(device.context(), device_offsets.read(), device_rows.read(), device_batch.read(),
                      device_base.read(), limits.span());
  REQUIRE(limits.values() == expected);
  REQUIRE(limits.intact());
}

}  // namespace

TEST_CASE("causal limits on the device are the host's ranks", "[cuda][quick]") {
  test::Device device;
  check_limits(device, {0}, {}, {}, {});
  check_limits(device, {0, 0, 0}, {}, {}, {4, 5});
  check_limits(device, {0, 1}, {}, {}, {});
  check_limits(device, {0, 0, 2, 2, 5, 5}, {}, {}, {});
  check_limits(device, {0, 0, 2, 2, 5, 5}, {}, {}, {3, 1, 4, 1, 5});
  check_limits(device, {0, 0, 2, 2, 5, 5}, {4, 7, 11, 12, 19}, {0, 3, 10, 11, 20, 21}, {});
  check_limits(device, {0, 0, 2, 2, 5, 5}, {4, 7, 11, 12, 19}, {0, 3, 10, 11, 20, 21}, {3, 1, 4, 1, 5});
  std::vector<Row> offsets{0}, batch{0}, rows, base;
  for (Row s = 0; s < 300; ++s) {  // every other row of sequences of many lengths
    Row const length = s * 37 % 90;
    for (Row i = 1; i < length; i += 2) rows.push_back(batch.back() + i);
    offsets.push_back(static_cast<Row>(rows.size()));
    batch.push_back(batch.back() + length);
    base.push_back(s % 11);
  }
  check_limits(device, offsets, rows, batch, base);
  check_limits(device, offsets, {}, {}, base);
}

TEMPLATE_TEST_CASE("keys on the device are written at their places and nowhere else", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  for (auto const& [cols, padding] :
       {std::array<Index, 2>{1, 0}, {7, 3}, {64, 0}, {64, 8}, {64, 1}, {320, 16}, {1000, 0}}) {
    CAPTURE(cols, padding);
    // Three sequences, one empty: rows without a place, and lists with room before and after.
    std::vector<Row> const offsets{0, 70, 70, 203}, begin{3, 90, 100};
    std::vector<Row> limits;
    for (Row i = 0; i < 70; ++i) limits.push_back(i < 2 ? 0 : i + 1);
    for (Row i = 0; i < 133; ++i) limits.push_back(2 * i + 1);
    Index const queries = 203, stored = 400;
    auto const x = test::random_values<TestType>(queries * cols, 1),
               before = test::random_values<TestType>(stored * cols, 2);
    KeyList list;
    list.num_sequences = 3;
    list.num_queries = queries;
    list.max_limit = 265;
    list.host_query_offsets = offsets;
    list.query_offsets = offsets;
    list.key_begin = begin;
    list.limits = limits;
    auto expected = before;
    test::Oracle().write_keys({x.data(), queries, cols}, list, {expected.data(), stored, cols});

    test::DeviceRows const device_offsets(device, offsets), device_begin(device, begin), device_limits(device, limits);
    list.query_offsets = device_offsets.read();
    list.key_begin = device_begin.read();
    list.limits = device_limits.read();
    test::DeviceMatrix<TestType> const device_x(device, queries, cols, x, padding),
        storage(device, stored, cols, before, padding);
    cuda::write_keys<TestType>(device.context(), device_x.read(), list, storage.view());
    REQUIRE(storage.values() == expected);
    REQUIRE(storage.intact());
  }
  cuda::write_keys<TestType>(device.context(), {}, {}, {});
}

TEST_CASE("active rows are counted on the device", "[cuda][quick]") {
  test::Device device;
  for (Row const count : {0, 1, 7, 5000}) {
    std::vector<Row> rows, counts;
    for (Row i = 0; i < count; ++i) {
      counts.push_back(i % 5);
      if (i % 3 != 1) rows.push_back(i);
    }
    test::DeviceRows const device_rows(device, rows), device_counts(device, counts);
    test::settle();
    test::Oracle().count_rows(rows, counts);
    cuda::count_rows(device.context(), device_rows.read(), device_counts.span());
    REQUIRE(device_counts.values() == counts);
  }
}
