#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Checks `convert` against independent computations in NumPy: official checkpoints in and out, initialisation of
recursive models from vanilla ones, element types, shards, and llama2.c files with the logits and tokens that llama2.c
itself computed.

    compare_convert.py --convert BINARY --evaluate BINARY --generate BINARY [--data FOLDER]
"""

import argparse
import itertools
import json
import os
import re
import struct
import subprocess
import sys
import tempfile

import numpy as np

import compare_evaluate
import make_case
import model_files
import mor_reference
import official_checkpoint
import safetensors_file
from convert_programs import WEIGHTS, Programs, copy_with, raw


def clear_sequences(config, parameters, routing, seed):
    """Token lists whose routing decisions float32 can follow, with the oracle's results."""
    model = mor_reference.Model(config, parameters)
    for attempt in range(60):
        drawn = make_case.random_sequences(model, {"lengths": [17, 5], "routing": routing},
                                           np.random.default_rng([seed, attempt]))
        if drawn is not None:
            return drawn
    raise RuntimeError("no sequences with clear decisions")


def check_official(programs):
    """Official checkpoints compute what the oracle computes, become own ones, and come back bit for bit."""
    for number, variant in enumerate(official_checkpoint.VARIANTS):
        storage = "F32" if number % 3 else "BF16"
        source = programs.folder()
        config, parameters = official_checkpoint.write(source, variant, number, storage)
        own = programs.convert(source)
        again = programs.convert(own, "--official-names")
        assert raw(os.path.join(again, WEIGHTS)) == raw(os.path.join(source, WEIGHTS)), f"{variant}: not bit-equal"
        assert set(raw(os.path.join(own, WEIGHTS))) == set(parameters), f"{variant}: not each tensor once"
        assert model_files.read_config(own) == config, f"{variant}: {model_files.read_config(own)}"
        for routing in ("topk", "full_depth") + (("aux_router",) if config.sampling == "aux_router" else ()):
            sequences, results = clear_sequences(config, parameters, routing, number)
            for folder in (source, own, again):
                largest, reason = compare_evaluate.difference(results, programs.evaluate(folder, sequences, routing))
                assert reason is None, f"{variant} {routing}: {reason}"
    # As the published files are: without config.json, heads of 64.
    shape = {**official_checkpoint.SHAPE, "hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1,
             "head_dim": 64}
    source = programs.folder()
    config, _ = official_checkpoint.write(source, official_checkpoint.VARIANTS[0], 9, with_config=False, shape=shape)
    own = programs.convert(os.path.join(source, WEIGHTS))
    assert model_files.read_config(own) == config
    own = programs.convert(source, "--alpha", 0.3, "--capacities", "1,0.5,0.25", "--cache", "shared")
    changed = model_files.read_config(own)
    assert (changed.alpha, changed.capacities, changed.cache) == (0.3, [1.0, 0.5, 0.25], "shared")


def check_damaged_official(programs):
    """Copies that differ, or are there in part, are refused by name."""
    source = programs.folder()
    official_checkpoint.write(source, official_checkpoint.VARIANTS[0], 5)

    def changed(name, change):
        def apply(tensors):
            if change is None:
                del tensors[name]
            else:
                tensors[name] = tensors[name].copy()
                tensors[name].flat[-1] += change
        return copy_with(source, programs.folder(), apply)

    name = "model.layers.2.block.1.mlp.up_proj.weight"
    programs.refused(f'"{name}": copies of one shared tensor differ', changed(name, 1.0))
    name = "model.layers.3.block.0.self_attn.k_proj.weight"
    programs.refused(f'"{name}": copies of one shared tensor differ', changed(name, 1e-3))
    programs.refused('"lm_head.weight": copies of one shared tensor differ', changed("lm_head.weight", 1.0))
    programs.refused("some copies of a shared tensor are there",
                     changed("model.layers.3.block.0.mlp.up_proj.weight", None))
    programs.refused('"model.layers.2.mor_router.router.weight": the tensor is missing',
                     changed("model.layers.2.mor_router.router.weight", None))


def check_own_attention(programs):
    """Checkpoints of the first official release, whose recursions have attention of their own, are refused as such."""
    for variant in (official_checkpoint.VARIANTS[0], official_checkpoint.VARIANTS[3]):
        source = programs.folder()
        official_checkpoint.write(source, variant, 6, own_attention=True)
        name = "model.layers.2.block.0" if variant[0] == "expert_choice" else "model.layers.1.block_list.1.0"
        reason = f'"{name}.self_attn.q_proj.weight": recursions have attention of their own (untied attention'
        programs.refused(reason, source)
        done, output = programs.run_evaluate(source, [[1]], "cpu", "topk")
        assert done.returncode == 2 and reason in done.stderr and not os.path.exists(output), done


