"""Whose a row of a view may be, and a view cut down to one of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from privfl.core import ClientId, NotVisible, Rows, Total, Update, View

_BY_ROW = ("groups", "group_counts")
"""What is disclosed with one entry a row."""


def readable(view: View) -> Rows:
    """The rows that a view shows, or the one row that is left of a sum when the adversary takes the
    updates of those of its own clients off that are in it.

    Raises:
        NotVisible: the view shows no rows, and more than one update of others is in the sum.
    """
    seen = view.opened.get("delta")
    if not isinstance(seen, Total) or seen.count - len(own_in(view, seen)) != 1:
        return view.rows
    rest, others = of_others(view, seen)
    if not rest.weight > 0:
        raise NotVisible(f"the weights of the sum of round {view.plan.number} leave no row.")
    ids = others if len(others) == 1 else None
    return Rows((rest.value / rest.weight)[None], torch.tensor([rest.weight]), ids)


def of_others(view: View, total: Total) -> tuple[Total, tuple[ClientId, ...]]:
    """What is left of a sum when the adversary takes off the updates of those of its own clients
    that are surely in it, and who the others are.
    """
    own = own_in(view, total)
    value, weight = total.value.clone(), total.weight
    for update in own.values():
        length = float(update.delta.norm())
        clip = min(1.0, view.plan.l2 / max(length, 1e-30)) * view.scale(update.client)
        value -= update.weight * update.delta * clip
        weight -= update.weight
    others = tuple(client for client in view.among() if client not in own)
    return Total(value, weight, total.count - len(own)), others


def own_in(view: View, total: Total, part: str = "delta") -> Mapping[ClientId, Update]:
    """The adversary's own updates that are surely in a sum; none where a rule inside of the channel
    left some updates out, because nobody says whose.
    """
    return view.own_among(part) if total.count == len(view.among(part)) else {}


def proof(views: Sequence[View]) -> str:
    """Why nothing of single updates is in these views beyond their sum; empty where that does not
    follow from what they hold.

    A view that holds one sum over two updates of others or more, always of the same clients,
    nothing disclosed beside it and no rows of another part, is the same for all updates with that
    sum (so a simulator that knows the sum makes the view).
    """
    parts = [(view, part) for view in views for part in {"delta", *view.opened}]
    if len({frozenset(view.among(part)) for view, part in parts}) > 1:
        return ""  # sums over clients who differ are equations for what single clients send
    for view in views:
        if view.disclosed or any(isinstance(part, Rows) for part in view.opened.values()):
            return ""
        sums = {p: one for p, one in view.opened.items() if isinstance(one, Total)}
        left = [one.count - len(view.own_among(part)) for part, one in sums.items()]
        left += [] if "delta" in sums else [len(view.among()) - len(view.own_among())]
        if min(left) < 2:
            return ""
    who = views[0].adversary
    return (
        f"what {who} reads of each round is a function of one sum over two updates of others or"
        " more, and any updates with the same sum give the same view: nothing of one client's own"
        " update is in it beside the sum, which is attacked by itself."
    )


def contributors(view: View) -> tuple[tuple[ClientId, ...], ...]:
    """For each row of a view, the clients that may be in it: its own where rows are named, those of
    its group where the members of groups are disclosed, and else the whole cohort.

    Raises:
        NotVisible: the view holds no rows.

    >>> from privfl.core import RoundPlan
    >>> told = {"membership": torch.tensor([1, 0, 1]), "groups": torch.tensor([0, 1])}
    >>> plan = RoundPlan(0, (4, 5, 6), d=1, l2=1.0)
    >>> means = {"delta": Rows(torch.zeros(2, 1), torch.ones(2))}
    >>> contributors(View("server", plan, torch.zeros(1), torch.zeros(1), means, told))
    ((5,), (4, 6))
    """
    rows = view.rows
    if rows.ids is not None:
        return tuple((client,) for client in rows.ids)
    groups, homes = view.disclosed.get("groups"), view.disclosed.get("membership")
    if groups is None or homes is None or len(groups) != rows.n:
        return (view.plan.cohort,) * rows.n
    return tuple(
        tuple(
            client
            for client, home in zip(view.plan.cohort, homes.tolist(), strict=True)
            if home == group
        )
        for group in groups.tolist()
    )


def told_apart(view: View) -> bool:
    """Whether it is known which clients each row is of."""
    return view.rows.ids is not None or {"groups", "membership"} <= set(view.disclosed)


def single_row(view: View, at: int) -> View:
    """The view as if its row ``at`` were the only one: what an attack on one row then takes.

    Raises:
        NotVisible: the view holds no rows.
    """
    rows = view.rows
    disclosed = {
        name: value[at : at + 1] if name in _BY_ROW and len(value) == rows.n else value
        for name, value in view.disclosed.items()
    }
    cut = {
        part: seen.take(torch.tensor([at]))
        for part, seen in view.opened.items()
        if isinstance(seen, Rows) and seen.n == rows.n and seen.ids == rows.ids
    }
    opened = {**view.opened, **cut, "delta": rows.take(torch.tensor([at]))}
    return replace(view, opened=opened, disclosed=disclosed)
