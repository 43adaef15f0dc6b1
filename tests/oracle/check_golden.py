#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Does the oracle reproduce every number of mor-spec section 12, and the golden file where it is present?

Prints one line a check that fails and `N passed, N failed` at the end; exits 1 on a failure. The golden file is
looked for in MOR_TEST_DATA, then in ../shared/data beside the project.
"""

import os
import sys

import numpy as np

import golden_fixture
import gradients
import losses
import safetensors_file

# Tolerances of the section: 2e-6 a logit, 5e-6 a sum, 2e-7 relative on sums of squares; printed digits elsewhere.
LOGIT, SUM, SQUARES, LOSS = 2e-6, 5e-6, 2e-7, 2e-6

# run: sum of logits, sum of squares, vocab 0..3 at positions 0, 5, 11, LM loss
TABLE = {
    "expert_recursion_wise_topk": (
        75.515552, 3063.454812, (-3.512217, -1.703231, 0.327958, 2.316362), (-1.125829, 0.679587, 2.396345, 3.800475),
        (0.900487, 0.686854, 0.383614, 0.030327), 8.031892),
    "expert_shared_topk": (
        75.254580, 3079.857185, (-3.512513, -1.703669, 0.327437, 2.315825), (-1.106883, 0.700204, 2.415942, 3.816496),
        (0.905701, 0.683564, 0.372250, 0.012371), 8.047711),
    "expert_hybrid_topk": (
        75.291910, 3080.874428, (-3.512217, -1.703231, 0.327958, 2.316362), (-1.107513, 0.699639, 2.415517, 3.816266),
        (0.906032, 0.684026, 0.372782, 0.012905), 8.049963),
    "expert_recursion_wise_threshold": (
        76.033474, 3068.136857, (-3.512217, -1.703231, 0.327958, 2.316362), (-1.166298, 0.627192, 2.338859, 3.745398),
        (0.910452, 0.697864, 0.394233, 0.039170), 8.032791),
    "token_recursion_wise": (
        70.941574, 2970.248755, (-3.528175, -1.768601, 0.221705, 2.183087), (-1.339371, 0.508626, 2.290267, 3.773120),
        (0.420456, 0.184110, -0.076254, -0.326670), 8.230382),
    "token_shared": (
        66.103213, 2901.091071, (-3.528175, -1.768601, 0.221705, 2.183087), (-0.599927, 1.112956, 2.680642, 3.898611),
        (0.487777, 0.218410, -0.079451, -0.366947), 8.029608),
}
ROUTER_LOGITS = (
    (1.478995, 0.401490, -0.281007, 0.552651, 0.456108, 0.037570, 0.897767, -0.416083, 0.605111, -1.281837, 1.035797,
     -0.305006),
    (0.785699, 0.090583, -1.445293, 0.994362, -0.700809, 1.496552, -0.948436, 0.803422, 0.514013, 0.193151, 0.830816,
     -0.949258),
    (-1.904598, -0.441163, -0.900780, -0.432377, 0.248717, -0.883398, 1.304394, -1.380433),
)
ACTIVE = {"expert_recursion_wise_topk": ((0, 1, 3, 5, 7, 8, 9, 10), (1, 5, 7, 9)),
          "expert_recursion_wise_threshold": ((0, 1, 3, 5, 7, 8, 9, 10), (7, 9))}
AUX_LOSSES = {"expert_recursion_wise_topk": 1.482215, "expert_shared_topk": 1.479741, "expert_hybrid_topk": 1.479915}
TOKEN_CHOICE = (0, 0, 1, 0, 0, 2, 0, 2, 0, 2, 0, 1)
TOKEN_GATES = (0.490896, 0.377789, 0.354345, 0.373214, 0.403015, 0.386573, 0.461226, 0.411204, 0.390338, 0.482748,
               0.436783, 0.348165)
# what: (tensor, norm, first three entries) of the LM loss, expert choice, recursion-wise, top-k
LM_GRADIENTS = {
    "router 1": ("model.layers.1.mor_router.router.weight", 0.148373, (-0.0495729, -0.0020961, -0.0210290)),
    "router 2": ("model.layers.2.mor_router.router.weight", 0.070125, (-0.0015613, 0.0299743, -0.0122147)),
    "router 3": ("model.layers.3.mor_router.router.weight", 0.105470, (0.0184385, 0.0395344, 0.0017983)),
    "shared j=0 down_proj": ("model.layers.1.block.0.mlp.down_proj.weight", 0.140042,
                             (0.0039787, 0.0036401, 0.0010114)),
    "shared j=1 k_proj": ("model.layers.1.block.1.self_attn.k_proj.weight", 0.181540,
                          (-0.0003129, -0.0068990, 0.0013122)),
    "embedding": ("model.embed_tokens.weight", 2.639992, (-0.0003124, 0.0136042, -0.0050744)),
}
AUX_GRADIENT_NORMS = {"model.layers.1.mor_router.router.weight": 0.525020,
                      "model.layers.2.mor_router.router.weight": 2.447300,
                      "model.layers.1.block.0.mlp.down_proj.weight": 0.015870}


class Checks:
    """Counts comparisons and prints those that fail."""

    def __init__(self):
        self.passed = self.failed = 0

    def close(self, what, found, expected, tolerance):
        """Passes when no entry of `found` is further than `tolerance` from `expected`."""
        found, expected = np.asarray(found), np.asarray(expected)
        error = np.abs(found - expected).max() if found.shape == expected.shape else np.inf
        if error <= tolerance:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED {what}: off by {error:.3g}, tolerance {tolerance:.3g}; found {found}, expected {expected}")


def check_runs(checks):
    """The table, router logits, active sets, losses and token-choice values."""
    for run, (total, squares, first, fifth, last, loss) in TABLE.items():
        model, routing = golden_fixture.model(run)
        result = model.forward(golden_fixture.TOKENS, routing)
        checks.close(f"{run}: sum of logits", result.logits.sum(), total, SUM)
        checks.close(f"{run}: sum of squares", (result.logits**2).sum() / squares, 1.0, SQUARES)
        for position, expected in ((0, first), (5, fifth), (11, last)):
            checks.close(f"{run}: logits of position {position}", result.logits[position, :4], expected, LOGIT)
        values = losses.all_losses(model, [golden_fixture.TOKENS], routing)
        checks.close(f"{run}: LM loss", values["lm_loss"], loss, LOSS)
        if run in AUX_LOSSES:
            checks.close(f"{run}: aux loss", values["aux_loss"], AUX_LOSSES[run], LOSS)
        for step, expected in enumerate(ACTIVE.get(run, ())):
            record = result.steps[step + 1]
            checks.close(f"{run}: A_{step + 2}", record.candidates[record.selected], expected, 0)
        if run == "expert_recursion_wise_topk":
            for step, expected in enumerate(ROUTER_LOGITS):
                checks.close(f"{run}: router logits {step + 1}", result.steps[step].logits, expected, LOGIT)
            checks.close(f"{run}: sampling accuracy", losses.sampling_accuracy([result]), 0.805556, 1e-6)
            checks.close("k of 12 tokens", [model.config.selected_count(r, 12) for r in (1, 2, 3)], (12, 8, 4), 0)
            checks.close("embedding", model.parameters["model.embed_tokens.weight"][0, :3],
                         (0.43898204, 0.32271749, 0.16277466), 1e-8)
        if model.config.router == "token_choice":
            checks.close(f"{run}: choice", result.steps[0].selected, TOKEN_CHOICE, 0)
            checks.close(f"{run}: gates", result.steps[0].gates, TOKEN_GATES, 1e-6)
            checks.close(f"{run}: balancing loss", values["balancing_loss"], 1.032562, 1e-6)


def check_gradients(checks):
    """Every gradient the section prints, by the complex step."""
    model, _ = golden_fixture.model("expert_recursion_wise_topk")
    for what, (name, norm, first) in LM_GRADIENTS.items():
        found = gradients.gradient(model, [golden_fixture.TOKENS], name)
        checks.close(f"gradient of {what}: norm", np.linalg.norm(found), norm, 2e-6)
        checks.close(f"gradient of {what}: first entries", found.ravel()[:3], first, 1e-6)
    for name, norm in AUX_GRADIENT_NORMS.items():
        found = gradients.gradient(model, [golden_fixture.TOKENS], name, gradients.aux_loss)
        checks.close(f"aux gradient of {name}: norm", np.linalg.norm(found), norm, 2e-6)


def golden_file():
    """Path of the golden file; it need not exist."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    data = os.environ.get("MOR_TEST_DATA") or os.path.join(root, "..", "shared", "data")
    return os.path.join(data, "golden", "mor_spec_section12.safetensors")


def check_file(checks):
    """All logits and depths of the golden file, to float32's precision."""
    path = golden_file()
    if not os.path.exists(path):
        print(f"SKIPPED the golden file: {path} is absent; set MOR_TEST_DATA to the data folder")
        return
    stored = safetensors_file.read(path)
    checks.close("golden file: tokens", stored["tokens"], golden_fixture.TOKENS, 0)
    for run in golden_fixture.RUNS:
        model, routing = golden_fixture.model(run)
        result = model.forward(golden_fixture.TOKENS, routing)
        checks.close(f"golden file: {run} logits", result.logits, stored[f"{run}.logits"], 1e-6)
        checks.close(f"golden file: {run} depths", result.depths, stored[f"{run}.depths"], 0)


def main():
    checks = Checks()
    check_runs(checks)
    check_gradients(checks)
    check_file(checks)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
