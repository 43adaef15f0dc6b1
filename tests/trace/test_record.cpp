// SPDX-License-Identifier: Apache-2.0
#include "mor/backend/trace/record.hpp"
#include "mor/backend/trace/report.hpp"

#include "support/catch.hpp"

#include <string>
#include <vector>

namespace trace = mor::trace;

namespace {
std::vector<trace::Operation> three_operations() {
  return {{"linear", {{8, 4}, {6, 4}, {8, 6}}, 3'000'000, 1'000'000, 2'000'000'000, true, 0},
          {"rms_norm", {{8, 4}}, 600, 400, 2'500, false, 0},
          {"linear", {{8, 6}, {4, 6}, {8, 4}}, 500'000, 500'000, 500'000'000, true, 0}};
}
}  // namespace

TEST_CASE("totals add over operations, matrix products apart") {
  auto const operations = three_operations();
  CHECK(trace::total_flops(operations) == 2'500'002'500);
  CHECK(trace::matrix_flops(operations) == 2'500'000'000);
  CHECK(trace::total_bytes(operations) == 5'001'000);
  CHECK(trace::count_calls(operations, "linear") == 2);
  CHECK(trace::count_calls(operations, "rope") == 0);
}

TEST_CASE("call order names the first verb that did not follow") {
  auto const operations = three_operations();
  CHECK(trace::first_out_of_order(operations, {}).empty());
  CHECK(trace::first_out_of_order(operations, {"linear", "linear"}).empty());
  CHECK(trace::first_out_of_order(operations, {"rms_norm", "linear"}).empty());
  CHECK(trace::first_out_of_order(operations, {"rms_norm", "linear", "linear"}) == "linear");
  CHECK(trace::first_out_of_order(operations, {"linear", "rope", "linear"}) == "rope");
  CHECK(trace::first_out_of_order({}, {"linear"}) == "linear");
}

TEST_CASE("roofline time is the slower of arithmetic and traffic for each operation") {
  auto const operations = three_operations();
  // 2e9 / 1e9 = 2 s against 4 s of traffic; 1000 B / 1e6; 0.5 s against 1 s.
  CHECK(trace::roofline_seconds(operations, 1e9, 1e6) == Approx(4.0 + 0.001 + 1.0));
  // 2 s, 2.5e-6 s and 0.5 s of arithmetic against almost nothing.
  CHECK(trace::roofline_seconds(operations, 1e9, 1e15) == Approx(2.0 + 2.5e-6 + 0.5));
}

TEST_CASE("summaries are one a verb in order of the first call") {
  auto const summaries = trace::summarize(three_operations());
  REQUIRE(summaries.size() == 2);
  CHECK(summaries[0].name == "linear");
  CHECK(summaries[0].calls == 2);
  CHECK(summaries[0].flops == 2'500'000'000);
  CHECK(summaries[0].bytes == 5'000'000);
  CHECK(summaries[0].intensity() == Approx(500.0));
  CHECK(summaries[1].intensity() == Approx(2.5));
  CHECK(trace::VerbSummary{}.intensity() == 0.0);
}

TEST_CASE("the table is aligned and ends with totals") {
  std::string const expected =
      "verb       calls         GFLOP            MB    FLOP/B\n"
      "linear         2         2.500         5.000    500.00\n"
      "rms_norm       1         0.000         0.001      2.50\n"
      "total          3         2.500         5.001    499.90\n";
  CHECK(trace::format_table(trace::summarize(three_operations())) == expected);
  CHECK(trace::format_table({}) ==
        "verb    calls         GFLOP            MB    FLOP/B\n"
        "total       0         0.000         0.000      0.00\n");
}
