#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Programs of several threads start with short waits, unless the environment says how threads wait."""
import os
import subprocess
import time
from pathlib import Path

from example_programs import PROGRAMS, SKIPPED, ProgramTest, command, main

LOADER = Path("/lib64/ld-linux-x86-64.so.2")
GENERATE = command("generate", "--preset", "tiny", "--max-tokens", "3", "--prompt", "-")


class ShortWaits(ProgramTest):
    def settings(self, arguments, *, threads="2", **environment):
        """What a program that waits for its prompt has in its environment of these variables; it must then succeed."""
        clean = {name: value for name, value in os.environ.items()
                 if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env={**clean, "OMP_NUM_THREADS": threads, **environment})
        folder = Path("/proc") / str(process.pid)
        while (folder / "stat").read_text().split()[2] != "S":  # it works until it waits for the prompt
            time.sleep(0.01)
        time.sleep(0.2)
        found = dict(pair.split("=", 1) for pair in (folder / "environ").read_text().split("\0") if "=" in pair)
        self.name = (folder / "comm").read_text().strip()
        self.arguments = (folder / "cmdline").read_text().split("\0")[:-1]
        output, message = process.communicate(b"the river", timeout=60)
        self.assertEqual(process.returncode, 0, message)
        self.assertIn(b"after a prompt of 9", message)
        return {name: found[name] for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY") if name in found}

    def test_a_program_with_several_threads_waits_briefly_and_is_the_same_otherwise(self):
        self.assertEqual(self.settings(GENERATE), {"GOMP_SPINCOUNT": "2000"})
        self.assertEqual((self.name, self.arguments), ("generate", GENERATE))
        self.assertEqual(self.run_program("generate", "--nonsense").returncode, 2)

    def test_the_environment_comes_first(self):
        for given in ({"GOMP_SPINCOUNT": "77"}, {"OMP_WAIT_POLICY": "active"}):
            self.assertEqual(self.settings(GENERATE, **given), given)

    def test_one_thread_waits_for_no_one(self):
        self.assertEqual(self.settings(GENERATE, threads="1"), {})

    def test_a_program_that_another_one_loads_goes_on_as_it_is(self):
        if not LOADER.exists():
            self.skipTest(f"no {LOADER}")
        self.assertEqual(self.settings([str(LOADER), *GENERATE]), {})


if __name__ == "__main__":
    if not (PROGRAMS / "generate").exists() or b"libgomp.so" not in (PROGRAMS / "generate").read_bytes():
        raise SystemExit(SKIPPED)
    main()
