#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The models of mor-spec section 12, rebuilt from the section's formula; as a program, writes them to a folder.

    golden_fixture.py --out DIR

writes for each of the six runs DIR/<run>/ with config.json, model.safetensors (float32), tokens.txt, routing.txt and
expected.safetensors (logits.0 float32, depths.0 int32), so that `evaluate` can be run on them. `--gradients` adds
gradients.safetensors: the LM loss's exact gradient of every tensor in float64, routing frozen (about a minute a run).
"""

import argparse
import json
import os
import sys

import numpy as np

import gradients
import model_files
import mor_reference
import safetensors_file

TOKENS = [(7 * i + 3) % 32 for i in range(12)]
# name of the run: (router, cache, routing mode)
RUNS = {
    "expert_recursion_wise_topk": ("expert_choice", "recursion_wise", "topk"),
    "expert_shared_topk": ("expert_choice", "shared", "topk"),
    "expert_hybrid_topk": ("expert_choice", "hybrid", "topk"),
    "expert_recursion_wise_threshold": ("expert_choice", "recursion_wise", "threshold"),
    "token_recursion_wise": ("token_choice", "recursion_wise", "topk"),
    "token_shared": ("token_choice", "shared", "topk"),
}
_LAYER_IDS = {0: 2, 1: 20, 2: 30, 3: 90}  # parameter set: first layer, shared j = 0, shared j = 1, last layer


def document(router, cache):
    """The `config.json` of one run."""
    token = router == "token_choice"
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 24,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "num_hidden_layers": 8, "vocab_size": 32,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 64, "tie_word_embeddings": True,
        "initializer_range": 0.02, "bos_token_id": 0, "eos_token_id": 0,
        "mor": {"router": router, "router_network": "linear", "router_activation": "softmax" if token else "sigmoid",
                "alpha": 1.0 if token else 0.1, "temperature": 1.0, "gating": "weighted", "cache": cache,
                "sharing": "middle_cycle", "num_recursions": 3, "num_prelude_layers": 1, "num_coda_layers": 1},
    }


def _wave(shape, identity, amplitude):
    """amplitude * sin(0.37 (n + 1) + 1.7 id), n the row-major index, in double."""
    count = int(np.prod(shape))
    return (amplitude * np.sin(0.37 * (np.arange(count) + 1) + 1.7 * identity)).reshape(shape)


def weights(config):
    """`{name: float32 array}` of the section's formula."""
    tensors = {}
    for index, prefixes in enumerate(model_files.layer_prefixes(config)):
        for offset, suffix in enumerate(model_files.LAYER_SUFFIXES):
            tensors[prefixes[0] + suffix] = (_LAYER_IDS[index] + offset, 0.25 if offset < 7 else 0.1, offset >= 7)
    first_router = 135 if config.router == "token_choice" else 110
    for step, prefix in enumerate(model_files.router_prefixes(config)):
        tensors[f"{prefix}mor_router.router.weight"] = (first_router + step, 0.05, False)
    tensors["model.embed_tokens.weight"] = (1, 0.5, False)
    tensors["model.norm.weight"] = (100, 0.1, True)
    shapes = {name: shape for name, (shape, _) in model_files.parameter_names(config).items()}
    assert shapes.keys() == tensors.keys()
    return {name: ((1.0 if is_norm else 0.0) + _wave(shapes[name], identity, amplitude)).astype(np.float32)
            for name, (identity, amplitude, is_norm) in tensors.items()}


def model(run):
    """(oracle model, routing mode) of one run."""
    router, cache, routing = RUNS[run]
    config = model_files.parse_config(document(router, cache))
    return mor_reference.Model(config, weights(config)), routing


def write(folder, run):
    """Writes one run's model folder; returns (routing mode, list of token lists)."""
    router, cache, routing = RUNS[run]
    os.makedirs(folder, exist_ok=True)
    reference, _ = model(run)
    result = reference.forward(TOKENS, routing)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(document(router, cache), file, indent=2)
    safetensors_file.write(os.path.join(folder, "model.safetensors"), weights(reference.config))
    safetensors_file.write(os.path.join(folder, "expected.safetensors"),
                           {"logits.0": result.logits.astype(np.float32), "depths.0": result.depths})
    for name, text in (("tokens.txt", " ".join(map(str, TOKENS))), ("routing.txt", routing)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text + "\n")
    return routing, [TOKENS]


def write_gradients(folder, run):
    """Writes the gradient of the LM loss by the complex step, under the names of the weights."""
    reference, routing = model(run)
    found = {name: gradients.gradient(reference, [TOKENS], name, routing=routing) for name in reference.parameters}
    safetensors_file.write(os.path.join(folder, "gradients.safetensors"), found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="folder to write to; made when absent")
    parser.add_argument("--gradients", action="store_true", help="add the gradients of the LM loss")
    arguments = parser.parse_args()
    for run in RUNS:
        write(os.path.join(arguments.out, run), run)
        if arguments.gradients:
            write_gradients(os.path.join(arguments.out, run), run)
        print(os.path.join(arguments.out, run))
    return 0


if __name__ == "__main__":
    sys.exit(main())