def unique_index(sharing, layers, recursions, block):
    """u(l) of mor-spec section 2 for every unrolled layer."""
    if sharing == "cycle":
        return [layer % block for layer in range(layers)]
    if sharing == "sequence":
        return [layer // recursions for layer in range(layers)]
    inner = [1 + (layer - 1) % block if sharing == "middle_cycle" else 1 + (layer - 1) // recursions
             for layer in range(1, layers - 1)]
    return [0] + inner + [1 + block]


def expected_sources(init, sharing, source_layers, recursions, block):
    """For each unique layer the source layers it is the mean of (mor-spec 2.2)."""
    ends = 1 if sharing.startswith("middle") else 0
    first, last = ends, source_layers - 1 - ends
    if init == "average":
        kept = [round(step) for step in np.linspace(first, last, recursions * block)]
        kept = list(range(ends)) + kept + list(range(source_layers - ends, source_layers))
        unique = unique_index(sharing, len(kept), recursions, block)
        return [[kept[l] for l in range(len(kept)) if unique[l] == u] for u in range(max(unique) + 1)]
    inner = {"stepwise": [round(step) for step in np.linspace(first, last, block)],
             "lower": [ends + j for j in range(block)],
             "upper": [source_layers - ends - block + j for j in range(block)]}[init]
    return [[0]] * ends + [[layer] for layer in inner] + [[source_layers - 1]] * ends


def vanilla_folder(programs, layers, seed, tied=True, head_dim=8):
    """A random vanilla model folder."""
    folder = programs.folder()
    transformer = {**official_checkpoint.SHAPE, "tie_word_embeddings": tied, "head_dim": head_dim}
    make_case.make_case(folder, {"transformer": transformer, "block": layers, "mor": None, "routing": "topk",
                                 "lengths": [3]}, seed)
    return folder


def check_initialisation(programs):
    """Each way to initialise a shared block equals its NumPy computation, bit for bit."""
    layers = 9
    source = vanilla_folder(programs, layers, 21)
    vanilla = {name: values.astype(np.float32)
               for name, values in safetensors_file.read(os.path.join(source, WEIGHTS)).items()}
    for sharing, init, recursions in itertools.product(("cycle", "middle_cycle", "sequence", "middle_sequence"),
                                                       ("stepwise", "average", "lower", "upper"), (2, 3)):
        inner = layers - (2 if sharing.startswith("middle") else 0)
        block = inner // recursions
        folder = programs.convert(source, "--sharing", sharing, "--recursions", recursions, "--init", init)
        config = model_files.read_config(folder)
        assert (config.sharing, config.num_recursions, config.block_layers) == (sharing, recursions, block)
        stored = safetensors_file.read(os.path.join(folder, WEIGHTS))
        prefixes = model_files.layer_prefixes(config)
        sources = expected_sources(init, sharing, layers, recursions, block)
        assert len(prefixes) == len(sources), (sharing, init)
        for names, wanted in zip(prefixes, sources):
            for suffix in model_files.LAYER_SUFFIXES:
                copies = [vanilla[f"model.layers.{layer}.{suffix}"].astype(np.float64) for layer in wanted]
                mean = (sum(copies) / len(copies)).astype(np.float32)
                got = stored[names[0] + suffix].astype(np.float32)
                assert np.array_equal(got, mean), (sharing, init, suffix, wanted)
        for name in ("model.embed_tokens.weight", "model.norm.weight"):
            assert np.array_equal(stored[name].astype(np.float32), vanilla[name])


def check_random_and_routers(programs):
    """A random choice is ascending, repeatable and depends on the seed; new routers are small and random."""
    source = vanilla_folder(programs, 9, 22)
    vanilla = safetensors_file.read(os.path.join(source, WEIGHTS))
    norms = {vanilla[f"model.layers.{layer}.input_layernorm.weight"].tobytes(): layer for layer in range(9)}
    choices = []
    for seed in (1, 1, 2, 3, 4):
        folder = programs.convert(source, "--router", "expert_choice", "--init", "random", "--seed", seed, "--layers",
                                  3)
        stored = safetensors_file.read(os.path.join(folder, WEIGHTS))
        chosen = [norms[stored[f"model.layers.1.block.{j}.input_layernorm.weight"].tobytes()] for j in range(3)]
        assert chosen == sorted(set(chosen)) and chosen[0] >= 1 and chosen[-1] <= 7, chosen
        choices.append((tuple(chosen), raw(os.path.join(folder, WEIGHTS))))
    assert choices[0] == choices[1]
    assert len({chosen for chosen, _ in choices}) > 1
    routers = [stored[f"model.layers.{r}.mor_router.router.weight"] for r in (1, 2, 3)]
    together = np.concatenate(routers).ravel()
    assert all(0 < np.abs(router).max() < 0.1 for router in routers) and 0.01 < together.std() < 0.03
    folder = programs.convert(source, "--router", "token_choice", "--recursions", 2, "--balancing", "loss_free",
                              "--sharing", "cycle", "--layers", 2, "--init", "upper")
    stored = safetensors_file.read(os.path.join(folder, WEIGHTS))
    assert not stored["model.layers.0.router_bias"].any()
    assert stored["model.layers.0.mor_router.router.weight"].shape == (2, 24)
    programs.evaluate(folder, [[1, 2, 3]])


def check_same_function(programs):
    """One recursion, unrolling, tying again, untying and other names compute the same bits."""
    source = vanilla_folder(programs, 6, 23)
    sequences = [[5, 1, 60, 7, 7, 2, 0, 33], [4]]
    want = programs.evaluate(source, sequences)

    def same(folder):
        got = programs.evaluate(folder, sequences)
        return all(np.array_equal(got[name], want[name]) for name in want if name.startswith("logits"))

    for sharing in ("cycle", "middle_cycle", "sequence", "middle_sequence"):
        for init in ("stepwise", "average", "lower", "upper", "random", "tied"):
            folder = programs.convert(source, "--sharing", sharing, "--recursions", 1, "--init", init)
            assert same(folder), (sharing, init)
    assert same(programs.convert(source, "--untied"))
    recursive = programs.convert(source, "--sharing", "middle_cycle", "--recursions", 2)
    want = programs.evaluate(recursive, sequences)
    assert same(programs.convert(recursive, "--official-names"))
    unrolled = programs.convert(recursive, "--sharing", "none")
    assert same(unrolled)
    tied = programs.convert(unrolled, "--sharing", "middle_cycle", "--recursions", 2, "--init", "tied")
    assert raw(os.path.join(tied, WEIGHTS)) == raw(os.path.join(recursive, WEIGHTS))
    programs.refused("copies of one shared tensor differ", source, "--sharing", "middle_cycle", "--recursions", 2,
                     "--init", "tied")


def check_types(programs):
    """Element types round to nearest, ties to even; too large numbers are refused."""
    source = vanilla_folder(programs, 2, 24, tied=False)
    vanilla = safetensors_file.read(os.path.join(source, WEIGHTS))
    for name, storage in (("bfloat16", "BF16"), ("float16", "F16")):
        folder = programs.convert(source, "--dtype", name)
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            assert json.load(file)["torch_dtype"] == name
        stored = raw(os.path.join(folder, WEIGHTS))
        assert {entry[0] for entry in stored.values()} == {storage}
        values = safetensors_file.read(os.path.join(folder, WEIGHTS))
        for tensor, array in values.items():
            assert np.array_equal(array, safetensors_file.round_to(vanilla[tensor], storage)), tensor
        assert raw(os.path.join(programs.convert(folder), WEIGHTS)) == stored
        wide = programs.convert(folder, "--dtype", "float32")
        want = programs.evaluate(wide, [[1, 2, 3]])
        got = programs.evaluate(folder, [[1, 2, 3]])
        assert np.array_equal(got["logits.0"], want["logits.0"])
    assert raw(os.path.join(programs.convert(source), WEIGHTS)) == raw(os.path.join(source, WEIGHTS))

    def spoil(tensors):
        tensors["model.norm.weight"][0] = 70000.0

    spoilt = copy_with(source, programs.folder(), spoil)
    programs.failed('"model.norm.weight": a value is too large', spoilt, "--dtype", "float16")
    programs.convert(spoilt, "--check-tensors")

    def spoil_more(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][2, 3] = np.nan

    spoilt = copy_with(source, programs.folder(), spoil_more)
    programs.convert(spoilt)
    programs.failed('"model.layers.1.mlp.up_proj.weight": a weight is not finite (expected a finite number at element 51',
                    spoilt, "--check-tensors")


def write_llama2c(path, tensors, config, version):
    """A llama2.c file of a Llama model's tensors: rotary pairs are neighbours there."""
    d, heads, keys = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    size, layers = config["head_dim"], config["num_hidden_layers"]

    def interleaved(matrix, count):
        return matrix.reshape(count, 2, size // 2, -1).transpose(0, 2, 1, 3).reshape(matrix.shape)

    def each(suffix, count=0):
        values = [tensors[f"model.layers.{layer}.{suffix}"] for layer in range(layers)]
        return [interleaved(value, count) if count else value for value in values]

    attention = [each("self_attn.q_proj.weight", heads), each("self_attn.k_proj.weight", keys),
                 each("self_attn.v_proj.weight"), each("self_attn.o_proj.weight")]
    mlp = [each("mlp.gate_proj.weight"), each("mlp.down_proj.weight"), each("mlp.up_proj.weight")]
    embedding, final, head = (tensors.get(name) for name in
                              ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"))
    numbers = [d, config["intermediate_size"], layers, heads, keys, config["vocab_size"], 32]
    if version == 0:
        numbers[5] *= 1 if head is None else -1
        parts = [[embedding], each("input_layernorm.weight"), *attention, each("post_attention_layernorm.weight"), *mlp,
                 [final], [np.zeros((32, size))], [] if head is None else [head]]
        header = struct.pack("<7i", *numbers)
    else:
        parts = [each("input_layernorm.weight"), each("post_attention_layernorm.weight"), [final], [embedding],
                 *attention, *mlp, [] if head is None else [head]]
        header = struct.pack("<Ii7iB", 0x616B3432, 1, *numbers, head is None).ljust(256, b"\0")
    with open(path, "wb") as file:
        file.write(header)
        for part in parts:
            for array in part:
                file.write(np.asarray(array, dtype="<f4").tobytes())


def check_llama2c(programs):
    """Both versions of llama2.c's format give back the tensors they were made from, tied and untied."""
    for tied, version in itertools.product((True, False), (0, 1)):
        source = vanilla_folder(programs, 3, 25, tied, 6)
        with open(os.path.join(source, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        tensors = safetensors_file.read(os.path.join(source, WEIGHTS))
        path = programs.folder() + ".bin"
        write_llama2c(path, tensors, config, version)
        folder = programs.convert(path)
        stored = raw(os.path.join(folder, WEIGHTS))
        assert stored == raw(os.path.join(source, WEIGHTS)), (tied, version)
        assert model_files.read_config(folder).tie_word_embeddings == tied


def text_of(folder, tokens):
    """The text of tokens with byte fallback, by the pieces of `tokenizer.json` alone."""
    with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as file:
        pieces = {token: piece for piece, token in json.load(file)["model"]["vocab"].items()}
    text = b""
    for piece in (pieces[token] for token in tokens if token > 2):
        byte = re.fullmatch("<0x(..)>", piece)
        text += bytes.fromhex(byte[1]) if byte else piece.replace("\u2581", " ").encode()
    return text.removeprefix(b" ")


def check_stories(programs, data):
    """The published llama2.c model has llama2.c's own logits, chooses its tokens, whole and in shards."""
    models = os.path.join(data, "models")
    with open(os.path.join(models, "stories260K.greedy_golden.json"), encoding="utf-8") as file:
        golden = json.load(file)
    wanted = np.fromfile(os.path.join(models, "stories260K.greedy_logits.f32"), dtype="<f4").reshape(-1, 512)
    whole = programs.convert(os.path.join(models, "stories260K.bin"), "--tokenizer", os.path.join(models, "tok512.bin"))
    shards = programs.convert(whole, "--shard-size", 1)
    assert sorted(os.listdir(shards)) == ["config.json", "model-00001-of-00002.safetensors",
                                          "model-00002-of-00002.safetensors", "model.safetensors.index.json",
                                          "tokenizer.json"]
    joined = programs.convert(shards)
    assert raw(os.path.join(joined, WEIGHTS)) == raw(os.path.join(whole, WEIGHTS))
    sequences = [item["tokens"][: item["n_logits_rows"]] for item in golden]
    devices = programs.devices(whole)
    for folder, device in itertools.product((whole, shards), devices):
        got = programs.evaluate(folder, sequences, device=device)
        for number, item in enumerate(golden):
            logits = got[f"logits.{number}"]
            rows = wanted[item["logits_row_offset"] :][: item["n_logits_rows"]]
            assert np.abs(logits - rows).max() < 1e-4, f"prompt {number}: off by {np.abs(logits - rows).max()}"
            for position in range(item["n_prompt_tokens"] - 1, len(item["tokens"]) - 1):
                assert logits[position].argmax() == item["tokens"][position + 1], (number, position)
    for item, device in itertools.product(golden, devices):
        made = programs.generate(whole, item["prompt"], len(item["tokens"]) - item["n_prompt_tokens"], device)
        assert made == text_of(whole, item["tokens"])[len(item["prompt"].encode()) :], (item["prompt"], device, made)
        if not item["prompt"]:
            with open(os.path.join(models, "stories260K.run_t0_n200.stdout"), "rb") as file:
                assert made.startswith(file.read().strip()), device
    print(f"llama2.c's logits and texts of {len(golden)} prompts reproduced on {' and '.join(devices)}")


def check_refusals(programs):
    """What cannot be converted is named, and leaves nothing behind."""
    source = vanilla_folder(programs, 4, 26)
    programs.refused("unknown value (expected one of stepwise, average, lower, upper, random, tied", source, "--init",
                     "best")
    programs.refused("--dtype: unknown element type", source, "--dtype", "int8")
    programs.refused("hidden_size: a conversion keeps the width", source, "--hidden-size", 48)
    programs.refused("--preset: a conversion begins with a model", source, "--preset", "tiny")
    programs.refused("the source's layers do not fit the recursion", source, "--sharing", "cycle", "--recursions", 2,
                     "--layers", 5, "--init", "lower")
    programs.refused("a recursion needs a layer", source, "--sharing", "middle_cycle", "--recursions", 2, "--layers", 0)
    tokenizer = programs.folder() + ".bin"
    with open(tokenizer, "wb") as file:  # llama2.c's: three special tokens and a token a byte
        pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n"] + [b"<0x%02X>" % byte for byte in range(256)]
        file.write(struct.pack("<i", 8) + b"".join(struct.pack("<fi", 0.0, len(piece)) + piece for piece in pieces))
    programs.refused("the tokenizer has more tokens than the model (expected at most 61, got 259)", source,
                     "--tokenizer", tokenizer)
    programs.refused("no weights in the folder", programs.scratch)
    programs.refused("cannot open", os.path.join(programs.scratch, "nowhere"))
    for name in ("model.gguf", "tokenizer.json", "noname"):
        path = os.path.join(source, name)
        with open(path, "wb") as file:
            file.write(b"of another kind")
        programs.refused(f"{name}: the name is of no kind of model file that is read", path)
        os.remove(path)
    mor = programs.convert(source, "--router", "expert_choice", "--recursions", 2)
    programs.refused("a routed model keeps its router and its recursions", mor, "--sharing", "none")
    programs.refused("mor.router: a routed model keeps its router", mor, "--router", "token_choice")
    pickle = programs.folder()
    os.makedirs(pickle)
    for name, content in (("pytorch_model.bin", b"PK\3\4"), ("other.bin", b"\x80\x02}q\0.")):
        with open(os.path.join(pickle, name), "wb") as file:
            file.write(content)
        programs.refused("a pickle file can run code", os.path.join(pickle, name))
    programs.refused("a pickle file can run code", pickle)
    full = programs.convert(source)
    done = subprocess.run([programs.convert_path, "--from", source, "--to", full], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 2 and "there is something in the way" in done.stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--convert", required=True)
    parser.add_argument("--evaluate", required=True)
    parser.add_argument("--generate", required=True)
    parser.add_argument("--data", help="folder with models/stories260K.bin; without it that check is left out")
    parser.add_argument("--only", help="the name of one check")
    arguments = parser.parse_args()
    checks = [check_official, check_damaged_official, check_own_attention, check_initialisation,
              check_random_and_routers, check_same_function, check_types, check_llama2c, check_refusals]
    with tempfile.TemporaryDirectory(prefix="mor_convert_") as scratch:
        programs = Programs(arguments.convert, arguments.evaluate, arguments.generate, scratch)
        for check in checks:
            if not arguments.only or check.__name__ == arguments.only:
                check(programs)
                print(f"{check.__name__}: passed")
        if arguments.data and not arguments.only:
            check_stories(programs, arguments.data)
        elif not arguments.only:
            print("stories260K: left out, no test data")
    return 0


if __name__ == "__main__":
    sys.exit(main())
