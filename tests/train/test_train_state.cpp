// SPDX-License-Identifier: Apache-2.0
#include "mor/train/train_state.hpp"

#include "support/catch.hpp"
#include "support/failure.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

using mor::ErrorCode;
using mor::Index;
using mor::test::fails_with;
using mor::train::parse_train_state;
using mor::train::TrainState;

TrainState sample() {
  TrainState state;
  state.step = 1200;
  state.optimizer_steps = 1198;
  state.micro_steps = 4800;
  state.tokens = 9830400;
  state.seed = std::numeric_limits<std::uint64_t>::max();
  state.sample_seed = 0;
  state.loader = {.epoch = 3, .position = 17, .seed = 0x8000000000000001ULL, .rows = 490, .context = 2048};
  state.loader.shuffle = false;
  state.guard = {.skips_in_row = 1, .skips_in_all = 2, .accepted = 1198, .mean_loss = 0.1 + 0.2};
  state.best_validation_loss = 1.0 / 3.0;
  state.best_validation_step = 1000;
  state.metrics_offset = 123456;
  state.backend = "host float, 2 threads";
  return state;
}

/// `text` with the first `from` replaced.
std::string changed(std::string text, std::string_view from, std::string_view to) {
  std::size_t const at = text.find(from);
  if (at == std::string::npos) throw std::runtime_error("no such text: " + std::string(from));
  return text.replace(at, from.size(), to);
}

TEST_CASE("a training state survives its file bit for bit") {
  REQUIRE(parse_train_state(to_json(sample()), "state.json") == sample());
  REQUIRE(parse_train_state(to_json(TrainState{}), "state.json") == TrainState{});
  std::mt19937_64 random(3);
  for (int i = 0; i < 2000; ++i) {
    TrainState state = sample();
    double const loss = std::bit_cast<double>(random());
    if (!std::isfinite(loss)) continue;
    state.best_validation_loss = loss;
    state.guard.mean_loss = -loss;
    state.seed = random();
    state.loader.seed = random();
    state.tokens = static_cast<Index>(random() >> 1U);
    TrainState const read = parse_train_state(to_json(state), "state.json");
    REQUIRE(read == state);
    REQUIRE(std::bit_cast<std::uint64_t>(*read.best_validation_loss) == std::bit_cast<std::uint64_t>(loss));
  }
}

TEST_CASE("the text of a training state is stable") {
  REQUIRE(to_json(sample()) ==
          "{\n"
          "  \"format\": \"mor-train-state-1\",\n"
          "  \"step\": 1200,\n"
          "  \"optimizer_steps\": 1198,\n"
          "  \"micro_steps\": 4800,\n"
          "  \"tokens\": 9830400,\n"
          "  \"seed\": \"18446744073709551615\",\n"
          "  \"sample_seed\": \"0\",\n"
          "  \"loader\": {\"epoch\": 3, \"position\": 17, \"seed\": \"9223372036854775809\", \"rows\": 490, "
          "\"context\": 2048, \"order\": \"stored\"},\n"
          "  \"guard\": {\"skips_in_row\": 1, \"skips_in_all\": 2, \"accepted\": 1198, "
          "\"mean_loss\": \"0.30000000000000004\"},\n"
          "  \"best_validation_loss\": \"0.3333333333333333\",\n"
          "  \"best_validation_step\": 1000,\n"
          "  \"metrics_offset\": 123456,\n"
          "  \"backend\": \"host float, 2 threads\"\n"
          "}\n");
}

TEST_CASE("fields may come in any order and spacing") {
  std::string text = to_json(sample());
  text = changed(text, "  \"step\": 1200,\n", "");
  text = changed(text, "\"tokens\"", " \"step\" :\t1200 , \"tokens\"");
  REQUIRE(parse_train_state(text, "state.json") == sample());
}

