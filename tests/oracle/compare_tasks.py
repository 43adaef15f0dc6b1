#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the scores of `evaluate --tasks` against those computed from logits by an independent program.

    compare_tasks.py --evaluate BINARY [--convert BINARY --data DIR]

On the models of mor-spec section 12, for every kind of task, without and with solved examples, the scores of each
example must be those that follow from the oracle's logits, and those that follow from `evaluate --logits`. With --data,
a trained model must give the log-likelihoods that follow from another program's logits, and find its greedy texts.
Ends with `N passed, N failed`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

import golden_fixture
import safetensors_file
import task_scores

TOLERANCE = 2e-4  # of a log-likelihood, a token
_TIMEOUT = 120
TOKENIZER = task_scores.CharacterTokenizer("abcdefghijklmnopqrstuvwxyz QA:\n")
TASKS = {
    "words": [{"context": c, "continuation": w} for c, w in [
        ("the river rises", "late"), ("snow melts in the ", "hills"), ("", "grass"), ("stays wet until", " june"),
        ("for the first mile it is hardly a river at all and then it is one and more than one and", "more"),
        ("mills", "stand empty")]],
    "choices": [{"query": q, "choices": c, "gold": g} for q, c, g in [
        ("Question: who runs\n", ["the river", "a mill", "no one at all"], 1),
        ("Question: why", ["so", "because it rains"], 0),
        ("water is", ["wet", " dry", "neither of the two", "q"], 2),
        ("", ["up", "down"], 1)]],
    "pairs": [{"context_options": c, "continuation": t, "gold": g} for c, t, g in [
        (["the mill fed the town so the mill", "the mill fed the town so the town"], "grew", 1),
        (["ann thanked eve as ann", "ann thanked eve as eve"], "had helped", 1),
        (["rain or", "sun or", "wind or"], "snow", 0)]],
}


class Failure(Exception):
    """What differs."""


def require(condition, message):
    if not condition:
        raise Failure(message)


def run(command):
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    require(done.returncode == 0, f"exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def program_logits(evaluate, folder, sequences, routing):
    """Logits of token lists by the program itself."""
    tokens, output = os.path.join(folder, "requests.txt"), os.path.join(folder, "requests.safetensors")
    with open(tokens, "w", encoding="utf-8") as file:
        file.writelines(" ".join(map(str, sequence)) + "\n" for sequence in sequences)
    run([evaluate, "--model", folder, "--device", "cpu", "--tokens", tokens, "--logits", output, "--routing", routing])
    tensors = safetensors_file.read(output)
    return [tensors[f"logits.{i}"] for i in range(len(sequences))]


def compare_rows(task, rows, shots, delimiter, context_size, logits_of):
    """Every row of --examples against the logits that `logits_of` gives for all requests."""
    requests, first = [], []
    for number, (example, row) in enumerate(zip(task, rows)):
        chosen = row["shots"]
        require(row["example"] == number, f"row {number} is of example {row['example']}")
        require(len(set(chosen)) == len(chosen) == shots, f"example {number}: shots {chosen}, expected {shots}")
        others = set(range(len(task))) - {number}
        require(others.issuperset(chosen), f"example {number}: shots {chosen}")
        solved = task_scores.shots_text(task, chosen, delimiter)
        first.append(len(requests))
        requests += [task_scores.request(TOKENIZER, solved, option, delimiter, context_size)
                     for option in task_scores.options_of(example)]
    logits = logits_of([read for read, _ in requests])
    scores = [task_scores.log_likelihood(one, scored) for one, (_, scored) in zip(logits, requests)]
    for number, (example, row, begin) in enumerate(zip(task, rows, first)):
        found, counts = np.atleast_1d(row["log_likelihood"]), np.atleast_1d(row["tokens"])
        own = slice(begin, begin + len(found))
        require(list(counts) == [len(scored) for _, scored in requests[own]], f"example {number}: {counts} tokens")
        errors = np.abs(found - [total for total, _, _ in scores[own]]) / counts
        require(errors.max() <= TOLERANCE, f"example {number}: log-likelihood off by {errors.max():.3g} a token")
        expected, margin = task_scores.verdict(example, scores[own])
        wrong = {key: row[key] for key, value in expected.items() if row[key] != value}
        require(not wrong or margin < 10 * TOLERANCE, f"example {number}: {wrong}, expected {expected}")


def golden_cases():
    """(name, task, shots, delimiter, run)"""
    for name in golden_fixture.RUNS:
        for task in TASKS:
            for shots, delimiter in ((0, None), (2, None), (1, "\n")) if name == "expert_shared_topk" else ((2, None),):
                yield f"{name}, {task}, {shots} shots", task, shots, delimiter, name


def check_golden(evaluate, scratch, task_name, shots, delimiter, run_name):
    folder = os.path.join(scratch, run_name)
    reference, routing = golden_fixture.model(run_name)
    if not os.path.exists(folder):
        golden_fixture.write(folder, run_name)
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as file:
            json.dump(TOKENIZER.document(), file)
    task, path = TASKS[task_name], os.path.join(scratch, task_name + ".jsonl")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(example) + "\n" for example in task)
    rows_file = os.path.join(folder, "rows.jsonl")
    command = [evaluate, "--model", folder, "--device", "cpu", "--tasks", path, "--routing", routing, "--json",
               "--shots", shots, "--examples", rows_file]
    if delimiter is not None:
        command += ["--delimiter", delimiter.replace("\n", "\\n")]
    result = json.loads(run(command))["results"][0]
    rows = task_scores.read_lines(rows_file)
    require(len(rows) == len(task), f"{len(rows)} examples, expected {len(task)}")
    require((result["task"], result["routing"], result["shots"]) == (task_name, routing, shots), f"labels of {result}")
    size = golden_fixture.document(*golden_fixture.RUNS[run_name][:2])["max_position_embeddings"]
    compare_rows(task, rows, shots, delimiter, size,
                 lambda requests: [reference.forward(tokens, routing).logits for tokens in requests])
    compare_rows(task, rows, shots, delimiter, size,
                 lambda requests: program_logits(evaluate, folder, requests, routing))
    for key, value in task_scores.metrics(task, rows).items():
        require(abs(result[key] - value) < 1e-9 * max(1.0, abs(value)), f"{key} {result[key]}, expected {value}")


