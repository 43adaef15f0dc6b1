# SPDX-License-Identifier: Apache-2.0
"""The causal routing modes one token at a time, with caches: a second implementation to hold against the first.

It takes from `mor_reference` only the weights and the router's scalar laws; attention, caching and the walk through
the recursions are written again, for one row, the way decoding does it (mor-spec 5). Causal are expert choice under
threshold, aux_router and full_depth, and token choice and all_tokens always.
"""

import numpy as np

from mor_reference import rms_norm, sigmoid, softmax


class Decoder:
    """Feeds tokens one by one; `push` returns the token's logits and depth."""

    def __init__(self, model, routing):
        if model.config.router == "expert_choice" and routing == "topk":
            raise ValueError("topk is not causal: it has no incremental form")
        self.model, self.config, self.routing = model, model.config, routing
        self.position = 0
        self.caches = {}  # (slot) -> {position: (keys [kvh, hd], values [kvh, hd])}

    def turn(self, heads):
        """RoPE of [heads, hd] at the current position, as a rotation of complex numbers."""
        half = self.config.head_dim // 2
        angle = self.position * self.config.rope_theta ** (-2.0 * np.arange(half) / self.config.head_dim)
        turned = (heads[:, :half] + 1j * heads[:, half:]) * np.exp(1j * angle)
        return np.concatenate([turned.real, turned.imag], axis=1)

    def visible(self, index, recursion, slot, fresh):
        """The cache entries the current token attends to, its own included, after storing what is to be stored."""
        first = self.caches.setdefault(("first", index), {})
        if recursion == 0 or self.config.cache == "recursion_wise":
            own = self.caches.setdefault(slot, {})
            own[self.position] = fresh
            return own
        if self.position not in first:  # this parameter set's first use for this token
            first[self.position] = fresh
            return first
        if self.config.cache == "shared":
            return first
        own = self.caches.setdefault(slot, {})
        own[self.position] = fresh
        return {**first, **own}

    def layer(self, index, x, slot, recursion=0):
        """One decoder layer for one row."""
        config = self.config
        wq, wk, wv, wo, gate, up, down, norm_in, norm_post = self.model.layers[index]
        shape = (-1, config.head_dim)
        normed = rms_norm(x, norm_in, config.rms_norm_eps)
        queries = self.turn((wq @ normed).reshape(shape))
        fresh = (self.turn((wk @ normed).reshape(shape)), (wv @ normed).reshape(shape))
        entries = self.visible(index, recursion, slot, fresh)
        group = config.num_attention_heads // config.num_key_value_heads
        mixed = np.zeros_like(queries)
        for head, query in enumerate(queries):
            scores = np.array([query @ keys[head // group] for keys, _ in entries.values()])
            shares = softmax(scores * config.head_dim**-0.5)
            for share, (_, values) in zip(shares, entries.values()):
                mixed[head] += share * values[head // group]
        x = x + wo @ mixed.ravel()
        normed = rms_norm(x, norm_post, config.rms_norm_eps)
        inner = gate @ normed
        return x + down @ (inner / (1.0 + np.exp(-inner)) * (up @ normed))

    def block(self, recursion, x):
        """The B layers of the 1-based recursion."""
        for j, index in enumerate(self.model.schedule[1][recursion - 1]):
            x = self.layer(index, x, ("recursion", recursion, j), recursion)
        return x

    def expert(self, x):
        """Expert choice for one token: (row, depth)."""
        config = self.config
        for recursion in range(1, config.num_recursions + 1):
            prefix = self.model.router_prefixes[recursion - 1]
            z = self.model.route(prefix, "mor_router", x[None])[0, 0]
            decider = z
            if self.routing == "aux_router":
                decider = self.model.route(prefix, "mlp_router", x[None])[0, 0]
            if recursion > 1 and self.routing != "full_depth" and decider < 0:
                return x, recursion - 1
            y = self.block(recursion, x)
            x = x + (y if config.gating == "additive" else self.model.expert_gate(z) * y)
        return x, config.num_recursions

    def token(self, x):
        """Token choice for one token: (row, depth)."""
        config, prefix = self.config, self.model.router_prefixes[0]
        z = self.model.route(prefix, "mor_router", x[None])[0]
        p = config.alpha * (softmax(z) if config.router_activation == "softmax" else sigmoid(z))
        choice = int(np.argmax(p + self.model.parameters.get(f"{prefix}router_bias", 0.0)))
        if self.routing == "full_depth":
            choice = config.num_recursions - 1
        y = x
        for recursion in range(1, choice + 2):
            y = self.block(recursion, y)
        return x + (y if config.gating == "additive" else p[choice] * y), choice + 1

    def push(self, token):
        """The next token of the sequence: (logits [V], depth)."""
        config, (prelude, _, coda) = self.config, self.model.schedule
        embedding = self.model.parameters["model.embed_tokens.weight"]
        x = embedding[token]
        for index in prelude:
            x = self.layer(index, x, ("prelude", index))
        if config.router == "expert_choice":
            x, depth = self.expert(x)
        elif config.router == "token_choice":
            x, depth = self.token(x)
        else:
            for recursion in range(1, config.num_recursions + 1):
                x = self.block(recursion, x)
            depth = 1 if config.sharing == "none" else config.num_recursions
        for index in coda:
            x = self.layer(index, x, ("coda", index))
        self.position += 1
        x = rms_norm(x, self.model.parameters["model.norm.weight"], config.rms_norm_eps)
        return self.model.parameters.get("lm_head.weight", embedding) @ x, depth


def decode(model, tokens, routing):
    """Logits [T, V] and depths [T] of a sequence fed token by token."""
    decoder = Decoder(model, routing)
    rows = [decoder.push(token) for token in tokens]
    return np.array([logits for logits, _ in rows]), np.array([depth for _, depth in rows])
