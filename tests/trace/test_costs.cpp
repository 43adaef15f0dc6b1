// SPDX-License-Identifier: Apache-2.0
#include "mor/backend/trace/backend.hpp"
#include "mor/contract/backend.hpp"

#include "support/catch.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace trace = mor::trace;
using mor::Index;
using mor::Row;
using mor::View;

namespace {
/// Two bytes, as bfloat16.
struct Half {
  std::uint16_t bits;
};
using Mixed = trace::Backend<Half, float>;

static_assert(mor::Backend<trace::Backend<float, float>>);
static_assert(mor::Backend<trace::Backend<double, double>>);
static_assert(mor::Backend<Mixed>);

constexpr auto none = std::span<float>{};

void check_cost(Mixed const& backend, std::string const& name, Index read, Index written, Index flops, bool is_matrix) {
  auto const& operation = backend.operations().back();
  INFO(name);
  CHECK(operation.name == name);
  CHECK(operation.bytes_read == read);
  CHECK(operation.bytes_written == written);
  CHECK(operation.flops == flops);
  CHECK(operation.is_matrix == is_matrix);
}

/// Operands of any shape.
struct Operands {
  Mixed backend;
  View<Half> x(Index rows, Index cols) { return backend.arena().matrix<Half>(rows, cols); }
  View<float> real(Index rows, Index cols) { return backend.arena().matrix<float>(rows, cols); }
  std::span<Half> vector(Index size) { return backend.arena().allocate<Half>(size); }
  std::span<float> reals(Index size) { return backend.arena().allocate<float>(size); }
  std::span<Row> rows(Index size) { return backend.arena().allocate<Row>(size); }
};
}  // namespace

TEST_CASE("dense products cost 2NKM and each operand once") {
  Operands o;
  auto& b = o.backend;
  // x [5, 3], w [7, 3], out [5, 7]: 2 * 105 FLOPs; 30, 42 and 70 bytes in two-byte, 84 and 140 in four-byte numbers.
  b.linear(o.x(5, 3), o.x(7, 3), o.x(5, 7));
  check_cost(b, "linear", 30 + 42, 70, 210, true);
  auto const out = o.x(5, 7);
  b.linear_residual(o.x(5, 3), o.x(7, 3), out, out);
  check_cost(b, "linear_residual", 30 + 42 + 70, 70, 210, true);
  b.linear_backward_input(o.x(5, 7), o.x(7, 3), false, o.x(5, 3));
  check_cost(b, "linear_backward_input", 70 + 42, 30, 210, true);
  b.linear_backward_input(o.x(5, 7), o.x(7, 3), true, o.x(5, 3));
  check_cost(b, "linear_backward_input", 70 + 42 + 30, 30, 210, true);
  b.linear_backward_weight(o.x(5, 7), o.x(5, 3), o.real(7, 3));
  check_cost(b, "linear_backward_weight", 70 + 30 + 84, 84, 210, true);
  b.linear_logits(o.x(5, 3), o.x(7, 3), 1.0, o.real(5, 7));
  check_cost(b, "linear_logits", 30 + 42, 140, 210, true);
  b.linear_logits_backward(o.real(5, 7), o.x(5, 3), o.x(7, 3), 1.0, o.x(5, 3), o.real(7, 3));
  check_cost(b, "linear_logits_backward", 140 + 30 + 42 + 30 + 84, 30 + 84, 420, true);
  b.linear_logits_backward(o.real(5, 7), o.x(5, 3), o.x(7, 3), 1.0, {}, o.real(7, 3));
  check_cost(b, "linear_logits_backward", 140 + 30 + 84, 84, 210, true);
}

TEST_CASE("the head costs one product forward and three with its gradients, and never its logits") {
  Operands o;
  auto& b = o.backend;
  auto const targets = o.rows(5);
  b.head_loss(o.x(5, 3), o.x(100, 3), targets, o.reals(5));
  check_cost(b, "head_loss", 30 + 600 + 20, 20, 3000, true);
  b.head_loss_backward(o.x(5, 3), o.x(100, 3), targets, 1.0, o.reals(5), o.x(5, 3), o.real(100, 3));
  check_cost(b, "head_loss_backward", 30 + 600 + 20 + 1200, 20 + 30 + 1200, 9000, true);
}

