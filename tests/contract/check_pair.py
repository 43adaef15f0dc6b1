#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that wrong code is refused with the promised message, and that its correct twin compiles.

usage: check_pair.py --root PROJECT [options of support/toolchain.py] NAME...
       check_pair.py --self-check

NAME stands for tests/contract/NAME.fail.cpp and NAME.pass.cpp. The failing file says in comments what every compiler
must print, each a regular expression searched in one `error:` or `note:` line of the compiler's output:

    // expected-error: ExpertChoice: capacities must not grow
    // expected-error(gcc): a line that only g++ prints            (or clang)

The twin is the proof that the failing file fails for that reason and no other: the two should differ in one place.
"""
import argparse
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
import toolchain

EXPECTED = re.compile(r"//\s*expected-error(?:\((gcc|clang)\))?:\s*(.+?)\s*$", re.MULTILINE)


def check_pair(folder, name, compiler, family, flags):
    """Why the pair breaks its promise with this compiler: a list of sentences, empty when it keeps it."""
    failing, passing = folder / f"{name}.fail.cpp", folder / f"{name}.pass.cpp"
    missing = [f"{path.name} is missing" for path in (failing, passing) if not path.is_file()]
    if missing:
        return missing
    patterns = [text for only, text in EXPECTED.findall(failing.read_text()) if only in ("", family)]
    if not patterns:
        return [f"{failing.name} has no '// expected-error: regex' for {family}"]
    problems = []
    compiled, output = toolchain.check_syntax(compiler, passing, flags)
    if not compiled:
        problems.append(f"{passing.name} must compile:\n{output}")
    compiled, output = toolchain.check_syntax(compiler, failing, flags)
    if compiled:
        problems.append(f"{failing.name} must not compile, but does")
    else:
        messages = [line for line in output.splitlines() if re.search(r"\b(error|note): ", line)]
        problems += [f"{failing.name}: no message matches /{pattern}/ in:\n{output}"
                     for pattern in patterns if not any(re.search(pattern, message) for message in messages)]
    return problems


def self_check(available):
    """The checker accepts a good pair and refuses each kind of bad one."""
    good, bad = "int main() { return 0; }\n", 'static_assert(sizeof(int) == 1, "the promised words");\n'
    expected = "// expected-error: the promised words\n"
    cases = {  # name: (failing file, passing file, is a good pair)
        "good": (expected + bad, good, True),
        "fails_for_another_reason": ("// expected-error: the promised words$\nint main() { return x; }\n", good, False),
        "does_not_fail": (expected + good, good, False),
        "twin_fails": (expected + bad, bad, False),
        "promises_nothing": (bad, good, False),
        "has_no_twin": (expected + bad, None, False),
    }
    wrong = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, (failing, passing, _) in cases.items():
            (folder / f"{name}.fail.cpp").write_text(failing)
            if passing is not None:
                (folder / f"{name}.pass.cpp").write_text(passing)
        for compiler, family in available.items():
            for name, (_, _, is_good) in cases.items():
                if (not check_pair(folder, name, compiler, family, [])) != is_good:
                    wrong.append(f"{name} with {compiler[-1]}")
    print("\n".join(["the checker judges wrongly: " + case for case in wrong] or ["self check passed"]))
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path)
    parser.add_argument("--self-check", action="store_true")
    toolchain.add_options(parser)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    available = toolchain.compilers(options)
    if options.self_check:
        return self_check(available)

    flags = toolchain.include_flags(options.root / "include", options.system_include)
    failures = 0
    for name in options.names:
        for compiler, family in available.items():
            problems = check_pair(options.root / "tests" / "contract", name, compiler, family, flags)
            failures += bool(problems)
            print(f"{'FAILED' if problems else 'ok'}: {name} with {compiler[-1]}", *problems, sep="\n  ")
    return 1 if failures or not available or not options.names else 0


if __name__ == "__main__":
    sys.exit(main())
