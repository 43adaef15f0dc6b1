# SPDX-License-Identifier: Apache-2.0
"""Tests of the oracle itself: `compare_evaluate.py --self-check` runs every function here whose name starts `check_`.

The oracle is held against a token-by-token decoder, against identities that tie its modes together, against
hand-written small cases, against itself in float32, and against wrong variants that the comparison must catch.
"""

import math
import os
import sys
import tempfile
import time

import numpy as np

import cases
import compare_evaluate
import gradients
import incremental
import losses
import make_case
import model_files
import mor_reference
import mutants
import safetensors_file

_EXACT = 1e-12
_BASE = {"hidden_size": 20, "intermediate_size": 36, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6,
         "vocab_size": 40}


def _require(condition, message):
    if not condition:
        raise AssertionError(message)


def _same(found, expected, message, tolerance=_EXACT):
    error = np.abs(np.asarray(found) - np.asarray(expected)).max()
    _require(error <= tolerance * max(1.0, np.abs(expected).max()), f"{message}: off by {error:.3g}")


def _spec(routing="topk", block=2, lengths=(13,), **mor):
    mor = {"num_recursions": 3, "sharing": "middle_cycle", "num_prelude_layers": 1, "num_coda_layers": 1, **mor}
    return {"transformer": dict(_BASE), "block": block, "mor": mor, "routing": routing, "lengths": list(lengths)}


def _model(seed=0, routing="topk", **mor):
    with tempfile.TemporaryDirectory() as folder:
        model, sequences, _ = make_case.make_case(folder, _spec(routing, **mor), seed)
    return model, sequences[0]


def _random_models(count, seed, lengths=cases.LENGTHS):
    for index, spec in enumerate(cases.specs(count, seed, lengths=lengths)):
        with tempfile.TemporaryDirectory() as folder:
            yield (spec, *make_case.make_case(folder, spec, [seed, index]))


def _is_causal(spec):
    return spec["routing"] != "topk" or not spec["mor"] or spec["mor"]["router"] != "expert_choice"


def check_scalar_functions():
    x = np.array([-30.0, -2.0, -0.3, 0.0, 0.7, 3.0, 30.0])
    _same(mor_reference.gelu(x), [0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x], "gelu")
    _same(mor_reference.sigmoid(x), [1 / (1 + math.exp(-v)) for v in x], "sigmoid")
    _same(mor_reference.softplus(x), [math.log1p(math.exp(v)) for v in x], "softplus")
    _same(mor_reference.log_sum_exp(x[None]), [math.log(sum(map(math.exp, x)))], "log_sum_exp")
    _require(np.isfinite(mor_reference.sigmoid(np.array([-1e4, 1e4]))).all(), "sigmoid overflows")


def check_safetensors_round_trip():
    values = np.array([[1.0, -2.5, 3.0625], [1e-3, 65504.0, 0.1]])
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a.safetensors")
        for dtype in ("F64", "F32", "F16", "BF16"):
            safetensors_file.write(path, {"x": values, "empty": np.zeros((0, 3))}, dtype)
            back = safetensors_file.read(path)
            _require(np.array_equal(back["x"], safetensors_file.round_to(values, dtype)), f"{dtype} round trip")
            _require(back["empty"].shape == (0, 3), "empty tensor")
        safetensors_file.write(path, {"i": np.array([3, -4], dtype=np.int32)})
        _require(safetensors_file.read(path)["i"].tolist() == [3, -4], "I32 round trip")
    ties = np.array([0x3F808000, 0x3F818000, 0x3F808001], dtype=np.uint32).view(np.float32)
    _require(safetensors_file.round_to_bfloat16_bits(ties).tolist() == [0x3F80, 0x3F82, 0x3F81], "bf16 rounding")


def _config(layers, recursions, sharing, ends, router="all_tokens", network="linear"):
    """The 360M shape."""
    return model_files.parse_config({
        "hidden_size": 960, "intermediate_size": 2560, "num_attention_heads": 15, "num_key_value_heads": 5,
        "head_dim": 64, "vocab_size": 49152, "num_hidden_layers": layers,
        "mor": {"router": router, "router_network": network, "sharing": sharing, "num_recursions": recursions,
                "num_prelude_layers": ends[0], "num_coda_layers": ends[1]}})


