// SPDX-License-Identifier: Apache-2.0
#include "mor/io/depth_ansi.hpp"
#include "mor/io/depth_html.hpp"
#include "support/catch.hpp"
#include "support/failure.hpp"

#include <set>
#include <string>
#include <vector>

using mor::ErrorCode;
using mor::io::ansi_depth;
using mor::io::contrast;
using mor::io::depth_colour;
using mor::io::depth_page;
using mor::io::DepthToken;
using mor::io::Rgb;
using mor::io::Theme;
using mor::test::fails_with;

namespace {

bool holds(std::string const& text, std::string const& part) {
  return text.find(part) != std::string::npos;
}

/// The part of the page that shows the text.
std::string shown(std::vector<DepthToken> const& tokens, int max_depth) {
  std::string const page = depth_page(tokens, max_depth, "t");
  std::size_t const begin = page.find("<div class=\"text card\">");
  return page.substr(begin, page.find("</div>", begin) - begin);
}

/// What a reader sees: the text between tags, unescaped.
std::string visible(std::string const& html) {
  std::string text;
  bool tag = false;
  for (char const symbol : html) {
    if (symbol == '<') tag = true;
    if (!tag) text += symbol;
    if (symbol == '>') tag = false;
  }
  for (auto const& [name, symbol] : {std::pair("&lt;", "<"), std::pair("&gt;", ">"), std::pair("&amp;", "&")}) {
    for (std::size_t at = text.find(name); at != std::string::npos; at = text.find(name)) {
      text.replace(at, std::string(name).size(), symbol);
    }
  }
  return text;
}

}  // namespace

TEST_CASE("depth colours are ordered by lightness, distinct, and always readable") {
  for (int max_depth = 1; max_depth <= 64; ++max_depth) {
    for (Theme const theme : {Theme::Light, Theme::Dark}) {
      double previous = theme == Theme::Light ? 2.0 : -1.0;
      for (int depth = 1; depth <= max_depth; ++depth) {
        Rgb const colour = depth_colour(depth, max_depth, theme);
        REQUIRE(contrast(colour, mor::io::text_on(colour)) >= 4.5);
        double const light = mor::io::luminance(colour);
        REQUIRE((theme == Theme::Light ? light < previous : light > previous));
        previous = light;
      }
    }
  }
  Rgb const none = depth_colour(0, 3, Theme::Light);
  REQUIRE(none.red == none.blue);
}

TEST_CASE("colour arithmetic agrees with the published formulas") {
  REQUIRE(mor::io::css_colour({1, 171, 255}) == "#01abff");
  REQUIRE(contrast({0, 0, 0}, {255, 255, 255}) == Approx(21.0));
  REQUIRE(mor::io::from_oklch(1.0, 0.0, 0.0) == Rgb{255, 255, 255});
  REQUIRE(mor::io::from_oklch(0.0, 0.0, 0.0) == Rgb{0, 0, 0});
  Rgb const red = mor::io::from_oklch(0.62796, 0.25768, 29.234);  // sRGB red in OKLCH
  REQUIRE(red.red >= 254);
  REQUIRE(red.green <= 4);
  REQUIRE(red.blue <= 4);
  REQUIRE(mor::io::terminal_colour({0, 0, 0}) == 16);
  REQUIRE(mor::io::terminal_colour({255, 255, 255}) == 231);
  REQUIRE(mor::io::terminal_colour({95, 135, 215}) == 16 + 36 + 12 + 4);
}

TEST_CASE("a depth page shows each token in the class of its depth, with the text unchanged") {
  std::vector<DepthToken> const tokens{
      {"<b>", 1, true}, {" & \"x\"", 3, false}, {"\n", 2, false}, {"  end\n\n", 2, false}};
  std::string const html = shown(tokens, 3);
  REQUIRE(holds(html, "<span class=\"d1 p\" title=\"token 1, depth 1\">&lt;b&gt;</span>"));
  REQUIRE(holds(html, "<span class=\"d3\" title=\"token 2, depth 3\"> &amp; &quot;x&quot;</span>"));
  REQUIRE(holds(html, "<span class=\"d2 n\" title=\"token 3, depth 2\">\n</span>"));
  REQUIRE(visible(shown({{"<b>", 1}, {" & x", 3}, {"\n", 2}, {"  end\n\n", 2}}, 3)) == "<b> & x\n  end\n\n");
}

TEST_CASE("a depth page counts depths, shares and means, of all and of generated tokens") {
  std::vector<DepthToken> tokens;
  for (int i = 0; i < 6; ++i) tokens.push_back({"a", 1, true});
  for (int i = 0; i < 3; ++i) tokens.push_back({"b", 3, false});
  tokens.push_back({"c", 2, false});
  std::string const page = depth_page(tokens, 3, "Title <1>");
  REQUIRE(holds(page, "<title>Title &lt;1&gt;</title>"));
  REQUIRE(holds(page, "10 tokens, mean depth 1.700 of 3; 4 generated, mean depth 2.750"));
  REQUIRE(holds(page, "depth 1 &ensp;<b>6</b> &ensp;60.0%"));
  REQUIRE(holds(page, "depth 2 &ensp;<b>1</b> &ensp;10.0%"));
  REQUIRE(holds(page, "depth 3 &ensp;<b>3</b> &ensp;30.0%"));
  REQUIRE(holds(page, "prompt &ensp;<b>6</b>"));
  for (char const* part : {"http:", "https:", "url(", "src=", "<link"}) REQUIRE_FALSE(holds(page, part));
}

