#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a terminal gets: one line that changes and never wraps; from a terminal that cannot do that, whole lines."""
import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import termios

from example_programs import ProgramTest, TINY, command, main


class Terminal(ProgramTest):
    def shown(self, columns, arguments, **environment):
        """What a program writes to a terminal of so many columns."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.PIPE,
                                   env={**os.environ, **environment})
        os.close(slave)
        pieces = []
        try:
            while piece := os.read(master, 65536):
                pieces.append(piece)
        except OSError:  # how Linux says that the other side is closed
            pass
        os.close(master)
        message = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, 0, message)
        return b"".join(pieces).replace(b"\r\n", b"\n").decode()

    def training(self, name):
        return command("train", "--data", self.data, "--out", self.folder / name, *TINY, "--minutes", "0.03",
                       "--log-every", "1000000")

    def test_a_line_that_changes_fits_into_one_row(self):
        for columns in (40, 80, 200):
            shown = self.shown(columns, self.training(f"wide-{columns}"), TERM="xterm")
            lines = re.findall(r"\r(step[^\r\n\x1b]*)\x1b\[K", shown)
            self.assertGreater(len(lines), 2, shown)
            longest = max(map(len, lines))
            self.assertLess(longest, columns)
            self.assertEqual(longest == columns - 1, columns <= 80)

    def test_a_dumb_terminal_gets_no_escapes(self):
        self.assertNotRegex(self.shown(80, self.training("dumb"), TERM="dumb"), "[\x1b\r]")

    def test_depths_have_colours_where_they_are_wanted(self):
        generate = command("generate", "--preset", "tiny", "--prompt", "\x1b[2J the", "--max-tokens", "5", "--depths")
        for coloured, environment, flags in ((True, {}, []), (True, {"NO_COLOR": ""}, []),
                                             (False, {"NO_COLOR": "1"}, []), (False, {"TERM": "dumb"}, []),
                                             (False, {}, ["--color", "never"]),
                                             (True, {"NO_COLOR": "1", "TERM": "dumb"}, ["--color", "always"])):
            shown = self.shown(80, [*generate, *flags], **{"TERM": "xterm", "NO_COLOR": "", **environment})
            self.assertEqual("\x1b" in shown, coloured, (environment, flags))
            self.assertNotIn("\x1b[2J", shown)

    def test_samples_cannot_command_the_terminal(self):
        out = self.folder / "samples"
        shown = self.succeed("train", "--data", self.data, "--out", out, *TINY, "--context", "64", "--steps", "2",
                             "--sample-every", "1", "--sample-prompt", "\x1b]0;mine\x07\tthe\nend").decode()
        self.assertNotRegex(shown, "[\x00-\x08\x0b-\x1f\x7f]")
        self.assertIn("  | ^[]0;mine^G\tthe\n  | end", shown)

    def test_commands_to_copy_are_quoted(self):
        out = self.folder / "it's a run"
        shown = self.succeed("train", "--data", self.data, "--out", out, *TINY, "--steps", "1").decode()
        printed = re.search("try: (generate --model .*) --prompt TEXT", shown).group(1)
        self.assertEqual(shlex.split(printed), ["generate", "--model", str(out)])


if __name__ == "__main__":
    main()
