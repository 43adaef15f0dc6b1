#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes small valid inputs to start fuzzing from: seeds.py TARGET FOLDER

TARGET is the name of a program in this folder without .cpp. Files from the test data are added where it is present.
"""
import json
import os
import struct
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent.parent
DATA = Path(os.environ.get("MOR_TEST_DATA") or SOURCE.parent / "shared" / "data")


def compact(tree):
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode()


def byte_level_file():
    return {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
            "added_tokens": [{"id": 0, "content": "<|endoftext|>", "special": True, "normalized": False}],
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False}]},
            "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": {"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3, "\u0120": 4, "\u0120a": 5},
                      "merges": [["a", "b"], ["\u0120", "a"]]}}


def small_spaced_file():
    """Without byte fallback: a few hundred bytes are easier to mutate than seven thousand."""
    tree = json.loads((SOURCE / "tests" / "io" / "tokenizer_vectors.json").read_text())["spaced"]["file"]
    mark = "\u2581"
    tree["model"].update(byte_fallback=False, vocab={"<unk>": 0, "<s>": 1, "</s>": 2, mark: 3, "a": 4, mark + "a": 5},
                         merges=[[mark, "a"]])
    del tree["decoder"]["decoders"][1]
    return tree


def fuzz_tokenizer_json():
    yield compact(byte_level_file())
    tree = small_spaced_file()
    yield compact(tree)
    tree["normalizer"] = None
    tree["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    yield compact(tree)
    yield compact(json.loads((SOURCE / "tests" / "io" / "tokenizer_vectors.json").read_text())["spaced"]["file"])


def record(text, score):
    return struct.pack("<fi", score, len(text)) + text


def fuzz_scored_tokenizers():
    pieces = [b" t", b"he", b" the", b"\xc3\xa9"]
    records = b"".join(record(text, -float(i)) for i, text in enumerate(pieces))
    yield b"\x01" + records
    head = [b"<unk>", b"\n<s>\n", b"\n</s>\n"] + [b"<0x%02X>" % byte for byte in range(256)]
    yield b"\x00" + struct.pack("<i", 27) + b"".join(record(text, 0.0) for text in head) + records

    def field(number, content):
        return bytes([number << 3 | 2, len(content)]) + content

    def piece(text, score, kind):
        return field(1, field(1, text) + b"\x15" + struct.pack("<f", score) + bytes([0x18, kind]))

    model = b"".join(piece(text, -float(i), 1) for i, text in enumerate(pieces))
    special = piece(b"<unk>", 0.0, 2) + piece(b"<s>", 0.0, 3)
    rules = field(2, b"\x18\x02") + field(3, b"\x18\x01\x20\x00")
    yield b"\x03" + model + piece(b"<user>", 0.0, 4)
    yield b"\x02" + special + model + rules
    if (DATA / "models" / "tok512.bin").exists():
        yield b"\x00" + (DATA / "models" / "tok512.bin").read_bytes()


def fuzz_tokenizer_text():
    for kind in range(13):
        yield bytes([kind]) + "the other <s>the</s> <|endoftext|>1775 caf\u00e9 \u2581 \U0001F999\n\n  x".encode()


def fuzz_config_json():
    base = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 4, "num_hidden_layers": 2, "vocab_size": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "max_position_embeddings": 16, "tie_word_embeddings": True}
    yield compact(base)
    yield compact({**base, "rope_scaling": {"type": "default", "x": 1}, "rope_parameters": {"rope_theta": 1e4},
                   "sliding_window": 4, "use_sliding_window": False, "attention_dropout": 0, "unknown": {}})
    yield compact({**base, "num_hidden_layers": 5, "mor": {
        "router": "expert_choice", "router_network": "mlp", "router_activation": "sigmoid", "alpha": 0.1,
        "capacities": [1.0, 0.5], "sampling": "aux_loss", "cache": "shared", "sharing": "middle_cycle",
        "num_recursions": 2, "num_prelude_layers": 1, "num_coda_layers": 0}})


def safetensors(header, data):
    text = compact(header)
    return struct.pack("<Q", len(text)) + text + data


def fuzz_safetensors():
    tensor = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    yield safetensors({"a": tensor}, bytes(16))
    yield safetensors({"__metadata__": {"format": "pt"}, "a": tensor, "b": {
        "dtype": "BF16", "shape": [], "data_offsets": [16, 18]}, "c": {
            "dtype": "I64", "shape": [0, 3], "data_offsets": [18, 18]}}, bytes(18))
    for path in sorted((DATA / "testvectors" / "safetensors").glob("*.safetensors")):
        yield path.read_bytes()


def fuzz_safetensors_index():
    yield compact({"metadata": {"total_size": 16}, "weight_map": {"a": "model-00001-of-00002.safetensors",
                                                                  "b": "model-00002-of-00002.safetensors"}})


def fuzz_llama2c():
    dim, ffn, layers, heads, kv, vocab, context = 4, 8, 1, 2, 1, 6, 4
    kv_dim, half = dim * kv // heads, dim // heads // 2
    floats = (vocab * dim + layers * (2 * dim + 2 * dim * dim + 2 * dim * kv_dim + 3 * dim * ffn) + dim
              + 2 * context * half)
    yield struct.pack("<7i", dim, ffn, layers, heads, kv, vocab, context) + bytes(4 * floats)
    yield struct.pack("<7i", dim, ffn, layers, heads, kv, -vocab, context) + bytes(4 * (floats + vocab * dim))


def fuzz_data_files():
    for magic, version, kind in ((20240520, 1, "H"), (20240801, 7, "I")):
        yield b"\x00" + struct.pack("<3i", magic, version, 4).ljust(1024, b"\0") + struct.pack("<4" + kind, 1, 2, 3, 4)
    lines = b'{"text": "one"}\n\n{"text": "two\\n", "more": [1]}\n'
    for kind in range(4):
        yield bytes([4 + kind]) + b"one\n##\r\n\ntwo\n##" + lines
    tasks = ({"context": "a b", "continuation": "c"}, {"query": "q", "choices": ["a", "b"], "gold": 1},
             {"context_options": ["a", "b"], "continuation": "c", "gold": 0})
    for kind, task in enumerate(tasks):
        yield bytes([8 + kind]) + compact(task) + b"\n" + compact(task)
        yield b"\x0b" + compact(task)


def fuzz_api_request():
    user = {"role": "user", "content": "hi"}
    yield compact({"prompt": "abab", "max_tokens": 5, "stop": ["ba", "ab"], "temperature": 0.5, "top_p": 0.9, "n": 1})
    yield compact({"prompt": [195, 169, 97, 256, 299], "stop": "\u00e9a", "echo": True, "logprobs": 0, "seed": -1})
    yield compact({"prompt": [[1]], "stream": True, "stream_options": {"include_usage": True}, "top_k": 3, "min_p": 0.1})
    yield compact({"messages": [user], "max_completion_tokens": 3, "logprobs": True, "top_logprobs": 0, "tools": []})
    yield compact({"messages": [{"role": "system", "content": [{"type": "text", "text": "x"}]}, user], "model": "fuzz",
                   "min_depth": 1, "max_depth": 2, "depth_threshold": 0.5, "repetition_penalty": 1.1, "logit_bias": {}})


def main():
    target, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    make = globals().get(target)
    seeds = make() if target.startswith("fuzz_") and callable(make) else ()
    for i, seed in enumerate(seeds):
        (folder / f"seed-{i:02d}").write_bytes(seed)


if __name__ == "__main__":
    main()