def check_stories(evaluate, convert, data, scratch):
    """The last tokens of stories that another program continued greedily: it also wrote the logits."""
    folder = os.path.join(scratch, "stories")
    run([convert, "--from", os.path.join(data, "stories260K.bin"), "--tokenizer", os.path.join(data, "tok512.bin"),
         "--to", folder])
    with open(os.path.join(data, "stories260K.greedy_golden.json"), encoding="utf-8") as file:
        golden = json.load(file)
    logits = np.fromfile(os.path.join(data, "stories260K.greedy_logits.f32"), dtype="<f4").reshape(-1, 512)
    with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as file:
        vocabulary = json.load(file)["model"]["vocab"]
    pieces = {index: piece.replace("\u2581", " ") for piece, index in vocabulary.items()}
    task, expected = [], []
    for story in golden:
        tokens = story["tokens"][:200]
        # Cut where a word begins, so that the text before and after has the same tokens as the whole.
        words = [at for at in range(20, len(tokens)) if pieces[tokens[at]].startswith(" ")]
        for cut, end in list(zip(words, words[1:]))[::6]:
            text = "".join(pieces[token] for token in tokens[1:end])
            before = "".join(pieces[token] for token in tokens[1:cut])
            if "<0x" in text:
                continue
            task.append({"context": before.removeprefix(" "), "continuation": text[len(before):]})
            first = story["logits_row_offset"]
            read = logits[first:first + end - 1].astype(np.float64)
            expected.append(task_scores.log_likelihood(read, tokens[cut:end]))
    path, rows_file = os.path.join(scratch, "stories.jsonl"), os.path.join(scratch, "stories_rows.jsonl")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(example) + "\n" for example in task)
    run([evaluate, "--model", folder, "--device", "cpu", "--tasks", path, "--json", "--examples", rows_file])
    rows = task_scores.read_lines(rows_file)
    require(len(rows) == len(task) > 10, f"{len(rows)} of {len(task)} examples")
    same = 0
    for row, (total, greedy, _) in zip(rows, expected):
        # Text that the other program wrote in tokens that are not those of its encoding cannot be compared.
        if abs(row["log_likelihood"] - total) <= 1e-3 * max(1.0, abs(total)):
            require(row["correct"] == greedy, f"example {row['example']}: greedy is {greedy}")
            same += 1
    require(same >= 0.9 * len(rows), f"{same} of {len(rows)} log-likelihoods as the other program's")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluate", required=True, help="path of the binary")
    parser.add_argument("--convert", help="path of the binary")
    parser.add_argument("--data", help="folder with stories260K.bin and its logits")
    arguments = parser.parse_args()
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory(prefix="mor_tasks_") as scratch:
        checks = [(name, lambda rest=rest: check_golden(arguments.evaluate, scratch, *rest))
                  for name, *rest in golden_cases()]
        if arguments.convert and arguments.data:
            checks.append(("stories260K", lambda: check_stories(arguments.evaluate, arguments.convert, arguments.data,
                                                                scratch)))
        for name, check in checks:
            try:
                check()
                passed += 1
            except Failure as problem:
                failed += 1
                print(f"FAILED {name}: {problem}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
