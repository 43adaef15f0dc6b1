# SPDX-License-Identifier: Apache-2.0
"""Which random models the comparison runs: every policy value, and their pairs in rotation.

`specs(count, seed)` gives spec dicts of `make_case.py`. Factors that interact (cache x sharing x routing, network x
activation) are walked as shuffled products, so that a default run meets every combination; the rest is drawn.
"""

import itertools

import numpy as np

LENGTHS = (1, 2, 3, 7, 33, 64)
HEAD_DIMENSIONS = (4, 6, 8, 10, 16)


def _shuffled(generator, *factors):
    product = list(itertools.product(*factors))
    return [product[i] for i in generator.permutation(len(product))]


def _transformer(generator, head_dimensions):
    key_values = int(generator.integers(1, 4))
    shape = {"hidden_size": int(generator.integers(8, 41)), "intermediate_size": int(generator.integers(9, 71)),
             "num_attention_heads": key_values * int(generator.integers(1, 4)), "num_key_value_heads": key_values,
             "head_dim": int(generator.choice(head_dimensions)), "vocab_size": int(generator.integers(11, 98)),
             "tie_word_embeddings": bool(generator.random() < 0.6)}
    if generator.random() < 0.3:
        shape["rope_theta"] = float(generator.choice([500.0, 100000.0]))
    if generator.random() < 0.3:
        shape["rms_norm_eps"] = 1e-6
    if generator.random() < 0.5:
        shape.update(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", attention_bias=False,
                     mlp_bias=False)
    if generator.random() < 0.2:  # the usual case, in which head_dim may be left out
        shape["hidden_size"] = shape["num_attention_heads"] * shape.pop("head_dim")
    return shape


def _ends(generator, sharing):
    """Prelude and coda layers: 1 and 1 mostly, by default; more for generality."""
    if not sharing.startswith("middle"):
        return {"num_prelude_layers": 0, "num_coda_layers": 0}
    ends = (1, 1) if generator.random() < 0.6 else tuple(int(n) for n in generator.integers(1, 4, 2))
    return {"num_prelude_layers": ends[0], "num_coda_layers": ends[1]}


def _recursions(generator):
    return int(generator.choice([1, 2, 3, 4], p=[0.1, 0.3, 0.35, 0.25]))


def _maybe(generator, mor, key, values, probability=0.5):
    if generator.random() < probability:
        mor[key] = values[generator.integers(len(values))]


def _capacities(generator, mor):
    """Default ones often; a first capacity below 1 only with the cache that has a meaning for it."""
    draw, recursions = generator.random(), mor["num_recursions"]
    if draw < 0.3:
        return
    values = sorted(generator.uniform(0.1, 0.95, recursions).round(4).tolist(), reverse=True)
    if draw < 0.5 or mor["cache"] != "recursion_wise":
        values[0] = 1.0
    mor["capacities"] = values


def _expert(generator, head, tail):
    (cache, sharing, routing), (network, activation) = head, tail
    mor = {"router": "expert_choice", "router_network": network, "router_activation": activation, "cache": cache,
           "sharing": sharing, "num_recursions": _recursions(generator), **_ends(generator, sharing)}
    _maybe(generator, mor, "alpha", [0.05, 0.3, 1.0])
    _maybe(generator, mor, "temperature", [0.7, 1.0, 1.6])
    _maybe(generator, mor, "gating", ["weighted", "additive", "additive"])
    _maybe(generator, mor, "sampling", ["aux_loss", "aux_router"])
    _capacities(generator, mor)
    if routing == "aux_router":
        mor["sampling"] = "aux_router"
    return mor, routing


def _token(generator, head, tail):
    (cache, sharing, routing), (network, activation, balancing) = head, tail
    mor = {"router": "token_choice", "router_network": network, "router_activation": activation, "cache": cache,
           "sharing": sharing, "num_recursions": _recursions(generator), **_ends(generator, sharing)}
    if balancing:
        mor["balancing"] = balancing
    _maybe(generator, mor, "alpha", [0.1, 0.5, 1.0])
    _maybe(generator, mor, "temperature", [0.7, 1.0, 1.6])
    _maybe(generator, mor, "gating", ["weighted", "additive", "additive"])
    return mor, routing


