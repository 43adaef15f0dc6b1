# SPDX-License-Identifier: Apache-2.0
"""The scores of `evaluate --tasks` are those that an independent program computes from reference logits."""
import os
from pathlib import Path

from program_check import HERE, program, run

data = Path(os.environ.get("MOR_TEST_DATA") or HERE.parent.parent.parent / "shared" / "data") / "models"
more = ["--convert", program("convert"), "--data", data] if (data / "stories260K.bin").exists() else []
if not more:
    print("without stories260K: no test data (MOR_TEST_DATA)")
run("compare_tasks.py", "--evaluate", program("evaluate"), *more)
