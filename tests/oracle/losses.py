# SPDX-License-Identifier: Apache-2.0
"""The losses of a batch of sequences and the routers' metrics (mor-spec 3.5 and 4), from the oracle's forward pass.

A batch is a list of token lists; each is routed on its own. Means run over all targets, candidates or tokens of the
batch; recursions are summed. No loss here carries its coefficient.
"""

import numpy as np

from mor_reference import binary_cross_entropy, log_sum_exp


def language_model_loss(results, sequences):
    """Mean next-token cross entropy in nats over every target of the batch; 0 without a target."""
    total, count = 0.0, 0
    for result, tokens in zip(results, sequences):
        logits, targets = result.logits[:-1], np.asarray(tokens[1:], dtype=np.int64)
        if len(targets):
            total = total + (log_sum_exp(logits) - logits[np.arange(len(targets)), targets]).sum()
            count += len(targets)
    return total / count if count else 0.0


def _steps(results):
    """The router steps grouped by recursion."""
    depth = max((len(result.steps) for result in results), default=0)
    return [[result.steps[r] for result in results if r < len(result.steps)] for r in range(depth)]


def _mean(arrays):
    joined = np.concatenate(arrays)
    return joined.mean() if len(joined) else 0.0


def aux_loss(results):
    """Expert choice: sum over recursions of the mean BCE of the main router's z against its own selection."""
    return sum(_mean([binary_cross_entropy(s.logits, s.selected) for s in group]) for group in _steps(results))


def aux_router_loss(results):
    """Expert choice with an auxiliary router: the same with its z; no gradient reaches the residual stream."""
    return sum(_mean([binary_cross_entropy(s.aux_logits, s.selected) for s in group]) for group in _steps(results))


def z_loss(results):
    """Mean of logsumexp(z)^2; with the single logit of expert choice mean(z^2), summed over recursions."""
    total = 0.0
    for group in _steps(results):
        rows = [s.logits * s.logits if s.logits.ndim == 1 else log_sum_exp(s.logits) ** 2 for s in group]
        total = total + _mean(rows)
    return total


def balancing_loss(results):
    """Token choice: sum_i f_i P_i with f_i = Nr x share of tokens that chose i (no gradient), P_i = mean p_i."""
    choice = np.concatenate([result.steps[0].selected for result in results])
    probabilities = np.concatenate([result.steps[0].probabilities for result in results])
    recursions = probabilities.shape[-1]
    load = np.bincount(choice, minlength=recursions) / len(choice)
    return (recursions * load * probabilities.mean(axis=0)).sum()


def sampling_accuracy(results):
    """Expert choice: share of candidates whose activated score predicts their selection, averaged over recursions.

    sigmoid(z) >= 1/2 and tanh(z) >= 0 are both z >= 0, which also serves activation `none`.
    """
    shares = [_mean([(s.logits.real >= 0) == s.selected for s in group]) for group in _steps(results)]
    return float(np.mean(shares))


def maximum_violation(results):
    """Token choice: (largest load - mean load) / mean load."""
    choice = np.concatenate([result.steps[0].selected for result in results])
    recursions = results[0].steps[0].logits.shape[-1]
    load = np.bincount(choice, minlength=recursions) / len(choice)
    return float((load.max() - load.mean()) / load.mean())


def all_losses(model, sequences, routing="topk"):
    """`{name: value}` of every loss the model's router defines, for one batch."""
    results = [model.forward(tokens, routing) for tokens in sequences]
    values = {"lm_loss": language_model_loss(results, sequences)}
    if model.config.router == "expert_choice":
        values["aux_loss"] = aux_loss(results)
        values["z_loss"] = z_loss(results)
        if model.config.sampling == "aux_router":
            values["aux_router_loss"] = aux_router_loss(results)
    elif model.config.router == "token_choice":
        values["balancing_loss"] = balancing_loss(results)
        values["z_loss"] = z_loss(results)
    return values
