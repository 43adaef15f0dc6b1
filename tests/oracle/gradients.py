# SPDX-License-Identifier: Apache-2.0
"""Exact gradients of any loss with respect to any weight, by the complex step.

For an analytic f, Im f(w + ih) / h = f'(w) + O(h^2): with h = 1e-30 there is neither truncation nor cancellation, so
the result is good to the last digits of a double. Routing decisions use real parts and stay frozen, which is the
gradient the paper defines (top-k membership has none). One forward pass for each weight: for small models only.
"""

import numpy as np

import losses

STEP = 1e-30


def lm_loss(results, sequences):
    """Objective: the language-model loss."""
    return losses.language_model_loss(results, sequences)


def aux_loss(results, sequences):
    """Objective: the auxiliary loss of expert choice, without coefficient."""
    del sequences
    return losses.aux_loss(results)


def aux_router_loss(results, sequences):
    """Objective: the auxiliary router's own loss."""
    del sequences
    return losses.aux_router_loss(results)


def balancing_loss(results, sequences):
    """Objective: the balancing loss of token choice, without coefficient."""
    del sequences
    return losses.balancing_loss(results)


def z_loss(results, sequences):
    """Objective: the z-loss, without coefficient."""
    del sequences
    return losses.z_loss(results)


def _value(model, sequences, objective, routing):
    return objective([model.forward(tokens, routing) for tokens in sequences], sequences)


def gradient(model, sequences, name, objective=lm_loss, routing="topk", entries=None):
    """d objective / d tensor `name` (a name of `model_files.parameter_names`, so a tied tensor gets the sum of uses).

    `entries` limits the work to these flat indices; the result is then a vector, otherwise it has the tensor's shape.
    """
    weight = model.parameters[name]
    wanted = range(weight.size) if entries is None else entries
    result = np.zeros(len(wanted))
    for slot, entry in enumerate(wanted):
        perturbed = weight.astype(np.complex128)
        perturbed.reshape(-1)[entry] += 1j * STEP
        result[slot] = np.imag(_value(model.replaced(name, perturbed), sequences, objective, routing)) / STEP
    return result if entries is not None else result.reshape(weight.shape)


def directional(model, sequences, directions, objective=lm_loss, routing="topk"):
    """Derivative along `{name: array}`: one forward pass whatever the number of weights."""
    moved = model
    for name, direction in directions.items():
        moved = moved.replaced(name, model.parameters[name] + 1j * STEP * direction)
    return float(np.imag(_value(moved, sequences, objective, routing)) / STEP)


def central_difference(model, sequences, name, entry, objective=lm_loss, routing="topk", step=1e-5):
    """The same derivative of one weight by central differences; valid where no decision changes within `step`."""
    values = []
    for sign in (1, -1):
        moved = model.parameters[name].copy()
        moved.reshape(-1)[entry] += sign * step
        values.append(_value(model.replaced(name, moved), sequences, objective, routing))
    return float((values[0] - values[1]) / (2 * step))
