"""Sparse directions by linear programming, where the signs of the factor are known: nets with one
hidden layer.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from privfl.attacks.inference import Observed
from privfl.attacks.inversion.labels import class_outputs
from privfl.attacks.knowledge import Forward, Knowledge

Floats = npt.NDArray[np.float64]
_UNSURE = (0.3, 0.6)
"""Shares of neurons whose sign is not trusted, those of smallest slope; the second is tried where
the first does not find all.
"""

_PROGRAM, _PIVOTS = 80.0, 20
"""What a linear program costs in multiplications, relative to m b b (measured), and its pivots at
most, relative to m + b.
"""


def slopes(
    observed: Observed, forward: Forward, knowledge: Knowledge
) -> Float[Tensor, "C m"] | None:
    """The slope that a sample of each class has at each neuron where it is not zero, up to a factor
    above zero.

    In a net linear - ReLU - linear, a sample's slope at the hidden layer is W2'(p - y) where its
    ReLU is open, and zero elsewhere. The softmax outputs p are taken from auxiliary (or random)
    inputs. None for other nets.
    """
    layers = [
        layer
        for layer in forward.module.modules()
        if not isinstance(layer, nn.Flatten) and not list(layer.children())
    ]
    if (
        len(layers) != 3
        or not isinstance(layers[0], nn.Linear)
        or not isinstance(layers[2], nn.Linear)
    ):
        return None
    m, classes = layers[2].in_features, layers[2].out_features
    if classes != forward.classes or layers[0].out_features != m:
        return None
    start = m * layers[0].in_features + (m if layers[0].bias is not None else 0)
    W = observed.base[start : start + classes * m].view(classes, m).double()
    P = class_outputs(forward, observed, knowledge).double()
    return (P - torch.eye(classes, dtype=torch.float64)) @ W


def cone_directions(
    L: Float[Tensor, "m b"],
    signed: Float[Tensor, "C m"],
    blur: float,
    rng: torch.Generator,
    work: float = math.inf,
) -> tuple[Float[Tensor, "k b"], float]:
    """Unit vectors q that make L q sparse, by class.

    Slopes of all samples of one class agree in sign at every neuron, so the columns of the factor
    that belong to the class lie in the cone {q : s_j (L q)_j >= 0}, and a column with so many zeros
    is an extreme ray of it: a linear program with any objective ends in one. Objectives orthogonal
    to the rays already found lead to others, so that about one program a sample is enough.

    It ends after about ``work`` multiplications; how many were spent is the second answer.
    """
    m, b = L.shape
    each = _PROGRAM * m * b * b
    allowed = left = int(min(work / each, float(1 << 31)))
    found: list[Tensor] = []
    for unsure in _UNSURE:
        for slope in signed:
            trusted = slope.abs() >= slope.abs().quantile(unsure)
            A: Floats = (slope.sign()[:, None] * L)[trusted].numpy()
            rays, tried = _rays(A, b, 4 * blur, rng, left)
            found, left = found + rays, left - tried
        if found and int(torch.linalg.matrix_rank(torch.stack(found), rtol=1e-6)) >= b:
            break
    return torch.stack(found) if found else L.new_empty(0, b), (allowed - left) * each


def _rays(
    A: Floats, b: int, slack: float, rng: torch.Generator, most: int
) -> tuple[list[Tensor], int]:
    """Extreme rays of {q : A q >= 0}, until objectives in what is left of the space find no more,
    or ``most`` programs were solved; and how many were.
    """
    from scipy.optimize import linprog

    rays: list[Tensor] = []
    tried, pivots = 0, _PIVOTS * (len(A) + b)
    basis = torch.empty(0, b, dtype=torch.float64)
    total = A.sum(axis=0, keepdims=True)
    while len(rays) < b:
        goal = torch.randn(b, generator=rng, dtype=torch.float64)
        goal = goal - basis.T @ (basis @ goal)
        best: Tensor | None = None
        for way in (
            goal,
            -goal,
        ):  # one of the two does not vanish unless all rays lie in the span of those found
            if tried == most:
                return rays, tried
            tried += 1
            solved = linprog(
                way.numpy(),
                A_ub=-A,
                b_ub=np.full(len(A), slack),
                A_eq=total,
                b_eq=[1.0],
                bounds=(None, None),
                method="highs-ds",
                options={"maxiter": pivots},
            )
            if solved.status != 0:
                return rays, tried
            q = torch.from_numpy(solved.x)
            q = q / q.norm()
            rest = q - basis.T @ (basis @ q)
            if float(rest.norm()) > 1e-3:
                best = q
                basis = torch.cat([basis, (rest / rest.norm())[None]])
                break
        if best is None:
            return rays, tried
        rays.append(best)
    return rays, tried
