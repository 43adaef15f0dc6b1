# SPDX-License-Identifier: Apache-2.0
"""`convert` agrees with NumPy and with llama2.c: official checkpoints, initialisations, types, shards, names, texts."""
import os
from pathlib import Path

from program_check import program, run

data = Path(os.environ.get("MOR_TEST_DATA") or Path(os.environ["MOR_SOURCE_DIR"]).parent / "shared" / "data")
found = ["--data", data] if (data / "models" / "stories260K.bin").is_file() else []
run("compare_convert.py", "--convert", program("convert"), "--evaluate", program("evaluate"), "--generate",
    program("generate"), *found)
