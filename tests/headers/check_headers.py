#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that every .hpp under include/mor compiles alone, without a CUDA toolkit, with every C++ compiler at hand.

usage: check_headers.py --root PROJECT [--work DIR] [--jobs N] [options of support/toolchain.py] [HEADER...]

Each header gets a translation unit that includes it twice, under macros that well-known system headers define
(complex.h, termios.h, windows.h, sys/sysmacros.h), with all warnings as errors and without OpenMP. A header that asks
`__has_include` is compiled once more without the extra include folders. The first compiler sees each header alone;
the others, which share its standard library and so would miss the same includes, see all headers in one unit.
"""
import argparse
import concurrent.futures
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
import toolchain

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
POISONED = {"I": "complex.h", "B0": "termios.h", "small": "windows.h", "near": "windows.h", "far": "windows.h",
            "interface": "windows.h", "major": "sys/sysmacros.h", "minor": "sys/sysmacros.h"}


def translation_unit(headers):
    poison = [f'#define {name} _Pragma("GCC error \\"{name} is a macro of {origin}: do not use it as a name\\"")'
              for name, origin in POISONED.items()]
    return "\n".join([*poison, *[f'#include "{header}"' for header in headers * 2], ""])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="for the generated files; a compiler cache needs it to stay the same")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    toolchain.add_options(parser)
    parser.add_argument("headers", nargs="*", help="relative to include/, for example mor/core/error.hpp; default: all")
    options = parser.parse_args()

    include = options.root / "include"
    headers = options.headers or sorted(path.relative_to(include).as_posix() for path in include.rglob("*.hpp"))
    own_flags = WARNINGS + toolchain.include_flags(include, [])
    all_flags = WARNINGS + toolchain.include_flags(include, options.system_include)
    compilers = list(toolchain.compilers(options))
    if not compilers:
        sys.exit("no C++ compiler found")

    failures = 0
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        tasks = {}
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        together, singles = work / "all_headers.cpp", [work / (name.replace("/", "_") + ".cpp") for name in headers]
        together.write_text(translation_unit(headers))
        for header, unit in zip(headers, singles):
            unit.write_text(translation_unit([header]))
            optional = all_flags != own_flags and "__has_include" in (include / header).read_text()
            for flags in [all_flags, own_flags] if optional else [all_flags]:
                tasks[pool.submit(toolchain.check_syntax, compilers[0], unit, flags)] = f"{header} with {compilers[0][-1]}"
        for compiler in compilers[1:]:
            tasks[pool.submit(toolchain.check_syntax, compiler, together, all_flags)] = f"all headers with {compiler[-1]}"
        for task in concurrent.futures.as_completed(tasks):
            compiled, output = task.result()
            if not compiled:
                failures += 1
                print(f"FAILED: {tasks[task]}\n{output}")
    print(f"{len(headers)} headers, {len(tasks)} compilations, {failures} failures")
    return 1 if failures or not headers else 0


if __name__ == "__main__":
    sys.exit(main())
