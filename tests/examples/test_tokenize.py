#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`tokenize` maps standard input to ids and back, for every kind of tokenizer file."""
import json
import os
import struct
import subprocess
from pathlib import Path

from example_programs import PROGRAMS, SOURCE, ProgramTest, main

DATA = Path(os.environ.get("MOR_TEST_DATA") or SOURCE.parent / "shared" / "data")
VECTORS = SOURCE / "tests" / "io" / "tokenizer_vectors.json"


def tok_bin(pieces):
    """A llama2.c tokenizer: special tokens, bytes, pieces with falling scores."""
    records = [b"<unk>", b"\n<s>\n", b"\n</s>\n"] + [b"<0x%02X>" % byte for byte in range(256)]
    body = b"".join(struct.pack("<fi", 0.0, len(text)) + text for text in records)
    for rank, text in enumerate(pieces):
        body += struct.pack("<fi", -float(rank), len(text)) + text
    return struct.pack("<i", 27) + body


class Tokenize(ProgramTest):
    def run_program(self, program, *arguments, stdin=b""):
        """The program has no --device."""
        return subprocess.run([PROGRAMS / program, *map(str, arguments)], input=stdin, capture_output=True, timeout=120,
                              check=False)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.spaced = cls.folder / "tokenizer.json"
        cls.spaced.write_text(json.dumps(json.loads(VECTORS.read_text())["spaced"]["file"]))
        cls.scored = cls.folder / "tok.bin"
        cls.scored.write_bytes(tok_bin([b"he", b"the", b" the", b" ", b"t", b"h", b"e"]))

    def test_ids_of_a_text(self):
        case = json.loads(VECTORS.read_text())["spaced"]["cases"][0]
        self.assertEqual(case["change"], {})
        for vector in case["texts"]:
            text = vector["text"].encode()
            self.assertEqual(self.encode(self.spaced, text), vector["ids"])
            self.assertEqual(self.encode(self.spaced, text, "--framed"), vector["framed"])
        self.assertEqual(self.succeed("tokenize", "--tokenizer", self.scored, stdin=b"thethe"), b"261 260\n")
        self.assertEqual(self.succeed("tokenize", "--tokenizer", self.scored), b"\n")
        self.assertEqual(self.encode(self.scored, b"<s>the"), [1, 261])
        self.assertEqual(self.encode(self.scored, b"<s>", "--plain-text"), [262, 63, 118, 65])

    def test_bytes_of_ids(self):
        def decode(ids, *flags):
            return self.succeed("tokenize", "--tokenizer", self.scored, "--decode", *flags, stdin=ids)

        self.assertEqual(decode(b"1 261 260\n"), b"<s> thethe")
        self.assertEqual(decode(b"\t1\n261\r\n 260 ", "--omit-special"), b"thethe")
        self.assertEqual(decode(b" \n"), b"")
        every_byte = bytes(range(256))
        ids = self.succeed("tokenize", "--tokenizer", self.scored, stdin=every_byte)
        self.assertEqual(decode(ids), every_byte)

    def test_real_tokenizers(self):
        if not DATA.is_dir():
            self.skipTest("no test data: set MOR_TEST_DATA")
        smollm2 = DATA / "tokenizers" / "smollm2" / "tokenizer.json"
        for line in (DATA / "testvectors" / "smollm2_encodings.jsonl").read_text().splitlines():
            vector = json.loads(line)
            self.assertEqual(self.encode(smollm2, vector["text"].encode()), vector["ids"])
        book = (DATA / "text" / "tinyshakespeare.txt").read_bytes()
        for path in (smollm2, DATA / "tokenizers" / "llama2" / "tokenizer.model", DATA / "models" / "tok512.bin"):
            ids = self.succeed("tokenize", "--tokenizer", path, stdin=book)
            self.assertEqual(self.succeed("tokenize", "--tokenizer", path, "--decode", stdin=ids), book)

    def encode(self, tokenizer, text, *flags):
        return [int(word) for word in self.succeed("tokenize", "--tokenizer", tokenizer, *flags, stdin=text).split()]

    def test_bad_input(self):
        self.assertIn(b"--tokenizer", self.succeed("tokenize", "--help"))
        self.refuse("--tokenizer is required", "tokenize")
        folder = os.open(self.folder, os.O_RDONLY)
        done = subprocess.run([PROGRAMS / "tokenize", "--tokenizer", self.scored], stdin=folder, capture_output=True,
                              timeout=120, check=False)
        os.close(folder)
        self.assertEqual((done.returncode, done.stdout), (2, b""))
        self.assertEqual(done.stderr, b"tokenize: standard input: cannot read\n")
        self.refuse("--nonsense", "tokenize", "--tokenizer", self.scored, "--nonsense")
        self.refuse("nowhere.json: cannot open", "tokenize", "--tokenizer", self.folder / "nowhere.json")
        self.refuse("text.txt: byte .*not valid JSON", "tokenize", "--tokenizer", self.data)
        decode = ("tokenize", "--tokenizer", self.scored, "--decode")
        self.refuse('standard input: not a token id.*0 to 265, got "x"', *decode, stdin=b"1 x")
        self.refuse('a token id outside the vocabulary.*got "266"', *decode, stdin=b"266")
        self.refuse('a token id outside the vocabulary.*got "-1"', *decode, stdin=b"-1")
        self.refuse("--framed", *decode, "--framed", stdin=b"1")
        self.refuse("--plain-text", *decode, "--plain-text", stdin=b"1")
        self.refuse("--omit-special", "tokenize", "--tokenizer", self.scored, "--omit-special", stdin=b"1")
        broken = self.folder / "broken.model"
        broken.write_bytes(b"\x0a\x05ab")
        self.refuse("broken.model: byte 0: the file ends inside a field", "tokenize", "--tokenizer", broken)


if __name__ == "__main__":
    main()
