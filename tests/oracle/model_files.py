# SPDX-License-Identifier: Apache-2.0
"""What a model folder says: `config.json` as plain data, which layers share weights, and what every tensor is called.

`Config` holds the fields with their defaults, `Config.schedule()` the unrolled order of the layers' parameter sets
(mor-spec section 2), `parameter_names()` the tensor names (mor-spec section 11), `read_parameters()` the weights.
"""

import json
import os
from dataclasses import dataclass, field

import numpy as np

import safetensors_file

ROUTERS = ("all_tokens", "expert_choice", "token_choice")
NETWORKS = ("linear", "mlp", "wide_mlp")
ACTIVATIONS = {"all_tokens": ("sigmoid", "tanh", "softmax", "none"), "expert_choice": ("sigmoid", "tanh", "none"),
               "token_choice": ("softmax", "sigmoid")}
CACHES = ("recursion_wise", "shared", "hybrid")
SHARINGS = ("none", "cycle", "middle_cycle", "sequence", "middle_sequence")
ROUTINGS = ("topk", "threshold", "aux_router", "full_depth")
LAYER_SUFFIXES = ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight",
                  "self_attn.o_proj.weight", "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight",
                  "input_layernorm.weight", "post_attention_layernorm.weight")


@dataclass
class Config:
    """A whole model: the Transformer's shape and how tokens recur through it."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = True
    router: str = "all_tokens"
    router_network: str = "linear"
    router_activation: str = "sigmoid"
    alpha: float = 0.1
    temperature: float = 1.0
    gating: str = "weighted"
    capacities: list = field(default_factory=list)  # empty: (Nr - r + 1) / Nr in integer arithmetic
    sampling: str = "aux_loss"
    balancing: str = "none"
    cache: str = "recursion_wise"
    sharing: str = "none"
    num_recursions: int = 1
    num_prelude_layers: int = 0
    num_coda_layers: int = 0

    @property
    def block_layers(self):
        """Layers in one recursion (B)."""
        return (self.num_hidden_layers - self.num_prelude_layers - self.num_coda_layers) // self.num_recursions

    def selected_count(self, recursion, tokens):
        """k_r of `tokens` tokens at the 1-based `recursion` (mor-spec 3.2)."""
        if self.capacities:
            return max(1, int(np.floor(self.capacities[recursion - 1] * tokens)))
        return max(1, (self.num_recursions - recursion + 1) * tokens // self.num_recursions)

    def schedule(self):
        """(prelude, block, coda): parameter-set indices; block is one list of B indices for each recursion."""
        first, last = self.num_prelude_layers, self.num_hidden_layers - self.num_coda_layers
        inner, recursions, block = last - first, self.num_recursions, self.block_layers
        if self.sharing == "none":
            unique = list(range(inner))
        elif self.sharing.endswith("cycle"):
            unique = [position % block for position in range(inner)]
        else:
            unique = [position // recursions for position in range(inner)]
        sets = [first + index for index in unique]
        coda_base = first + max(unique) + 1
        return (list(range(first)), [sets[r * block : (r + 1) * block] for r in range(recursions)],
                [coda_base + c for c in range(self.num_coda_layers)])

    def validate(self):
        """Raises ValueError where the combination has no meaning."""
        checks = [
            (self.router in ROUTERS, f"router {self.router!r}, known are {ROUTERS}"),
            (self.router_network in NETWORKS, f"router_network {self.router_network!r}, known are {NETWORKS}"),
            (self.router_activation in ACTIVATIONS.get(self.router, ()),
             f"router_activation {self.router_activation!r} with router {self.router!r}"),
            (self.gating in ("weighted", "additive"), f"gating {self.gating!r}"),
            (self.sampling in ("aux_loss", "aux_router"), f"sampling {self.sampling!r}"),
            (self.balancing in ("none", "loss", "loss_free"), f"balancing {self.balancing!r}"),
            (self.cache in CACHES, f"cache {self.cache!r}, known are {CACHES}"),
            (self.sharing in SHARINGS, f"sharing {self.sharing!r}, known are {SHARINGS}"),
            (self.num_attention_heads % self.num_key_value_heads == 0, "heads are no multiple of key-value heads"),
            (self.head_dim % 2 == 0, f"head_dim {self.head_dim} is odd"),
            (self.num_recursions >= 1 and self.block_layers >= 1, "no layer to recur"),
            (self.num_prelude_layers + self.num_recursions * self.block_layers + self.num_coda_layers
             == self.num_hidden_layers, "num_hidden_layers is not prelude + recursions x block + coda"),
            (self.sharing.startswith("middle") or self.num_prelude_layers + self.num_coda_layers == 0,
             f"sharing {self.sharing!r} has neither prelude nor coda"),
            (self.router == "all_tokens" or self.sharing in ("cycle", "middle_cycle"),
             f"router {self.router!r} needs cycle or middle_cycle"),
            (not self.capacities or len(self.capacities) == self.num_recursions, "one capacity for each recursion"),
            (all(a >= b for a, b in zip(self.capacities, self.capacities[1:])), "capacities increase"),
            (not self.capacities or self.capacities[0] == 1.0 or self.cache == "recursion_wise",
             "a first capacity below 1 needs the recursion_wise cache"),
        ]
        for passed, message in checks:
            if not passed:
                raise ValueError(f"config.json: {message}")


def parse_config(document):
    """A `Config` from the parsed `config.json`; absent keys take the defaults of mor-spec."""
    mor = document.get("mor")
    config = Config(
        vocab_size=document["vocab_size"], hidden_size=document["hidden_size"],
        intermediate_size=document["intermediate_size"], num_hidden_layers=document["num_hidden_layers"],
        num_attention_heads=document["num_attention_heads"],
        num_key_value_heads=document.get("num_key_value_heads", document["num_attention_heads"]),
        head_dim=document.get("head_dim") or document["hidden_size"] // document["num_attention_heads"],
        rms_norm_eps=document.get("rms_norm_eps", 1e-5), rope_theta=document.get("rope_theta", 10000.0),
        tie_word_embeddings=document.get("tie_word_embeddings", True))
    if mor is not None:
        config.router = mor["router"]
        token_choice = config.router == "token_choice"
        config.router_network = mor.get("router_network", "linear")
        config.router_activation = mor.get("router_activation", "softmax" if token_choice else "sigmoid")
        config.alpha = mor.get("alpha", 1.0 if config.router_activation == "softmax" else 0.1)
        config.temperature = mor.get("temperature", 1.0)
        config.gating = mor.get("gating", "weighted")
        config.capacities = list(mor.get("capacities") or [])
        config.sampling = mor.get("sampling", "aux_loss")
        config.balancing = mor.get("balancing", "loss" if token_choice else "none")
        config.cache = mor.get("cache", "recursion_wise")
        config.sharing = mor["sharing"]
        config.num_recursions = mor.get("num_recursions", 1 if config.sharing == "none" else 3)
        ends = 1 if config.sharing.startswith("middle") else 0
        config.num_prelude_layers = mor.get("num_prelude_layers", ends)
        config.num_coda_layers = mor.get("num_coda_layers", ends)
    config.validate()
    return config


def layer_prefixes(config):
    """For each parameter set, the prefixes of the unrolled layers that use it, first use first."""
    prelude, block, coda = config.schedule()
    first, recursions, inner = len(prelude), config.num_recursions, config.block_layers
    uses = [(index, f"model.layers.{position}.") for position, index in enumerate(prelude)]
    for r, sets in enumerate(block):
        for j, index in enumerate(sets):
            if config.router == "expert_choice":
                uses.append((index, f"model.layers.{first + r}.block.{j}."))
            elif config.router == "token_choice":
                uses.append((index, f"model.layers.{first}.block_list.{r}.{j}."))
            else:
                uses.append((index, f"model.layers.{first + r * inner + j}."))
    tail = {"expert_choice": recursions, "token_choice": 1, "all_tokens": recursions * inner}[config.router]
    uses += [(index, f"model.layers.{first + tail + c}.") for c, index in enumerate(coda)]
    prefixes = [[] for _ in range(1 + max(index for index, _ in uses))]
    for index, prefix in uses:
        prefixes[index].append(prefix)
    return prefixes


def router_prefixes(config):
    """Prefixes of the main routers: one for each recursion (expert), one in all (token), none (all_tokens)."""
    first = config.num_prelude_layers
    if config.router == "expert_choice":
        return [f"model.layers.{first + r}." for r in range(config.num_recursions)]
    return [f"model.layers.{first}."] if config.router == "token_choice" else []


def parameter_names(config):
    """`{name: (shape, other names of the same tensor)}` for every tensor the model has, each once."""
    d, ff, hd = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * hd, config.num_key_value_heads * hd
    shapes = [(queries, d), (keys, d), (keys, d), (d, queries), (ff, d), (ff, d), (d, ff), (d,), (d,)]
    vocabulary = (config.vocab_size, d)
    names = {"model.embed_tokens.weight": (vocabulary, ["lm_head.weight"] if config.tie_word_embeddings else [])}
    for prefixes in layer_prefixes(config):
        for suffix, shape in zip(LAYER_SUFFIXES, shapes):
            names[prefixes[0] + suffix] = (shape, [prefix + suffix for prefix in prefixes[1:]])
    outputs = config.num_recursions if config.router == "token_choice" else 1
    kinds = ["mor_router"]
    if config.router == "expert_choice" and config.sampling == "aux_router":
        kinds.append("mlp_router")
    for prefix in router_prefixes(config):
        for kind in kinds:
            if config.router_network == "linear":
                names[f"{prefix}{kind}.router.weight"] = ((outputs, d), [])
            else:
                names[f"{prefix}{kind}.router.0.weight"] = ((2 * d, d), [])
                names[f"{prefix}{kind}.router.2.weight"] = ((outputs, 2 * d), [])
        if config.router == "token_choice" and config.balancing == "loss_free":
            names[f"{prefix}router_bias"] = ((outputs,), [])
    names["model.norm.weight"] = ((d,), [])
    if not config.tie_word_embeddings:
        names["lm_head.weight"] = (vocabulary, [])
    return names


def read_parameters(folder, config):
    """`{name: array}` of `model.safetensors`, each tied tensor once; every stored copy must be equal."""
    stored = safetensors_file.read(os.path.join(folder, "model.safetensors"))
    parameters = {}
    for name, (shape, aliases) in parameter_names(config).items():
        copies = [stored.pop(candidate) for candidate in [name] + aliases if candidate in stored]
        if not copies:
            raise ValueError(f"{folder}: tensor {name} is missing")
        if any(copy.shape != shape or not np.array_equal(copy, copies[0]) for copy in copies):
            raise ValueError(f"{folder}: tensor {name}: expected equal copies of shape {shape}")
        parameters[name] = copies[0]
    if stored:
        raise ValueError(f"{folder}: unknown tensors {sorted(stored)}")
    return parameters


def read_config(folder):
    """The `Config` of a model folder."""
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        return parse_config(json.load(file))
