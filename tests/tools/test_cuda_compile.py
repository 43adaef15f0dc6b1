#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A training program of one policy triple compiles for each architecture tag, within the time that users are promised."""
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
SKIPPED = 77
LIMIT_SECONDS = 120  # of one core
COMPILER = os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def processor_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class CudaCompile(unittest.TestCase):
    def compile(self, tag, architecture):
        with tempfile.TemporaryDirectory() as folder:
            before = processor_seconds()
            command = [COMPILER, "-std=c++20", "--expt-relaxed-constexpr", "-O3", f"-DARCHITECTURE={tag}",
                       f"-gencode=arch=compute_{architecture},code=sm_{architecture}", f"-I{HERE.parent.parent / 'include'}",
                       "-c", str(HERE / "cuda_training_program.cu"), "-o", f"{folder}/program.o"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
        seconds = processor_seconds() - before
        print(f"{tag} for {architecture}: {seconds:.0f} s of one core")
        self.assertLess(seconds, LIMIT_SECONDS)

    def test_hopper(self):
        self.compile("Sm90", "90a")

    def test_ampere(self):
        self.compile("Sm80", "80")


if __name__ == "__main__":
    if not COMPILER:
        print("no nvcc here")
        sys.exit(SKIPPED)
    unittest.main()
