"""Sums over clients who change from round to round: equations for what single clients send."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.attacks.rows import contributors, of_others, told_apart
from privfl.core import ClientId, NotVisible, Rows, Total, View

RIDGES = (1e-6, 1e-4, 1e-2, 0.3)
"""Ridges that are tried, as parts of an equation's mean square."""
_Equation: TypeAlias = tuple[tuple[ClientId, ...], Tensor, float, int]
"""Who is in a sum, the sum [d], its weight, and in which view it was seen."""


@dataclass(frozen=True, slots=True)
class Equations:
    """Sums [e, d] of what clients sent, with who is in each [e, n], the weight of each, and in
    which of the views it was seen.
    """

    clients: tuple[ClientId, ...]
    members: Float[Tensor, "e n"]
    sums: Float[Tensor, "e d"]
    weights: Float[Tensor, " e"]
    view: Int[Tensor, " e"]


def equations(views: Sequence[View]) -> Equations:
    """What views of several rounds say of sums: of groups whose members are told, of all who were
    heard where a sum was opened (without the adversary's own clients, whose updates it knows), and
    else what the released models give away of that.

    Raises:
        NotVisible: a view shows rows, and not whose they are.
    """
    return _stacked([*_told(views)], len(views[0].before) if views else 0)


def _told(views: Sequence[View]) -> Iterator[_Equation]:
    """Equations one by one: views of many rows are large, and many questions need no values."""
    for at, view in enumerate(views):
        seen = view.opened.get("delta")
        if isinstance(seen, Rows):
            if not told_apart(view):
                raise NotVisible(
                    f"nobody says of which clients the rows of round {view.plan.number} are."
                )
            for row, weight, who in zip(seen.values, seen.weights, contributors(view), strict=True):
                each = float(weight) if seen.ids is not None else float(len(who))
                if each > 0 and bool(row.isfinite().all()):
                    yield who, row * each, each, at
            continue
        who = view.among()
        if seen is None:
            n = max(len(who), 1)
            total = Total((view.after - view.before) * n, float(n), n)
        elif seen.count == len(who):  # else a rule left some out, and nobody says whom
            total, who = of_others(view, seen)
        else:
            continue
        if who and 0 < total.weight < float("inf") and bool(total.value.isfinite().all()):
            yield who, total.value, total.weight, at


def _stacked(found: Sequence[_Equation], d: int) -> Equations:
    clients = tuple(sorted({client for who, *_ in found for client in who}))
    place = {client: at for at, client in enumerate(clients)}
    members = torch.zeros(len(found), len(clients))
    for row, (who, *_) in enumerate(found):
        members[row, [place[client] for client in who]] = 1.0
    sums = [value for _, value, _, _ in found]
    return Equations(
        clients,
        members,
        torch.stack(sums) if sums else torch.zeros(0, d),
        torch.tensor([weight for _, _, weight, _ in found]),
        torch.tensor([at for *_, at in found], dtype=torch.int64),
    )


def _differ(sums: Collection[frozenset[ClientId]]) -> bool:
    return len(sums) > 1 and max(map(len, sums)) > 1


def mixed(views: Sequence[View]) -> bool:
    """Whether there is something to solve: sums over different clients.

    >>> from privfl.core import RoundPlan
    >>> def seen(*cohort):
    ...     plan, model = RoundPlan(0, cohort, d=1, l2=9.0), torch.zeros(1)
    ...     return View("server", plan, model, model, {"delta": Total(model, 1.0, len(cohort))})
    >>> mixed([seen(0, 1), seen(1, 2)]), mixed([seen(0, 1), seen(0, 1)])
    (True, False)
    """
    try:
        return _differ({frozenset(who) for who, *_ in _told(views)})
    except NotVisible:
        return False


