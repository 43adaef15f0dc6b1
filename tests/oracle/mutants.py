# SPDX-License-Identifier: Apache-2.0
"""Plausible wrong readings of the specification; the comparison must tell each from the oracle (`self_check.py`)."""

import dataclasses

import numpy as np

from mor_reference import Model, Result


class PackedPositions(Model):
    """Wrong: RoPE of packed rows by their rank."""

    def layer(self, index, x, positions, recursion=0, first_pass=None):
        shared = recursion and self.config.cache != "recursion_wise"
        return super().layer(index, x, positions if shared else np.arange(len(x)), recursion, first_pass)


class PreviousCache(Model):
    """Wrong: hybrid falls back on the previous recursion's keys and values, not the first's."""

    def layer(self, index, x, positions, recursion=0, first_pass=None):
        base = first_pass.get(index) if recursion and self.config.cache == "hybrid" else None
        result = super().layer(index, x, positions, recursion, first_pass)
        if base is not None:
            own = {}
            super().layer(index, x, positions, 1, own)
            keys, values = base[0].copy(), base[1].copy()
            keys[positions], values[positions] = own[index][0], own[index][1]
            first_pass[index] = (keys, values, base[2])
        return result


class CandidateCapacity(Model):
    """Wrong: k_r from the number of candidates."""

    def select(self, recursion, tokens, z, z_aux, routing):
        return super().select(recursion, len(z), z, z_aux, routing)


class FirstStepUngated(Model):
    """Wrong: the first recursion's gate left out."""

    def recur_expert_choice(self, x, routing, result):
        self.calls = 0
        return super().recur_expert_choice(x, routing, result)

    def expert_gate(self, z):
        self.calls += 1
        return np.ones_like(z) if self.calls == 1 else super().expert_gate(z)


class InterleavedRope(Model):
    """Wrong: pairs (2i, 2i + 1) rotate together."""

    def project(self, weight, normed, heads):
        result = super().project(weight, normed, heads)
        if any(weight is layer[2] for layer in self.layers):  # values do not turn
            return result
        return np.concatenate([result[..., 0::2], result[..., 1::2]], axis=-1)


class BiasedGate(Model):
    """Wrong: the selection score, bias included, gates."""

    def recur_token_choice(self, x, routing, result):
        name = f"{self.router_prefixes[0]}router_bias"
        if name not in self.parameters:
            return super().recur_token_choice(x, routing, result)
        trial = Result(None, result.depths.copy(), routing)
        plain = super().recur_token_choice(x, routing, trial)
        step = trial.steps[0]
        result.depths[:] = trial.depths
        chosen = self.parameters[name][step.selected]
        return x + (plain - x) * (1 + chosen / step.gates)[:, None]


class IgnoredTemperature(Model):
    """Wrong: the router's input is not divided."""

    def route(self, prefix, kind, x):
        return super().route(prefix, kind, x * self.config.temperature)


class NextKeyVisible(Model):
    """Wrong: attention sees one position too far."""

    def attend(self, queries, keys, values, visible):
        shifted = visible.copy()
        shifted[:, 1:] |= visible[:, :-1]
        return super().attend(queries, keys, values, shifted)


class HeadsModulo(Model):
    """Wrong: query head q reads key-value head q mod kvh."""

    def attend(self, queries, keys, values, visible):
        kvh, group = self.config.num_key_value_heads, queries.shape[1] // self.config.num_key_value_heads
        order = np.arange(kvh * group).reshape(group, kvh).T.ravel()
        mixed = super().attend(queries[:, order], keys, values, visible).reshape(len(queries), kvh * group, -1)
        return mixed[:, np.argsort(order)].reshape(len(queries), -1)


class EveryPassGated(Model):
    """Wrong: token choice gates the intermediate outputs too (equation 2 of the paper, not the code)."""

    def recur_token_choice(self, x, routing, result):
        output = super().recur_token_choice(x, routing, result)
        current, step, store = x.copy(), result.steps[0], {}
        for r in range(self.config.num_recursions):
            active = np.flatnonzero(step.selected >= r)
            if len(active):
                current[active] = step.gates[active][:, None] * self.block(r + 1, current[active], active, store)
        return output if self.config.gating == "additive" else x + current


class ExitedStayVisible(Model):
    """Wrong: recursion-wise attention also sees what exited tokens left in the first recursion."""

    def __init__(self, config, parameters, precision=np.float64):
        wider = "hybrid" if config.cache == "recursion_wise" and config.router != "all_tokens" else config.cache
        if config.capacities and config.capacities[0] < 1:
            wider = config.cache
        super().__init__(dataclasses.replace(config, cache=wider), parameters, precision)


class TanhGelu(Model):
    """Wrong: the tanh approximation in an MLP router."""

    def route(self, prefix, kind, x):
        name = f"{prefix}{kind}.router."
        if self.config.router_network == "linear":
            return super().route(prefix, kind, x)
        inner = x / self.config.temperature @ self.parameters[name + "0.weight"].T
        inner = 0.5 * inner * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
        return inner @ self.parameters[name + "2.weight"].T


ALL = (PackedPositions, PreviousCache, CandidateCapacity, FirstStepUngated, InterleavedRope, BiasedGate,
       IgnoredTemperature, NextKeyVisible, HeadsModulo, EveryPassGated, ExitedStayVisible, TanhGelu)