TEST_CASE("a state file that is wrong in any way is refused with its field") {
  std::string const good = to_json(sample());
  struct Case {
    std::string from, to;
    std::vector<std::string> parts;
  };
  std::vector<Case> const cases = {
      {"mor-train-state-1", "mor-train-state-2", {"format", "mor-train-state-1"}},
      {"  \"tokens\": 9830400,\n", "", {"missing", "tokens"}},
      {"\"order\": \"stored\"", "\"order\": \"sorted\"", {"order", "shuffled or stored", "sorted"}},
      {", \"order\": \"stored\"", "", {"missing", "order"}},
      {"\"tokens\"", "\"step\"", {"step", "repeated"}},
      {"\"tokens\"", "\"token\"", {"unknown field", "one of format, step, optimizer_steps", "token"}},
      {"\"context\"", "\"contexts\"", {"unknown field", "contexts"}},
      {"1200", "-1", {"step"}},
      {"1200", "1200.0", {"step"}},
      {"1200", "1.2e3", {"step"}},
      {"1200", "\"1200\"", {"step"}},
      {"1200", "01200", {"step"}},
      {"1200", "9223372036854775808", {"step"}},
      {"\"18446744073709551615\"", "18446744073709551615", {"seed"}},
      {"18446744073709551615", "18446744073709551616", {"seed", "64-bit"}},
      {"18446744073709551615", "-1", {"seed"}},
      {"18446744073709551615", "", {"seed"}},
      {"18446744073709551615", "1 ", {"seed"}},
      {"0.30000000000000004", "nan", {"mean_loss", "finite", "nan"}},
      {"0.3333333333333333", "inf", {"best_validation_loss", "inf"}},
      {"0.3333333333333333", "1e999", {"best_validation_loss"}},
      {"0.3333333333333333", "0.3x", {"best_validation_loss"}},
      {"\"0.3333333333333333\"", "null", {"best_validation_loss"}},
      {"1198,\n", "1201,\n", {"optimizer_steps", "at most step = 1200", "1201"}},
      {"1000", "1201", {"best_validation_step", "1201"}},
      {"threads\"\n}", "threads\"", {}},
      {"\"host float, 2 threads\"\n}", "\"x\"\n} x", {"after the end"}},
      {"{\n", "[\n", {}},
      {"\"loader\": {", "\"loader\": 3, {", {"loader"}},
  };
  for (Case const& test : cases) {
    INFO(test.from << " -> " << test.to);
    std::string const bad = changed(good, test.from, test.to);
    auto const failure = mor::test::failure_of([&] { static_cast<void>(parse_train_state(bad, "dir/state.json")); });
    REQUIRE(failure);
    INFO(failure->message);
    CHECK(failure->code == ErrorCode::MalformedFile);
    CHECK(failure->message.find("dir/state.json") != std::string::npos);
    for (std::string const& part : test.parts) CHECK(failure->message.find(part) != std::string::npos);
  }
  for (std::size_t length = 0; length + 1 < good.size(); ++length) {
    REQUIRE(fails_with(ErrorCode::MalformedFile,
                       [&] { static_cast<void>(parse_train_state(good.substr(0, length), "state.json")); }));
  }
}

TEST_CASE("a state that no healthy run has is not written") {
  TrainState state = sample();
  state.guard.mean_loss = std::numeric_limits<double>::quiet_NaN();
  CHECK(fails_with(ErrorCode::NonFinite, [&] { static_cast<void>(to_json(state)); }, "mean_loss", "nan"));
  state = sample();
  state.best_validation_loss = std::numeric_limits<double>::infinity();
  CHECK(fails_with(ErrorCode::NonFinite, [&] { static_cast<void>(to_json(state)); }, "best_validation_loss", "inf"));
  state = sample();
  state.backend = "a\"b";
  CHECK(fails_with(ErrorCode::InvalidArgument, [&] { static_cast<void>(to_json(state)); }, "backend"));
}

}  // namespace
