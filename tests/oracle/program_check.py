# SPDX-License-Identifier: Apache-2.0
"""What the ctest entries of this folder share: where things are, and how to say that something is missing."""
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SKIPPED = 77


def run(script, *arguments):
    """Runs a script of this folder and ends with its status; without NumPy the test is skipped."""
    try:
        import numpy  # noqa: F401
    except ImportError:
        print("SKIPPED: NumPy is not installed (Debian: python3-numpy)")
        sys.exit(SKIPPED)
    sys.exit(subprocess.run([sys.executable, str(HERE / script), *map(str, arguments)], check=False).returncode)


def program(name):
    """The example program of this build; the test is skipped where the examples are not built."""
    path = Path(os.environ["MOR_BINARY_DIR"]) / "examples" / name
    if not path.is_file():
        print(f"SKIPPED: {name} is not built (MOR_BUILD_EXAMPLES, CLI11)")
        sys.exit(SKIPPED)
    return path
