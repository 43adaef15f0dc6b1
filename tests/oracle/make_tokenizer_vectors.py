#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/io/tokenizer_vectors.json with the ids that Hugging Face tokenizers (pip install tokenizers) gives.

usage: make_tokenizer_vectors.py [--check]     --check only compares with the file that is there

`spaced`: a small SentencePiece-style tokenizer.json, changes to it, and for each a few texts with their ids, without
and with the tokens that the template adds, and the text that they decode to, special tokens kept or omitted. `mixed`: a
hash of the ids of a megabyte of mixed text (tests/io/mixed_text.hpp) for the tokenizers in ../shared/data.
"""
import copy
import json
import struct
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, decoders, AddedToken

HERE = Path(__file__).resolve().parent
DATA = HERE.parent.parent.parent / "shared" / "data"
OUT = HERE.parent / "io" / "tokenizer_vectors.json"
MARK = "\u2581"


def merges_of(pieces):
    """Every split of a piece into two pieces, in the order of the pieces."""
    known = {piece: i for i, piece in enumerate(pieces)}
    merges = []
    for piece in pieces:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in known and piece[i:] in known]
        merges += sorted(cuts, key=lambda cut: (known[cut[0]], known[cut[1]]))
    return [list(merge) for merge in merges]


def added(token, content, special=True, normalized=False):
    return {"id": token, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": normalized, "special": special}


def spaced_file():
    pieces = [MARK + "t", "he", MARK + "a", MARK * 2, "in", MARK + "the", "er", MARK + "o", "on", MARK * 4, "ing", "ll",
              "oth", MARK + "other", "and", MARK + "and", "\u00e9\u00e9", MARK, "e", "t", "a", "o", "h", "n", "i", "r",
              "d", "g", "l", "s", "ot", "\u00e9", "\u4e2d", "\u6587", "\u4e2d\u6587", "\n", "\u0301"]
    names = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % byte for byte in range(256)] + pieces
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": MARK}, {"type": "Replace", "pattern": {"String": " "}, "content": MARK}]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": {name: i for i, name in enumerate(names)}, "merges": merges_of(pieces)}}


def metaspace(scheme, split):
    return {"/normalizer": None, "/pre_tokenizer": {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme,
                                                    "split": split}}


def changes():
    """For each variant the values to put at JSON pointers."""
    no_bytes = {"/model/byte_fallback": False, "/decoder/decoders": [
        {"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    normalized = {"/added_tokens": [added(0, "<unk>"), added(1, "<s>", True, True), added(2, "</s>"),
                                    added(296, "on" + MARK + " x", False, True), added(297, " the other", False)]}
    yield "as Llama 2", {}
    yield "a normalizer that only replaces", {"/normalizer": {"type": "Replace", "pattern": {"String": " "},
                                                              "content": MARK}}
    for scheme in ("first", "always", "never"):
        for split in (False, True):
            yield f"Metaspace {scheme}, {'split' if split else 'whole'}", metaspace(scheme, split)
    yield "added tokens that are normalized", normalized
    yield "added tokens that are normalized, Metaspace", {**normalized, **metaspace("first", False)}
    yield "ignore_merges", {"/model/ignore_merges": True}
    yield "ignore_merges, Metaspace", {"/model/ignore_merges": True, **metaspace("always", True)}
    yield "unknown tokens fused", no_bytes
    yield "unknown tokens one by one", {**no_bytes, "/model/fuse_unk": False}
    yield "unknown characters dropped", {**no_bytes, "/model/unk_token": None}
    yield "a template with an end", {"/post_processor/single": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<s>", "type_id": 0}}]}
    yield "the decoder Metaspace", {"/decoder": {"type": "Sequence", "decoders": [
        {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": True}, {"type": "ByteFallback"},
        {"type": "Fuse"}]}}
    yield "a decoder that keeps the first space", {"/decoder/decoders": [
        {"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}


TEXTS = ["", " ", "   ", "the other", " the other", "another thing and the other", "<s>the</s> other<s> and",
         "a<s>", "\n\nthe\tx", "caf\u00e9\u00e9 \u4e2d\u6587 \U0001F999\u2603\u2603 \u2603x", "e\u0301",
         MARK + "the" + MARK,
         "on" + MARK + " x the other", "<0x41> <unk> </s", "ooooothththth", "in      g", "l" * 70 + " " + "he" * 40]


def put(tree, pointer, value):
    *path, last = pointer.strip("/").split("/")
    for key in path:
        tree = tree[key]
    tree[last] = value


def spaced_vectors():
    base, cases = spaced_file(), []
    for name, change in changes():
        tree = copy.deepcopy(base)
        for pointer, value in change.items():
            put(tree, pointer, value)
        tokenizer = Tokenizer.from_str(json.dumps(tree))
        # The reference shows special tokens that are normalized even where it is told to leave them out.
        shows = any(token["normalized"] and token["special"] for token in tree["added_tokens"])
        texts = []
        for text in TEXTS:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            framed = tokenizer.encode(text).ids
            texts.append({"text": text, "ids": ids, "framed": framed, "kept": tokenizer.decode(ids, False),
                          "omitted": None if shows and not tree["pre_tokenizer"] else tokenizer.decode(framed)})
        cases.append({"name": name, "change": change, "texts": texts})
    return {"file": base, "cases": cases}


def mixed_text():
    """The same text as in tests/io/mixed_text.hpp."""
    parts = []
    for name, size in (("tinyshakespeare.txt", 300000), ("wikitext-2.valid.txt", 300000),
                       ("wikitext-2.test.txt", 100000)):
        parts.append((DATA / "text" / name).read_bytes()[:size].decode("utf-8", "ignore").encode())
    state = 1
    blocks = ((0x20, 0x7F), (0x20, 0x250), (0x370, 0x600), (0x900, 0xE00), (0x2000, 0x2C00), (0x3000, 0x3400),
              (0x4E00, 0x5000), (0xAC00, 0xAE00), (0x1F300, 0x1F700))
    out = []
    for _ in range(200000):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        first, last = blocks[(state >> 40) % len(blocks)]
        character = chr(first + (state >> 20) % (last - first)) if (state >> 60) < 12 else " a1\n"[(state >> 50) % 4]
        out.append(character)
    parts.append("".join(out).encode())
    return b"".join(parts)


def hash_of(data):
    """FNV-1a."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return "%016x" % value


