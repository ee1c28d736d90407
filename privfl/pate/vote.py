"""A private vote of teachers: ballots travel through a channel, the opener adds noise, and labels
leave.
"""

from __future__ import annotations

import math
import secrets
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from privfl.core import (
    BadUpdate,
    Bounded,
    Channel,
    ClientId,
    ConfigError,
    Guarantee,
    Ledger,
    Liars,
    NeighbourRelation,
    Neighbours,
    NoiseSource,
    OsNoise,
    PartyId,
    RoundFailed,
    RoundPlan,
    Rows,
    Total,
    client_party,
)
from privfl.crypto import Plain
from privfl.dp import PrivacyWarning, Spent, spend
from privfl.dp.charges import stepped
from privfl.dp.guarantee import central
from privfl.dp.pate import UNANSWERED, ConfidentGNMax, DataDependent
from privfl.engine import MailMode, Session
from privfl.engine.journal import Journal

_LABELS = (torch.int64, torch.int32, torch.int16)
_WHOLE = 0.25
"""How far an opened count may lie from a whole number: half of what would round it wrongly."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a vote publishes: a label [q] for each query (`UNANSWERED` where there is none), and
    what all votes so far have spent, whatever their outcome.
    """

    labels: Int[Tensor, " q"]
    spent: Spent

    @property
    def answered(self) -> Int[Tensor, " a"]:
        """The positions of the queries that were answered."""
        return torch.nonzero(self.labels != UNANSWERED).flatten()


@dataclass(frozen=True, slots=True)
class Tally:
    """What the opener of a vote knows beside its answers, none of which is to be published: how
    many teachers voted for each class, who is in the counts, and the epsilon of these very votes.
    """

    counts: Int[Tensor, "q m"] = field(repr=False)
    survivors: tuple[ClientId, ...]
    excluded: Mapping[PartyId, str]
    data_dependent: DataDependent


class PrivateVote:
    """Clients label public queries with teachers of their own; a noisy vote makes the labels of a
    student (PATE: Papernot et al. 2017, 2018).

    Each client sends one row of a one in the class that its teacher votes for, query by query,
    through ``channel``: over a channel that sums nobody reads a ballot, and the opener reads the
    counts of every query. ``rule`` adds noise to the counts and says which queries are answered.
    What that costs is charged before the first message, for as many answers as ``rule`` ever gives,
    in ``ledger_file`` where there is one.

    Guarantee: `guarantee` says who sees what. For a client, all its data included, epsilon of
    ``answers.spent`` holds against whoever sees labels and not counts. Queries must be public, and
    the model that teachers start from too.

    Raises:
        ConfigError: a channel that opens no named rows and no sum of rows, or carries noise of its
            own; neighbours of whom votes prove nothing; a ``delta`` outside of (0, 1).

    >>> vote = PrivateVote(ConfidentGNMax(deviation=0.5), classes=3, delta=0.1)
    >>> answers, tally = vote.ask({c: torch.tensor([2, 0]) for c in range(9)})
    >>> answers.labels.tolist(), tally.counts.tolist()
    ([2, 0], [[0, 0, 9], [9, 0, 0]])
    """

    def __init__(
        self,
        rule: ConfidentGNMax,
        *,
        classes: int,
        channel: Channel[Any] | None = None,
        relation: NeighbourRelation = "replace_one",
        delta: float = 1e-5,
        ledger_file: Path | str | None = None,
        noise: NoiseSource | None = None,
        mail: MailMode = "bare",
    ) -> None:
        if classes < 2:
            raise ConfigError(f"a vote is between two classes at least, and classes is {classes}.")
        self.rule, self.classes, self.delta = rule, classes, delta
        self.channel: Channel[Any] = channel or Plain()
        _require_counts(self.channel)
        self.neighbours = Neighbours("client", relation)
        self.noise = noise or OsNoise()
        rule.steps(1, 1, self.neighbours)  # refuses neighbours of whom it proves nothing
        spend(Ledger(), delta)  # refuses a delta that is none
        self._journal = Journal(None if ledger_file is None else Path(ledger_file))
        self._session: Session[Any] = Session(self.channel, mail)
        self._id = secrets.token_bytes(16)
        self._round = 0

    @property
    def ledger(self) -> Ledger:
        """All that was charged, votes that failed included."""
        return self._journal.ledger()

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who reads a ballot, who can lie about it, and what the opener sees: the channel's, under
        noise that the opener adds.
        """
        said = self.channel.guarantee.under(central())
        return replace(
            said,
            leaks=(
                *said.leaks,
                "to the opener alone: how many teachers voted for each class, query by query",
            ),
            hidden="single ballots",
        )

    def ask(self, votes: Mapping[ClientId, Int[Tensor, " q"]]) -> tuple[Answers, Tally]:
        """One vote on q queries: what may be published, and what the opener keeps for itself.

        Args:
            votes: each client's labels [q] of the same queries, in one order; `UNANSWERED` is a
                vote for nothing, and so is a label of no class: to stop there would tell of the
                one client.

        Raises:
            BadUpdate: no votes, different numbers of queries, or labels that are no whole numbers.
            ConfigError: the ledger holds charges of others than these clients, which no epsilon of
                this vote could count.
            RoundFailed: the channel opened nothing, or what are no whole counts. It stays charged.
        """
        queries = _queries(votes, self.classes)
        cohort = tuple(votes)
        plan = RoundPlan(
            self._round, cohort, queries * self.classes, math.sqrt(queries), session=self._id
        )
        steps = self.rule.steps(
            queries, len(cohort), self.neighbours, repeatable=self.noise.repeatable
        )
        self._journal.enter(stepped(plan.number, steps, self.neighbours))
        self._round += 1
        spent = self._spent()
        self._session.enrol(cohort)
        ballots = {
            client: Bounded(client, ballot(labels, self.classes).flatten(), plan.l2)
            for client, labels in votes.items()
        }
        outcome = self._session.play(plan, ballots)
        opened = outcome.opened
        if opened is None:
            why = "; ".join(f"{who}: {abort}" for who, abort in outcome.aborts.items())
            raise RoundFailed(f"the vote opened nothing: {why or 'too few clients answered'}.")
        summed, survivors, refused = counted(opened.what, opened.survivors, queries)
        counts = _whole(summed.view(queries, self.classes))
        labels = self.rule.answer(counts, self.noise)
        seen = self.rule.data_dependent(counts, self.delta, self.neighbours)
        tally = Tally(counts, survivors, {**opened.excluded, **refused}, seen)
        return Answers(labels, spent), tally

    def _spent(self) -> Spent:
        """What all votes have cost, in whatever way they end."""
        spent = spend(self.ledger, self.delta)
        if len(spent) > 1:
            others = sorted({one.subject for one in spent} - {self.neighbours.unit})
            raise ConfigError(
                f"the ledger of this vote also charges {', '.join(others)}, and votes are charged"
                " to clients, so no epsilon of it counts both: give it a ledger_file of its own."
            )
        return spent[0]


def ballot(labels: Int[Tensor, " q"], classes: int) -> Float[Tensor, "q m"]:
    """A one in the column of each query's label; a row of zeros for a vote for nothing, or for no
    class.

    >>> ballot(torch.tensor([1, UNANSWERED, 3]), 3).tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    out = torch.zeros(len(labels), classes)
    given = (labels >= 0) & (labels < classes)
    out[given, labels[given].long()] = 1.0
    return out


