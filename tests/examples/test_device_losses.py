#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Over 300 steps on real text from the same weights, the GPU in bf16 learns what the processor learns in float, under every
router and cache."""
import itertools
import json
import statistics

from example_programs import ProgramTest, SOURCE, main

MODEL = ["--preset", "tiny", "--hidden-size", "128", "--heads", "2", "--kv-heads", "1", "--ffn", "192", "--context", "64",
         "--batch-size", "8", "--sample-every", "0", "--eval-rows", "64", "--lr", "0.001", "--seed", "1", "--threads", "4"]
STEPS = 300


class DeviceLosses(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # English prose that is always at hand: the project's own documentation.
        cls.data.write_text("\n".join(path.read_text() for path in sorted((SOURCE / "docs").glob("*.md"))))
        probe = cls().run_program("train", "--data", cls.data, "--out", cls.folder / "probe", *MODEL, "--steps", "1",
                                  "--dry-run", "--device", "cuda")
        cls.gpu = probe.returncode == 0

    def losses(self, name, *arguments):
        out = self.folder / name
        self.succeed("train", "--data", self.data, "--out", out, *MODEL, "--steps", STEPS, *arguments)
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return [row["loss"] for row in rows if "loss" in row]

    def test_bf16_on_the_gpu_learns_as_float_on_the_processor(self):
        if not self.gpu:
            self.skipTest("no GPU, or no CUDA backend in this build")
        for router, cache in itertools.product(("all_tokens", "expert_choice", "token_choice"),
                                               ("recursion_wise", "shared", "hybrid")):
            with self.subTest(f"{router} {cache}"):
                policy = ("--router", router, "--cache", cache)
                host = self.losses(f"host-{router}-{cache}", *policy)
                device = self.losses(f"cuda-{router}-{cache}", *policy, "--device", "cuda", "--dtype", "bfloat16")
                self.assertEqual(len(host), len(device))
                # The mean of the run: two runs drift apart step by step from the first rounding on, also two in float.
                expected, got = statistics.mean(host), statistics.mean(device)
                self.assertLess(abs(got - expected), 0.01 * expected, f"{got}, not {expected}")


if __name__ == "__main__":
    main()
