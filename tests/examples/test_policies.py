#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One executable runs every combination of router, cache and sharing that makes sense, and refuses the others."""
import itertools
import json

from example_programs import ProgramTest, TINY, main

ROUTERS = ("all_tokens", "expert_choice", "token_choice")
CACHES = ("recursion_wise", "shared", "hybrid")
SHARINGS = ("none", "cycle", "middle_cycle", "sequence", "middle_sequence")


def makes_sense(router, cache, sharing):
    if router != "all_tokens" and sharing not in ("cycle", "middle_cycle"):
        return False
    return sharing != "none" or cache == "recursion_wise"


class Policies(ProgramTest):
    def test_every_combination_trains_and_generates(self):
        for router, cache, sharing in itertools.product(ROUTERS, CACHES, SHARINGS):
            flags = ["--router", router, "--cache", cache, "--sharing", sharing]
            with self.subTest(" ".join(flags)):
                if not makes_sense(router, cache, sharing):
                    self.refuse("command line: field mor", "train", "--data", self.data, "--out", self.folder / "never",
                                *TINY, "--steps", "2", *flags)
                    continue
                out = self.train(f"{router}-{cache}-{sharing}", *flags, "--steps", "2")
                continuation = self.succeed("generate", "--model", out, "--prompt", "the river", "--max-tokens", "5")
                self.assertGreater(len(continuation), 1)

    def test_official_names_make_the_same_model(self):
        for router in ROUTERS:
            plain = self.train(f"plain-{router}", "--router", router, "--steps", "2")
            official = self.train(f"official-{router}", "--router", router, "--steps", "2", "--official-names")
            sizes = [(folder / "model.safetensors").stat().st_size for folder in (plain, official)]
            self.assertLess(*sizes)
            texts = [self.succeed("generate", "--model", folder, "--prompt", "the", "--temperature", "0",
                                  "--max-tokens", "12") for folder in (plain, official)]
            self.assertEqual(*texts)

    def test_router_options_reach_the_configuration(self):
        out = self.train("options", "--steps", "1", "--router", "token_choice", "--router-network", "mlp",
                         "--balancing", "loss_free", "--recursions", "2", "--capacities", "1,0.5", "--alpha", "0.7")
        mor = json.loads((out / "config.json").read_text())["mor"]
        self.assertEqual((mor["router_network"], mor["balancing"], mor["capacities"], mor["alpha"]),
                         ("mlp", "loss_free", [1.0, 0.5], 0.7))

    def test_a_bpe_tokenizer_is_trained_and_saved(self):
        out = self.train("bpe", "--steps", "1", "--tokenizer", "bpe", "--vocab-size", "300")
        self.assertEqual(json.loads((out / "config.json").read_text())["vocab_size"], 300)
        again = self.folder / "bpe-again"
        self.succeed("train", "--data", self.data, "--out", again, *TINY, "--steps", "1", "--tokenizer",
                     out / "tokenizer.json")
        self.assertEqual(*((folder / "tokenizer.json").read_bytes() for folder in (out, again)))


if __name__ == "__main__":
    main()
