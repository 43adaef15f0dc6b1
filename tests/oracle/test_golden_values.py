# SPDX-License-Identifier: Apache-2.0
"""The NumPy oracle reproduces the golden values of the specification, so it may judge the C++."""
from program_check import run

run("check_golden.py")
