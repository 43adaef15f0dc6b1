// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the HTML pages of this library share: head, typography, colours for light and dark. Nothing is loaded from
/// anywhere: a page is one file that can be mailed or archived.
#pragma once

#include "mor/io/html_text.hpp"
#include "mor/io/palette.hpp"

#include <string>
#include <string_view>

namespace mor::io::detail {

/// Colours and text of every page. `--series-n` are Okabe and Ito's hues (told apart by colour-blind readers), adjusted
/// to the background.
inline constexpr std::string_view page_css = R"css(
:root{color-scheme:light dark;--page:#f7f7f5;--card:#fff;--ink:#1b1e23;--muted:#646b75;--rule:#e4e4e0;--grid:#ecece8;
--series-1:#0f6cbd;--series-2:#d1690e;--series-3:#0a7f5f;--series-4:#8a4fbf;--bad:#c8102e}
@media(prefers-color-scheme:dark){:root{--page:#111417;--card:#191d21;--ink:#e6e8ea;--muted:#98a1ab;--rule:#2b3138;
--grid:#262c32;--series-1:#62aeff;--series-2:#ffa14d;--series-3:#4cc9a0;--series-4:#c49bf0;--bad:#ff6b7d}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1160px;margin:0 auto;padding:32px 24px 48px}
h1{font-size:24px;line-height:1.25;margin:0 0 4px;letter-spacing:-.01em;text-wrap:balance}
h2{font-size:14px;font-weight:600;margin:0}
.sub{color:var(--muted);margin:0 0 24px}
.card{background:var(--card);border:1px solid var(--rule);border-radius:10px}
footer{color:var(--muted);font-size:13px;margin-top:24px}
)css";

/// `--depth-n` and `--on-depth-n` (text on it) for n = 0 ... max_depth, for both themes.
[[nodiscard]] inline std::string depth_css(int max_depth) {
  auto const variables = [max_depth](Theme theme) {
    std::string text;
    for (int depth = 0; depth <= max_depth; ++depth) {
      Rgb const colour = depth_colour(depth, max_depth, theme);
      std::string const number = std::to_string(depth);
      text += "--depth-" + number + ":" + css_colour(colour) + ";--on-depth-" + number + ":" +
              css_colour(text_on(colour)) + ";";
    }
    return text;
  };
  return ":root{" + variables(Theme::Light) + "}\n@media(prefers-color-scheme:dark){:root{" + variables(Theme::Dark) +
         "}}\n";
}

/// Everything up to the content of `main`. The title is escaped here; `css` follows the shared style.
[[nodiscard]] inline std::string page_start(std::string const& title, std::string_view css, int max_depth) {
  return "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>" +
         html_escape(title) + "</title>\n<style>" + std::string(page_css) + depth_css(max_depth) + std::string(css) +
         "</style>\n</head>\n<body>\n<main>\n<h1>" + html_escape(title) + "</h1>\n";
}

inline constexpr std::string_view page_end = "</main>\n</body>\n</html>\n";

}  // namespace mor::io::detail
