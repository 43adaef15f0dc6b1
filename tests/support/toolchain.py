# SPDX-License-Identifier: Apache-2.0
"""Finding and running the C++ compilers of this machine, for tests that compile single files."""
import os
import shutil
import subprocess


def add_options(parser):
    parser.add_argument("--compiler", action="append", default=[], help="asked beside g++ and clang++")
    parser.add_argument("--system-include", action="append", default=[], help="folder of a dependency's headers")
    parser.add_argument("--launcher", default="", help="put before the compiler, for example ccache")


def include_flags(include, system_includes):
    # -idirafter, since -isystem /usr/include would break the standard headers that include the next stdlib.h
    return [f"-I{include}"] + [flag for folder in system_includes for flag in ("-idirafter", folder)]


def compilers(options):
    """The compilers asked for, and g++ and clang++ where present, each once: {(launcher, path): "gcc" or "clang"}."""
    found, seen = {}, set()
    launcher = (options.launcher,) if options.launcher else ()
    for name in [*options.compiler, "g++", "clang++"]:
        path = shutil.which(name)
        if path and os.path.realpath(path) not in seen:
            seen.add(os.path.realpath(path))
            version = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
            found[(*launcher, path)] = "clang" if "clang" in version else "gcc"
    return found


def check_syntax(command, path, flags):
    """Whether the C++20 file compiles with this command (launcher and compiler), and what the compiler printed."""
    command = [*command, "-std=c++20", "-fsyntax-only", "-fdiagnostics-color=never", *flags, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, LC_ALL="C"))
    return result.returncode == 0, result.stdout + result.stderr
