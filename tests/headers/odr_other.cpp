// SPDX-License-Identifier: Apache-2.0
/// @file
/// The second of two translation units that include every header; see odr_main.cpp.
#include "all_headers.hpp"
#include "mor/mor.hpp"

#include <string>

std::string (*describe_from_other_unit())(int const&) { return &mor::text_of<int>; }
