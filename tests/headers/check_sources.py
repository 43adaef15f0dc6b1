#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks rules about the text of headers that no compiler checks. usage: check_sources.py PROJECT_ROOT

  - every header says its licence in its first line and has `#pragma once`;
  - headers never print and never end the process;
  - code (not comments) of a .hpp outside backend/cuda does not know CUDA, except core/types.hpp, which defines
    MOR_HOST_DEVICE;
  - nlohmann/json, which costs nvcc ten seconds a file, is reached by no .cu and no .cuh.
"""
import re
import sys
from pathlib import Path

LICENCE = "// SPDX-License-Identifier: Apache-2.0"
MACRO_HEADER = "mor/core/types.hpp"
FORBIDDEN = [
    (re.compile(r"std::(cout|cerr|clog)\b|(?<![\w.>])(std::)?v?f?(printf|puts|puts_unlocked)\s*\("),
     "headers never print: throw mor::error, or take a stream"),
    (re.compile(r"(?<![\w.>])(std::)?(abort|exit|quick_exit|_Exit|terminate)\s*\("),
     "headers never end the process: throw mor::error"),
]
CUDA = re.compile(r"__CUDACC__|__CUDA_ARCH__|cuda")
TOKENS = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)


def without_comments(text):
    """The text with comments blanked and lines kept, so that positions still give line numbers."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match[0]) if match[0].startswith("/") else match[0]
    return TOKENS.sub(blank, text)


def check_header(name, text):
    """Yields (line, reason) for each rule that the header breaks."""
    if not text.startswith(LICENCE):
        yield 1, f"the first line must be: {LICENCE}"
    if not re.search(r"^#pragma once$", text, re.MULTILINE):
        yield 1, "#pragma once is missing"
    code = without_comments(text)
    for pattern, reason in FORBIDDEN:
        for match in pattern.finditer(code):
            yield code.count("\n", 0, match.start()) + 1, f"{match[0].strip()}: {reason}"
    if name.endswith(".hpp") and name != MACRO_HEADER and not name.startswith("mor/backend/cuda/"):
        for match in CUDA.finditer(code):
            yield code.count("\n", 0, match.start()) + 1, f"{match[0]}: only {MACRO_HEADER} may know CUDA"


def reaches_json(path, include, seen):
    """The chain of includes from `path` to nlohmann/json, or None."""
    for target in INCLUDE.findall(path.read_text()):
        if target.startswith("nlohmann/"):
            return [target]
        following = include / target
        if target not in seen and target.startswith("mor/") and following.is_file():
            seen.add(target)
            chain = reaches_json(following, include, seen)
            if chain:
                return [target, *chain]
    return None


def main():
    root = Path(sys.argv[1])
    include = root / "include"
    mistakes = []
    for path in sorted(path for path in include.rglob("*") if path.suffix in (".hpp", ".cuh")):
        for line, reason in check_header(path.relative_to(include).as_posix(), path.read_text()):
            mistakes.append(f"{path.relative_to(root)}:{line}: {reason}")
    folders = ("include", "tests", "bench", "examples")
    for path in sorted(path for folder in folders for path in (root / folder).rglob("*.cu*")):
        chain = path.is_file() and reaches_json(path, include, set())
        if chain:
            mistakes.append(f"{path.relative_to(root)}:1: CUDA code reaches nlohmann/json: {' -> '.join(chain)}")
    print("\n".join([*mistakes, f"{len(mistakes)} broken rules"]))
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
