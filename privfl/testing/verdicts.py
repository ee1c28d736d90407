"""What a rule that judges says beside its result."""

from __future__ import annotations

import math
from typing import Any

import torch

from privfl.aggregators import Verdict
from privfl.core import Rows, Vector
from privfl.engine.compatibility import AnyRule
from privfl.testing.check import expect
from privfl.testing.rows import D, N, aggregate, context, crowd, of, stands


def told(rule: AnyRule) -> None:
    """What a rule says of each row is of every row, names those that it dropped, and points its
    suspicion as it declares.
    """
    if not rule.judges:
        return
    values = crowd()
    if stands(rule, N):
        values[3, 0] = math.nan
    values[N - 1] = -1e4
    rows = of(values)
    verdict = _verdict(rule, rows)
    expect(
        torch.equal(verdict.out, aggregate(rule, rows)),
        "its verdict's out is another vector than its result",
        "compute both in one place",
    )
    if stands(rule, N):
        expect(
            3 in verdict.dropped and "3" in verdict.words(rows.ids),
            f"row 3 was NaN, and the verdict says: {verdict.words(rows.ids)}",
            "name dropped rows in kept (Verdict.among)",
        )
    for name, column in (
        ("kept", verdict.kept),
        ("scale", verdict.scale),
        ("suspicion", verdict.suspicion),
    ):
        expect(
            column is None or len(column) == N,
            f"{name} has {0 if column is None else len(column)} entries for {N} rows",
            "tell of every row that went in",
        )
    _suspects(rule, verdict, rows)


def _suspects(rule: Any, verdict: Verdict[Vector], rows: Rows) -> None:
    suspicion, kept = verdict.suspicion, verdict.kept
    expect(
        rule.suspects == (suspicion is not None),
        f"suspects is {rule.suspects}, and its verdict's suspicion is {suspicion}",
        "declare suspects as it is",
    )
    expect(
        not rule.accuses or _verdict(rule, of(crowd())).kept is not None,
        "accuses is True, and its verdict does not say which rows were kept",
        "declare accuses = False, or fill kept",
    )
    if suspicion is None:
        return
    finite = torch.isfinite(rows.values).all(dim=1)
    expect(
        bool(torch.isfinite(suspicion[finite]).all() & (suspicion[~finite] == torch.inf).all()),
        f"its suspicion is {suspicion.tolist()}",
        "give every finite row a finite suspicion; Verdict.among gives the others infinity",
    )
    if kept is None or bool(kept[finite].all()) or not bool(kept.any()):
        return
    out, stay = (suspicion[finite & chosen].double().mean() for chosen in (~kept, kept))
    expect(
        bool(out >= stay),
        f"rows that it drops have a mean suspicion of {float(out):.3g}, those that it keeps of"
        f" {float(stay):.3g}",
        "turn it around: higher is worse",
    )


def _verdict(rule: Any, rows: Rows) -> Verdict[Vector]:
    if rule.remembers:
        verdict: Verdict[Vector] = rule.judge_step(rows, rule.init(), context(D))[0]
        return verdict
    seen: Verdict[Vector] = rule.judge(rows)
    return seen
