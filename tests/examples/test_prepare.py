#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Token shards made by `prepare`: what is in them, kill and resume, threads, and `train` on them."""
import json
import lzma
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

from example_programs import PROGRAMS, SOURCE, TINY, ProgramTest, command, main, text

END = 256  # of the byte tokenizer
SHARED = Path(os.environ.get("MOR_TEST_DATA") or SOURCE.parent / "shared" / "data")


def read_shard(path):
    """The tokens of a shard, by the documented format."""
    raw = path.read_bytes()
    magic, version, count = struct.unpack("<3i", raw[:12])
    width, kind = {(20240520, 1): (2, "H"), (20240801, 7): (4, "I")}[magic, version]
    assert raw[12:1024] == bytes(1012) and len(raw) == 1024 + width * count
    return list(struct.unpack(f"<{count}{kind}", raw[1024:]))


def read_split(folder, name):
    tokens = []
    for path in sorted(folder.glob(f"{name}_*.bin")):
        tokens += read_shard(path)
    return tokens


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Prepare(ProgramTest):
    def prepare(self, name, *arguments, source=None, tokenizer="byte"):
        out = self.folder / name
        self.succeed("prepare", "--input", source or self.data, "--tokenizer", tokenizer, "--out", out, *arguments)
        return out

    def write(self, name, documents):
        path = self.folder / name
        if path.suffix == ".jsonl":
            path.write_text("".join(json.dumps({"id": i, "text": d}) + "\n" for i, d in enumerate(documents)))
        else:
            path.write_text("\n<|endoftext|>\n".join(documents))
        return path

    def test_every_format_gives_the_same_tokens(self):
        documents = ["one", "two words", "\u00fcber 3"]
        expected = [token for document in documents for token in [*document.encode(), END]]
        separated = self.prepare("separated", source=self.write("d.txt", documents))
        self.assertEqual(read_split(separated, "train"), expected)
        shards = [path.read_bytes() for path in separated.glob("*.bin")]
        lines = self.folder / "lines.txt"
        lines.write_text("".join(document + "\n\n" for document in documents))
        for name, source, flags in (("json", self.write("d.jsonl", documents), ()),
                                    ("lines", lines, ("--format", "lines"))):
            out = self.prepare(name, *flags, source=source)
            self.assertEqual([path.read_bytes() for path in out.glob("*.bin")], shards)
        whole = self.prepare("whole", "--format", "whole", "--end", "none", source=lines)
        self.assertEqual(read_split(whole, "train"), list(lines.read_bytes()))
        both = self.prepare("both", "--begin", "<|endoftext|>", source=self.folder / "d.txt")
        self.assertEqual(read_split(both, "train")[:5], [END, *b"one", END])
        record = json.loads((separated / "prepare.json").read_text())
        self.assertEqual((record["finished"], record["train"]["documents"], record["train"]["tokens"]),
                         (True, 3, len(expected)))

    def big_text(self):
        """About 12 MB in documents of many lengths."""
        path = self.folder / "big.txt"
        if not path.exists():
            words = text(20000).split()
            documents = [" ".join(words[i * 7 % 15000:][:1 + i * i % 900]) for i in range(5000)]
            self.write("big.txt", documents)
        return path

    def test_threads_do_not_matter(self):
        flags = ("--shard-tokens", "400000", "--validation-fraction", "0.1")
        one, four = (self.prepare(f"threads{n}", *flags, "--threads", n, source=self.big_text()) for n in (1, 4))
        self.assertEqual(contents(one), contents(four))
        self.assertGreater(len(list(one.glob("train_*.bin"))), 5)
        self.assertGreater(len(list(one.glob("val_*.bin"))), 1)
        # Every document is whole in one of the two, in the order of the file.
        documents = [document.encode() for document in self.big_text().read_text().split("\n<|endoftext|>\n")]
        parts = {name: bytes(t if t < END else 0 for t in read_split(one, name)).split(b"\0")[:-1]
                 for name in ("train", "val")}
        places = {}
        for name, found in parts.items():
            at = 0
            for document in found:
                at = documents.index(document, at) + 1
            places[name] = len(found)
        self.assertEqual(sum(places.values()), len(documents))
        self.assertAlmostEqual(places["val"] / len(documents), 0.1, delta=0.03)

    def test_a_killed_run_goes_on_and_gives_the_same_bytes(self):
        flags = ("--input", self.big_text(), "--tokenizer", "byte", "--shard-tokens", "30000",
                 "--validation-fraction", "0.05", "--threads", "2")
        whole = self.folder / "whole_run"
        self.succeed("prepare", *flags, "--out", whole)
        expected = contents(whole)
        self.assertGreater(len(expected), 200)
        for how in (signal.SIGKILL, signal.SIGTERM):
            out, kills = self.folder / f"killed{int(how)}", 0
            for wanted in (3, 60, 150):
                run = subprocess.Popen(command("prepare", *flags, "--out", out), stdout=subprocess.DEVNULL)
                while run.poll() is None and not (out / f"train_{wanted:06}.bin").exists():
                    time.sleep(0.001)
                kills += run.poll() is None
                run.send_signal(how)
                status = run.wait(timeout=60)
                self.assertIn(status, (0, -how))
            self.assertGreater(kills, 0)
            self.succeed("prepare", *flags, "--out", out)
            found = contents(out)
            self.assertEqual(sorted(found), sorted(expected))
            self.assertTrue(all(found[name] == data for name, data in expected.items()))
            self.succeed("prepare", *flags, "--out", out)  # finished: nothing to do
            self.assertEqual(contents(out), expected)

    def test_a_folder_of_something_else_is_left_alone(self):
        model = self.train("model_folder", "--steps", "1")
        before = (model / "tokenizer.json").read_bytes()
        command_line = ("prepare", "--input", self.data, "--tokenizer", "byte", "--out", model)
        self.refuse("model_folder: the folder holds something else than token shards.*new or empty", *command_line)
        self.refuse("model_folder: the folder holds something else", *command_line, "--overwrite")
        self.assertEqual((model / "tokenizer.json").read_bytes(), before)

    def test_an_interrupted_run_says_so_and_train_does_not_take_its_shards(self):
        out = self.folder / "stopped"
        flags = ("--input", self.big_text(), "--tokenizer", "byte", "--shard-tokens", "30000", "--threads", "2",
                 "--out", out)
        run = subprocess.Popen(command("prepare", *flags), stdout=subprocess.PIPE)
        while run.poll() is None and not (out / "train_000003.bin").exists():
            time.sleep(0.001)
        run.send_signal(signal.SIGINT)
        shown = run.communicate(timeout=60)[0].decode()
        if json.loads((out / "prepare.json").read_text())["finished"]:
            self.skipTest("it was finished before the signal came")
        self.assertEqual(run.returncode, 0)
        self.assertIn("stopped; the same command goes on after the last whole shard", shown)
        train = ("train", "--out", self.folder / "from_stopped", *TINY, "--steps", "1", "--data")
        self.refuse("stopped: the shards in this folder are not finished.*the same prepare command", *train, out)
        self.succeed(*train, *sorted(out.glob("train_*.bin"))[:2])  # by name they may be used
        self.assertIn("eta", self.succeed("prepare", *flags).decode())
        self.succeed(*train[:2], self.folder / "from_whole", *train[3:], out)

    def test_train_reads_the_shards_and_their_split(self):
        shards = self.prepare("shards", "--validation-fraction", "0.2", "--shard-tokens", "2000", "--format", "lines",
                              source=self.lines())
        out = self.folder / "model"
        held = len(read_split(shards, "val"))
        shown = self.succeed("train", "--data", shards, "--out", out, *TINY, "--steps", "3", "--lr", "0.01").decode()
        self.assertIn(f"{held} held out", shown.replace(",", ""))
        self.succeed("generate", "--model", out, "--prompt", "the", "--max-tokens", "3")
        self.succeed("train", "--data", *sorted(shards.glob("train_*.bin")), "--out", self.folder / "again", *TINY,
                     "--steps", "1")

    def test_train_refuses_shards_of_which_one_is_missing_and_another_tokenizer(self):
        shards = self.prepare("holey", "--shard-tokens", "1000")
        train = ("train", "--data", shards, "--out", self.folder / "from_holey", *TINY, "--steps", "1")
        for name in ("byte", "bpe"):
            self.refuse(f"--tokenizer: token shards were made by a tokenizer already.*got {name}", *train,
                        "--tokenizer", name)
        self.succeed(*train, "--tokenizer", shards / "tokenizer.json")
        self.succeed(*train, "--resume")
        (shards / "train_000001.bin").unlink()
        self.refuse("holey/train_000001.bin: a shard of this folder is missing", *train, "--overwrite")

    def lines(self):
        path = self.folder / "sentences.txt"
        words = text(4000).split()
        path.write_text("".join(" ".join(words[i:i + 10]) + "\n" for i in range(0, 4000, 10)))
        return path

    def test_large_vocabularies_take_four_bytes_a_token(self):
        tokenizer = SHARED / "tokenizers" / "smollm2" / "tokenizer.json"
        articles = SHARED / "text" / "enwiki2015" / "valid.txt.xz"
        if not (tokenizer.exists() and articles.exists()):
            self.skipTest("no test data: set MOR_TEST_DATA")
        source = self.folder / "articles.txt"
        source.write_bytes(lzma.open(articles).read(400000).rsplit(b"\n<|endoftext|>\n", 1)[0])
        out = self.prepare("articles", source=source, tokenizer=tokenizer)
        tokens = read_split(out, "train")
        documents = source.read_bytes().split(b"\n<|endoftext|>\n")
        self.assertEqual(tokens.count(0), len(documents))  # SmolLM2's <|endoftext|> is 0
        self.assertAlmostEqual(len(source.read_bytes()) / len(tokens), 4.34, delta=0.3)
        if (PROGRAMS / "tokenize").exists():
            first = self.succeed("tokenize", "--tokenizer", tokenizer, stdin=documents[0]).split()
            self.assertEqual(tokens[:len(first) + 1], [*map(int, first), 0])

    def test_bad_input(self):
        good = ("prepare", "--input", self.data, "--tokenizer", "byte", "--out", self.folder / "never")
        self.refuse("required", "prepare")
        self.refuse("nowhere: cannot open", *good, "--tokenizer", self.folder / "nowhere")
        self.refuse("nowhere: cannot open", *good[:1], "--input", self.folder / "nowhere", *good[3:])
        self.refuse("--format: unknown value.*jsonl.*got .*xml", *good, "--format", "xml")
        self.refuse("shard tokens: out of range", *good, "--shard-tokens", "0")
        self.refuse("validation fraction: out of range", *good, "--validation-fraction", "1")
        self.refuse("--threads: out of range", *good, "--threads", "-1")
        self.refuse("--end: the tokenizer has no such special token.*got .*eot", *good, "--end", "eot")
        self.refuse("separator is not a line", *good, "--separator", "")
        self.assertFalse((self.folder / "never").exists())
        bad = self.folder / "bad.jsonl"
        bad.write_text('{"text": "a"}\n{"body": "b"}\n')
        self.refuse("bad.jsonl: line at byte 14: field text: required field is missing", "prepare", "--input", bad,
                    "--tokenizer", "byte", "--out", self.folder / "bad")
        self.refuse("threads: out of range .expected 1 to 1024, got 99999", *good, "--threads", "99999")
        # A run that failed before its first shard binds no one: the corrected input goes into the same folder.
        bad.write_text('{"text": "a"}\n')
        self.prepare("bad", source=bad)
        done = self.prepare("done")
        before = contents(done)
        for flags in (("--threads", "99999"), ("--validation", self.folder / "nowhere"), ("--separator", "")):
            self.refuse("", *good[:-1], done, "--overwrite", *flags)
            self.assertEqual(contents(done), before)
        self.refuse("out: no folder for the shards", *good[:-1], "")
        self.refuse("other settings: seed .expected the same settings, or another folder", *good[:-1], done, "--seed",
                    "2")
        self.succeed(*good[:-1], done, "--seed", "2", "--overwrite")
        (done / "prepare.json").unlink()
        self.refuse("without a record", *good[:-1], done)


if __name__ == "__main__":
    if not (PROGRAMS / "prepare").exists():
        raise SystemExit(77)
    main()
