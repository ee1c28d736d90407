"""Closed form for a linear first layer: its weight update has the batch's rank, and ReLU makes the
factor that we look for sparse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.inference import Family, Lacking, Target, Targeted, observe, recipe
from privfl.attacks.inversion.batch_size import rank
from privfl.attacks.inversion.cone import cone_directions, slopes
from privfl.attacks.inversion.first_layer import first_layer
from privfl.attacks.inversion.labels import labels
from privfl.attacks.knowledge import Knowledge
from privfl.attacks.result import Reconstruction
from privfl.core import ClientId, View

_IDLE = 24
"""So many rounds of draws without a new direction, and no more are made."""
_BLURS = 4.0
"""An entry of L q is a zero where it is under so many times the blur that rounding or noise gives
it.
"""


@dataclass(frozen=True, slots=True)
class LinearLeakage(Targeted):
    """The inputs of a linear first layer, exactly (Phong et al. 2018 for one sample; SPEAR,
    Dimitrov et al. 2024, for batches).

    Let ``D`` [b, m] be the loss's slope at the layer's outputs. The weights change by D'X, a matrix
    of rank b, and the biases by D'1. With D'X = L R there is a Q with D' = L Q and X = Q^-1 R;
    where a ReLU follows, about half of D is zero, and the columns of Q are the directions q that
    make L q sparse. SPEAR samples rows that might be zero together; here iteratively reweighted
    least squares from many such draws goes on from there, with e in sum |L q|_e shrinking to the
    blur of rounding or noise: each draw then need not be all zero to lead to a direction, and a
    little noise is stood. In a net with one hidden layer the signs of D are known by class, and
    linear programs find its columns before any draw is made. D'1 fixes the lengths. The wider the
    layer, the easier.

    The form D'X survives summing: over local steps on the whole batch without weight decay, clips,
    clients, and fixed-point rounding. So one pass over an update or over what secure aggregation
    opens is enough, as long as all samples in it together are fewer than the layer is wide. Over
    local steps on smaller batches it was seen to fail.

    >>> LinearLeakage(target="sum").starts
    128
    """

    family: ClassVar[Family] = "inversion"
    target: Target = "client"
    client: ClientId | None = None
    starts: int = 128
    tries: int = 96

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Reconstruction:
        """Samples from the first view.

        Raises:
            NotVisible: the view shows no such contribution.
            Lacking: the first layer is not linear, not followed by a ReLU, or shows nothing; or the
                batch is too large.
        """
        view = views[0]
        forward = recipe(view, knowledge)
        observed = observe(view, knowledge, self.target, self.client)
        weight, bias, rectified = first_layer(observed, forward)
        m, inputs = weight.shape
        b = observed.samples
        if b is None:
            b, _ = rank(weight, observed.noise * sum(side**0.5 for side in weight.shape))
        if b < 1:
            raise Lacking("the first layer's gradient shows nothing above noise and rounding.")
        if b > 1 and not rectified:
            raise Lacking(
                "batches are told apart by the zeros of a ReLU after the first layer, and there is"
                f" none; {b} samples are too many."
            )
        if b >= min(m, inputs):
            raise Lacking(
                f"the update holds {b} samples, and a first layer of {inputs} x {m} tells fewer"
                f" than {min(m, inputs)} apart."
            )
        signed = slopes(observed, forward, knowledge) if b > 1 else None
        x, sure = factored(
            weight.double(),
            bias.double(),
            b,
            signed,
            knowledge.generator(4),
            self.starts,
            self.tries,
        )
        samples = x.float().reshape(b, *forward.shape)
        if forward.low:
            samples = samples.clamp(*forward.span(weight))
        try:
            y = labels(replace(observed, samples=b), forward, knowledge)
        except Lacking:
            y = torch.full((b,), -1)
        return Reconstruction(
            type(self).__name__,
            view.adversary,
            samples,
            y,
            1 - sure / b,
            notes={"surely right": f"{sure} of {b}"},
        )


def factored(
    W: Tensor,
    bias: Tensor,
    b: int,
    signed: Tensor | None,
    rng: torch.Generator,
    starts: int,
    tries: int,
) -> tuple[Float[Tensor, "b inputs"], int]:
    """X [b, inputs] with D'X = W and D'1 = bias, D sparse; and how many of its rows rest on a
    direction that is surely sparse.
    """
    live = (bias.abs() > 1e-9 * bias.abs().max()).nonzero().squeeze(1)
    W, bias = W[live], bias[live]
    if len(live) <= b:
        raise Lacking(
            f"only {len(live)} neurons of the first layer are alive, which tell fewer than {b}"
            " samples apart."
        )
    if b > 1 and len(live) < 2 * b:
        raise Lacking(
            f"{len(live)} neurons of the first layer are alive, of which about half are zeros of"
            f" one sample: too few to tell {b} apart."
        )
    U, S, Vh = torch.linalg.svd(W, full_matrices=False)
    L, R = U[:, :b], S[:b, None] * Vh[:b]
    noise = (S[b] if len(S) > b else S[-1] * 1e-9) / S[:b]  # the blur of each direction of L
    blur = float((L.square() @ noise.square()).mean().sqrt()) + 1e-8
    chance = math.erf(_BLURS * blur * (len(L) / 2) ** 0.5)  # zeros that any direction seems to have
    beyond = max((b + 4) / len(L), chance + 4 * (chance / len(L)) ** 0.5)
    pool = torch.empty(0, b, dtype=W.dtype)
    if signed is not None:
        pool = _sharpened(cone_directions(L, signed[:, live], blur, rng), L, blur)
    sure, Q, idle = 0, torch.eye(b, dtype=W.dtype), 0
    for attempt in range(tries if b > 1 else 1):
        known = sure
        if attempt or not len(pool):
            pool = torch.cat([pool, sparse_directions(L, starts, blur, rng)])
        zeros = zeros_of(pool, L, blur)
        order = zeros.argsort(descending=True)[: 64 * b]
        pool, zeros = pool[order], zeros[order]
        Q, sure = independent(
            pool, zeros, b, at_least=max(beyond, 0.7 * float(zeros[0])) if b > 1 else 0.0
        )
        idle = 0 if sure > known else idle + 1
        if sure == b or idle == _IDLE:
            break
    s = torch.linalg.lstsq(L @ Q, bias[:, None]).solution.squeeze(1)
    s = torch.where(s.abs() < 1e-12, s.new_tensor(1.0), s)
    X: Tensor = torch.linalg.lstsq(Q * s, R).solution
    return X, sure


def sparse_directions(
    L: Float[Tensor, "m b"], starts: int, blur: float, rng: torch.Generator
) -> Float[Tensor, "starts b"]:
    """Unit vectors q at local minima of the sum of |L q|, rounded off at e, with e shrinking from
    coarse to the blur.
    """
    m, b = L.shape
    if b == 1:
        return torch.ones(1, 1, dtype=L.dtype)
    drawn = torch.rand(starts, m, generator=rng).argsort(dim=1)[:, : b - 1]
    rows = L[drawn]
    ridge = 1e-6 * torch.eye(b, dtype=L.dtype)
    q = torch.randn(starts, b, 1, generator=rng, dtype=L.dtype)
    q = torch.linalg.solve(rows.transpose(1, 2) @ rows + ridge, q)
    typical = float(L.square().mean().sqrt())
    for i in range(40):
        q = q / q.norm(dim=1, keepdim=True)
        e = max(typical * 10 ** (-i / 8), blur)
        weights = (
            (L @ q).square() + e * e
        ).rsqrt()  # one step of inverse iteration for the least eigenvector
        q = torch.linalg.solve(L.T @ (weights * L) + 1e-9 * ridge, q)
    unit: Tensor = (q / q.norm(dim=1, keepdim=True)).squeeze(2)
    return unit


def _sharpened(
    q: Float[Tensor, "k b"], L: Float[Tensor, "m b"], blur: float
) -> Float[Tensor, "k b"]:
    """The local minima next to directions that are already right in all but the last digits."""
    q = q[:, :, None]
    typical = float(L.square().mean().sqrt())
    for i in range(8):
        e = max(typical * 10 ** (-2 - i / 2), blur)
        weights = ((L @ q).square() + e * e).rsqrt()
        q = torch.linalg.solve(
            L.T @ (weights * L) + 1e-15 * torch.eye(L.shape[1], dtype=L.dtype), q
        )
        q = q / q.norm(dim=1, keepdim=True)
    return q.squeeze(2)


def zeros_of(
    pool: Float[Tensor, "k b"], L: Float[Tensor, "m b"], blur: float
) -> Float[Tensor, " k"]:
    """The share of zeros in L q."""
    z = (pool @ L.T).abs()
    share: Tensor = (z < _BLURS * blur).to(L.dtype).mean(dim=1)
    return share


def independent(
    pool: Float[Tensor, "k b"], zeros: Float[Tensor, " k"], b: int, at_least: float
) -> tuple[Float[Tensor, "b b"], int]:
    """The b sparsest directions, as columns, that are no combination of sparser ones; and how many
    of them have zeros enough.
    """
    chosen: list[Tensor] = []
    sure = 0
    basis = torch.empty(0, b, dtype=pool.dtype)
    for q, share in zip(
        torch.cat([pool, torch.eye(b, dtype=pool.dtype)]),
        [*zeros.tolist(), *[0.0] * b],
        strict=True,
    ):
        rest = q - basis.T @ (basis @ q)
        rest = rest - basis.T @ (basis @ rest)
        if rest.norm() > 1e-3:
            chosen.append(q)
            sure += share >= at_least
            basis = torch.cat([basis, (rest / rest.norm())[None]])
        if len(chosen) == b:
            break
    return torch.stack(chosen, dim=1), int(sure)
