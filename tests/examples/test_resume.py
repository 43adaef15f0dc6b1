#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A run that is killed and resumed gives the same bits as one that was not; an interrupted one saves first."""
import random
import re
import signal
import subprocess
import time

from example_programs import ProgramTest, TINY, command, main

STEPS = 60
LONG = ["--steps", STEPS, "--save-every", "5", "--total-batch", "4", "--log-every", "1", "--router", "token_choice",
        "--balancing", "loss_free", "--capacity-warmup", "30"]


class Resume(ProgramTest):
    def start(self, out, *arguments):
        return subprocess.Popen(command("train", "--data", self.data, "--out", out, *TINY, *arguments),
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @staticmethod
    def wait_for_step(process, step):
        for line in process.stdout:
            found = re.match(r"step +(\d+)/", line)
            if found and int(found.group(1)) >= step:
                return True
        return False

    def test_a_killed_run_resumes_to_the_same_bits(self):
        straight = self.train("straight", *LONG)
        again = self.train("again", *LONG)
        expected = (straight / "model.safetensors").read_bytes()
        self.assertEqual((again / "model.safetensors").read_bytes(), expected)
        generator = random.Random(7)
        out = self.folder / "killed"
        for attempt in range(5):
            process = self.start(out, *LONG, *(["--resume"] if attempt else []))
            alive = self.wait_for_step(process, generator.randint(10 * attempt + 1, 10 * attempt + 14))
            time.sleep(generator.random() * 0.02)
            process.kill()
            process.communicate()
            self.assertTrue(alive or attempt == 4)
        self.succeed("train", "--out", out, "--resume")  # the rest is in the run's settings
        self.assertEqual((out / "model.safetensors").read_bytes(), expected)
        lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (straight, out)]
        self.assertEqual(len(lines[0]), len(lines[1]))

    def test_an_interrupt_saves_and_says_how_to_go_on(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            out = self.folder / f"interrupted-{number}"
            process = self.start(out, "--steps", "1000000", "--log-every", "1")
            self.wait_for_step(process, 3)
            process.send_signal(number)
            output, message = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0, message)
            self.assertIn("--resume", output)
            self.assertTrue((out / "model.safetensors").exists())
            self.assertIn("resuming after step",
                          self.succeed("train", "--out", out, "--resume", "--steps", "4").decode())

    def test_a_finished_run_can_be_lengthened(self):
        flags = ["--schedule", "constant", "--warmup", "0", "--save-every", "4"]
        straight = self.train("long", "--steps", "8", *flags)
        out = self.train("short", "--steps", "4", *flags)
        self.succeed("train", "--out", out, "--resume", "--steps", "8")
        self.assertEqual(*((folder / "model.safetensors").read_bytes() for folder in (straight, out)))

    def test_a_second_run_does_not_touch_the_first(self):
        out = self.train("first", "--steps", "2")
        before = (out / "model.safetensors").read_bytes()
        self.refuse("there is a run in this folder.*--resume", "train", "--data", self.data, "--out", out, *TINY,
                    "--steps", "3")
        self.assertEqual((out / "model.safetensors").read_bytes(), before)
        self.succeed("train", "--data", self.data, "--out", out, *TINY, "--steps", "3", "--overwrite")
        self.assertNotEqual((out / "model.safetensors").read_bytes(), before)

    @staticmethod
    def contents(folder):
        return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def test_a_refused_command_leaves_the_run_as_it_was(self):
        out = self.train("kept", "--steps", "2")
        before = self.contents(out)
        again = ("train", "--data", self.data, "--out", out, *TINY, "--steps", "3")
        for flag in ("--overwrite", "--resume"):
            self.refuse("--sample-prompt: the prompt leaves no room", *again, flag, "--sample-prompt", "the " * 75)
            self.assertEqual(self.contents(out), before)
        log = out / "metrics.jsonl"
        log.write_bytes(before[log][:-1] + b" ")
        before = self.contents(out)
        self.refuse("metrics.jsonl: the metrics log is not the one", *again, "--resume")
        self.assertEqual(self.contents(out), before)

    def test_a_run_that_goes_on_is_left_alone(self):
        out = self.folder / "busy"
        process = self.start(out, "--steps", "1000000", "--log-every", "1", "--save-every", "1")
        self.wait_for_step(process, 3)
        for flag in ([], ["--resume"], ["--overwrite"]):
            self.refuse("another process is training in this folder" if flag else "there is a run in this folder",
                        "train", "--data", self.data, "--out", out, *TINY, "--steps", "5", *flag)
        self.succeed("train", "--data", self.data, "--out", out, *TINY, "--steps", "5", "--resume", "--dry-run")
        self.assertIsNone(process.poll())
        process.kill()
        process.communicate()
        self.succeed("train", "--out", out, "--resume", "--steps", "1")  # the lock went with its process

    def test_a_folder_of_something_else_is_left_alone(self):
        out = self.folder / "precious"
        out.mkdir()
        (out / "diary.txt").write_text("mine")
        for flag in ([], ["--overwrite"], ["--resume"]):
            self.refuse("not a run", "train", "--data", self.data, "--out", out, *TINY, "--steps", "3", *flag)
        self.assertEqual([path.name for path in out.iterdir()], ["diary.txt"])

    def test_a_run_whose_numbers_are_none_ends_and_tells_them(self):
        for policy, message in (("halt", "step 2: .*policy is to halt"),
                                ("skip", "step 7: too many updates skipped in a row")):
            out = self.folder / f"none-{policy}"
            done = self.run_program("train", "--data", self.data, "--out", out, *TINY, "--steps", "30", "--lr", "1e30",
                                    "--non-finite", policy, "--log-every", "1", "--save-every", "1")
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertRegex(done.stderr.decode(), message + ".*got loss (-?nan|inf)")
            skipped = re.findall(r"training step (\d+): update skipped: loss (?:-?nan|inf)", done.stdout.decode())
            self.assertEqual(skipped, [] if policy == "halt" else ["2", "3", "4", "5", "6"])
            steps = sorted(folder.name for folder in (out / "checkpoints").iterdir())
            self.assertEqual(steps[-1], f"step-{2 if policy == 'halt' else 7:08d}")

    def test_minutes_end_by_the_clock(self):
        begin = time.monotonic()
        out = self.train("clock", "--minutes", "0.03")
        self.assertLess(time.monotonic() - begin, 30)
        rates = [float(line.split('"learning_rate": ')[1].split(",")[0])
                 for line in (out / "metrics.jsonl").read_text().splitlines() if "learning_rate" in line]
        self.assertLess(rates[-1], 0.2 * max(rates))  # the decay is complete


if __name__ == "__main__":
    main()
