#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fields of `config.json` that mean nothing here are named in one line by every program that loads a model; those that
mean another computation are refused by each."""
import json
import shutil

from example_programs import ProgramTest, TINY, main


class ConfigFields(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = cls.train(cls(), "model", "--steps", "2")
        cls.tokens = cls.folder / "tokens.txt"
        cls.tokens.write_text("1 2 3\n")

    def with_fields(self, name, fields):
        folder = self.folder / name
        shutil.copytree(self.model, folder, ignore=shutil.ignore_patterns("checkpoints"))
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **fields}))
        return folder

    def loads(self, folder):
        """A call of each program that loads this model."""
        out = self.folder / f"{folder.name}-out"
        return [("generate", "--model", folder, "--prompt", "a", "--max-tokens", "1"),
                ("evaluate", "--model", folder, "--text", self.data),
                ("evaluate", "--model", folder / "model.safetensors", "--tokens", self.tokens, "--logits",
                 self.folder / "logits.safetensors"),
                ("convert", "--from", folder, "--to", f"{out}-converted"),
                ("train", "--data", self.data, "--init", folder, "--out", f"{out}-trained", *TINY, "--steps", "1")]

    def warnings(self, call):
        done = self.run_program(*call)
        message = done.stderr.decode()
        self.assertEqual(done.returncode, 0, message)
        self.assertNotIn(b"ignored", done.stdout)
        return [line for line in message.splitlines() if "ignored" in line]

    def test_unknown_fields_are_named_once_by_every_program(self):
        folder = self.with_fields("unknown", {"num_atention_heads": 3, "evil\x1b[2J": 1, "use_cache": True, "z": None,
                                              "rope_scaling": {"rope_type": "default", "beta_fast": 32}})
        for call in self.loads(folder):
            self.assertEqual(self.warnings(call), [
                f'warning: {folder}/config.json: these fields mean nothing here and are ignored: '
                r'"rope_scaling.beta_fast", "evil\x1b[2J", "num_atention_heads"'], call[0])

    def test_many_unknown_fields_are_one_line(self):
        folder = self.with_fields("many", {f"field{i:03}": i for i in range(100)})
        (line,) = self.warnings(self.loads(folder)[0])
        self.assertTrue(line.endswith('"field011" and 88 more'), line)

    def test_known_fields_say_nothing(self):
        notes = {"_name_or_path": "a/b", "transformers_version": "4.46.0", "use_cache": True, "pad_token_id": 0,
                 "attention_dropout": 0.0, "pretraining_tp": 1, "transformers.js_config": {}, "is_llama_config": True}
        for folder in (self.model, self.with_fields("notes", notes)):
            for call in self.loads(folder):
                self.assertEqual(self.warnings(call), [], call[0])

    def test_other_mathematics_is_refused_by_every_program(self):
        folder = self.with_fields("scaled", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}, "unknown": 1})
        for call in self.loads(folder):
            self.refuse("config.json: field rope_scaling: this library does not scale rotary positions.*got .llama3",
                        *call)


if __name__ == "__main__":
    main()
