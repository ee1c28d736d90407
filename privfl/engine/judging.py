"""What defences made of the clients of a round, as data: of rows that the server reads, of means of
groups, and of what servers that judge hidden rows disclose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from privfl.aggregators import RowRule, ToleratesByzantine, Verdict
from privfl.aggregators.verdict import Accuses
from privfl.core import ClientId, Judgement, Opened, RoundPlan, Rows

Whose: TypeAlias = tuple[tuple[ClientId, ...], ...]
"""The clients of each row."""


def whose(plan: RoundPlan, opened: Opened[Any]) -> Whose | None:
    """The clients of each row that a channel opened: one each, or those that it says are in a group
    and that answered; None where it opened no rows, or does not say.
    """
    rows, told = opened.what, opened.disclosed
    if not isinstance(rows, Rows):
        return None
    if rows.ids is not None:
        return _alone(rows.ids)
    if "groups" not in told or "membership" not in told:
        return None
    home = dict(zip(plan.cohort, told["membership"].tolist(), strict=True))
    return tuple(
        tuple(client for client in opened.survivors if home.get(client) == group)
        for group in told["groups"].tolist()
    )


def handed_on(verdict: Verdict[Rows], before: Whose | None) -> Whose | None:
    """The clients of the rows that come out of a seat before the rule, of those that went in."""
    if verdict.out.ids is not None:
        return _alone(verdict.out.ids)
    if before is None:
        return None
    n = len(before)
    kept = range(n) if verdict.kept is None else verdict.kept.nonzero().flatten().tolist()
    members = tuple((row,) for row in kept) if verdict.members is None else verdict.members
    if len(members) != verdict.out.n:
        return None
    return tuple(tuple(client for row in rows for client in before[row]) for rows in members)


def judged(
    seat: Accuses, verdict: Verdict[Any], clients: Whose | None, part: str, name: str = ""
) -> Judgement | None:
    """What a seat made of these clients, under its ``name`` (its class where that is empty); None
    where it told of no row, or nobody says whose the rows are. A suspicion that is no number is
    infinite.
    """
    if clients is None or (verdict.kept is None and verdict.suspicion is None):
        return None
    scores, suspicion = verdict.scores.items(), verdict.suspicion
    return Judgement(
        seat=name or type(seat).__name__,
        part=part,
        ids=clients,
        accuses=seat.accuses,
        told_f=seat.told_f,
        kept=None if verdict.kept is None else tuple(verdict.kept.tolist()),
        scale=_numbers(verdict.scale),
        suspicion=None
        if suspicion is None
        else _numbers(suspicion.nan_to_num(torch.inf, torch.inf, -torch.inf)),
        scores={
            name: tuple(map(float, values.tolist()))
            for name, values in scores
            if values.shape == (len(clients),)
        },
    )


def disclosed_by(inside: object, opened: Opened[Any], part: str) -> Judgement | None:
    """What servers that run the rule ``inside`` on hidden rows said of single clients: which rows
    passed the checks, were selected, or trusted. None where they said nothing.

    Where all inner products were opened, the rule is asked about rows that have these.
    """
    told = opened.disclosed
    ids = told.get("clients", told.get("client"))
    if ids is None or not isinstance(inside, ToleratesByzantine):
        return None
    passed = told.get("accepted", torch.ones(len(ids), dtype=torch.bool))
    names = ("trust", "weight", "weights", "cosines", "cosine", "distances", "norm", "norms")
    scores = {name: _among(told[name], passed) for name in names if name in told}
    trust = scores.get("trust", scores.get("weight", scores.get("weights")))
    good = scores.get("cosines", scores.get("cosine", trust))
    chosen = told.get("selected")
    if chosen is None and trust is not None:
        chosen = trust > 0
    verdict = Verdict(
        torch.zeros(0),
        kept=passed if chosen is None else passed & chosen,
        suspicion=None if good is None else -good,
        scores=scores,
    )
    if "gram" in told and isinstance(inside, RowRule):
        verdict = inside.judge(_rows_with(told["gram"], passed))
    elif chosen is None and bool(passed.all()):
        verdict = replace(verdict, kept=None)
    one = judged(inside, verdict, _alone(ids.tolist()), part)
    if one is None:
        return None
    by_norm_alone = verdict.kept is passed
    return replace(
        one,
        seat=f"{type(inside).__name__} inside the channel",
        accuses=inside.accuses or by_norm_alone,
    )


def _alone(ids: Sequence[ClientId]) -> Whose:
    return tuple((int(client),) for client in ids)


def _numbers(values: Tensor | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(map(float, values.tolist()))


def _among(values: Tensor, passed: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Numbers of all rows, or of those that passed the checks, as numbers of all."""
    if len(values) == len(passed):
        return values.double()
    wide = torch.full((len(passed),), torch.nan, dtype=torch.float64)
    wide[passed] = values.double()
    return wide


def _rows_with(gram: Float[Tensor, "v v"], passed: Bool[Tensor, " n"]) -> Rows:
    """Rows [n, v] with these inner products; not finite where they did not pass."""
    values, vectors = torch.linalg.eigh(gram.double())
    rows = torch.full((len(passed), len(gram)), torch.nan, dtype=torch.float64)
    rows[passed] = vectors * values.clamp(min=0).sqrt()
    return Rows.of(rows)