TEST_CASE("tokens that are parts of one character are shown as one, the deepest depth first in sight") {
  std::string const html =
      shown({{"na", 1}, {"\xC3", 2}, {"\xAF", 1}, {"ve", 1}, {"\xF0\x9F", 1}, {"\x98", 3}, {"\x80!", 2}}, 3);
  REQUIRE(holds(html, "<span class=\"d2\" title=\"token 2 to 3, depths 2 1\">\xC3\xAF</span>"));
  REQUIRE(holds(html, "<span class=\"d3\" title=\"token 5 to 7, depths 1 3 2\">\xF0\x9F\x98\x80!</span>"));
  REQUIRE(holds(html, "title=\"token 4, depth 1\">ve</span>"));
}

TEST_CASE("bytes that are no character become the replacement character, also at the end") {
  REQUIRE(visible(shown({{"a\xFF", 1}, {"b", 1}, {"\xC3", 1}, {"c", 2}}, 2)) ==
          "a\xEF\xBF\xBD"
          "b"
          "\xEF\xBF\xBD"
          "c");
  REQUIRE(visible(shown({{"x", 1}, {"\xE2\x82", 2}}, 2)) == "x\xEF\xBF\xBD");
  REQUIRE(mor::valid_utf8(depth_page({{"\xE2", 1}, {"\x28", 1}, {"\xA1", 1}}, 1, "\xC3\xA9")));
}

TEST_CASE("a page of nothing, of one depth, and of depth zero are pages") {
  REQUIRE(holds(depth_page({}, 3, "t"), "0 tokens, mean depth 0.000"));
  REQUIRE(holds(depth_page({{"a", 1}}, 1, "t"), "1 token, mean depth 1.000 of 1"));
  REQUIRE(holds(depth_page({{"a", 0}}, 2, "t"), "depth 0 &ensp;<b>1</b>"));
  REQUIRE(holds(depth_page({{"a", 64}}, 64, "t"), ".d64{"));
}

TEST_CASE("depths outside the model are refused") {
  auto const code = ErrorCode::InvalidArgument;
  REQUIRE(fails_with(
      code,
      [] {
        (void)depth_page({{"a", 4}}, 3, "t");
      },
      "0 to 3", "got 4"));
  REQUIRE(fails_with(
      code,
      [] {
        (void)depth_page({{"a", -1}}, 3, "t");
      },
      "got -1"));
  REQUIRE(fails_with(
      code, [] { (void)depth_page({}, 0, "t"); }, "1 to 64"));
  REQUIRE(fails_with(
      code, [] { (void)depth_page({}, 65, "t"); }, "1 to 64"));
  REQUIRE(fails_with(
      code, [] { (void)ansi_depth("a", 4, 3); }, "got 4"));
}

TEST_CASE("terminal text is coloured, and line breaks are not") {
  std::string const coloured = ansi_depth("ab\ncd\n", 2, 3);
  std::size_t const start = coloured.find('m') + 1;
  std::string const begin = coloured.substr(0, start);
  REQUIRE(begin.starts_with("\x1b[48;5;"));
  REQUIRE(coloured == begin + "ab\x1b[0m\n" + begin + "cd\x1b[0m\n");
  REQUIRE(ansi_depth("", 1, 3).empty());
  REQUIRE(ansi_depth("\n", 1, 3) == "\n");
}

TEST_CASE("up to four depths have different terminal colours") {
  for (int max_depth = 2; max_depth <= 4; ++max_depth) {
    std::set<std::string> starts;
    for (int depth = 1; depth <= max_depth; ++depth) starts.insert(ansi_depth("a", depth, max_depth));
    REQUIRE(starts.size() == static_cast<std::size_t>(max_depth));
  }
}

TEST_CASE("generated text cannot command the terminal") {
  std::string const out = ansi_depth("\x1b[2J\x07\r\x7f\x9b\xC2\x9b\t\xC3\xA9", 1, 1);
  REQUIRE(holds(out, "^[[2J^G^M^?"));
  REQUIRE(holds(out, "\t\xC3\xA9"));
  REQUIRE(out.find('\x1b', 1) == out.rfind('\x1b'));  // the start, and the end
  REQUIRE_FALSE(holds(out, "\xC2\x9b"));
}

TEST_CASE("the terminal legend names every depth with count and share") {
  std::string const legend = mor::io::ansi_depth_legend({1, 0, 3});
  REQUIRE(holds(legend, " depth 1 \x1b[0m 1 (25.0%)"));
  REQUIRE(holds(legend, " depth 2 \x1b[0m 0 (0.0%)"));
  REQUIRE(holds(legend, " depth 3 \x1b[0m 3 (75.0%)"));
  REQUIRE(holds(legend, "mean depth 2.500"));
  REQUIRE(legend.find('\n') == std::string::npos);
  REQUIRE_NOTHROW(mor::io::ansi_depth_legend({0, 0}));
}
