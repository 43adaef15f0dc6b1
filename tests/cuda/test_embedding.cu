// SPDX-License-Identifier: Apache-2.0
#include "cuda/device.cuh"
#include "cuda/oracle.hpp"

#include "mor/backend/cuda/ops/embedding.cuh"

#include <cmath>

using namespace mor;

namespace {

struct Shape {
  Index count, vocabulary, cols, padding;
};

/// Tokens of which one makes up every fourth, and the others are spread unevenly.
std::vector<Token> uneven_tokens(Index count, Index vocabulary) {
  std::vector<Token> tokens;
  for (Index i = 0; i < count; ++i)
    tokens.push_back(static_cast<Token>(i % 4 == 1 ? vocabulary / 2 : i * i * 31 % vocabulary));
  return tokens;
}

/// The gradient of the table on both sides, twice on the device. Whole numbers have exact sums: every row must be there
/// once.
template <class T>
void check_backward(Shape const& shape, std::vector<Token> const& tokens, bool whole_numbers) {
  auto const& [count, vocabulary, cols, padding] = shape;
  CAPTURE(count, vocabulary, cols, padding, whole_numbers);
  test::Device device;
  auto d_out = test::random_values<T>(count * cols, 2);
  auto before = test::random_values<float>(vocabulary * cols, 3);
  if (whole_numbers) {
    for (double& value : d_out) value = std::round(8.0 * value);
    for (double& value : before) value = std::round(8.0 * value);
  }
  auto expected = before;
  test::Oracle().embed_backward(tokens, {d_out.data(), count, cols}, {expected.data(), vocabulary, cols});
  test::DeviceRows const device_tokens(device, tokens);
  test::DeviceMatrix<T> const device_d_out(device, count, cols, d_out, padding);
  std::vector<float> first;
  for (int run = 0; run < 2; ++run) {
    test::DeviceMatrix<float> const d_table(device, vocabulary, cols, before, padding);
    cuda::embed_backward<T>(device.context(), device_tokens.read(), device_d_out.read(), d_table.view());
    auto const values = d_table.values();
    if (whole_numbers) {
      REQUIRE(values == expected);
    } else {
      REQUIRE(test::relative_error(values, expected) < test::kTolerance<float>);
    }
    REQUIRE(d_table.intact());
    if (run == 1) REQUIRE(d_table.raw_values() == first);
    first = d_table.raw_values();
  }
}

}  // namespace

TEMPLATE_TEST_CASE("embedding on the device reads repeated tokens", "[cuda][quick]", float, bfloat16) {
  test::Device device;
  for (auto const& [count, vocabulary, cols, padding] :
       {Shape{0, 7, 3, 0}, {1, 1, 1, 0}, {33, 7, 3, 2}, {400, 50, 100, 4}, {400, 50, 96, 0}, {3000, 500, 64, 8}}) {
    CAPTURE(count, vocabulary, cols, padding);
    auto const tokens = uneven_tokens(count, vocabulary);
    auto const table = test::random_values<TestType>(vocabulary * cols, 1);
    std::vector<double> expected(static_cast<std::size_t>(count * cols));
    test::Oracle().embed(tokens, {table.data(), vocabulary, cols}, {expected.data(), count, cols});
    test::DeviceRows const device_tokens(device, tokens);
    test::DeviceMatrix<TestType> const device_table(device, vocabulary, cols, table, padding);
    test::DeviceMatrix<TestType> const out(device, count, cols, padding);
    cuda::embed<TestType>(device.context(), device_tokens.read(), device_table.read(), out.view());
    REQUIRE(out.values() == expected);
    REQUIRE(out.intact());
  }
}

TEMPLATE_TEST_CASE("the embedding's gradient on the device sums every row once", "[cuda][quick]", float, bfloat16) {
  for (bool const whole_numbers : {true, false}) {
    for (Shape const& shape : {Shape{0, 7, 3, 0},
                               {1, 1, 1, 0},
                               {5, 7, 3, 2},
                               {63, 1, 8, 0},
                               {64, 1, 8, 0},
                               {65, 1, 9, 0},
                               {400, 7, 96, 8},
                               {1025, 300, 100, 4},
                               {3000, 50000, 16, 0},
                               {3000, 70000, 8, 0},
                               {20000, 900, 136, 0},
                               {5000, 40, 1100, 0}}) {
      check_backward<TestType>(shape, uneven_tokens(shape.count, shape.vocabulary), whole_numbers);
    }
  }
}

TEMPLATE_TEST_CASE("a token that fills the batch, and tokens that all differ, get their gradient", "[cuda][quick]", float,
                   bfloat16) {
  check_backward<TestType>({30000, 5, 24, 0}, std::vector<Token>(30000, 3), true);
  std::vector<Token> different;
  for (Token i = 0; i < 9000; ++i) different.push_back(8999 - i);
  check_backward<TestType>({9000, 9000, 24, 0}, different, true);
  std::vector<Token> borders;  // segments that end where a chunk of 32 does
  for (Token i = 0; i < 6400; ++i) borders.push_back(i / 64 % 3 == 0 ? i / 64 : i / 192);
  check_backward<TestType>({6400, 200, 24, 0}, borders, true);
}
