"""The factors of a linear layer's update: D'X = W with a sparse D, as a ReLU makes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.attacks.inference import Lacking, Observed
from privfl.attacks.inversion.batch_size import rank
from privfl.attacks.inversion.cone import cone_directions
from privfl.attacks.inversion.first_layer import first_layer
from privfl.attacks.knowledge import Forward

_IDLE = 24
"""So many rounds of draws without a new direction, and no more are made."""
WORK = 5e11
"""So many multiplications are made at most for one update, one to two minutes on one core: what
they are spent on grows with the cube of a batch's size, which is whatever the update says.
"""
_STEPS = 50
"""Steps of descent that a draw costs, with those that sharpen it."""
_AT_ONCE = 1 << 25
"""Numbers that draws take in memory together, at most."""
_POOL = 4096
"""Directions that are kept, at most."""
BLURS = 4.0
"""An entry of L q is a zero where it is under so many times the blur that rounding or noise gives
it,
"""
_LEAST = 2e-5
"""or under this share of a typical entry: rounding differs by row, and the blur is its mean.
"""

_ALIKE = 0.7
"""Without a check a direction is sure with this share of the sparsest one's zeros."""
_NEARLY = 1e-3
"""What is under this share of a typical entry may be a zero: one in a thousand others is."""
_SAME = 1e-9
"""Unit vectors are the same direction where the cosine between them is so close to 1."""


@dataclass(frozen=True, slots=True)
class Factors:
    """``X`` [b, inputs] and ``D`` [b, k] at the neurons ``live`` [k] with D'X = W there and D'1 =
    bias; ``sure`` of the b columns of the transform between them are surely sparse, after ``drawn``
    starts. ``floor`` is the share of W's length that no b samples explain. ``cut``: there was no
    more work to spend on draws.

    While one column is wrong no row of X is surely right: X is the inverse of the transform, in
    which all columns take part.
    """

    X: Float[Tensor, "b inputs"]
    D: Float[Tensor, "b k"]
    live: Int[Tensor, " k"]
    sure: int
    drawn: int
    floor: float
    cut: bool = False


@dataclass(frozen=True, slots=True)
class _Lengths:
    """L R = W, whose columns are scaled so that D'1 is the change of the biases."""

    L: Float[Tensor, "k b"]
    R: Float[Tensor, "b inputs"]
    bias: Float[Tensor, " k"]
    live: Int[Tensor, " k"]
    floor: float

    def factors(self, Q: Float[Tensor, "b b"], sure: int, drawn: int, cut: bool = False) -> Factors:
        s = torch.linalg.lstsq(self.L @ Q, self.bias[:, None]).solution.squeeze(1)
        s = torch.where(s.abs() < 1e-12, s.new_tensor(1.0), s)
        X: Tensor = torch.linalg.lstsq(Q * s, self.R).solution
        return Factors(X, ((self.L @ Q) * s).T, self.live, sure, drawn, self.floor, cut)


def batch_of(
    observed: Observed, forward: Forward, work: float = WORK
) -> tuple[Float[Tensor, "m inputs"], Float[Tensor, " m"], int]:
    """The change of the first layer's weights and biases, and of how many samples it is: the public
    number, or else its rank.

    Raises:
        Lacking: the first layer is not linear, not followed by a ReLU, shows nothing, or is not
            finite; or the batch is too large, or the layer for so much ``work``.
    """
    weight, bias, rectified = first_layer(observed, forward)
    if not bool(weight.isfinite().all() and bias.isfinite().all()):
        raise Lacking("the first layer's change is not finite, and has no factors.")
    m, inputs = weight.shape
    needed = 4.0 * min(m, inputs) ** 2 * max(m, inputs)
    if needed > work:
        raise Lacking(
            f"to find the rank of a first layer of {inputs} x {m} takes {needed:.1g}"
            f" multiplications, and {work:.1g} are allowed: raise work."
        )
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
    return weight, bias, b


