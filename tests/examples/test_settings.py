#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Options in files: what train writes into settings.toml it reads back as it was given, and what is no setting is
refused by line."""
import json
import os
import subprocess

from example_programs import ProgramTest, TINY, command, main

ODD = 'a#b "c\'d" \\n [e], f=g \u00e9.txt'
PROMPT = 'the "river" # rises\n\tin\x1b[31m \\the\x7f hills, \'a=b\' [c]\r\n'


class Settings(ProgramTest):
    def test_values_come_back_as_they_were_given(self):
        data = self.folder / ODD
        data.write_bytes(self.data.read_bytes())
        flags = ("--data", data, "--context", "128", "--sample-prompt", PROMPT, "--capacities", "1,0.5,0.25",
                 "--untied", "--lr", "1e-3", "--steps", "2")
        out = self.folder / "odd"
        self.succeed("train", "--out", out, *TINY, *flags)
        first = (out / "settings.toml").read_bytes().decode()
        self.succeed("train", "--out", out, "--resume")
        self.assertEqual((out / "settings.toml").read_bytes().decode(), first)
        self.succeed("train", "--out", self.folder / "copy", "--settings", out / "settings.toml")
        self.assertEqual(json.loads((self.folder / "copy" / "config.json").read_text()),
                         json.loads((out / "config.json").read_text()))
        try:
            import tomllib
        except ImportError:
            return
        settings = tomllib.loads(first)
        self.assertEqual((settings["sample-prompt"], settings["data"]), (PROMPT, str(data)))
        self.assertEqual((settings["capacities"], settings["untied"], settings["lr"]), ([1, 0.5, 0.25], True, 0.001))

    def test_a_run_is_resumed_from_any_folder(self):
        start, elsewhere = self.folder / "start", self.folder / "elsewhere"
        for folder in (start, elsewhere):
            folder.mkdir()
        (start / "text.txt").write_bytes(self.data.read_bytes())
        model = self.train("beginning", "--steps", "1")
        (start / "init").symlink_to(model)
        (start / "tokenizer.json").write_bytes((model / "tokenizer.json").read_bytes())

        def train(folder, *arguments):
            done = subprocess.run(command("train", *arguments), cwd=folder, capture_output=True, timeout=120,
                                  check=False)
            self.assertEqual(done.returncode, 0, done.stderr)

        for name, flags in (("init", ("--init", "init")), ("tokenizer", ("--tokenizer", "tokenizer.json"))):
            out = self.folder / f"from-{name}"
            train(start, "--data", "text.txt", "--out", os.path.relpath(out, start), *TINY, *flags, "--steps", "1")
            train(elsewhere, "--out", os.path.relpath(out, elsewhere), "--resume", "--steps", "2")
        train(start, "--data", "text.txt", "--out", "words", *TINY, "--tokenizer", "byte", "--steps", "1")
        self.assertIn('tokenizer = "byte"', (start / "words" / "settings.toml").read_text())

    def test_a_file_sets_what_the_command_line_leaves_open(self):
        file = self.folder / "good.toml"
        file.write_text("# a comment\n\nsteps = 3 # another\r\nlr=1e-2\n"
                        "capacities = [ 1.0, # deep\n  0.5,\n  0.25 ]\nschedule = 'constant'\nuntied=true")
        out = self.folder / "from-file"
        self.succeed("train", "--data", self.data, "--out", out, *TINY, "--settings", file, "--steps", "2")
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        rates = [row["learning_rate"] for row in rows if "learning_rate" in row]
        self.assertEqual((len(rates), rates[-1]), (2, 0.01))

    def test_what_is_no_setting_is_refused_by_line(self):
        file = self.folder / "bad.toml"
        train = ("train", "--data", self.data, "--out", self.folder / "never", *TINY, "--settings")
        for content, pattern in (("steps = 2\nstep = 3\n", 'bad.toml: line 2: unknown setting .*"step"'),
                                 ("out = \"x\"\n", 'line 1: unknown setting .*"out"'),
                                 ("\n[model]\nsteps = 2\n", "line 2: a section"),
                                 ("steps = 2\nsteps = 3\n", 'line 2: a setting that is there twice.*"steps"'),
                                 ("steps\n", "line 1: not a setting"),
                                 ("steps = \n", "line 1: not a value"),
                                 ("steps = 2 3\n", "line 1: more than one value"),
                                 ("data = \"a\n", "line 1: text without a closing quote"),
                                 ("data = \"a\\q\"\n", "line 1: unknown escape"),
                                 ("capacities = [1, 0.5\nsteps = 2\n", "line 2: a list that does not end"),
                                 ("\x7fELF\0\0\1", "line 1: not a setting"),
                                 ("steps = many\n", "--steps")):
            file.write_bytes(content.encode())
            self.refuse(pattern, *train, file)
        file.write_bytes(os.urandom(5000))
        self.refuse("bad.toml: line", *train, file)
        self.refuse("nowhere.toml", *train, self.folder / "nowhere.toml")
        self.assertFalse((self.folder / "never").exists())

    def test_names_are_not_empty(self):
        for option in ("--data", "--out", "--init", "--tokenizer"):
            self.refuse(f"{option}: the name is empty", "train", "--data", self.data, "--out", self.folder / "never",
                        *TINY, option, "")


if __name__ == "__main__":
    main()
