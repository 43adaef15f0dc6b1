#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Lists the test cases of a Catch2 program as a script for ctest. Run by the build after linking the program.

usage: discover_tests.py PROGRAM SCRIPT PREFIX [PROPERTY VALUE]...

Catch2's own catch_discover_tests handles names as CMake lists, which a name such as "a value in (0, 1]" breaks.
"""
import re
import subprocess
import sys


LISTINGS = {  # options that list the names of visible test cases: options that make an unmatched name an error
    ("--list-test-names-only",): "-w NoTests",  # version 2
    ("--list-tests", "--verbosity", "quiet"): "",  # version 3
}


def list_tests(program):
    """Names of the test cases, and the arguments that each run needs besides."""
    for options, arguments in LISTINGS.items():
        result = subprocess.run([program, *options], capture_output=True, text=True, timeout=60)
        if "Unrecognised" not in result.stdout + result.stderr:
            return [line for line in result.stdout.splitlines() if line.strip()], arguments
    sys.exit(f"{program} does not list its tests:\n{result.stdout}{result.stderr}")


def quoted(text):
    return f"[==[{text}]==]"


def main():
    program, script, prefix, *properties = sys.argv[1:]
    names, arguments = list_tests(program)
    if len(set(names)) != len(names):
        sys.exit(f"{program} has two test cases of the same name")
    lines = []
    for name in names:
        pattern = re.sub(r'([\\,\[\]"~])', r"\\\1", name)  # what Catch2's test specification would interpret
        test = quoted(prefix + name)
        lines.append(f"add_test({test} {quoted(program)} {quoted(pattern)} {arguments})")
        lines.append(f"set_tests_properties({test} PROPERTIES {' '.join(map(quoted, properties))})")
    with open(script, "w") as out:
        out.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
