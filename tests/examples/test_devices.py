#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""--device cuda trains, generates and evaluates where there is a GPU, and says what is missing where there is none."""
import itertools
import json
import shutil

from example_programs import ProgramTest, TINY, main

ROUTERS = ("all_tokens", "expert_choice", "token_choice")
CACHES = ("recursion_wise", "shared", "hybrid")
TYPES = ("float32", "bfloat16")
MISSING = "this build has no CUDA backend|this machine has no CUDA device"


def crc32c(data):
    """The checksum of a checkpoint's files (Castagnoli)."""
    value = 0xffffffff
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82f63b78 if value & 1 else 0)
    return value ^ 0xffffffff


class Devices(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        probe = cls().run_program("train", "--data", cls.data, "--out", cls.folder / "probe", *TINY, "--steps", "1",
                                  "--dry-run", "--device", "cuda")
        cls.gpu = probe.returncode == 0
        cls.model = cls.train(cls(), "model", "--steps", "40", "--lr", "0.01")

    @staticmethod
    def newest(folder):
        return max((folder / "checkpoints").iterdir())

    def state(self, folder):
        return json.loads((self.newest(folder) / "state.json").read_text())

    def losses(self, *arguments):
        """Nats a token on the text, a routing each."""
        output = self.succeed("evaluate", "--model", self.model, "--text", self.data, "--json", *arguments)
        return {row["routing"]: row["nats_per_token"] for row in json.loads(output)["results"]}

    def demand_gpu(self):
        if not self.gpu:
            self.skipTest("no GPU, or no CUDA backend in this build")

    def test_a_missing_gpu_is_named(self):
        if self.gpu:
            self.skipTest("there is a GPU")
        cuda = ("--device", "cuda")
        out = self.folder / "never"
        self.refuse(MISSING, "train", "--data", self.data, "--out", out, *TINY, "--steps", "1", *cuda)
        self.assertFalse(out.exists())
        self.refuse(MISSING, "generate", "--model", self.model, "--prompt", "a", *cuda)
        self.refuse(MISSING, "evaluate", "--model", self.model, "--text", self.data, *cuda)

    def test_auto_takes_what_is_there(self):
        done = self.run_program("generate", "--model", self.model, "--prompt", "the", "--max-tokens", "3", "--device",
                                "auto")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertIn("cuda bfloat16" if self.gpu else "host float", done.stderr.decode())
        out = self.train("auto", "--steps", "1", "--device", "auto")
        self.assertEqual(self.state(out)["backend"], "cuda bfloat16" if self.gpu else "host float")

    def test_every_router_and_cache_trains_and_generates_on_the_gpu(self):
        self.demand_gpu()
        for router, cache, dtype in itertools.product(ROUTERS, CACHES, TYPES):
            with self.subTest(f"{router} {cache} {dtype}"):
                where = ("--device", "cuda", "--dtype", dtype)
                out = self.train(f"{router}-{cache}-{dtype}", "--router", router, "--cache", cache, "--steps", "2",
                                 *where)
                self.succeed("generate", "--model", out, "--prompt", "the river", "--max-tokens", "5", *where)

    def test_the_gpu_measures_the_losses_that_the_processor_does(self):
        self.demand_gpu()
        expected = self.losses()
        for dtype, digits in (("float32", 4), ("bfloat16", 1)):
            measured = self.losses("--device", "cuda", "--dtype", dtype)
            self.assertEqual(measured.keys(), expected.keys())
            for routing, loss in expected.items():
                self.assertAlmostEqual(measured[routing], loss, digits, f"{dtype} {routing}")

    def test_a_resumed_run_on_the_gpu_gives_the_same_bits(self):
        self.demand_gpu()
        flags = ["--device", "cuda", "--schedule", "constant", "--warmup", "0", "--save-every", "4", "--router",
                 "token_choice", "--balancing", "loss_free"]
        for dtype in TYPES:
            with self.subTest(dtype):
                straight = self.train(f"long-{dtype}", "--steps", "8", *flags, "--dtype", dtype)
                out = self.train(f"short-{dtype}", "--steps", "4", *flags, "--dtype", dtype)
                self.succeed("train", "--out", out, "--resume", "--steps", "8", "--device", "cuda")
                self.assertEqual(*((folder / "model.safetensors").read_bytes() for folder in (straight, out)))

    def test_three_runs_of_a_hundred_steps_give_the_same_bits(self):
        self.demand_gpu()
        # Heads of 64, sequences that are no multiple of a tile: the kernels of the tensor cores, at their edges.
        flags = ["--device", "cuda", "--steps", "100", "--hidden-size", "128", "--ffn", "192", "--context", "90",
                 "--batch-size", "4"]
        for router, dtype in itertools.product(ROUTERS, TYPES):
            with self.subTest(f"{router} {dtype}"):
                runs = [self.train(f"repeat-{router}-{dtype}-{run}", *flags, "--router", router, "--dtype", dtype)
                        for run in range(3)]
                weights = [(folder / "model.safetensors").read_bytes() for folder in runs]
                self.assertEqual(weights[1], weights[0])
                self.assertEqual(weights[2], weights[0])

    def test_a_run_stays_on_its_backend(self):
        """A checkpoint that says it comes from another backend: bits could not be the same there."""
        folder = self.folder / "other"
        shutil.copytree(self.model, folder)
        newest = self.newest(folder)
        changed = (newest / "state.json").read_text().replace("host float", "cuda bfloat16")
        (newest / "state.json").write_text(changed)
        manifest = json.loads((newest / "manifest.json").read_text())
        text = f"mor-checkpoint-1 {manifest['step']}\n"
        for entry in manifest["files"]:
            if entry["name"] == "state.json":
                entry.update(size=len(changed), crc32c=f"{crc32c(changed.encode()):08x}")
            text += f"{entry['name']} {entry['size']} {entry['crc32c']}\n"
        manifest["crc32c"] = f"{crc32c(text.encode()):08x}"
        (newest / "manifest.json").write_text(json.dumps(manifest))
        self.refuse("another backend.*expected cuda bfloat16, got host float", "train", "--out", folder, "--resume",
                    "--steps", "50")
        if self.gpu:
            self.refuse("another backend.*expected host float, got cuda bfloat16", "train", "--out", self.model,
                        "--resume", "--steps", "50", "--device", "cuda")


if __name__ == "__main__":
    main()