def llama2_file(folder):
    """The tokenizer.json that SentencePiece's file amounts to, with the same steps as above."""
    from sentencepiece import SentencePieceProcessor
    model = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    pieces = [model.id_to_piece(i) for i in range(model.vocab_size())]
    tree = spaced_file()
    order = sorted(range(259, len(pieces)), key=lambda i: -model.get_score(i))
    known = {piece: i for i, piece in enumerate(pieces)}
    merges = []
    for i in order:
        cuts = [(pieces[i][:c], pieces[i][c:]) for c in range(1, len(pieces[i]))]
        cuts = [cut for cut in cuts if known.get(cut[0], 0) > 258 and known.get(cut[1], 0) > 258]
        merges += sorted(cuts, key=lambda cut: (known[cut[0]], known[cut[1]]))
    tree["model"]["vocab"], tree["model"]["merges"] = known, [list(merge) for merge in merges]
    return Tokenizer.from_str(json.dumps(tree))


def gpt2_file(folder):
    vocabulary = json.loads((folder / "encoder.json").read_text())
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(line.split(" ")) for line in lines if line]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", normalized=True)])
    return tokenizer


def mixed_vectors():
    data, text = DATA / "tokenizers", mixed_text()
    tokenizers = {"smollm2": Tokenizer.from_file(str(data / "smollm2" / "tokenizer.json")),
                  "gpt2": gpt2_file(data / "gpt2"), "llama2": llama2_file(data / "llama2")}
    result = {"bytes": len(text), "text_hash": hash_of(text)}
    for name, tokenizer in tokenizers.items():
        ids = tokenizer.encode(text.decode(), add_special_tokens=False).ids
        result[name] = {"count": len(ids), "hash": hash_of(struct.pack("<%di" % len(ids), *ids))}
    return result


def main():
    vectors = {"spaced": spaced_vectors(), "mixed": mixed_vectors()}
    text = json.dumps(vectors, ensure_ascii=True, separators=(",", ":"))
    text = text.replace('{"name"', '\n{"name"').replace('{"text"', '\n{"text"').replace('"mixed"', '\n"mixed"') + "\n"
    if "--check" in sys.argv[1:]:
        same = OUT.read_text() == text
        print("the file agrees with the reference" if same else "the file differs from the reference")
        sys.exit(0 if same else 1)
    OUT.write_text(text)


if __name__ == "__main__":
    main()
