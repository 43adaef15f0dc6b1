#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs `evaluate` on random models of every policy and compares its logits and depths with the oracle's.

    compare_evaluate.py --evaluate BINARY [--cases N] [--seed S]   compare; exit 1 when a case differs
    compare_evaluate.py --self-check                               test the oracle itself, without a binary

The models of mor-spec section 12 run first, then N random ones. `--keep DIR` leaves the folders of failing cases in
DIR, `--only I` runs one case. Ends with `N passed, N failed`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np

import cases
import golden_fixture
import make_case
import safetensors_file

TOLERANCE = 2e-4  # largest absolute error of a logit, for a program in float32
_TIMEOUT = 120  # seconds for one run of the binary


def run_evaluate(command, folder, routing, extra=()):
    """Runs the binary on a model folder; returns (tensors, None) or (None, why not)."""
    output = os.path.join(folder, "logits.safetensors")
    arguments = [*command, "--model", folder, "--tokens", os.path.join(folder, "tokens.txt"), "--logits", output,
                 "--routing", routing, *extra]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return None, f"no end after {_TIMEOUT} s"
    if done.returncode != 0:
        message = (done.stderr.strip().splitlines() or ["nothing on standard error"])[-1]
        return None, f"exit {done.returncode}: {message}"
    try:
        return safetensors_file.read(output), None
    except (OSError, ValueError, KeyError) as error:
        return None, f"unreadable output: {error}"


def difference(results, tensors, tolerance=TOLERANCE):
    """(largest error, why it fails or None) of the binary's tensors against the oracle's results."""
    largest = 0.0
    expected = {f"{kind}.{i}" for i in range(len(results)) for kind in ("logits", "depths")}
    if set(tensors) != expected:
        return np.inf, f"tensors {sorted(tensors)}, expected {sorted(expected)}"
    for index, result in enumerate(results):
        logits, depths = tensors[f"logits.{index}"], tensors[f"depths.{index}"]
        if logits.shape != result.logits.shape or depths.shape != result.depths.shape:
            return np.inf, f"sequence {index}: shapes {logits.shape} and {depths.shape}, expected {result.logits.shape}"
        if depths.dtype != np.int32:
            return np.inf, f"sequence {index}: depths are {depths.dtype}, expected int32"
        wrong = np.flatnonzero(depths != result.depths)
        if len(wrong):
            at = wrong[0]
            return np.inf, (f"sequence {index}: {len(wrong)} of {len(depths)} depths differ, first at position {at}: "
                            f"{depths[at]}, expected {result.depths[at]}")
        errors = np.abs(logits - result.logits)
        if not np.isfinite(errors).all():
            return np.inf, f"sequence {index}: logits are not finite"
        if errors.max() > tolerance:
            position, entry = np.unravel_index(errors.argmax(), errors.shape)
            first = int(np.flatnonzero(errors.max(axis=1) > tolerance)[0])
            return float(errors.max()), (
                f"sequence {index} of {len(depths)} tokens: off by {errors.max():.3g} at position {position}, entry "
                f"{entry}; first bad position {first}")
        largest = max(largest, float(errors.max()))
    return largest, None


def all_cases(count, seed, head_dimensions):
    """Yields (name, builder); builder(folder) writes the folder and returns (routing, oracle results)."""
    for run in golden_fixture.RUNS:

        def golden(folder, run=run):
            routing, sequences = golden_fixture.write(folder, run)
            reference, _ = golden_fixture.model(run)
            return routing, [reference.forward(tokens, routing) for tokens in sequences]

        yield f"mor-spec section 12, {run}", golden
    for index, spec in enumerate(cases.specs(count, seed, head_dimensions)):

        def random(folder, spec=spec, number=index):
            _, _, results = make_case.make_case(folder, spec, [seed, number])
            return spec["routing"], results

        yield cases.describe(spec), random


def compare(command, arguments):
    """Runs every case; returns (passed, failures as (index, name, reason), largest error of a passing case)."""
    extra = []
    for flag, value in (("--device", arguments.device), ("--dtype", arguments.dtype)):
        if value:
            extra += [flag, value]
    passed, failures, largest = 0, [], 0.0
    for index, (name, build) in enumerate(all_cases(arguments.cases, arguments.seed, arguments.head_dimensions)):
        if arguments.only is not None and index != arguments.only:
            continue
        with tempfile.TemporaryDirectory(prefix="mor_case_") as folder:
            routing, results = build(folder)
            tensors, reason = run_evaluate(command, folder, routing, extra)
            if tensors is not None:
                error, reason = difference(results, tensors, arguments.tolerance)
            if reason is None:
                passed += 1
                largest = max(largest, error)
                continue
            failures.append((index, name, reason))
            if arguments.keep:
                shutil.copytree(folder, os.path.join(arguments.keep, f"case_{index}"), dirs_exist_ok=True)
    return passed, failures, largest


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluate", help="path of the binary (a .py file runs under this interpreter)")
    parser.add_argument("--cases", type=int, default=120, help="random models, besides the golden ones")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="run the case of this number alone")
    parser.add_argument("--keep", help="folder to copy failing cases to")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--device", help="passed on to evaluate")
    parser.add_argument("--dtype", help="passed on to evaluate")
    parser.add_argument("--head-dimensions", type=int, nargs="+", default=cases.HEAD_DIMENSIONS)
    parser.add_argument("--self-check", action="store_true", help="test the oracle itself")
    arguments = parser.parse_args()
    if arguments.self_check:
        import self_check  # it imports this module

        return self_check.run()
    if not arguments.evaluate or not os.path.exists(arguments.evaluate):
        print(f"no such program: {arguments.evaluate}; give --evaluate BINARY or --self-check", file=sys.stderr)
        return 2
    command = [os.path.abspath(arguments.evaluate)]
    if command[0].endswith(".py"):
        command.insert(0, sys.executable)
    passed, failures, largest = compare(command, arguments)
    for index, name, reason in failures:
        print(f"FAILED case {index}: {name}\n    {reason}")
    print(f"largest error of a passing case: {largest:.3g}")
    print(f"{passed} passed, {len(failures)} failed")
    return 1 if failures or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
