// SPDX-License-Identifier: Apache-2.0
/// @file
/// The page at `/`: a prompt goes in, text comes back, each token in the colour of its depth.
#pragma once

#include "mor/core/types.hpp"

#include <string>

namespace examples::serve {

/// Nothing but what this server sends may be loaded, run or asked, and nobody may frame the page.
inline constexpr char page_policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'";

[[nodiscard]] std::string page_html();
[[nodiscard]] std::string page_css(mor::Index recursions);
[[nodiscard]] std::string page_script();
[[nodiscard]] std::string page_icon();

}  // namespace examples::serve
