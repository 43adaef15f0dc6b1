# SPDX-License-Identifier: Apache-2.0
"""Finding and running the C++ compilers of this machine, for tests that compile single files."""
import os
import shutil
import subprocess


def add_options(parser):
    parser.add_argument("--compiler", action="append", default=[], help="asked beside g++ and clang++")
    parser.add_argument("--system-include", action="append", default=[], help="folder of a dependency's headers")


def include_flags(include, system_includes):
    # -idirafter, since -isystem /usr/include would break the standard headers that include the next stdlib.h
    return [f"-I{include}"] + [flag for folder in system_includes for flag in ("-idirafter", folder)]


def compilers(preferred):
    """The preferred compilers, and g++ and clang++ where present, each once: {path: "gcc" or "clang"}."""
    found, seen = {}, set()
    for name in [*preferred, "g++", "clang++"]:
        path = shutil.which(name)
        if path and os.path.realpath(path) not in seen:
            seen.add(os.path.realpath(path))
            version = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
            found[path] = "clang" if "clang" in version else "gcc"
    return found


def check_syntax(compiler, path, flags):
    """Whether the C++20 file compiles, and what the compiler printed."""
    command = [compiler, "-std=c++20", "-fsyntax-only", "-fdiagnostics-color=never", *flags, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, LC_ALL="C"))
    return result.returncode == 0, result.stdout + result.stderr