TEST_CASE("row verbs move the rows they name") {
  Operands o;
  auto& b = o.backend;
  auto const full = o.x(10, 4), part = o.x(3, 4);  // 80 and 24 bytes
  auto const rows = o.rows(3);                     // 12 bytes
  b.gather_rows(full, rows, part);
  check_cost(b, "gather_rows", 24 + 12, 24, 0, false);
  b.scatter_rows(part, rows, full);
  check_cost(b, "scatter_rows", 24 + 12, 24, 0, false);
  b.scatter_add_rows(part, rows, full);
  check_cost(b, "scatter_add_rows", 48 + 12, 24, 12, false);
  b.zero_rows(rows, full);
  check_cost(b, "zero_rows", 12, 24, 0, false);
  b.combine(part, o.reals(3), none, rows, full, full);
  check_cost(b, "combine", 48 + 12 + 12, 24, 24, false);
  b.combine(part, none, none, rows, full, full);
  check_cost(b, "combine", 48 + 12, 24, 12, false);
  b.combine_backward(full, part, o.reals(3), rows, o.x(3, 4), o.reals(3));
  check_cost(b, "combine_backward", 48 + 12 + 12, 24 + 12, 36, false);
  b.scale_add_rows(full, o.reals(3), rows, full);
  check_cost(b, "scale_add_rows", 48 + 12 + 12, 24, 24, false);
  // 20 tokens of a vocabulary of 6 read six rows of the table, not twenty.
  b.embed(o.rows(20), o.x(6, 4), o.x(20, 4));
  check_cost(b, "embed", 80 + 48, 160, 0, false);
  b.embed_backward(o.rows(2), o.x(2, 4), o.real(6, 4));
  check_cost(b, "embed_backward", 8 + 16 + 32, 32, 8, false);
}

TEST_CASE("pointwise verbs count their elements") {
  Operands o;
  auto& b = o.backend;
  b.rms_norm(o.x(5, 8), o.vector(8), 1e-5, o.x(5, 8), o.reals(5));
  check_cost(b, "rms_norm", 80 + 16, 80 + 20, 4 * 40 + 20, false);
  b.rope(o.rows(5), 4, 1e4, mor::Rotation::Forward, o.x(5, 8));
  check_cost(b, "rope", 20 + 80, 80, 120, false);
  b.swiglu(o.x(5, 8), o.x(5, 4));
  check_cost(b, "swiglu", 80, 40, 100, false);
  b.gelu(o.x(5, 4), 1.0, o.x(5, 4));
  check_cost(b, "gelu", 40, 40, 120, false);
}

TEST_CASE("the optimizer reads the gradients twice, weights and moments once, and writes rounded weights with the others") {
  Operands o;
  auto& b = o.backend;
  auto const record = b.arena().allocate<mor::UpdateRecord<float>>(1);
  auto const main = mor::ParameterGroup::Main;
  b.add_loss(o.reals(6), 0.5, record);
  check_cost(b, "add_loss", 24, 0, 6, false);
  b.add_squares(o.reals(10), main, record);
  check_cost(b, "add_squares", 40, 0, 20, false);
  b.decide_update({}, o.reals(1), record);
  check_cost(b, "decide_update", 0, 0, 0, false);
  b.adamw(o.reals(10), {}, main, record, o.reals(10), o.reals(10), o.reals(10), o.vector(10));
  check_cost(b, "adamw", 160, 120 + 20, 170, false);
  b.cast_weights(o.reals(10), o.vector(10));
  check_cost(b, "cast_weights", 40, 20, 0, false);
}

TEST_CASE("an empty input costs nothing, not even its weights") {
  Operands o;
  auto& b = o.backend;
  b.linear({}, o.x(7, 0), o.x(0, 7));
  check_cost(b, "linear", 0, 0, 0, true);
  b.gather_rows(o.x(10, 4), {}, o.x(0, 4));
  check_cost(b, "gather_rows", 0, 0, 0, false);
  b.rms_norm(o.x(0, 8), o.vector(8), 1e-5, o.x(0, 8), none);
  check_cost(b, "rms_norm", 0, 0, 0, false);
  b.linear(o.x(0, 3), o.x(7, 3), o.x(0, 7));
  check_cost(b, "linear", 0, 0, 0, true);
}

TEST_CASE("operands that do not fit are an error that names the verb and both sizes") {
  Operands o;
  auto& b = o.backend;
  try {
    b.linear(o.x(5, 3), o.x(7, 4), o.x(5, 7));
    FAIL("no error");
  } catch (mor::error const& failure) {
    CHECK(failure.code() == mor::ErrorCode::ShapeMismatch);
    CHECK(failure.where() == "linear");
    CHECK(failure.expected() == "4");
    CHECK(failure.got() == "3");
  }
  CHECK_THROWS_AS(b.linear(o.x(5, 3), o.x(7, 3), o.x(4, 7)), mor::error);
  CHECK_THROWS_AS(b.gather_rows(o.x(10, 4), o.rows(3), o.x(2, 4)), mor::error);
  CHECK_THROWS_AS(b.swiglu(o.x(5, 8), o.x(5, 8)), mor::error);
  auto const record = b.arena().allocate<mor::UpdateRecord<float>>(1);
  auto const update = [&](Index moment, Index narrow) {
    b.adamw(o.reals(10), {}, mor::ParameterGroup::Main, record, o.reals(10), o.reals(10), o.reals(moment), o.vector(narrow));
  };
  CHECK_THROWS_AS(update(9, 10), mor::error);
  CHECK_THROWS_AS(update(10, 0), mor::error);
  CHECK_THROWS_AS(b.decide_update({}, o.reals(2), record), mor::error);
  CHECK_THROWS_AS(b.add_squares(o.reals(10), mor::ParameterGroup::Main, {}), mor::error);
  CHECK_THROWS_AS(b.rope(o.rows(5), 3, 1e4, mor::Rotation::Forward, o.x(5, 8)), mor::error);
  CHECK(b.operations().empty());
}
