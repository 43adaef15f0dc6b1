#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What `evaluate --tasks` prints and writes, on a model trained for a moment."""
import json

from example_programs import ProgramTest, main

WORDS = [{"context": "the river rises in", "continuation": "the"},
         {"context": "above the village where", "continuation": "the"},
         {"context": "it is hardly a river at", "continuation": "all"}, {"context": "", "continuation": "melts"},
         {"context": "and the grass stays wet until june for the first mile it is hardly a river", "continuation": "x"}]
CHOICES = [{"query": "Question: what melts late?", "choices": ["snow", "the winter snow melts late", "q"], "gold": 1},
           {"query": "Question: what rises?\n", "choices": ["the river rises in the hills", "zzz"], "gold": 0},
           {"query": "the grass stays", "choices": ["wet until june", "xqxqxqxq", "w"], "gold": 0},
           {"query": "it is hardly", "choices": ["a river", "qqq"], "gold": 0}]
PAIRS = [{"context_options": ["above the", "xqzv jkqx"], "continuation": "village where the winter", "gold": 0},
         {"context_options": ["zzzzzzzz", "the river rises"], "continuation": "in the hills", "gold": 1}]


class Tasks(ProgramTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = cls.train(cls(), "model", "--steps", "80", "--lr", "0.01", "--context", "48")
        cls.files = {}
        for name, examples in (("words", WORDS), ("choices", CHOICES), ("pairs", PAIRS)):
            cls.files[name] = cls.folder / f"{name}.jsonl"
            cls.files[name].write_text("".join(json.dumps(example) + "\n" for example in examples))

    def evaluate(self, *arguments, names=("words", "choices", "pairs"), rows=None):
        """(results, rows of --examples, their bytes)"""
        rows = self.folder / (rows or "rows.jsonl")
        output = self.succeed("evaluate", "--model", self.model, "--tasks", *(self.files[name] for name in names),
                              "--json", "--examples", rows, *arguments)
        written = rows.read_bytes()
        return json.loads(output)["results"], [json.loads(line) for line in written.splitlines()], written

    def test_every_number_says_how_depths_were_decided(self):
        results, rows, _ = self.evaluate()
        self.assertEqual([(row["task"], row["kind"], row["routing"]) for row in results],
                         [(task, kind, mode) for task, kind in (("words", "last_word"), ("choices", "multiple_choice"),
                                                                ("pairs", "partial_scoring"))
                          for mode in ("topk", "threshold")])
        self.assertEqual(len(rows), 2 * (5 + 4 + 2))
        full, _, _ = self.evaluate("--routing", "full_depth")
        self.assertEqual({(row["routing"], row["mean_depth"]) for row in full}, {("full_depth", 3.0)})
        table = self.succeed("evaluate", "--model", self.model, "--tasks", self.files["choices"]).decode()
        for row in results[2:4]:
            for metric in ("acc", "acc_norm"):
                self.assertRegex(table, rf"choices +{row['routing']} +0 +4 +{metric} +{row[metric]:.4f}")

    def test_scores_do_not_depend_on_what_is_computed_beside(self):
        for shots in (0, 1):
            one, _, bytes_one = self.evaluate("--batch-size", "1", "--shots", shots)
            for size in (2, 16):
                many, _, bytes_many = self.evaluate("--batch-size", size, "--shots", shots)
                self.assertEqual(bytes_many, bytes_one)
                self.assertEqual(many, one)
        self.assertEqual(self.evaluate("--threads", "2")[2], self.evaluate("--threads", "1")[2])

    def test_figures_follow_from_the_rows(self):
        results, rows, _ = self.evaluate("--routing", "threshold")
        by_task = {name: [row for row in rows if row["task"] == name] for name in self.files}
        for result in results:
            own = by_task[result["task"]]
            self.assertEqual(result["examples"], len(own))
            self.assertAlmostEqual(result["acc"], sum(row["correct"] for row in own) / len(own), 12)
        for row, example in zip(by_task["choices"], CHOICES):
            scores = row["log_likelihood"]
            per_byte = [score / len(choice) for score, choice in zip(scores, example["choices"])]
            self.assertEqual(row["chosen"], scores.index(max(scores)))
            self.assertEqual(row["chosen_normalized"], per_byte.index(max(per_byte)))
            self.assertEqual(row["correct"], row["chosen"] == example["gold"])
            self.assertEqual(row["tokens"], [len(choice) + 1 for choice in example["choices"]])  # bytes, and the space
        self.assertEqual(by_task["words"][3]["tokens"], len("melts"))
        # Text of the training data is likelier than letters that never occur.
        self.assertEqual([row["chosen"] for row in by_task["pairs"]], [0, 1])
        self.assertEqual([row["chosen_normalized"] for row in by_task["choices"]][1:], [0, 0, 0])

    def test_shots_are_drawn_by_the_seed_and_a_limit_changes_none(self):
        _, rows, _ = self.evaluate("--shots", "2", names=["words"])
        for row in rows:
            self.assertEqual(len(set(row["shots"]) - {row["example"]}), 2)
        self.assertGreater(max(row["dropped"] for row in rows), 0)  # 48 tokens are not enough
        _, first, _ = self.evaluate("--shots", "2", "--limit", "2", names=["words"])
        self.assertEqual(first, [row for row in rows if row["example"] < 2])
        _, other, _ = self.evaluate("--shots", "2", "--seed", "5", names=["words"])
        self.assertNotEqual([row["shots"] for row in rows], [row["shots"] for row in other])
        results, elsewhere, _ = self.evaluate("--shots", "5", "--shots-file", self.files["words"], "--limit", "1",
                                              names=["words"])
        self.assertEqual(sorted(elsewhere[0]["shots"]), [0, 1, 2, 3, 4])
        self.assertEqual((results[0]["shots"], results[0]["seed"]), (5, 1))

    def test_the_delimiter_and_the_kind_can_be_given(self):
        _, rows, _ = self.evaluate("--delimiter", "", names=["choices"])
        self.assertEqual(rows[2]["tokens"], [len(choice) for choice in CHOICES[2]["choices"]])
        _, lines, _ = self.evaluate("--delimiter", "\\n\\t", names=["choices"])
        self.assertEqual(lines[2]["tokens"], [len(choice) + 2 for choice in CHOICES[2]["choices"]])
        both = self.folder / "both.jsonl"
        both.write_text(json.dumps({**WORDS[0], **CHOICES[0]}) + "\n")
        for kind in ("last_word", "multiple_choice"):
            output = self.succeed("evaluate", "--model", self.model, "--tasks", both, "--task-kind", kind, "--json")
            self.assertEqual(json.loads(output)["results"][0]["kind"], kind)

    def test_a_gpu_gives_the_scores_of_the_processor(self):
        probe = self.run_program("evaluate", "--model", self.model, "--text", self.data, "--device", "cuda")
        if probe.returncode != 0:
            self.skipTest("no GPU, or no CUDA backend in this build")
        _, expected, _ = self.evaluate("--routing", "full_depth")
        _, measured, _ = self.evaluate("--routing", "full_depth", "--device", "cuda", "--dtype", "float32")
        for row, other in zip(expected, measured):
            pairs = (row["log_likelihood"], other["log_likelihood"])
            for here, there in [pairs] if isinstance(pairs[0], float) else zip(*pairs):
                self.assertAlmostEqual(here, there, delta=1e-3 * max(1.0, abs(here)))

    def test_bad_input(self):
        evaluate = ("evaluate", "--model", self.model)
        words = ("--tasks", self.files["words"])
        self.refuse("nowhere.jsonl: cannot open", *evaluate, "--tasks", self.folder / "nowhere.jsonl")
        self.refuse("give one thing to evaluate", *evaluate, *words, "--text", self.data)
        self.refuse("--tasks: an option of tasks without a task", *evaluate, "--text", self.data, "--shots", "1")
        self.refuse("--shots: out of range", *evaluate, *words, "--shots", "-1")
        self.refuse("not as many examples to show.*0 to 4, got 5", *evaluate, *words, "--shots", "5")
        self.refuse("--limit: out of range", *evaluate, *words, "--limit", "0")
        self.refuse("--task-kind: unknown value.*last_word", *evaluate, *words, "--task-kind", "cloze")
        self.refuse("words.jsonl: line 1: field choices", *evaluate, *words, "--task-kind", "multiple_choice")
        self.refuse("--routing: unknown value", *evaluate, *words, "--routing", "best")
        bad = self.folder / "bad.jsonl"
        bad.write_text(json.dumps(CHOICES[0]) + "\n" + json.dumps({**CHOICES[1], "gold": 2}) + "\n")
        self.refuse("bad.jsonl: line 2: field gold", *evaluate, "--tasks", bad)
        bad.write_text(json.dumps({"context": "a", "continuation": "b" * 60}) + "\n")
        self.refuse("bad.jsonl: example 0: the continuation is longer.*at most 48 tokens, got 61", *evaluate, "--tasks",
                    bad)


if __name__ == "__main__":
    main()