def check_schedules_and_names():
    """mor-spec 2 (examples), 1.1 (parameter counts of 360M) and 11 (entry counts)."""
    def flat(*arguments):
        prelude, block, coda = _config(*arguments).schedule()
        return prelude + sum(block, []) + coda

    _require(flat(9, 3, "cycle", (0, 0)) == [0, 1, 2] * 3, "cycle")
    _require(flat(9, 3, "sequence", (0, 0)) == [0, 0, 0, 1, 1, 1, 2, 2, 2], "sequence")
    _require(flat(9, 3, "middle_cycle", (2, 1)) == [0, 1, 2, 3, 2, 3, 2, 3, 4], "middle_cycle")
    _require(flat(8, 2, "middle_sequence", (1, 1)) == [0, 1, 1, 2, 2, 3, 3, 4], "middle_sequence")
    _require(flat(5, 1, "none", (0, 0)) == [0, 1, 2, 3, 4], "none")
    for layers, recursions, unique, entries in ((32, 2, 167152320, 293), (32, 3, 117991680, 294),
                                                (34, 4, 98328000, 313)):
        names = model_files.parameter_names(_config(layers, recursions, "middle_cycle", (1, 1), "expert_choice"))
        count = sum(int(np.prod(shape)) for shape, _ in names.values()) - 49152 * 960
        _require(count == unique, f"{count} unique parameters, expected {unique}")
        stored = sum(1 + len(aliases) for _, aliases in names.values())
        _require(stored == entries, f"{stored} entries, expected {entries}")
    for router, entries in (("token_choice", 292), ("all_tokens", 291)):
        names = model_files.parameter_names(_config(32, 3, "middle_cycle", (1, 1), router))
        _require(sum(1 + len(aliases) for _, aliases in names.values()) == entries, f"{router} entries")
    sequence = model_files.parameter_names(_config(8, 3, "middle_sequence", (1, 1)))
    _require("model.layers.4.mlp.up_proj.weight" in sequence and "model.layers.2.mlp.up_proj.weight" not in sequence,
             "first user of a sequence set")


def check_one_recursion_by_hand():
    """Nr = 1: the region is x + g F(x), whatever the cache; token choice chooses the only recursion."""
    for router, activation in (("expert_choice", "sigmoid"), ("expert_choice", "tanh"), ("expert_choice", "none"),
                               ("token_choice", "softmax"), ("token_choice", "sigmoid")):
        for cache in model_files.CACHES:
            model, tokens = _model(3, router=router, router_activation=activation, num_recursions=1, cache=cache,
                                   alpha=0.4)
            embedding, positions = model.parameters["model.embed_tokens.weight"], np.arange(len(tokens))
            x = model.layer(0, embedding[tokens], positions)
            y = model.layer(2, model.layer(1, x, positions), positions)
            z = x @ model.parameters["model.layers.1.mor_router.router.weight"][0]
            gate = {"sigmoid": 0.4 / (1 + np.exp(-z)), "tanh": 0.4 * np.tanh(z), "none": z,
                    "softmax": 0.4 * np.ones_like(z)}[activation]
            x = model.layer(3, x + gate[:, None] * y, positions)
            x = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-5) * model.parameters["model.norm.weight"]
            result = model.forward(tokens)
            _same(result.logits, x @ embedding.T, f"{router} {activation} {cache}")
            _require((result.depths == 1).all(), "depth")


