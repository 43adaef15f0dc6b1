#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints "PASSED FAILED SKIPPED" for a report of ctest --output-junit. usage: count_results.py REPORT

A test that could not run, for example because its program was not built, counts as failed.
"""
import sys
import xml.etree.ElementTree as ElementTree


def outcome(case):
    if case.get("status") == "run":
        return "passed"
    reason = case.find("skipped")
    skipped = case.get("status") == "disabled" or (reason is not None and "SKIP" in reason.get("message", ""))
    return "skipped" if skipped else "failed"


def main():
    outcomes = [outcome(case) for case in ElementTree.parse(sys.argv[1]).getroot().iter("testcase")]
    print(*(outcomes.count(kind) for kind in ("passed", "failed", "skipped")))


if __name__ == "__main__":
    main()
