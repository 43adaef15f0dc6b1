# SPDX-License-Identifier: Apache-2.0
"""Runs the example programs for the tests of their command lines."""
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

SOURCE = Path(os.environ.get("MOR_SOURCE_DIR", Path(__file__).resolve().parent.parent.parent))
BINARY = Path(os.environ.get("MOR_BINARY_DIR", SOURCE / "build" / "release"))
PROGRAMS = BINARY / "examples"
SKIPPED = 77

# A model that trains in milliseconds. Flags given later win where a test repeats one.
TINY = ["--preset", "tiny", "--hidden-size", "16", "--heads", "2", "--kv-heads", "1", "--ffn", "24", "--context", "16",
        "--batch-size", "2", "--eval-rows", "2", "--sample-every", "0", "--threads", "1"]

WORDS = ("the river rises in the hills above the village where the winter snow melts late and the grass stays wet "
         "until june for the first mile it is hardly a river at all").split()


def text(words):
    """A text of so many words, the same each time."""
    state, chosen = 1, []
    for _ in range(words):
        state = (1103515245 * state + 12345) % 2**31
        chosen.append(WORDS[(state >> 16) % len(WORDS)])
    return " ".join(chosen) + "\n"


def command(program, *arguments):
    """On the processor unless the arguments say otherwise: of two devices the last counts."""
    device = ["--device", "cpu"] if program in ("train", "generate", "evaluate", "serve") else []
    return [str(PROGRAMS / program), *device, *(a if isinstance(a, bytes) else str(a) for a in arguments)]


class ProgramTest(unittest.TestCase):
    """A temporary folder with a text in it, and ways to run a program."""

    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory(prefix="mor_examples_")
        cls.folder = Path(cls.scratch.name)
        cls.data = cls.folder / "text.txt"
        cls.data.write_text(text(1200))

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def run_program(self, program, *arguments, stdin=b""):
        return subprocess.run(command(program, *arguments), input=stdin, capture_output=True, timeout=120, check=False)

    def succeed(self, program, *arguments, stdin=b""):
        """Standard output of a run that must succeed."""
        done = self.run_program(program, *arguments, stdin=stdin)
        self.assertEqual(done.returncode, 0, f"{program} {' '.join(map(str, arguments))}\n{done.stderr.decode()}")
        return done.stdout

    def refuse(self, pattern, program, *arguments, stdin=b""):
        """A run that must end with status 2, nothing on standard output but progress, and one line with `pattern`."""
        done = self.run_program(program, *arguments, stdin=stdin)
        message = done.stderr.decode()
        self.assertEqual(done.returncode, 2, f"{program} {' '.join(map(str, arguments))}\n{message}")
        self.assertEqual(message.count("\n"), 1, message)
        self.assertTrue(message.startswith(program + ": "), message)
        self.assertTrue(re.search(pattern, message), f"no /{pattern}/ in: {message}")

    def train(self, name, *arguments):
        """Trains into a folder of this name and returns it."""
        out = self.folder / name
        self.succeed("train", "--data", self.data, "--out", out, *TINY, *arguments)
        return out


def main():
    if not all((PROGRAMS / name).exists() for name in ("train", "generate", "evaluate")):
        print(f"the example programs are not built in {PROGRAMS}")
        sys.exit(SKIPPED)
    result = unittest.main(exit=False).result
    if not result.wasSuccessful():
        sys.exit(1)
    if result.testsRun > 0 and len(result.skipped) == result.testsRun:
        sys.exit(SKIPPED)