def check_decoder_layer_by_loops():
    """One layer against scalar loops: causal grouped-query attention with rotated pairs, then the gated MLP."""
    model, tokens = _model(5, router="all_tokens")
    config = model.config
    x = np.random.default_rng(1).standard_normal((len(tokens), config.hidden_size))
    wq, wk, wv, wo, gate, up, down, norm_in, norm_post = model.layers[0]
    hd = config.head_dim

    def norm(row, weight):
        return row / math.sqrt(sum(v * v for v in row) / len(row) + config.rms_norm_eps) * weight

    def rotated(vector, position):
        out = vector.copy()
        for start in range(0, len(vector), hd):
            for i in range(hd // 2):
                angle = position / config.rope_theta ** (2 * i / hd)
                a, b = vector[start + i], vector[start + i + hd // 2]
                out[start + i] = a * math.cos(angle) - b * math.sin(angle)
                out[start + i + hd // 2] = b * math.cos(angle) + a * math.sin(angle)
        return out

    found = model.layer(0, x, np.arange(len(tokens)))
    for t in range(len(tokens)):
        rows = [norm(x[s], norm_in) for s in range(t + 1)]
        query, mixed = rotated(wq @ rows[t], t), np.zeros(wq.shape[0])
        for head in range(config.num_attention_heads):
            part = slice(head * hd, (head + 1) * hd)
            shared = head // (config.num_attention_heads // config.num_key_value_heads)
            source = slice(shared * hd, (shared + 1) * hd)
            shares = [math.exp(query[part] @ rotated(wk @ row, s)[source] / math.sqrt(hd))
                      for s, row in enumerate(rows)]
            mixed[part] = sum(share * (wv @ row)[source] for share, row in zip(shares, rows)) / sum(shares)
        middle = x[t] + wo @ mixed
        normed = norm(middle, norm_post)
        inner = gate @ normed
        _same(found[t], middle + down @ (inner / (1 + np.exp(-inner)) * (up @ normed)), f"row {t}")


def check_sharing_equals_copies():
    """A shared all_tokens model equals the vanilla model with the shared layers written out."""
    for sharing, ends in (("cycle", (0, 0)), ("sequence", (0, 0)), ("middle_cycle", (2, 1)),
                          ("middle_sequence", (1, 2))):
        model, tokens = _model(7, router="all_tokens", sharing=sharing, num_prelude_layers=ends[0],
                               num_coda_layers=ends[1])
        prelude, block, coda = model.schedule
        order = prelude + sum(block, []) + coda
        plain = {name: model.parameters[name] for name in ("model.embed_tokens.weight", "model.norm.weight")}
        for position, index in enumerate(order):
            for suffix, weight in zip(model_files.LAYER_SUFFIXES, model.layers[index]):
                plain[f"model.layers.{position}.{suffix}"] = weight
        config = model_files.parse_config({**_BASE, "num_hidden_layers": len(order)})
        result, vanilla = model.forward(tokens), mor_reference.Model(config, plain).forward(tokens)
        _same(result.logits, vanilla.logits, sharing)
        _require((result.depths == 3).all() and (vanilla.depths == 1).all(), "depths")


def check_cache_identities():
    """Hybrid equals recursion-wise where everything is active; sharing equals computing all tokens and discarding."""
    for router in ("expert_choice", "all_tokens"):
        pair = [_model(9, "full_depth", router=router, cache=cache) for cache in ("hybrid", "recursion_wise")]
        hybrid, own = (model.forward(tokens, "full_depth").logits for model, tokens in pair)
        _same(hybrid, own, f"{router}: hybrid at full depth")
    for routing in ("topk", "threshold"):
        model, tokens = _model(11, routing, router="expert_choice", cache="shared")
        positions, store = np.arange(len(tokens)), {}
        x = model.layer(0, model.parameters["model.embed_tokens.weight"][tokens], positions)
        result = model.forward(tokens, routing)
        for recursion, step in enumerate(result.steps, 1):
            y, active = model.block(recursion, x, positions, store), step.candidates[step.selected]
            x = x.copy()
            x[active] += step.gates[step.selected][:, None] * y[active]
        x = mor_reference.rms_norm(model.layer(3, x, positions), model.parameters["model.norm.weight"], 1e-5)
        _same(result.logits, x @ model.parameters["model.embed_tokens.weight"].T, f"shared {routing}")


def check_equal_logits_pick_the_lowest_positions():
    model, tokens = _model(13, router="expert_choice")
    for recursion in (1, 2, 3):
        name = f"model.layers.{recursion}.mor_router.router.weight"
        model = model.replaced(name, np.zeros_like(model.parameters[name]))
    _require(model.forward(tokens).depths.tolist() == [3] * 4 + [2] * 4 + [1] * 5, "depths of 13 equal tokens")


def check_stored_copies_and_heads():
    """Every alias written, or the head beside a tied embedding: the same model. Unequal copies are refused."""
    spec = _spec(router="expert_choice")
    with tempfile.TemporaryDirectory() as folder:
        model, sequences, _ = make_case.make_case(folder, {**spec, "copies": True, "head_copy": True}, 17)
        expected = model.forward(sequences[0]).logits
        _require(np.array_equal(mor_reference.Model.load(folder).forward(sequences[0]).logits, expected), "copies")
        path = os.path.join(folder, "model.safetensors")
        stored = safetensors_file.read(path)
        stored["model.layers.2.block.1.mlp.up_proj.weight"][0, 0] += 1.0
        safetensors_file.write(path, stored)
        try:
            mor_reference.Model.load(folder)
        except ValueError:
            return
    raise AssertionError("a differing copy was accepted")


def check_token_by_token():
    """Every causal mode of the random models equals its incremental form, prefixes included."""
    count = 0
    for spec, model, sequences, results in _random_models(160, 101, lengths=(1, 2, 3, 7, 13)):
        if not _is_causal(spec):
            continue
        for tokens, result in zip(sequences, results):
            logits, depths = incremental.decode(model, tokens, spec["routing"])
            _same(result.logits, logits, cases.describe(spec), 1e-10)
            _require(np.array_equal(result.depths, depths), f"depths of {cases.describe(spec)}")
            prefix = model.forward(tokens[: (len(tokens) + 1) // 2], spec["routing"])
            _same(prefix.logits, result.logits[: len(prefix.logits)], f"prefix of {cases.describe(spec)}", 1e-10)
            count += 1
    _require(count > 200, f"only {count} sequences")


def check_gradients():
    """The complex step against central differences, one random entry of every tensor, and along a direction."""
    generator = np.random.default_rng(5)
    for spec, model, sequences, _ in _random_models(16, 103, lengths=(3, 7)):
        objectives = [gradients.lm_loss]
        if model.config.router == "expert_choice":
            objectives += [gradients.aux_loss, gradients.z_loss]
        elif model.config.router == "token_choice":
            objectives += [gradients.balancing_loss, gradients.z_loss]
        objective = objectives[generator.integers(len(objectives))]
        directions, along = {}, 0.0
        for name, weight in model.parameters.items():
            if name.endswith("router_bias"):
                continue  # it decides, and is never differentiated
            entry = int(generator.integers(weight.size))
            exact = gradients.gradient(model, sequences, name, objective, spec["routing"], [entry])[0]
            rough = gradients.central_difference(model, sequences, name, entry, objective, spec["routing"], 1e-6)
            _require(abs(exact - rough) <= 1e-6 * max(1.0, abs(exact)), f"{name}: {exact} and {rough}")
            directions[name] = np.zeros(weight.shape)
            directions[name].reshape(-1)[entry] = generator.standard_normal()
            along += exact * directions[name].reshape(-1)[entry]
        _same(gradients.directional(model, sequences, directions, objective, spec["routing"]), along, "direction", 1e-9)


def check_losses_by_hand():
    """A batch of two sequences of unequal length: means run over all candidates, recursions are summed."""
    model, tokens = _model(19, router="expert_choice", sampling="aux_router")
    batch = [tokens, tokens[:5]]
    values = losses.all_losses(model, batch)
    results = [model.forward(sequence) for sequence in batch]
    aux = z_squared = 0.0
    for r in range(3):
        rows = [(z, y) for result in results for z, y in zip(result.steps[r].logits, result.steps[r].selected)]
        aux += sum(-math.log(1 / (1 + math.exp(-z if y else z))) for z, y in rows) / len(rows)
        z_squared += sum(z * z for z, _ in rows) / len(rows)
    _same(values["aux_loss"], aux, "aux loss")
    _same(values["z_loss"], z_squared, "z-loss")
    terms = [-math.log(np.exp(row)[target] / np.exp(row).sum()) for result, sequence in zip(results, batch)
             for row, target in zip(result.logits, sequence[1:])]
    _same(values["lm_loss"], sum(terms) / 16, "LM loss")
    name = "model.layers.2.mlp_router.router.weight"
    _require(np.abs(gradients.gradient(model, batch, name)).max() == 0, "the LM loss must not reach the aux router")
    _require(np.abs(gradients.gradient(model, batch, name, gradients.aux_router_loss)).max() > 0, "its own loss must")
    embedding = gradients.gradient(model, batch, "model.embed_tokens.weight", gradients.aux_router_loss, entries=[
        tokens[0] * model.config.hidden_size])
    _require(np.abs(embedding).max() == 0, "the auxiliary router's loss must stop at its input")


def _tensors(results):
    tensors = {f"logits.{i}": result.logits.astype(np.float32).astype(np.float64) for i, result in enumerate(results)}
    tensors.update({f"depths.{i}": result.depths for i, result in enumerate(results)})
    return tensors


def check_float32_passes_and_wrong_variants_fail():
    """On the default cases: the oracle in float32 passes every one, and each wrong variant fails at least two."""
    caught = {mutant: 0 for mutant in mutants.ALL}
    for spec, model, sequences, results in _random_models(120, 1):
        single = mor_reference.Model(model.config, model.parameters, np.float32)
        found = [single.forward(tokens, spec["routing"]) for tokens in sequences]
        error, reason = compare_evaluate.difference(results, _tensors(found))
        _require(reason is None and error < compare_evaluate.TOLERANCE / 4, f"{cases.describe(spec)}: {reason} {error}")
        for mutant in mutants.ALL:
            if caught[mutant] < 2:
                wrong = mutant(model.config, model.parameters)
                found = [wrong.forward(tokens, spec["routing"]) for tokens in sequences]
                caught[mutant] += compare_evaluate.difference(results, _tensors(found))[1] is not None
    missed = [mutant.__name__ for mutant, count in caught.items() if count < 2]
    _require(not missed, f"not caught: {missed}")


def check_comparison_reports_bad_output():
    """Missing tensors, wrong shapes, NaN, wrong depths and types, a small error, a failing program."""
    model, tokens = _model(23, router="expert_choice")
    results = [model.forward(tokens)]
    good = _tensors(results)
    _require(compare_evaluate.difference(results, good)[1] is None, "a right answer")
    damages = {"missing": {"logits.0": good["logits.0"]}, "shape": {**good, "logits.0": good["logits.0"][:-1]},
               "nan": {**good, "logits.0": good["logits.0"] * np.nan},
               "depth": {**good, "depths.0": good["depths.0"] + 1},
               "type": {**good, "depths.0": good["depths.0"].astype(np.float64)},
               "error": {**good, "logits.0": good["logits.0"] + 3e-4}}
    for what, tensors in damages.items():
        _require(compare_evaluate.difference(results, tensors)[1] is not None, f"{what} went unseen")
    with tempfile.TemporaryDirectory() as folder:
        reason = compare_evaluate.run_evaluate([sys.executable, "-c", "import sys; sys.exit('refused')"], folder,
                                               "topk")[1]
        _require(reason == "exit 1: refused", f"a failing program: {reason}")
        reference = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mor_reference.py")
        _, _, results = make_case.make_case(folder, _spec(router="token_choice", lengths=(5, 1, 9)), 29)
        tensors, reason = compare_evaluate.run_evaluate([sys.executable, reference], folder, "topk")
        _require(reason is None and compare_evaluate.difference(results, tensors)[1] is None, f"end to end: {reason}")


def run():
    """Runs every check; returns the exit status."""
    checks = [(name, function) for name, function in globals().items() if name.startswith("check_")]
    failed = 0
    for name, function in checks:
        start = time.monotonic()
        try:
            function()
            print(f"ok      {name} ({time.monotonic() - start:.1f} s)")
        except AssertionError as error:
            failed += 1
            print(f"FAILED  {name}: {error}")
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0
