"""Adaptive federated averaging: similarity in the round, quality over rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from scipy.special import betainc
from torch import Tensor

from privfl.aggregators.base import MemoryRule, combine, majority
from privfl.aggregators.clipping import shortening
from privfl.aggregators.verdict import Verdict
from privfl.core import BadUpdate, ClientId, Context, Rows, require
from privfl.core.geometry import gram

_BLOCKED = 3.0
"""The suspicion of a blocked client: more than 1 minus any cosine."""


@dataclass(frozen=True, slots=True)
class AFAState:
    """How often each client's update was good and bad so far."""

    good: Mapping[ClientId, int] = field(default_factory=dict)
    bad: Mapping[ClientId, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AFA(MemoryRule[AFAState]):
    """Adaptive federated averaging (Munoz-Gonzalez, Co, Lupu 2019, Algorithm 1): drop dissimilar
    updates, and remember who sent them.

    Repeat: the average with weights p_k n_k of the good rows; their cosines s_k with it; where
    mean(s) < median(s), rows with s_k < median - xi std are bad, otherwise rows with s_k > median +
    xi std; xi grows by ``xi_step``; until no row is bad. Client k's quality is p_k = alpha_k /
    (alpha_k + beta_k) with ``prior`` + its good (alpha) and bad (beta) rounds. It is blocked for
    good where I_0.5(alpha_k, beta_k) > ``block``. Row weights ARE used (n_k). Needs client ids.
    Meant for fewer than half of the clients. No sensitivity is proved: what it remembers of each
    client speaks in rounds in which that client is not drawn.

    The paper compares directions alone, and a far row that points the usual way would take the
    average along without limit: all this is done on rows cut to ``bound``, to the median norm of
    all rows where it is None. inf is the paper's algorithm.

    >>> context = Context(None, torch.zeros(2), torch.Generator())
    >>> rows = Rows.of(
    ...     [[1.0, 0.0], [1.0, 0.2], [1.0, -0.2], [1.0, 0.1], [1.0, 0.0], [1.0, -0.1], [-9.0, 0.0]]
    ... )
    >>> AFA().judge_step(rows, AFA().init(), context)[0].words(rows.ids)
    'dropped 1 of 7: 6; scaled 2 of 7: 1, 2'
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    symmetries: ClassVar[str] = "PSR"
    needs_ids: ClassVar[bool] = True

    xi: float = 2.0
    xi_step: float = 0.5
    prior: float = 3.0
    block: float = 0.95
    bound: float | None = None

    def __post_init__(self) -> None:
        require.positive(xi=self.xi, xi_step=self.xi_step, prior=self.prior)
        require.within(0, 1, block=self.block)
        if self.bound is not None:
            require.positive(bound=self.bound)

    def init(self) -> AFAState:
        """Nobody has a record."""
        return AFAState()

    def max_byzantine(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)

    def quality(self, state: AFAState, client: ClientId) -> tuple[float, bool]:
        """Client's p = alpha / (alpha + beta), and whether it is blocked."""
        alpha, beta = self.prior + state.good.get(client, 0), self.prior + state.bad.get(client, 0)
        return alpha / (alpha + beta), float(betainc(alpha, beta, 0.5)) > self.block

    def _decide(
        self, rows: Rows, lost: int, state: AFAState, context: Context
    ) -> tuple[Verdict[Tensor], AFAState]:
        if rows.ids is None:
            raise BadUpdate(
                "AFA keeps a record of every client, and these rows are anonymous: use a channel"
                " that names them."
            )
        records = [self.quality(state, client) for client in rows.ids]
        weights = (
            torch.tensor([p for p, _ in records], dtype=torch.float64)
            * rows.weights.to(torch.float64).cpu()
        )
        allowed = torch.tensor([not blocked for _, blocked in records])
        inner = gram(rows.values, exact=True).cpu()
        norms = inner.diagonal().clamp(min=0).sqrt()
        scale, _ = shortening(norms, self.bound)
        inner = scale[:, None] * inner * scale
        good, xi, similar = allowed.clone(), self.xi, torch.zeros(rows.n, dtype=torch.float64)
        while bool(good.any()):
            at = weights * good
            at = at / at.sum()
            length = (inner.diagonal() * (at @ inner @ at)).clamp(min=0).sqrt()
            similar = torch.where(
                length > 0, inner @ at / length.clamp(min=1e-300), torch.zeros(()).to(at)
            )
            seen = similar[good]
            centre, spread = float(torch.quantile(seen, 0.5)), float(seen.std(correction=0))
            low = float(seen.mean()) < centre
            bad = good & (similar < centre - xi * spread if low else similar > centre + xi * spread)
            if not bool(bad.any()) or math.isclose(spread, 0, abs_tol=1e-12):
                break
            good &= ~bad
            xi += self.xi_step
        share = weights * good
        out = (
            combine(rows.values, scale * share / share.sum())
            if bool(good.any())
            else torch.zeros_like(rows.values[0])
        )
        counted = {client: i for i, client in enumerate(rows.ids) if allowed[i]}
        after = AFAState(
            {**state.good, **{c: state.good.get(c, 0) + 1 for c, i in counted.items() if good[i]}},
            {
                **state.bad,
                **{c: state.bad.get(c, 0) + 1 for c, i in counted.items() if not good[i]},
            },
        )
        quality = torch.tensor([p for p, _ in records], dtype=torch.float64)
        scores = {"cosine": similar, "quality": quality, "norm": norms}
        suspicion = torch.where(allowed, 1 - similar, _BLOCKED)
        return (
            Verdict(out, kept=good, scale=scale, suspicion=suspicion, scores=scores),
            after,
        )
