#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""quickstart.sh refuses what cannot work before it installs or builds anything."""
import os
import shutil
import subprocess

from example_programs import SOURCE, ProgramTest, main, text


class Quickstart(ProgramTest):
    def refuse_start(self, pattern, *arguments):
        """Under a PATH without a compiler and a package manager, so that nothing else can happen."""
        script = SOURCE / "examples" / "quickstart.sh"
        tools = self.folder / "tools"
        tools.mkdir(exist_ok=True)
        for name in ("bash", "dirname", "wc", "ls", "cat", "iconv", "mkdir"):
            if not (tools / name).exists():
                (tools / name).symlink_to(shutil.which(name))
        done = subprocess.run(["bash", script, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
                              env={**os.environ, "PATH": str(tools)}, check=False)
        self.assertEqual((done.returncode, done.stdout), (2, b""), done.stderr)
        self.assertRegex(done.stderr.decode(errors="replace"), r"^quickstart: " + pattern + r"[^\n]*\n$")

    def test_bad_arguments_are_refused_before_the_build(self):
        small, empty, run = self.folder / "small.txt", self.folder / "empty.txt", self.folder / "run"
        small.write_text(text(100))
        empty.write_bytes(b"")
        run.mkdir()
        (run / "model").write_bytes(b"")
        for minutes in ("0", "0.0", "-1", "soon", ""):
            self.refuse_start("--minutes: expected a number above 0", "--minutes", minutes)
        self.refuse_start("--threads: expected a whole number", "--threads", "many")
        self.refuse_start("--data: expected at least 10000 bytes of text, got 0", "--data", empty)
        self.refuse_start("--data: expected at least 10000 bytes of text, got [0-9]+ in", "--data", small)
        self.refuse_start("--data: expected a file of text", "--data", run)
        self.refuse_start("--data: no such file", "--data", self.folder / "nowhere.txt")
        self.refuse_start("--data: no such file: ''", "--data", "")
        self.refuse_start("--out: there are files in", "--out", run)
        self.refuse_start("--out: .* is not a folder", "--out", small)
        self.refuse_start("--out: expected a folder, got an empty name", "--out", "")
        self.refuse_start("--prompt: not valid UTF-8", "--prompt", b"abc\xff")


if __name__ == "__main__":
    main()
