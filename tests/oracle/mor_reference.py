#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Mixture-of-Recursions in double precision: an independent oracle, written from the specification's equations.

One sequence at a time, plain NumPy, no batching, nothing clever. It shares no code with the library. Every operation
is analytic in its floating inputs, so that a complex perturbation of a weight passes through it and gives an exact
derivative (`gradients.py`); selections are made on real parts and so stay frozen.

As a program it takes the flags of `evaluate` and writes the same file:
    mor_reference.py --model DIR --tokens FILE --logits OUT.safetensors [--routing MODE] [--precision float64|float32]
"""

import argparse
import math
import sys
from dataclasses import dataclass, field

import numpy as np

import model_files
import safetensors_file

_erf = np.vectorize(math.erf, otypes=[np.float64])


def erf(x):
    """The error function of real parts, continued to first order in an infinitesimal imaginary part."""
    value = _erf(x.real).astype(x.real.dtype) if x.size else x.real
    if np.iscomplexobj(x):
        return value + 1j * x.imag * (2.0 / math.sqrt(math.pi)) * np.exp(-x.real * x.real)
    return value


def gelu(x):
    """Exact GELU."""
    return 0.5 * x * (1.0 + erf(x * math.sqrt(0.5)))


def sigmoid(x):
    """Logistic function; the tanh form neither overflows nor breaks a complex step."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def softplus(x):
    """log(1 + e^x) without overflow."""
    top = np.maximum(x.real, 0.0)
    return top + np.log(np.exp(x - top) + np.exp(-top))


def log_sum_exp(x):
    """Over the last axis."""
    top = x.real.max(axis=-1, keepdims=True)
    return (top + np.log(np.exp(x - top).sum(axis=-1, keepdims=True)))[..., 0]


def softmax(x):
    """Over the last axis."""
    weights = np.exp(x - x.real.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def rms_norm(x, weight, epsilon):
    """x / sqrt(mean(x^2) + epsilon) * weight over the last axis."""
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * weight


def rotate(x, positions, theta):
    """RoPE on x [n, heads, head_dim]: dimension i turns with dimension i + head_dim / 2."""
    half = x.shape[-1] // 2
    angles = np.outer(np.asarray(positions, dtype=np.float64), theta ** (-np.arange(half) / half))
    cosine, sine = (part.astype(x.real.dtype)[:, None, :] for part in (np.cos(angles), np.sin(angles)))
    low, high = x[..., :half], x[..., half:]
    return np.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=-1)


def writable(array, other):
    """A copy of `array` wide enough (real or complex) to take the values of `other`."""
    return array.astype(np.result_type(array, other))


def binary_cross_entropy(logits, targets):
    """Of each logit against its 0/1 target."""
    return softplus(logits) - logits * targets


@dataclass
class RouterStep:
    """What one router saw and decided: expert choice has one for each recursion, token choice one in all."""

    candidates: np.ndarray  # positions
    logits: np.ndarray  # z: [candidates], token choice [candidates, Nr]
    gates: np.ndarray  # g of every candidate
    selected: np.ndarray  # bool [candidates]; token choice: the chosen index, int [candidates]
    aux_logits: np.ndarray = None  # z of the auxiliary router
    probabilities: np.ndarray = None  # token choice: p [candidates, Nr]
    scores: np.ndarray = None  # token choice: p plus bias


@dataclass
class Result:
    """A forward pass over one sequence."""

    logits: np.ndarray  # [T, V]
    depths: np.ndarray  # [T] int
    routing: str
    steps: list = field(default_factory=list)  # RouterStep


