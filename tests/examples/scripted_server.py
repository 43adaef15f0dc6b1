# SPDX-License-Identifier: Apache-2.0
"""The server over an engine that answers each prompt with the prompt, over and over (scripted_server.cpp)."""
import sys
import unittest

from example_programs import BINARY, SKIPPED
from server_client import Server

PROGRAM = BINARY / "tests" / "scripted_server"


def scripted(*arguments):
    """A running one."""
    return Server([str(PROGRAM), "--port", "0", *map(str, arguments)])


def main():
    if not PROGRAM.exists():
        print(f"the server is not built: no {PROGRAM}")
        sys.exit(SKIPPED)
    sys.exit(0 if unittest.main(exit=False).result.wasSuccessful() else 1)
