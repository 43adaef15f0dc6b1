// SPDX-License-Identifier: Apache-2.0
#include "mor/core/stop_strings.hpp"
#include "mor/core/utf8.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"

#include <cstddef>
#include <random>
#include <string>
#include <string_view>
#include <vector>

using mor::StopMatcher;
using mor::StopResult;
using mor::Utf8Stream;

namespace {

struct Outcome {
  std::string shown;
  bool stopped = false;
  bool operator==(Outcome const&) const = default;
};

/// What must be shown, by definition: the text before the stop string that ends first, the longest of those.
Outcome by_definition(std::vector<std::string> const& stops, std::string const& text) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (std::string const& stop : stops) {
      bool const here = stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0;
      if (here && stop.size() > longest) longest = stop.size();
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

/// Feeds the pieces, checks at every piece that nothing was shown too early, and returns what was shown.
Outcome feed(StopMatcher& matcher, std::vector<std::string> const& pieces, std::string const& expected) {
  Outcome outcome;
  for (std::string const& piece : pieces) {
    StopResult const result = matcher.push(piece);
    outcome.shown += result.text;
    outcome.stopped = result.stopped;
    REQUIRE(expected.compare(0, outcome.shown.size(), outcome.shown) == 0);
    REQUIRE(result.stopped == matcher.stopped());
  }
  outcome.shown += matcher.flush();
  return outcome;
}

}  // namespace

TEST_CASE("a stop string cut at any two places never leaks") {
  std::vector<std::string> const stops = {"###", "\n\nUser:", "</s>", "\xE2\x9C\x85\xF0\x9F\x98\x81", "aab"};
  std::vector<std::string> const texts = {"An answer.\n\nUser: more",
                                          "a#b##c###d",
                                          "x</s>",
                                          "</s>",
                                          "aaaaab",
                                          "a </s </ </s></s>",
                                          "ok \xE2\x9C\x85\xF0\x9F\x98\x81 done",
                                          "\xE2\x9C\x85\xF0\x9F\x98\x82 is no stop \xE2\x9C",
                                          "ends in a part of one\n\nUse",
                                          "no stop at all"};
  for (std::string const& text : texts) {
    Outcome const expected = by_definition(stops, text);
    for (std::size_t first = 0; first <= text.size(); ++first) {
      for (std::size_t second = first; second <= text.size(); ++second) {
        StopMatcher matcher(stops);
        Outcome const got = feed(
            matcher, {text.substr(0, first), text.substr(first, second - first), text.substr(second)}, expected.shown);
        REQUIRE(got == expected);
      }
    }
  }
}

TEST_CASE("what is shown does not depend on the cuts, for random stop strings that overlap") {
  std::mt19937 random(11);
  for (int round = 0; round < 3000; ++round) {
    auto const random_text = [&](std::size_t length) {
      std::string text(length, 'a');
      for (char& c : text) c = "ab"[random() % 2];
      return text;
    };
    std::vector<std::string> stops(1 + random() % 4);
    for (std::string& stop : stops) stop = random_text(3 + random() % 6);
    std::string const text = random_text(random() % 40);
    std::vector<std::string> pieces;
    for (std::size_t at = 0; at < text.size(); at += pieces.back().size()) {
      pieces.push_back(text.substr(at, 1 + random() % 5));
    }
    Outcome const expected = by_definition(stops, text);
    StopMatcher matcher(stops);
    Outcome const got = feed(matcher, pieces, expected.shown);
    REQUIRE(got.shown == expected.shown);
    REQUIRE(matcher.stopped() == expected.stopped);
  }
}

TEST_CASE("text is held back only while it can still become a stop string") {
  StopMatcher matcher({"STOP", "TOM"});
  REQUIRE(matcher.push("abc").text == "abc");
  REQUIRE(matcher.push("S").text.empty());
  REQUIRE(matcher.push("T").text.empty());
  REQUIRE(matcher.push("O").text.empty());
  REQUIRE(matcher.push("x").text == "STOx");
  REQUIRE(matcher.push("STO").text.empty());
  StopResult const result = matcher.push("Mend");
  REQUIRE(result.stopped);
  REQUIRE(result.text == "S");
  REQUIRE(matcher.stop_index() == 1u);
}

TEST_CASE("after a stop nothing more is shown, until reset") {
  StopMatcher matcher({"!"});
  REQUIRE(matcher.push("one! two").text == "one");
  StopResult const later = matcher.push("three");
  REQUIRE(later.stopped);
  REQUIRE(later.text.empty());
  REQUIRE(matcher.flush().empty());
  matcher.reset();
  REQUIRE_FALSE(matcher.stopped());
  REQUIRE(matcher.push("four").text == "four");
}

TEST_CASE("the stop string that is complete first counts, and of several the longest") {
  StopMatcher first({"bcd", "c"});
  REQUIRE(first.push("abcd").text == "ab");
  REQUIRE(first.stop_index() == 1u);
  StopMatcher longest({"c", "abc", "bc"});
  REQUIRE(longest.push("xabc").text == "x");
  REQUIRE(longest.stop_index() == 1u);
}

TEST_CASE("without stop strings everything passes at once") {
  StopMatcher none;
  REQUIRE(none.push("text").text == "text");
  REQUIRE(none.flush().empty());
  StopMatcher empty_list(std::vector<std::string>{});
  REQUIRE(empty_list.push("text").text == "text");
}

TEST_CASE("flush shows what was held back and starts anew") {
  StopMatcher matcher({"END"});
  REQUIRE(matcher.push("the EN").text == "the ");
  REQUIRE(matcher.flush() == "EN");
  REQUIRE(matcher.push("D").text == "D");
}

TEST_CASE("bytes through a UTF-8 stream into a stop matcher stay whole characters and never show the stop string") {
  std::string const stop = "\xC3\xA9\xF0\x9F\xA6\x99";  // shares its first byte with the harmless \xC3\xA8
  std::string const bytes = "caf\xC3\xA8 caf\xC3\xA9! \xF0\x9F\xA6\x98 caf" + stop + " never";
  std::string const expected = "caf\xC3\xA8 caf\xC3\xA9! \xF0\x9F\xA6\x98 caf";
  for (std::size_t width = 1; width <= bytes.size(); ++width) {
    Utf8Stream characters;
    StopMatcher matcher({stop});
    std::string shown;
    for (std::size_t at = 0; at < bytes.size(); at += width) {
      std::string const piece = matcher.push(characters.push(std::string_view(bytes).substr(at, width))).text;
      REQUIRE(mor::valid_utf8(piece));
      shown += piece;
    }
    REQUIRE(matcher.push(characters.flush()).text.empty());
    REQUIRE(matcher.flush().empty());
    REQUIRE(shown == expected);
  }
}

TEST_CASE("empty and broken stop strings are refused with their number") {
  using mor::test::fails_with;
  REQUIRE(fails_with(
      mor::ErrorCode::InvalidArgument, [] { StopMatcher({"ok", ""}); }, "stop string 1", "empty"));
  REQUIRE(fails_with(
      mor::ErrorCode::InvalidArgument, [] { StopMatcher({"\xC3"}); }, "stop string 0", "UTF-8", "\\xc3"));
}
