#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Random model folders whose routing decisions stand clear of ties.

`make_case(folder, spec, seed)` writes config.json, model.safetensors and tokens.txt. A spec is a dict:

    transformer  hidden_size, intermediate_size, num_attention_heads, num_key_value_heads, head_dim, vocab_size, ...
    block        layers in one recursion (num_hidden_layers follows)
    mor          the `mor` object of config.json; None for a vanilla model without one
    routing      topk | threshold | aux_router | full_depth
    lengths      tokens in each sequence
    storage      F32 (default) | BF16 | F16 | F64
    copies       true: every alias of a tied tensor is written, as official checkpoints do
    head_copy    true: a tied model writes lm_head.weight too

A program in float32 must take the same decisions as one in double, so sequences are drawn again until every decision
has a margin of at least MARGIN and the oracle itself, run in float32, stays within CONDITION of its double self (a
gate near -1 cancels the residual stream and would magnify anybody's rounding).

As a program: make_case.py --spec FILE.json --seed N --out DIR.
"""

import argparse
import json
import os
import sys

import numpy as np

import model_files
import mor_reference
import safetensors_file

MARGIN = 1e-3  # smallest |z|, gap at a top-k boundary, or gap between the two best scores (in units of alpha)
CONDITION = 2e-5  # largest difference of a logit between the oracle in float32 and in float64
_ATTEMPTS = 60


def document(spec):
    """The `config.json` of a spec."""
    mor = spec.get("mor")
    recursions = mor["num_recursions"] if mor else 1
    ends = (mor.get("num_prelude_layers", 0) + mor.get("num_coda_layers", 0)) if mor else 0
    result = {"max_position_embeddings": 128, "initializer_range": 0.02, "bos_token_id": 0, "eos_token_id": 0,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True, **spec["transformer"]}
    result["num_hidden_layers"] = ends + recursions * spec["block"]
    if mor:
        result["mor"] = mor
    return result


def random_weights(config, generator, storage="F32"):
    """Weights that keep the residual stream, router logits and language-model logits near unit scale."""
    tensors = {}
    for name, (shape, _) in model_files.parameter_names(config).items():
        values = generator.standard_normal(shape)
        if name.endswith("norm.weight"):
            values = 1.0 + 0.2 * values
        elif name.endswith("router_bias"):
            values = 0.15 * config.alpha * values
        elif name == "model.embed_tokens.weight":
            values = (2.5 / np.sqrt(shape[1]) if config.tie_word_embeddings else 0.8) * values
        elif ".router." in name:
            gain = 1.0 if name.endswith(("router.weight", "router.0.weight")) else 2.0
            values = gain * config.temperature ** (not name.endswith("router.2.weight")) * values / np.sqrt(shape[1])
        else:
            values = values / np.sqrt(shape[-1])
        tensors[name] = safetensors_file.round_to(values, storage)
    return tensors


def margin(config, result):
    """The smallest distance of any routing decision of `result` from going the other way."""
    smallest = np.inf
    if result.routing == "full_depth":
        return smallest
    for number, step in enumerate(result.steps):
        if config.router == "token_choice":
            best = np.sort(step.scores, axis=-1)
            if best.shape[-1] > 1:
                smallest = min(smallest, float((best[:, -1] - best[:, -2]).min()) / config.alpha)
        elif result.routing == "topk":
            if not step.selected.all():
                smallest = min(smallest, step.logits[step.selected].min() - step.logits[~step.selected].max())
        elif number > 0:
            deciding = step.logits if result.routing == "threshold" else step.aux_logits
            smallest = min(smallest, np.abs(deciding).min(initial=np.inf))
    return float(smallest)


def random_sequences(model, spec, generator):
    """(token lists, results) that float32 can follow, or None when some length finds none."""
    sequences, results = [], []
    single = mor_reference.Model(model.config, model.parameters, np.float32)
    for length in spec["lengths"]:
        for _ in range(_ATTEMPTS):
            tokens = generator.integers(0, model.config.vocab_size, length).tolist()
            result = model.forward(tokens, spec["routing"])
            if margin(model.config, result) < MARGIN:
                continue
            rounded = single.forward(tokens, spec["routing"])
            if np.abs(rounded.logits - result.logits).max() <= CONDITION:
                sequences.append(tokens)
                results.append(result)
                break
        else:
            return None
    return sequences, results


def make_case(folder, spec, seed):
    """Writes the folder; returns (oracle model, token lists, oracle results). Deterministic in `spec` and `seed`."""
    config = model_files.parse_config(document(spec))
    generator = np.random.default_rng(seed)
    storage = spec.get("storage", "F32")
    for _ in range(_ATTEMPTS):
        parameters = random_weights(config, generator, storage)
        model = mor_reference.Model(config, parameters)
        drawn = random_sequences(model, spec, generator)
        if drawn is not None:
            break
    else:
        raise RuntimeError(f"no weights with clear decisions for {spec}")
    sequences, results = drawn
    stored = {}
    for name, (_, aliases) in model_files.parameter_names(config).items():
        wanted = spec.get("head_copy") if name == "model.embed_tokens.weight" else spec.get("copies")
        for alias in [name] + (aliases if wanted else []):
            stored[alias] = parameters[name]
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(document(spec), file, indent=2)
    safetensors_file.write(os.path.join(folder, "model.safetensors"), stored, storage)
    with open(os.path.join(folder, "tokens.txt"), "w", encoding="utf-8") as file:
        file.writelines(" ".join(map(str, tokens)) + "\n" for tokens in sequences)
    return model, sequences, results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", required=True, help="JSON file; see the module's documentation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    with open(arguments.spec, encoding="utf-8") as file:
        make_case(arguments.out, json.load(file), arguments.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
