# SPDX-License-Identifier: Apache-2.0
"""The NumPy oracle agrees with itself: incremental and full, prefix invariance, identities between caches."""
from program_check import run

run("compare_evaluate.py", "--self-check")
