#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes include/mor/io/unicode_tables.hpp: which code points are letters, numbers and white space.

usage: tools/generate_unicode_tables.py > include/mor/io/unicode_tables.hpp

Uses the package unicodedata2 (16.0.0 made the file in the repository) or else Python's own, usually older, tables.
"""
import sys
import textwrap

try:
    import unicodedata2 as unicodedata
except ImportError:
    import unicodedata

# The property White_Space; it has not changed since Unicode 6.3.
WHITE_SPACE = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B),
               0x2028, 0x2029, 0x202F, 0x205F, 0x3000}

HEADER = """\
// SPDX-License-Identifier: Apache-2.0
/// @file
/// Code points that are letters (general category L), numbers (N) or white space, by Unicode {version}.
/// Written by tools/generate_unicode_tables.py; do not edit.
#pragma once

namespace mor::io::detail {{

/// Code points from `first` to `last`, both included. The tables are ascending and their ranges do not touch.
struct CodePointRange {{
  char32_t first, last;
}};
"""

FOOTER = """
}}  // namespace mor::io::detail
"""


def kind_of(code_point):
    if code_point in WHITE_SPACE:
        return "Space"
    return {"L": "Letter", "N": "Number"}.get(unicodedata.category(chr(code_point))[0])


def ranges():
    first, kind = 0, kind_of(0)
    for code_point in range(1, 0x110001):
        next_kind = kind_of(code_point) if code_point < 0x110000 else None
        if next_kind != kind:
            if kind:
                yield first, code_point - 1, kind
            first, kind = code_point, next_kind


def main():
    sys.stdout.write(HEADER.format(version=unicodedata.unidata_version))
    everything = list(ranges())
    for name, wanted in (("letters", "Letter"), ("numbers", "Number"), ("spaces", "Space")):
        entries = " ".join(f"{{0x{first:X},~0x{last:X}}}," for first, last, kind in everything if kind == wanted)
        lines = textwrap.wrap(entries, width=118, break_long_words=False, break_on_hyphens=False)
        sys.stdout.write(f"\ninline constexpr CodePointRange unicode_{name}[] = {{\n")
        sys.stdout.writelines("  " + line.replace("~", " ") + "\n" for line in lines)
        sys.stdout.write("};\n")
    sys.stdout.write(FOOTER.format())


if __name__ == "__main__":
    main()
