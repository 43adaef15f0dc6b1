#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A converted model is trained on: vanilla, then `convert`, then `train --init`."""
import json
import shutil
import subprocess

from example_programs import PROGRAMS, ProgramTest, TINY, main


class Init(ProgramTest):
    def convert(self, source, name, *flags):
        target = self.folder / name
        command = [PROGRAMS / "convert", "--from", source, "--to", target, *flags]
        subprocess.run(command, check=True, capture_output=True)
        return target

    def first_loss(self, run):
        return json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["loss"]

    def test_up_training(self):
        vanilla = self.train("vanilla", "--sharing", "none", "--layers", "6", "--steps", "60")
        fresh = self.first_loss(vanilla)
        copied = self.convert(vanilla, "copied")
        trained_on = self.train("on", "--init", copied, "--steps", "2")
        self.assertLess(self.first_loss(trained_on), fresh - 0.5)
        shared = self.convert(vanilla, "shared", "--dtype", "bfloat16", "--sharing", "middle_cycle", "--recursions", "2")
        self.assertTrue((shared / "tokenizer.json").exists())
        recursive = self.train("recursive", "--init", shared, "--steps", "2")
        self.assertLess(self.first_loss(recursive), fresh)
        routed = self.convert(vanilla, "routed", "--router", "expert_choice", "--recursions", "2", "--init", "upper")
        run = self.train("mor", "--init", routed, "--steps", "2")
        config = json.loads((run / "config.json").read_text())
        self.assertEqual((config["mor"]["router"], config["mor"]["num_recursions"]), ("expert_choice", 2))
        self.succeed("generate", "--model", run, "--prompt", "the river", "--max-tokens", "3")
        # A checkpoint of the run is a model folder, too.
        newest = max((run / "checkpoints").iterdir())
        again = self.convert(newest, "from-checkpoint", "--official-names")
        self.succeed("generate", "--model", again, "--prompt", "the river", "--max-tokens", "3")
        # Going on needs the folder that the run began with no more.
        shutil.rmtree(routed)
        self.succeed("train", "--out", run, "--resume", "--steps", "4")
        routed = self.convert(vanilla, "routed", "--router", "expert_choice", "--recursions", "2", "--init", "upper")
        self.refuse("model.layers", "train", "--data", self.data, "--out", self.folder / "never", *TINY, "--init",
                    routed, "--layers", "3", "--steps", "2")


if __name__ == "__main__":
    main()
