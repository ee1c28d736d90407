"""What all attacks that only look share: views in, a result out, and words where the view or the
knowledge does not suffice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias

import torch

from privfl.attacks.equations import single_updates
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import ByRow, NotApplicable, NotFound, Result
from privfl.attacks.rows import contributors, own_in, proof, readable, single_row, told_apart
from privfl.core import (
    BUFFERS,
    Attack,
    ClientId,
    Dataset,
    NotVisible,
    PrivflError,
    Rows,
    Total,
    Vector,
    View,
)

Family: TypeAlias = Literal["membership", "property", "inversion"]
Target: TypeAlias = Literal["client", "sum", "rounds"]


class Lacking(PrivflError):
    """The adversary lacks knowledge that the attack needs."""


class Inference(Attack, ABC):
    """An attack that only looks: `run` never raises where the view hides what it needs. It answers
    `NotApplicable` with the sentence that proves it where the view is proved to hold nothing, and
    `NotFound` with the reason where it lacks something or came to its limit.
    """

    family: ClassVar[Family]

    def run(self, view: View | Sequence[View], knowledge: Knowledge | None = None) -> Result:
        """Attack one round's view, or those of several rounds in order, on the device where the
        views lie: a run's are on the CPU, whatever it trained on.
        """
        views = (view,) if isinstance(view, View) else tuple(view)
        try:
            if not views:
                raise Lacking("there are no views to attack: keep rounds with audit.keep.")
            knows = (knowledge or Knowledge()).to(views[0].before.device)
            return self.prepared(views, knows).infer(views, knows)
        except NotVisible as reason:
            theorem = proof(views)
            kind = NotApplicable if theorem else NotFound
            return kind(type(self).__name__, views[0].adversary, str(reason), theorem)
        except Lacking as reason:
            who = views[0].adversary if views else "nobody"
            return NotFound(type(self).__name__, who, str(reason))

    def prepared(self, views: tuple[View, ...], knowledge: Knowledge) -> Inference:
        """The attack with its settings tuned on the adversary's own samples; itself where it has
        none to tune.

        Raises:
            NotVisible: a view hides what it needs.
            Lacking: the knowledge does not suffice.
        """
        return self

    @property
    def variant(self) -> tuple[str, ...]:
        """What tells it from others of its class, in the words of a table."""
        return ()

    @property
    def takes_sum(self) -> bool:
        """Whether it attacks the sum of the updates, where there are rows too."""
        return False

    @property
    def takes_rounds(self) -> bool:
        """Whether it needs the views of several rounds, whose sums are over different clients."""
        return False

    @abstractmethod
    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Result:
        """The attack itself.

        Raises:
            NotVisible: a view hides what it needs.
            Lacking: the knowledge does not suffice.
        """


class Targeted(Inference):
    """An attack that is set to clients' own updates, to their sum, or to what clients send again
    and again, as sums of many rounds over different clients give it away (`Target`).
    """

    target: Target

    def run(self, view: View | Sequence[View], knowledge: Knowledge | None = None) -> Result:
        """As `Inference.run`; set to rounds, on what `equations.single_updates` makes of them."""
        views = (view,) if isinstance(view, View) else tuple(view)
        if not self.takes_rounds or not views:
            return super().run(views, knowledge)
        try:
            apart, off = single_updates(views)
        except NotVisible as reason:
            theorem = proof(views)
            kind = NotApplicable if theorem else NotFound
            return kind(type(self).__name__, views[0].adversary, str(reason), theorem)
        known = (knowledge or Knowledge()).forward or views[0].facts.get("forward")
        if isinstance(known, Forward):  # what is left of others is noise to whoever looks
            known = replace(known, local_noise=max(off, known.local_noise))
            knowledge = replace(knowledge or Knowledge(), forward=known)
        own: dict[str, Any] = {"target": "client"}
        each: Targeted = replace(self, **own)  # type: ignore[type-var]
        if self.family == "inversion":
            return each.run_rows(apart, knowledge)
        return each.run(apart, knowledge)

    @property
    def variant(self) -> tuple[str, ...]:
        """``target``."""
        return (self.target,)

    @property
    def takes_sum(self) -> bool:
        """Whether ``target`` is the sum."""
        return self.target == "sum"

    @property
    def takes_rounds(self) -> bool:
        """Whether ``target`` is what clients send again and again."""
        return self.target == "rounds"

    def run_rows(
        self, view: View, knowledge: Knowledge | None = None, most: int | None = None
    ) -> Result:
        """Attack every row that a round's view shows (``most`` of them, spread evenly), each by
        itself; the reason of the first where none has an answer.
        """
        knows = (knowledge or Knowledge()).to(view.before.device)
        try:
            rows = readable(view)
            shown = replace(view, opened={**view.opened, "delta": rows})
            fit = rows.values.isfinite().all(dim=1).nonzero().flatten().tolist()
            # one client's row that is not finite must not keep the others' from being attacked
            first = view if not fit or fit[0] == 0 else single_row(shown, fit[0])
            attack = self.prepared((first,), knows)
        except (NotVisible, Lacking):
            return self.run(view, knows)
        whose = contributors(shown)
        step = 1 if most is None else max(1, -(-rows.n // most))
        answers = [
            (whose[at], attack.run(single_row(shown, at), knows)) for at in range(0, rows.n, step)
        ]
        told = [answer for _, answer in answers if not isinstance(answer, NotApplicable)]
        if not told and answers and isinstance(answers[0][1], NotApplicable):
            return answers[0][1]
        return ByRow(type(self).__name__, view.adversary, tuple(answers))


@dataclass(frozen=True, slots=True)
class Observed:
    """One contribution as the adversary reads it: the mean change [d] of ``clients`` clients with
    ``samples`` samples together.

    ``samples`` is None where it is not public; ``client`` None where it is a sum or a group's mean;
    ``noise`` the deviation of the noise in each entry. A client's change is as it was before it was
    scaled for its staleness. ``buffers`` is the mean change [s] of their running statistics, where
    the adversary reads that of the same clients.
    """

    view: View
    delta: Vector
    clients: int
    samples: int | None
    client: ClientId | None
    noise: float
    buffers: Vector | None = None

    @property
    def base(self) -> Vector:
        """The model [d] that the change is of."""
        return self.view.base(self.client)


def recipe(view: View, knowledge: Knowledge) -> Forward:
    """The forward model, from the knowledge or from the view's public facts.

    Raises:
        Lacking: neither has it.
    """
    known = knowledge.forward or view.facts.get("forward")
    if not isinstance(known, Forward):
        raise Lacking(
            "the architecture and the training recipe are not known: give"
            " Knowledge(forward=Forward(...))."
        )
    return known


def observe(
    view: View, knowledge: Knowledge, target: Target, client: ClientId | None = None
) -> Observed:
    """The contribution of one client (the first row's unless said; the mean of a group where rows
    are of groups), or the mean of all of them.

    Raises:
        NotVisible: the view shows no such contribution.
        Lacking: the recipe is not known, or the contribution or the model that it changes is not
            finite.
    """
    seen = _read(view, knowledge, target, client)
    whose = "the sum" if target == "sum" else "a row"
    told = whose if seen.client is None else f"client {seen.client}"
    for name, values in (
        ("update", seen.delta),
        ("model", seen.base),
        ("change of running statistics", seen.buffers),
    ):
        if values is not None:
            finite(values, f"the {name} of {told}", view)
    return seen


def finite(values: torch.Tensor, what: str, view: View) -> None:
    """Refuse what is not finite.

    Raises:
        Lacking: some entry is not.
    """
    if not bool(values.isfinite().all()):
        raise Lacking(
            f"{what} in round {view.plan.number} is not finite, as after a training that diverged,"
            " and nothing is read off it."
        )


def _read(view: View, knowledge: Knowledge, target: Target, client: ClientId | None) -> Observed:
    """What `observe` hands out, whatever its numbers are."""
    forward = recipe(view, knowledge)
    if target == "sum":
        total = summed(view)
        count = round(total.weight) if forward.weighted and "delta" in view.opened else None
        noise = forward.local_noise / max(total.count, 1) ** 0.5
        size, moved = knowledge.samples or count, summed_buffers(view)
        return Observed(view, total.mean(), total.count, size, None, noise, moved)
    rows = readable(view)
    at = 0 if client is None else _position(view, rows, client)
    if rows.ids is None:  # a group's mean, whose weight counts clients and no samples
        among = len(contributors(view)[at]) if told_apart(view) else 1
        noise = forward.local_noise / max(among, 1) ** 0.5
        mean, size = rows.values[at], knowledge.samples
        moved = _group_buffers(view, rows, at) if told_apart(view) else None
        return Observed(view, mean, max(among, 1), size, None, noise, moved)
    count = round(float(rows.weights[at])) if forward.weighted else None
    who = rows.ids[at]
    scale = view.scale(who)
    delta, noise = rows.values[at] / scale, forward.local_noise / scale
    size, moved = knowledge.samples or count, buffers_of(view, who, forward.buffers_l2)
    return Observed(view, delta, 1, size, who, noise, moved)


def summed(view: View) -> Total:
    """The sum of the updates; where nothing was opened to the adversary, what the released models
    before and after the round give away.

    Whoever sees two models in a row reads the mean update off them (under plain federated
    averaging; under another server optimiser, its direction), whatever the channel hides: noise in
    the release is the only thing between.
    """
    if "delta" in view.opened:
        return view.total
    n = max(view.plan.n, 1)
    return Total((view.after - view.before) * n, float(n), n)


def buffers_of(view: View, client: ClientId, l2: float = float("inf")) -> Vector | None:
    """The change [s] of a client's running statistics, where a view shows whose it is: in a row, or
    as what is left of a sum when the adversary takes the changes (clipped to ``l2``) of those of
    its own clients off that are in it.
    """
    seen = view.opened.get(BUFFERS)
    mine = own_in(view, seen, BUFFERS) if isinstance(seen, Total) else {}
    if isinstance(seen, Total) and seen.count - len(mine) == 1:
        value, weight = seen.value.clone(), seen.weight
        for update in mine.values():
            own = update.aux.get(BUFFERS)
            if own is None:
                return None
            shorter = min(1.0, l2 / max(float(own.norm()), 1e-30))
            value -= update.weight * shorter * own
            weight -= update.weight
        return value / weight if weight > 0 else None
    if isinstance(seen, Rows) and seen.ids is not None and client in seen.ids:
        return seen.values[seen.ids.index(client)]
    return None


def _group_buffers(view: View, rows: Rows, at: int) -> Vector | None:
    """The mean change [s] of a group's running statistics, where its row is of the same clients as
    that of their updates: groups are a round's, and one of which somebody is missing weighs less.
    """
    seen = view.opened.get(BUFFERS)
    if (
        not isinstance(seen, Rows)
        or seen.n != rows.n
        or not torch.equal(seen.weights, rows.weights)
    ):
        return None
    return seen.values[at]


def summed_buffers(view: View) -> Vector | None:
    """The mean change [s] of all clients' running statistics: of what was opened, else of those
    that are broadcast before and after the round.
    """
    seen = view.opened.get(BUFFERS)
    if isinstance(seen, Rows):
        mean: Vector = seen.weights @ seen.values / seen.weights.sum()
        return mean
    if isinstance(seen, Total):
        return seen.mean()
    before, after = (extra.get(BUFFERS) for extra in (view.extra, view.extra_after))
    if before is None or after is None or torch.equal(before, after):
        return None
    return after - before


def _position(view: View, rows: Rows, client: ClientId) -> int:
    if rows.ids is None:
        raise NotVisible(
            f"{view.adversary} reads rows of round {view.plan.number} without knowing whose they"
            " are."
        )
    if client not in rows.ids:
        raise NotVisible(
            f"{view.adversary} reads no update of client {client} in round {view.plan.number}."
        )
    return rows.ids.index(client)


def auxiliary(knowledge: Knowledge, attack: str, at_least: int) -> Dataset:
    """The adversary's own samples.

    Raises:
        Lacking: there are fewer than the attack needs.
    """
    held = knowledge.auxiliary
    if held is None or held.n < at_least:
        raise Lacking(
            f"{attack} needs at least {at_least} auxiliary samples, and the adversary has"
            f" {0 if held is None else held.n}."
        )
    return held


def candidates(knowledge: Knowledge, attack: str) -> Dataset:
    """The pool whose membership is asked.

    Raises:
        Lacking: there is none.
    """
    if knowledge.candidates is None or knowledge.candidates.n == 0:
        raise Lacking(
            f"{attack} asks whether candidates were trained on, and there are none: give"
            " Knowledge(candidates=...)."
        )
    return knowledge.candidates
