// SPDX-License-Identifier: Apache-2.0
// Sharing strategies give the layer schedules of the specification's section 2, and refuse what does not divide.
#include "support/catch.hpp"

#include "mor/policy/sharing.hpp"

using namespace mor;

namespace {

ModelConfig layers(Index total, Index recursions, Index prelude, Index coda) {
  ModelConfig config;
  config.num_hidden_layers = total;
  config.recursion.num_recursions = recursions;
  config.recursion.num_prelude_layers = prelude;
  config.recursion.num_coda_layers = coda;
  return config;
}

std::string message_of(LayerSchedule (*schedule)(ModelConfig const&), ModelConfig const& config) {
  try {
    (void)schedule(config);
  } catch (error const& e) {
    return e.what();
  }
  return {};
}

}  // namespace

TEST_CASE("nine layers in three recursions: cycle 012 012 012, sequence 000 111 222") {
  CHECK(Cycle::schedule(layers(9, 3, 0, 0)).unrolled() == std::vector<Index>{0, 1, 2, 0, 1, 2, 0, 1, 2});
  CHECK(Sequence::schedule(layers(9, 3, 0, 0)).unrolled() == std::vector<Index>{0, 0, 0, 1, 1, 1, 2, 2, 2});
}

TEST_CASE("middle strategies keep unique layers at both ends, any number of them") {
  CHECK(MiddleCycle::schedule(layers(8, 3, 1, 1)).unrolled() == std::vector<Index>{0, 1, 2, 1, 2, 1, 2, 3});
  CHECK(MiddleSequence::schedule(layers(8, 3, 1, 1)).unrolled() == std::vector<Index>{0, 1, 1, 1, 2, 2, 2, 3});
  CHECK(MiddleCycle::schedule(layers(9, 2, 2, 3)).unrolled() == std::vector<Index>{0, 1, 2, 3, 2, 3, 4, 5, 6});
}

TEST_CASE("no sharing gives every layer its own weights") {
  auto const schedule = NoSharing::schedule(layers(4, 1, 0, 0));
  CHECK(schedule.unrolled() == std::vector<Index>{0, 1, 2, 3});
  CHECK(schedule.num_parameter_sets() == 4);
}

TEST_CASE("unique layers of the published 360M models: 1 + 10 + 1 of 32, 1 + 8 + 1 of 34") {
  CHECK(MiddleCycle::schedule(layers(32, 3, 1, 1)).num_parameter_sets() == 12);
  CHECK(MiddleCycle::schedule(layers(34, 4, 1, 1)).num_parameter_sets() == 10);
}

TEST_CASE("first use and use index follow the repeats of a parameter set") {
  auto const cycle = MiddleCycle::schedule(layers(8, 3, 1, 1));
  CHECK(cycle.first_use(2, 1) == LayerSchedule::Place{0, 1});
  CHECK(cycle.use_index(2, 1) == 2);
  auto const sequence = Sequence::schedule(layers(9, 3, 0, 0));
  CHECK(sequence.first_use(1, 2) == LayerSchedule::Place{1, 0});
  CHECK(sequence.use_index(1, 0) == 0);
  CHECK(sequence.use_index(1, 2) == 2);
}

TEST_CASE("layer counts that do not fit are refused with the sum that was tried") {
  CHECK_THAT(message_of(&MiddleCycle::schedule, layers(9, 3, 1, 1)),
             Catch::Matchers::ContainsSubstring("got 9 = 1 + 3 * block + 1"));
  CHECK_THAT(message_of(&Cycle::schedule, layers(8, 3, 1, 1)), Catch::Matchers::ContainsSubstring("use MiddleCycle"));
  CHECK_THAT(message_of(&MiddleCycle::schedule, layers(6, 3, 0, 0)), Catch::Matchers::ContainsSubstring("use Cycle"));
  CHECK_THAT(message_of(&NoSharing::schedule, layers(6, 3, 0, 0)), Catch::Matchers::ContainsSubstring("num_recursions"));
}