def _all_tokens(generator, head, tail):
    (sharing, cache), (routing,) = head, tail
    if sharing == "none":
        cache = "recursion_wise"  # no two layers share weights, so there are no keys to share
    mor = {"router": "all_tokens", "cache": cache, "sharing": sharing, **_ends(generator, sharing),
           "num_recursions": 1 if sharing == "none" else _recursions(generator)}
    if sharing == "none" and cache == "recursion_wise":
        return None, routing  # a plain Llama folder, without the object
    return mor, routing


def specs(count, seed, head_dimensions=HEAD_DIMENSIONS, lengths=LENGTHS):
    """`count` spec dicts; the same for the same arguments."""
    generator = np.random.default_rng(seed)
    cycles, networks = ("cycle", "middle_cycle"), ("linear", "mlp", "wide_mlp")
    modes = ("topk", "threshold", "aux_router", "full_depth")
    families = {
        "expert": (_expert, _shuffled(generator, ("recursion_wise", "shared", "hybrid"), cycles, modes),
                   _shuffled(generator, networks, ("sigmoid", "tanh", "none"))),
        "token": (_token, _shuffled(generator, ("recursion_wise", "shared", "hybrid"), cycles, modes),
                  _shuffled(generator, networks, ("softmax", "sigmoid"), (None, "none", "loss_free"))),
        "all": (_all_tokens, _shuffled(generator, ("none", "cycle", "middle_cycle", "sequence", "middle_sequence"),
                                       ("recursion_wise", "shared", "hybrid")), _shuffled(generator, modes)),
    }
    order = ("expert", "token", "expert", "all", "expert", "token", "expert", "all", "expert", "token")
    used, result = {name: 0 for name in families}, []
    for index in range(count):
        name = order[index % len(order)]
        make, heads, tails = families[name]
        turn = used[name]
        used[name] += 1
        # One more turn of the second list for each full round of the first pairs them anew.
        mor, routing = make(generator, heads[turn % len(heads)],
                            tails[(turn + turn // len(heads)) % len(tails)])
        chosen = generator.permutation(lengths)[: int(generator.integers(1, 5))]
        spec = {"transformer": _transformer(generator, head_dimensions), "block": int(generator.integers(1, 4)),
                "mor": mor, "routing": routing, "lengths": [int(length) for length in chosen],
                "copies": bool(generator.random() < 0.25), "head_copy": bool(generator.random() < 0.25),
                "storage": str(generator.choice(["F32", "BF16", "F16"], p=[0.8, 0.12, 0.08]))}
        if mor is None:
            spec["block"] += 1
        result.append(spec)
    return result


def describe(spec):
    """One line that identifies a spec."""
    mor, shape = spec["mor"], spec["transformer"]
    words = [spec["routing"]]
    if mor is None:
        words.append("vanilla without mor object")
    else:
        for key in ("router", "router_network", "router_activation", "cache", "sharing", "balancing", "sampling",
                    "gating"):
            if mor.get(key) and not (key == "gating" and mor[key] == "weighted"):
                words.append(str(mor[key]))
        words.append(f"Nr={mor['num_recursions']} ends={mor['num_prelude_layers']}+{mor['num_coda_layers']}")
        words += [f"{key}={mor[key]}" for key in ("alpha", "temperature", "capacities") if key in mor]
    words.append(f"B={spec['block']} d={shape['hidden_size']} ff={shape['intermediate_size']} "
                 f"heads={shape['num_attention_heads']}/{shape['num_key_value_heads']}x{shape.get('head_dim', 'd/h')} "
                 f"V={shape['vocab_size']} {'tied' if shape['tie_word_embeddings'] else 'untied'} {spec['storage']}")
    words += [flag for flag in ("copies", "head_copy") if spec[flag]]
    return " ".join(words) + f" lengths={spec['lengths']}"