def single_updates(views: Sequence[View]) -> tuple[View, float]:
    """The first view as if it showed what each client sends again and again, under its name: the
    solution of the sums of all rounds, or of the first of them, while clients send much the same
    (Lam, Wei, Cormode, Riedel, Mittal 2021); and by how much an entry is off, as a deviation.

    How many rounds, and the ridge of the regression, are those of the least error of one client's
    update: by how far the sums of a round that was left out are from what the others foretell,
    and by how much of each update these sums leave open. Weights come from the sums' own.

    Raises:
        NotVisible: there are no sums over different clients, or they are all zero.

    >>> from privfl.core import RoundPlan
    >>> def seen(number, cohort, total):
    ...     plan, model = RoundPlan(number, cohort, d=1, l2=9.0), torch.zeros(1)
    ...     opened = {"delta": Total(torch.tensor([total]), float(len(cohort)), len(cohort))}
    ...     return View("server", plan, model, model, opened)
    >>> told = [seen(0, (0, 1), 3.0), seen(1, (0, 2), 5.0), seen(2, (1, 2), 6.0)] * 2
    >>> [round(x, 2) for x in single_updates(told)[0].rows.values.flatten().tolist()]
    [1.0, 2.0, 4.0]
    """
    if not _differ({frozenset(who) for who, *_ in _told(views)}):
        raise NotVisible(
            f"{views[0].adversary if views else 'nobody'} sees no sums over different clients,"
            " which would be equations for what single clients send: give the views of several"
            " rounds."
        )
    told = equations(views)
    rounds = int(told.view.max()) + 1
    best, off, solved, weighed = float("inf"), 0.0, told.sums[:0], told.weights[:0]
    resolved = told.members.new_zeros(0, 0).double()
    for window in sorted({rounds, *(max(2, rounds * part // 8) for part in (1, 2, 3, 4, 6))}):
        inside = told.view < window
        a, y, w = told.members[inside].double(), told.sums[inside], told.weights[inside]
        gram = y.double() @ y.double().T
        each = float(gram.trace()) / max(float(a.sum()), 1.0)  # of one client, in the mean
        if len(a.unique(dim=0)) < 2 or not 0 < each < float("inf"):  # type: ignore[no-untyped-call]
            continue
        for ridge in RIDGES:
            level = ridge * float(a.square().sum(dim=1).mean())
            inverse = torch.linalg.inv(a @ a.T + level * torch.eye(len(a), dtype=torch.float64))
            left_out = _left_out(inverse, gram, told.view[inside])
            to = a.T @ inverse
            lost = torch.eye(len(told.clients), dtype=torch.float64) - to @ a
            # sums of much the same clients foretell each other well, and tell nobody apart
            error = left_out / len(a) / each * float(to.square().sum())
            error += float(lost.square().sum())
            if error < best:
                best, resolved = error, to @ a
                solved, weighed = to.float() @ y, (to @ w.double()).float()
                entry = left_out / max(y.numel(), 1)
                off = (entry * float(to.square().sum(dim=1).mean())) ** 0.5
    if not len(weighed) or not bool(solved.isfinite().all()):
        raise NotVisible(
            f"{views[0].adversary} sees sums over different clients, and their values, which are"
            " zero or beyond all bounds, say nothing."
        )
    others = (resolved - resolved.diag().diag()).abs() @ weighed.abs().double()
    clear = (weighed > 2 * others) & (resolved.diag() > 0.5)  # also of a client who weighs little
    there = ((weighed > 0.05 * weighed.max()) | clear).nonzero().flatten().tolist()
    ids = tuple(told.clients[at] for at in there)
    rows = Rows(solved[there] / weighed[there, None], weighed[there], ids)
    first, heard = views[0], {"delta": ids}
    plan = replace(first.plan, cohort=ids)
    view = replace(first, plan=plan, opened={"delta": rows}, disclosed={}, own={}, heard=heard)
    return view, off / float(weighed[there].mean())


def _left_out(
    inverse: Float[Tensor, "e e"], gram: Float[Tensor, "e e"], view: Int[Tensor, " e"]
) -> float:
    """The sum of squares by which the sums of each round are missed when all others foretell them:
    what a regression leaves, over one less what it puts on itself, round by round.
    """
    spread, missed = inverse @ gram @ inverse, 0.0
    for number in view.unique().tolist():  # type: ignore[no-untyped-call]
        at = (view == number).nonzero().flatten()
        inner = torch.linalg.inv(inverse[at][:, at])
        missed += max(float((inner @ spread[at][:, at] @ inner).trace()), 0.0)
    return missed