class Model:
    """The weights and the forward pass. `parameters` maps each tensor's own name to an array."""

    def __init__(self, config, parameters, precision=np.float64):
        self.config = config
        self.precision = precision
        self.parameters = {name: np.asarray(a).astype(precision) if not np.iscomplexobj(a) else a
                           for name, a in parameters.items()}
        self.schedule = config.schedule()
        prefixes = model_files.layer_prefixes(config)
        self.layers = [[self.parameters[p[0] + s] for s in model_files.LAYER_SUFFIXES] for p in prefixes]
        self.router_prefixes = model_files.router_prefixes(config)

    @classmethod
    def load(cls, folder, precision=np.float64):
        """Reads a model folder."""
        config = model_files.read_config(folder)
        return cls(config, model_files.read_parameters(folder, config), precision)

    def replaced(self, name, values):
        """The same model with one tensor exchanged."""
        return Model(self.config, {**self.parameters, name: values}, self.precision)

    # One decoder layer -----------------------------------------------------------------------------------------

    def project(self, weight, normed, heads):
        """Rows through a projection, split into heads: [n, heads, head_dim]."""
        return (normed @ weight.T).reshape(len(normed), heads, self.config.head_dim)

    def layer(self, index, x, positions, recursion=0, first_pass=None):
        """One decoder layer on the rows `x` at ascending `positions`; returns the new residual stream.

        `first_pass` (a dict) holds the keys and values a parameter set made on its first use in the recursions;
        `recursion` is 1-based inside them and 0 outside, where a layer always has keys of its own.
        """
        config = self.config
        wq, wk, wv, wo, gate, up, down, norm_in, norm_post = self.layers[index]
        normed = rms_norm(x, norm_in, config.rms_norm_eps)
        queries = rotate(self.project(wq, normed, config.num_attention_heads), positions, config.rope_theta)
        base = first_pass.get(index) if recursion and config.cache != "recursion_wise" else None
        if base is not None and config.cache == "shared":
            keys, values, key_positions = base
        else:
            keys = rotate(self.project(wk, normed, config.num_key_value_heads), positions, config.rope_theta)
            values, key_positions = self.project(wv, normed, config.num_key_value_heads), positions
            if base is not None:  # hybrid: fresh where active, the first recursion's elsewhere, on a copy
                fresh_keys, fresh_values = keys, values
                keys, values, key_positions = base
                keys, values = writable(keys, fresh_keys), writable(values, fresh_values)
                keys[positions], values[positions] = fresh_keys, fresh_values
            elif recursion:
                first_pass[index] = (keys, values, key_positions)
        x = x + self.attend(queries, keys, values, key_positions[None, :] <= positions[:, None]) @ wo.T
        normed = rms_norm(x, norm_post, config.rms_norm_eps)
        inner = normed @ gate.T
        return x + (inner * sigmoid(inner) * (normed @ up.T)) @ down.T

    def attend(self, queries, keys, values, visible):
        """Softmax attention; query head q reads key-value head q // (heads / key-value heads)."""
        group = self.config.num_attention_heads // self.config.num_key_value_heads
        heads = []
        for head in range(self.config.num_attention_heads):
            scores = queries[:, head] @ keys[:, head // group].T / math.sqrt(self.config.head_dim)
            scores = np.where(visible, scores, -1e30)
            heads.append(softmax(scores) @ values[:, head // group])
        return np.concatenate(heads, axis=-1)

    def block(self, recursion, x, positions, first_pass):
        """F(x) of the 1-based recursion: the residual stream after its B layers."""
        for index in self.schedule[1][recursion - 1]:
            x = self.layer(index, x, positions, recursion, first_pass)
        return x

    # Routers ---------------------------------------------------------------------------------------------------

    def route(self, prefix, kind, x):
        """Router logits [n, outputs] of the raw residual stream."""
        x = x / self.config.temperature
        name = f"{prefix}{kind}.router."
        if self.config.router_network == "linear":
            return x @ self.parameters[name + "weight"].T
        return gelu(x @ self.parameters[name + "0.weight"].T) @ self.parameters[name + "2.weight"].T

    def expert_gate(self, z):
        """g of the logits z (mor-spec 3.1)."""
        if self.config.router_activation == "none":
            return z
        return self.config.alpha * (sigmoid(z) if self.config.router_activation == "sigmoid" else np.tanh(z))

    def select(self, recursion, tokens, z, z_aux, routing):
        """Which candidates stay at the 1-based recursion: bool [candidates]."""
        if routing == "topk":
            count = min(self.config.selected_count(recursion, tokens), len(z))
            order = np.argsort(-z.real, kind="stable")  # stable: equal logits fall to the lower position
            selected = np.zeros(len(z), dtype=bool)
            selected[order[:count]] = True
            return selected
        if routing == "full_depth" or recursion == 1:
            return np.ones(len(z), dtype=bool)
        return (z if routing == "threshold" else z_aux).real >= 0

    def recur_expert_choice(self, x, routing, result):
        """The recursion region under expert choice (mor-spec 3.3, 3.6)."""
        config, tokens, first_pass = self.config, len(x), {}
        active = np.arange(tokens)
        for recursion in range(1, config.num_recursions + 1):
            prefix, entry = self.router_prefixes[recursion - 1], x[active]
            z = self.route(prefix, "mor_router", entry)[:, 0]
            z_aux = None
            if config.sampling == "aux_router":
                z_aux = self.route(prefix, "mlp_router", entry.real)[:, 0]  # real part: no gradient to the stream
            selected = self.select(recursion, tokens, z, z_aux, routing)
            gates = self.expert_gate(z)
            result.steps.append(RouterStep(active, z, gates, selected, z_aux))
            active, kept_gates = active[selected], gates[selected]
            if not len(active):
                break
            result.depths[active] += 1
            y = self.block(recursion, x[active], active, first_pass)
            update = y if config.gating == "additive" else kept_gates[:, None] * y
            x = writable(x, update)
            x[active] += update
        return x

    def recur_token_choice(self, x, routing, result):
        """The recursion region under token choice (mor-spec 4)."""
        config, tokens, first_pass = self.config, len(x), {}
        prefix = self.router_prefixes[0]
        z = self.route(prefix, "mor_router", x)
        p = config.alpha * (softmax(z) if config.router_activation == "softmax" else sigmoid(z))
        bias = self.parameters.get(f"{prefix}router_bias")
        scores = p.real if bias is None else p.real + bias
        choice = scores.argmax(axis=-1)
        if routing == "full_depth":
            choice = np.full(tokens, config.num_recursions - 1)
        gates = p[np.arange(tokens), choice]
        result.steps.append(RouterStep(np.arange(tokens), z, gates, choice, None, p, scores))
        result.depths += choice + 1
        current, output = x, x
        for r in range(config.num_recursions):
            active = np.flatnonzero(choice >= r)
            if not len(active):
                break
            y = self.block(r + 1, current[active], active, first_pass)
            current = writable(current, y)
            current[active] = y
            last = choice[active] == r
            done = active[last]
            update = y[last] if config.gating == "additive" else gates[done][:, None] * y[last]
            output = writable(output, update)
            output[done] = x[done] + update
        return output

    def recur_all_tokens(self, x, result):
        """A vanilla or plain recursive Transformer: hidden <- F(hidden), no gate."""
        first_pass, positions = {}, np.arange(len(x))
        for recursion in range(1, self.config.num_recursions + 1):
            x = self.block(recursion, x, positions, first_pass)
        result.depths += 1 if self.config.sharing == "none" else self.config.num_recursions
        return x

    # The whole model -------------------------------------------------------------------------------------------

    def forward(self, tokens, routing="topk"):
        """Logits, depths and routing of one sequence of token ids."""
        if routing not in model_files.ROUTINGS:
            raise ValueError(f"routing {routing!r}, known are {model_files.ROUTINGS}")
        config = self.config
        if routing == "aux_router" and config.router == "expert_choice" and config.sampling != "aux_router":
            raise ValueError("routing aux_router needs a model with an auxiliary router")
        embedding = self.parameters["model.embed_tokens.weight"]
        x, positions = embedding[np.asarray(tokens)], np.arange(len(tokens))
        result = Result(None, np.zeros(len(tokens), dtype=np.int32), routing)
        for index in self.schedule[0]:
            x = self.layer(index, x, positions)
        if config.router == "expert_choice":
            x = self.recur_expert_choice(x, routing, result)
        elif config.router == "token_choice":
            x = self.recur_token_choice(x, routing, result)
        else:
            x = self.recur_all_tokens(x, result)
        for index in self.schedule[2]:
            x = self.layer(index, x, positions)
        x = rms_norm(x, self.parameters["model.norm.weight"], config.rms_norm_eps)
        result.logits = x @ self.parameters.get("lm_head.weight", embedding).T
        return result


def read_tokens(path):
    """Whitespace-separated ids, one sequence a line; empty lines are no sequences."""
    with open(path, encoding="utf-8") as file:
        return [[int(word) for word in line.split()] for line in file if line.strip()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--logits", required=True)
    parser.add_argument("--routing", default="topk", choices=model_files.ROUTINGS)
    parser.add_argument("--precision", default="float64", choices=("float64", "float32"))
    parser.add_argument("--device", help="accepted and ignored, as in evaluate")
    arguments = parser.parse_args()
    model = Model.load(arguments.model, np.dtype(arguments.precision).type)
    tensors = {}
    for index, tokens in enumerate(read_tokens(arguments.tokens)):
        result = model.forward(tokens, arguments.routing)
        tensors[f"logits.{index}"] = result.logits.astype(np.float32)
        tensors[f"depths.{index}"] = result.depths
    safetensors_file.write(arguments.logits, tensors)
    return 0


if __name__ == "__main__":
    sys.exit(main())
