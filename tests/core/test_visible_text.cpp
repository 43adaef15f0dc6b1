// SPDX-License-Identifier: Apache-2.0
#include "mor/core/visible_text.hpp"

#include "support/catch.hpp"

#include <string>

using mor::visible_text;

TEST_CASE("text is shown as it is, with its line breaks and tabs") {
  REQUIRE(visible_text("").empty());
  REQUIRE(visible_text("na\xC3\xAFve\n\tend \xF0\x9F\x98\x80") == "na\xC3\xAFve\n\tend \xF0\x9F\x98\x80");
}

TEST_CASE("nothing that would command a terminal stays what it is") {
  REQUIRE(visible_text("\x1b]0;title\a") == "^[]0;title^G");
  REQUIRE(visible_text(std::string("\0\r\x7f", 3)) == "^@^M^?");
  REQUIRE(visible_text("\xC2\x9B" "31m") == "\xEF\xBF\xBD" "31m");  // a C1 control
  REQUIRE(visible_text("a\xFF") == "a\xEF\xBF\xBD");
}
