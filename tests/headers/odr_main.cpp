// SPDX-License-Identifier: Apache-2.0
/// @file
/// One of two translation units that include every header: they link only if everything in the headers is inline.
#include "all_headers.hpp"
#include "mor/mor.hpp"

#include <string>

using Describe = std::string (*)(int const&);
Describe describe_from_other_unit();

int main() {
  Describe const describe = &mor::text_of<int>;
  bool const one_definition = describe == describe_from_other_unit();
  return one_definition && describe(7) == "7" ? 0 : 1;
}