def counted(
    what: Rows | Total, survivors: tuple[ClientId, ...], queries: int
) -> tuple[Float[Tensor, " d"], tuple[ClientId, ...], dict[PartyId, str]]:
    """The sum of all ballots, whose they are, and who was refused: where ballots are read, one that
    is none; in a sum it cannot be told.
    """
    if isinstance(what, Total):
        return what.value, survivors, {}
    rows, ids = what.values, what.ids or ()
    each = rows.view(len(rows), queries, -1)
    good = (((each == 0) | (each == 1)).all(dim=2) & (each.sum(dim=2) <= 1)).all(dim=1)
    kept = tuple(who for who, fine in zip(ids, good.tolist(), strict=True) if fine)
    refused = {
        client_party(who): "its row is no ballot: one vote of one at most for each query"
        for who in ids
        if who not in kept
    }
    return rows[good].sum(dim=0), kept, refused


def _whole(summed: Float[Tensor, "q m"]) -> Int[Tensor, "q m"]:
    whole = summed.round()
    far = float((summed - whole).abs().max())
    if not far < _WHOLE:
        raise RoundFailed(
            f"the vote opened a count that is {far:.2g} away from a whole number: a client lied, or"
            " the channel rounds too coarsely (give it more bits, or ask fewer queries at once)."
        )
    return whole.to(torch.int64)


def _queries(votes: Mapping[ClientId, Tensor], classes: int) -> int:
    """How many queries all of them [q] answer."""
    if not votes:
        raise BadUpdate("there are no votes: give at least one client's labels.")
    lengths = {len(labels) for labels in votes.values()}
    if len(lengths) > 1 or not min(lengths):
        raise BadUpdate(f"clients must vote on the same queries, and gave {sorted(lengths)} votes.")
    for client, labels in votes.items():
        if labels.dim() != 1 or labels.dtype not in _LABELS:
            raise BadUpdate(
                f"client {client}: votes are whole numbers [q] of 16 bits or more, and are"
                f" {labels.dtype} of shape {list(labels.shape)}."
            )
        if not bool(((labels >= UNANSWERED) & (labels < classes)).all()):
            warnings.warn(
                f"client {client}: a vote is for no class out of {classes}, and counts for"
                " nothing.",
                PrivacyWarning,
                stacklevel=3,
            )
    return lengths.pop()


def _require_counts(channel: Channel[Any]) -> None:
    """Refuse channels whose opener does not come to know the counts as they are."""
    name, kind = type(channel).__name__, channel.kind
    if channel.able.noise is not None:
        raise ConfigError(
            f"{name} carries noise in shares, and a vote's noise is added by the opener: leave the"
            " noise out of the channel."
        )
    if kind.runs or channel.able.groups is not None:
        raise ConfigError(
            f"{name} opens no sum of single rows, so nobody could count votes: use a channel that"
            " sums, such as SecAgg, or the plain one."
        )
