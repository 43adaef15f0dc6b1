# SPDX-License-Identifier: Apache-2.0
"""Official Mixture-of-Recursions checkpoints (mor-spec section 11), made from the table of names alone.

`write(folder, ...)` makes one: a `config.json` of a plain Llama model, which knows nothing of recursions, and
`model.safetensors` in which every tied tensor appears under every recursion's name and `lm_head.weight` repeats the
embedding. It returns the same model for the oracle: its `config` with the recursion filled in, and its tensors, each
once.
"""

import json
import os

import numpy as np

import model_files
import safetensors_file

SHAPE = {"vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8}
LLAMA = {"architectures": ["MoRLlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "attention_bias": False,
         "mlp_bias": False, "rope_scaling": None, "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "use_cache": True,
         "max_position_embeddings": 128, "initializer_range": 0.02, "tie_word_embeddings": True, "bos_token_id": 0,
         "eos_token_id": 0, "pad_token_id": None, "pretraining_tp": 1, "torch_dtype": "float32",
         "transformers_version": "4.46.0"}

# kind, prelude/coda layers, recursions, layers of a block, router network, auxiliary router or loss-free bias
VARIANTS = (("expert_choice", 1, 3, 2, "linear", False), ("expert_choice", 1, 2, 1, "mlp", True),
            ("expert_choice", 0, 4, 1, "linear", True), ("token_choice", 1, 3, 2, "linear", False),
            ("token_choice", 1, 2, 2, "mlp", True), ("token_choice", 0, 3, 1, "linear", True))


def _layer(generator, shape):
    d, ff, queries = shape["hidden_size"], shape["intermediate_size"], shape["num_attention_heads"] * shape["head_dim"]
    keys = shape["num_key_value_heads"] * shape["head_dim"]

    def matrix(rows, columns):
        return generator.standard_normal((rows, columns)) / np.sqrt(columns)

    def norm():
        return 1.0 + 0.2 * generator.standard_normal(d)

    return {"self_attn.q_proj.weight": matrix(queries, d), "self_attn.k_proj.weight": matrix(keys, d),
            "self_attn.v_proj.weight": matrix(keys, d), "self_attn.o_proj.weight": matrix(d, queries),
            "mlp.gate_proj.weight": matrix(ff, d), "mlp.up_proj.weight": matrix(ff, d),
            "mlp.down_proj.weight": matrix(d, ff), "input_layernorm.weight": norm(),
            "post_attention_layernorm.weight": norm()}


def _router(generator, prefix, network, outputs, d):
    if network == "linear":
        return {prefix + ".router.weight": generator.standard_normal((outputs, d)) / np.sqrt(d)}
    return {prefix + ".router.0.weight": generator.standard_normal((2 * d, d)) / np.sqrt(d),
            prefix + ".router.2.weight": 2.0 * generator.standard_normal((outputs, 2 * d)) / np.sqrt(2 * d)}


def tensors(variant, generator, shape, own_attention=False):
    """(every tensor of the file, the oracle's tensors). With `own_attention` each recursion has its own, as the first
    release of the official code made it; the oracle has no such model."""
    kind, ends, recursions, block, network, extra = variant
    d = shape["hidden_size"]
    embedding = 2.5 / np.sqrt(d) * generator.standard_normal((shape["vocab_size"], d))
    stored = {"model.embed_tokens.weight": embedding, "model.norm.weight": 1.0 + 0.2 * generator.standard_normal(d),
              "lm_head.weight": embedding}
    once = {"model.embed_tokens.weight": embedding, "model.norm.weight": stored["model.norm.weight"]}

    def put(prefixes, layer):
        for number, prefix in enumerate(prefixes):
            for suffix, values in layer.items():
                stored[prefix + suffix] = values
                if number == 0:
                    once[prefix + suffix] = values

    expert = kind == "expert_choice"
    if ends:
        put(["model.layers.0."], _layer(generator, shape))
        put([f"model.layers.{recursions + 1 if expert else 2}."], _layer(generator, shape))
    for j in range(block):
        names = [f"model.layers.{ends + r}.block.{j}." if expert else f"model.layers.{ends}.block_list.{r}.{j}."
                 for r in range(recursions)]
        put(names, _layer(generator, shape))
        for name in names[1:] if own_attention else []:
            stored.update((name + suffix, values) for suffix, values in _layer(generator, shape).items()
                          if suffix.startswith("self_attn."))
    routers = {}
    if expert:
        for r in range(recursions):
            routers.update(_router(generator, f"model.layers.{ends + r}.mor_router", network, 1, d))
            if extra:
                routers.update(_router(generator, f"model.layers.{ends + r}.mlp_router", network, 1, d))
    else:
        routers.update(_router(generator, f"model.layers.{ends}.mor_router", network, recursions, d))
        if extra:
            routers[f"model.layers.{ends}.router_bias"] = 0.15 * generator.standard_normal(recursions)
    return {**stored, **routers}, {**once, **routers}


def write(folder, variant, seed, storage="F32", with_config=True, shape=None, own_attention=False):
    """Writes the checkpoint; returns (oracle config, oracle tensors)."""
    kind, ends, recursions, block, network, extra = variant
    shape = shape or SHAPE
    stored, once = tensors(variant, np.random.default_rng(seed), shape, own_attention)
    stored = {name: safetensors_file.round_to(values, storage) for name, values in stored.items()}
    once = {name: safetensors_file.round_to(values, storage) for name, values in once.items()}
    layers = 2 * ends + recursions * block
    os.makedirs(folder, exist_ok=True)
    safetensors_file.write(os.path.join(folder, "model.safetensors"), stored, storage)
    if with_config:
        with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
            json.dump({**LLAMA, **shape, "num_hidden_layers": layers}, file)
    mor = {"router": kind, "router_network": network, "sharing": "middle_cycle" if ends else "cycle",
           "num_recursions": recursions}
    if extra:
        mor.update({"sampling": "aux_router"} if kind == "expert_choice" else {"balancing": "loss_free"})
    return model_files.parse_config({**LLAMA, **shape, "num_hidden_layers": layers, "mor": mor}), once
