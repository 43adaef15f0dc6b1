#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What generate and evaluate print and write, on a model trained for a moment."""
import csv
import json
import math
import struct

from example_programs import ProgramTest, main


class GenerateEvaluate(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = cls.train(cls(), "model", "--steps", "80", "--lr", "0.01", "--context", "64")

    def generate(self, *arguments, prompt="the river", stdin=b""):
        return self.succeed("generate", "--model", self.model, "--prompt", prompt, *arguments, stdin=stdin)

    def test_the_same_call_gives_the_same_text(self):
        for flags in (("--temperature", "0"), ("--seed", "3", "--top-k", "10", "--top-p", "0.9", "--min-p", "0.01")):
            self.assertEqual(*(self.generate("--max-tokens", "30", *flags) for _ in range(2)))
        self.assertNotEqual(*(self.generate("--max-tokens", "30", "--seed", seed) for seed in "12"))

    def test_the_prompt_can_come_from_anywhere(self):
        file = self.folder / "prompt.txt"
        file.write_text("the river\n")
        expected = self.generate("--temperature", "0", "--max-tokens", "10")
        greedy = ("--temperature", "0", "--max-tokens", "10")
        self.assertEqual(self.generate(*greedy, prompt="-", stdin=b"the river\n"), expected)
        self.assertEqual(self.succeed("generate", "--model", self.model, "--prompt-file", file, *greedy), expected)
        self.assertEqual(self.generate(*greedy, "--echo"), b"the river" + expected)
        self.assertGreater(len(self.generate("--max-tokens", "10", prompt="")), 1)

    def test_text_ends_before_a_stop_string(self):
        whole = self.generate("--temperature", "0", "--max-tokens", "40").decode()
        stop = whole[5:8]
        cut = self.generate("--temperature", "0", "--max-tokens", "40", "--stop", "neverever", "--stop", stop).decode()
        self.assertEqual(cut, whole[:whole.index(stop)] + "\n")

    def test_output_is_whole_characters(self):
        for seed in range(5):
            self.generate("--max-tokens", "40", "--temperature", "5", "--seed", seed).decode("utf-8")

    def test_depths_are_shown_written_and_the_same_everywhere(self):
        page, table = self.folder / "depths.html", self.folder / "depths.csv"
        shown = self.generate("--max-tokens", "20", "--depths", "--color", "always", "--depths-html", page,
                              "--depths-csv", table).decode()
        self.assertIn("\x1b[48;5;", shown)
        self.assertIn("mean depth", shown)
        plain = self.generate("--max-tokens", "20", "--depths", "--color", "never").decode()
        self.assertNotIn("\x1b", plain)
        self.assertEqual(self.generate("--max-tokens", "20", "--depths").decode(), plain)  # no terminal, no colours
        with open(table, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual(len(rows), len("the river") + 20)
        self.assertEqual(sum(row["prompt"] == "1" for row in rows), len("the river"))
        self.assertTrue(all(row["depth"] in "123" for row in rows))
        self.assertTrue(plain.startswith("".join(row["text"] for row in rows if row["prompt"] == "1")))
        self.assertIn("</html>", page.read_text(encoding="utf-8"))

    def test_every_routing_generates(self):
        for routing in ("threshold", "topk", "full_depth"):
            self.generate("--max-tokens", "5", "--routing", routing)

    def test_the_loss_on_a_text(self):
        result = json.loads(self.succeed("evaluate", "--model", self.model, "--text", self.data, "--json"))["results"]
        self.assertEqual([row["routing"] for row in result], ["topk", "threshold"])
        for row in result:
            self.assertEqual(row["tokens"], len(self.data.read_bytes()) - 1)
            self.assertEqual(row["bytes"], row["tokens"])
            self.assertAlmostEqual(row["bits_per_byte"], row["nats_per_token"] / math.log(2), 9)
            self.assertAlmostEqual(row["perplexity"], math.exp(row["nats_per_token"]), 9)
            self.assertAlmostEqual(row["perplexity_per_byte"], row["perplexity"], 9)  # a token a byte
            self.assertLess(row["nats_per_token"], 3.2)
        one = json.loads(self.succeed("evaluate", "--model", self.model, "--text", self.data, "--json", "--batch-size",
                                      "1", "--routing", "topk"))["results"][0]
        self.assertAlmostEqual(one["nats_per_token"], result[0]["nats_per_token"], 5)
        shown = self.succeed("evaluate", "--model", self.model, "--text", self.data, "--routing", "full_depth").decode()
        self.assertRegex(shown, r"^routing full_depth: \S+ nats a token, \S+ bits a byte, perplexity \S+ a token, "
                                r"\S+ a byte, mean depth 3.000 \(")

    def test_logits_of_tokens(self):
        tokens, output = self.folder / "tokens.txt", self.folder / "logits.safetensors"
        tokens.write_text("".join(" ".join(str((7 * i + n) % 257) for i in range(n)) + "\n" for n in range(1, 13)))
        self.succeed("evaluate", "--model", self.model, "--tokens", tokens, "--logits", output)
        raw = output.read_bytes()
        header = json.loads(raw[8:8 + struct.unpack("<Q", raw[:8])[0]])
        for n in range(1, 13):
            self.assertEqual(header[f"logits.{n - 1}"]["shape"], [n, 257])
            self.assertEqual((header[f"depths.{n - 1}"]["shape"], header[f"depths.{n - 1}"]["dtype"]), ([n], "I32"))


if __name__ == "__main__":
    main()
