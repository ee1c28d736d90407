"""Sums over clients who change from round to round: equations for what single clients send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.attacks.rows import contributors, told_apart
from privfl.core import ClientId, NotVisible, Rows, Total, View

RIDGES = (1e-6, 1e-4, 1e-2, 0.3)
"""Ridges that are tried, as parts of an equation's mean square."""


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

    @property
    def differ(self) -> bool:
        """Whether two of the sums are over different clients, and one of them over several."""
        sums = {tuple(row) for row in self.members.tolist()}
        return len(sums) > 1 and max(map(sum, sums)) > 1


def equations(views: Sequence[View]) -> Equations:
    """What views of several rounds say of sums: of groups whose members are told, of all who were
    heard where a sum was opened, and else what the released models give away of that.

    Raises:
        NotVisible: a view shows rows, and not whose they are.
    """
    found: list[tuple[tuple[ClientId, ...], Tensor, float, int]] = []
    for at, view in enumerate(views):
        seen = view.opened.get("delta")
        if isinstance(seen, Rows):
            if not told_apart(view):
                raise NotVisible(
                    f"nobody says of which clients the rows of round {view.plan.number} are."
                )
            for row, weight, who in zip(seen.values, seen.weights, contributors(view), strict=True):
                if not bool(row.isfinite().all()):
                    continue
                each = float(weight) if seen.ids is not None else float(len(who))
                found.append((who, row * each, each, at))
            continue
        who = view.among()
        n = max(len(who), 1)
        total = seen or Total((view.after - view.before) * n, float(n), n)
        whole = total.count == len(who)  # else a rule left some out, and nobody says whom
        if who and whole and bool(total.value.isfinite().all()):
            found.append((who, total.value, total.weight, at))
    clients = tuple(sorted({client for who, *_ in found for client in who}))
    place = {client: at for at, client in enumerate(clients)}
    members = torch.zeros(len(found), len(clients))
    for row, (who, *_) in enumerate(found):
        members[row, [place[client] for client in who]] = 1.0
    sums = [value for _, value, _, _ in found]
    d = len(views[0].before) if views else 0
    return Equations(
        clients,
        members,
        torch.stack(sums) if sums else torch.zeros(0, d),
        torch.tensor([weight for _, _, weight, _ in found]),
        torch.tensor([at for *_, at in found], dtype=torch.int64),
    )


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
        return equations(views).differ
    except NotVisible:
        return False


def single_updates(views: Sequence[View]) -> tuple[View, float]:
    """The first view as if it showed what each client sends again and again, under its name: the
    solution of the sums of all rounds, or of the first of them, while clients send much the same
    (Lam, Wei, Cormode, Riedel, Mittal 2021); and by how much an entry is off, as a deviation.

    How many rounds, and the ridge of the regression, are those that foretell best the sums of a
    round that was left out; how far they are from these says how far entries are. Weights come from
    the sums' own.

    Raises:
        NotVisible: there are no sums over different clients.

    >>> from privfl.core import RoundPlan
    >>> def seen(number, cohort, total):
    ...     plan, model = RoundPlan(number, cohort, d=1, l2=9.0), torch.zeros(1)
    ...     opened = {"delta": Total(torch.tensor([total]), float(len(cohort)), len(cohort))}
    ...     return View("server", plan, model, model, opened)
    >>> told = [seen(0, (0, 1), 3.0), seen(1, (0, 2), 5.0), seen(2, (1, 2), 6.0)] * 2
    >>> [round(x, 2) for x in single_updates(told)[0].rows.values.flatten().tolist()]
    [1.0, 2.0, 4.0]
    """
    told = equations(views)
    if not told.differ:
        raise NotVisible(
            f"{views[0].adversary if views else 'nobody'} sees no sums over different clients,"
            " which would be equations for what single clients send: give the views of several"
            " rounds."
        )
    rounds = int(told.view.max()) + 1
    best, off, solved, weighed = float("inf"), 0.0, told.sums[:0], told.weights[:0]
    for window in sorted({rounds, *(max(2, rounds * part // 8) for part in (1, 2, 3, 4, 6))}):
        inside = told.view < window
        a, y, w = told.members[inside].double(), told.sums[inside], told.weights[inside]
        gram, own = (y @ y.T).double(), float(y.square().sum())
        for ridge in RIDGES:
            level = ridge * float(a.square().sum(dim=1).mean())
            inverse = torch.linalg.inv(a @ a.T + level * torch.eye(len(a), dtype=torch.float64))
            left_out = _left_out(inverse, gram, told.view[inside])
            error = left_out / max(own, 1e-30)
            if error < best:
                best, to = error, a.T @ inverse
                solved, weighed = to.float() @ y, (to @ w.double()).float()
                entry = left_out / max(y.numel(), 1)
                off = (entry * float(to.square().sum(dim=1).mean())) ** 0.5
    there = (weighed > 0.05 * weighed.max()).nonzero().flatten().tolist()
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