def factor(
    W: Tensor,
    bias: Tensor,
    b: int,
    signed: Tensor | None,
    rng: torch.Generator,
    starts: int,
    tries: int,
    accepted: Callable[[Factors], bool] | None = None,
    work: float = WORK,
) -> Factors:
    """Factors of the change W [m, inputs] of a layer's weights, whose biases [m] changed by
    ``bias``: through cones where slopes are ``signed`` (`cone.slopes`), and through draws. It goes
    on until all directions have nearly as many zeros as the sparsest, which tells false ones from
    true; with ``accepted``, until they have more than chance gives and are accepted. It ends after
    about ``work`` multiplications (`Factors.cut`).

    Raises:
        Lacking: too few neurons are alive for b samples.
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
    zero = max(BLURS * blur, _LEAST * float(L.square().mean().sqrt()))
    chance = math.erf(zero * (len(L) / 2) ** 0.5)  # zeros that any direction seems to have
    beyond = max((b + 4) / len(L), chance + 4 * (chance / len(L)) ** 0.5)
    pool = torch.empty(0, b, dtype=W.dtype)
    each = float(_STEPS * (len(L) + b) * b * b)  # multiplications of a draw
    if signed is not None:
        rays, spent = cone_directions(L, signed[:, live], blur, rng, work / 2)
        pool = _sharpened(rays, L, blur)
        work -= spent + len(rays) * each
    sure, Q, idle, drawn = 0, torch.eye(b, dtype=W.dtype), 0, 0
    starts = max(1, min(starts, _AT_ONCE // L.numel()))
    lengths = _Lengths(L, R, bias, live, float(S[b:].norm() / S.norm()))
    told = lengths.factors(Q, sure, drawn)
    for attempt in range(tries if b > 1 else 1):
        known = sure
        if attempt or not len(pool):
            if work < each:
                return lengths.factors(Q, sure, drawn, cut=True)
            starts = min(starts, int(work // each))
            work -= starts * each
            met = Q[:, :sure] if 0 < sure < b else None
            tried = (
                sparse_directions(L, starts, blur, rng)
                if met is None or attempt % 2 == 0
                else _elsewhere(L, met, starts, blur, rng)
            )
            pool = torch.cat([pool, _sharpened(tried, L, blur)])
            drawn += starts
        zeros = zeros_of(pool, L, zero)
        order = _once(pool, zeros)[: min(64 * b, _POOL)]
        pool, zeros = pool[order], zeros[order]
        least = beyond if accepted is not None else max(beyond, _ALIKE * float(zeros[0]))
        Q, sure = independent(pool, zeros, b, at_least=least if b > 1 else 0.0)
        told = lengths.factors(Q, sure, drawn)
        idle = 0 if sure > known else idle + 1
        if (sure == b and (accepted is None or accepted(told))) or idle == _IDLE:
            break
    return told


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


def _elsewhere(
    L: Float[Tensor, "m b"],
    met: Float[Tensor, "b k"],
    starts: int,
    blur: float,
    rng: torch.Generator,
) -> Float[Tensor, "starts b"]:
    """Unit vectors q at which the sum of |L q|, rounded off as in `sparse_directions`, is least
    among those with r'q = 1, for random r orthogonal to the directions met before: these are out of
    reach, and the others are reached the sooner the more of them are out (Spielman, Wang, Wright
    2012 for r of another kind).
    """
    b = L.shape[1]
    basis, _ = torch.linalg.qr(met)
    r = torch.randn(starts, b, generator=rng, dtype=L.dtype)
    r = (r - r @ basis @ basis.T)[:, :, None]
    q = r / r.norm(dim=1, keepdim=True)
    typical = float(L.square().mean().sqrt())
    ridge = 1e-15 * torch.eye(b, dtype=L.dtype)
    for i in range(40):
        q = q / q.norm(dim=1, keepdim=True)
        e = max(typical * 10 ** (-i / 8), blur)
        weights = ((L @ q).square() + e * e).rsqrt()
        q = torch.linalg.solve(L.T @ (weights * L) + ridge, r)
    unit: Tensor = (q / q.norm(dim=1, keepdim=True)).squeeze(2)
    return unit


def _sharpened(
    q: Float[Tensor, "k b"], L: Float[Tensor, "m b"], blur: float
) -> Float[Tensor, "k b"]:
    """The directions next to those that are already right in all but the last digits: local minima
    with a sharper e, and then the direction that is least on what is nearly zero there.
    """
    most = max(1, _AT_ONCE // L.numel())
    if len(q) > most:
        return torch.cat([_sharpened(part, L, blur) for part in torch.split(q, most)])
    q = q[:, :, None]
    typical = float(L.square().mean().sqrt())
    for i in range(8):
        e = max(typical * 10 ** (-2 - i / 2), blur)
        weights = ((L @ q).square() + e * e).rsqrt()
        q = torch.linalg.solve(
            L.T @ (weights * L) + 1e-15 * torch.eye(L.shape[1], dtype=L.dtype), q
        )
        q = q / q.norm(dim=1, keepdim=True)
    near = ((L @ q).abs() < max(_NEARLY * typical, BLURS * blur)).to(L.dtype)
    found: Tensor = torch.linalg.eigh(L.T @ (near * L)).eigenvectors[:, :, 0]
    return found


def zeros_of(
    pool: Float[Tensor, "k b"], L: Float[Tensor, "m b"], zero: float
) -> Float[Tensor, " k"]:
    """The share of entries of L q that are as good as zero."""
    share: Tensor = ((pool @ L.T).abs() < zero).to(L.dtype).mean(dim=1)
    return share


def _once(pool: Float[Tensor, "k b"], zeros: Float[Tensor, " k"]) -> Int[Tensor, " n"]:
    """Where each direction stands that is not there before with as many zeros, sparsest first: the
    sparsest are found again and again, and would crowd out the others.
    """
    order = zeros.argsort(descending=True, stable=True)
    same = (pool[order] @ pool[order].T).abs() > 1 - _SAME
    return order[~same.tril(-1).any(dim=1)]


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
