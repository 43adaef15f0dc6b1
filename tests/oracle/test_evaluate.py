# SPDX-License-Identifier: Apache-2.0
"""`evaluate` agrees with the NumPy oracle on random models of every router, network, cache, sharing and routing mode."""
from program_check import program, run

run("compare_evaluate.py", "--evaluate", program("evaluate"))
