# SPDX-License-Identifier: Apache-2.0
"""Few-shot scores from logits, written from the documentation (docs/evaluation.md) and not from the library.

`examples(task, tokenizer, ...)` turns task objects into token ids; `score` turns logits into what `evaluate --examples`
must write. The tokenizer here has one token a character.
"""

import json

import numpy as np

BLANKS = " \t\r\n"


class CharacterTokenizer:
    """One token a character, `<|endoftext|>` the last; `document` is its tokenizer.json."""

    def __init__(self, characters):
        self.ids = {character: index for index, character in enumerate(characters)}
        self.end = len(characters)

    def encode(self, text):
        return [self.ids[character] for character in text]

    def document(self):
        spelled = {" ": "\u0120", "\n": "\u010a"}
        vocabulary = {spelled.get(character, character): index for character, index in self.ids.items()}
        vocabulary["<|endoftext|>"] = self.end
        added = {"id": self.end, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": False, "special": True}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [added], "normalizer": None,
                "pre_tokenizer": level, "post_processor": None, "decoder": level,
                "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                          "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                          "vocab": vocabulary, "merges": []}}


def kind_of(example):
    if "choices" in example:
        return "multiple_choice"
    return "partial_scoring" if "context_options" in example else "last_word"


def options_of(example):
    """[(context, continuation)] of one object."""
    kind = kind_of(example)
    if kind == "multiple_choice":
        return [(example["query"], choice) for choice in example["choices"]]
    if kind == "partial_scoring":
        return [(context, example["continuation"]) for context in example["context_options"]]
    return [(example["context"], example["continuation"])]


def lead(context, delimiter):
    context = context.rstrip(BLANKS)
    if not context:
        return ""
    if delimiter is None:
        delimiter = "\nAnswer: " if context.lstrip(BLANKS).startswith("Question:") else " "
    return context + delimiter


def request(tokenizer, solved, option, delimiter, context_size):
    """(tokens the model reads, scored tokens) of an option."""
    before = solved + lead(option[0], delimiter)
    tokens = tokenizer.encode(before + option[1].lstrip(BLANKS))
    split = len(tokenizer.encode(before.rstrip(BLANKS)))
    if split == 0:
        tokens, split = [tokenizer.end] + tokens, 1
    return tokens[:-1][-context_size:], tokens[split:]


def shots_text(pool, shots, delimiter):
    text = ""
    for index in shots:
        context, continuation = options_of(pool[index])[pool[index].get("gold", 0)]
        text += lead(context, delimiter) + continuation.lstrip(BLANKS) + "\n\n"
    return text


def log_likelihood(logits, scored):
    """(sum of log-probabilities, whether each token is the likeliest, smallest lead of a likeliest token)."""
    rows = logits[len(logits) - len(scored):]
    top = rows.max(axis=1, keepdims=True)
    normalised = rows - top - np.log(np.exp(rows - top).sum(axis=1, keepdims=True))
    total = float(sum(normalised[i, token] for i, token in enumerate(scored)))
    ordered = np.sort(rows, axis=1)
    return total, bool((rows.argmax(axis=1) == np.array(scored)).all()), float((ordered[:, -1] - ordered[:, -2]).min())


def verdict(example, scores):
    """What an example's log-likelihoods say: {field: value}, and the margin by which it says so."""
    kind = kind_of(example)
    totals = np.array([total for total, _, _ in scores])
    if kind == "last_word":
        return {"correct": scores[0][1]}, scores[0][2]
    gold = example["gold"]
    result = {"gold": gold, "chosen": int(totals.argmax()), "correct": int(totals.argmax()) == gold}
    margin = float(np.diff(np.sort(totals))[-1])
    if kind == "multiple_choice":
        sizes = np.array([len(choice.lstrip(BLANKS).encode("utf-8")) for choice in example["choices"]])
        result["chosen_normalized"] = int((totals / sizes).argmax())
        margin = min(margin, float(np.diff(np.sort(totals / sizes))[-1]))
    return result, margin


def metrics(task, rows):
    """The figures of `evaluate --json` from the rows of its `--examples`."""
    def share(values):
        mean = sum(values) / len(values)
        return mean, (mean * (1 - mean) / (len(values) - 1)) ** 0.5 if len(values) > 1 else 0.0

    result = {"examples": len(rows)}
    result["acc"], result["acc_stderr"] = share([row["correct"] for row in rows])
    kind = kind_of(task[0])
    if kind == "multiple_choice":
        result["acc_norm"], result["acc_norm_stderr"] = share([row["chosen_normalized"] == row["gold"] for row in rows])
    if kind == "last_word":
        result["perplexity"] = float(np.exp(-np.mean([row["log_likelihood"] for row in rows])))
    return result


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]
