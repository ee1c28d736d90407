"""How well defences told liars from honest clients: their judgements against the clients through
which attackers acted. Everything is computed from the records of the rounds alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from privfl.audit.score import Figure
from privfl.core import ClientId, Judgement
from privfl.engine import RoundRecord

DRAWS = 400
"""Resamplings of rounds for an interval of an AUC."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """Rows of liars that were dropped (``tp``) and kept (``fn``), and of honest clients (``fp``,
    ``tn``).

    >>> Confusion(3, 1, 1, 15) + Confusion(0, 0, 0, 4)
    Confusion(tp=3, fn=1, fp=1, tn=19)
    """

    tp: int = 0
    fn: int = 0
    fp: int = 0
    tn: int = 0

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(
            self.tp + other.tp, self.fn + other.fn, self.fp + other.fp, self.tn + other.tn
        )

    @property
    def tpr(self) -> Figure | None:
        """Of the liars' rows, how many were dropped; None where nobody lied."""
        return wilson(self.tp, self.tp + self.fn)

    @property
    def fpr(self) -> Figure | None:
        """Of the honest rows, how many were dropped; None where there were none."""
        return wilson(self.fp, self.fp + self.tn)

    @property
    def precision(self) -> Figure | None:
        """Of the dropped rows, how many were liars'; None where none was dropped, or no liar's row
        was there: then it says nothing about the defence.
        """
        return wilson(self.tp, self.tp + self.fp) if self.tp + self.fn else None

    @property
    def among_kept(self) -> Figure | None:
        """Of the rows that were kept, how many were liars'; None where no liar's row was there."""
        return wilson(self.fn, self.fn + self.tn) if self.tp + self.fn else None


def wilson(hits: int, of: int, confidence: float = 0.95) -> Figure | None:
    """A proportion with its score interval (Wilson 1927); None where it is one of nothing.

    The interval takes the trials as independent. Rounds of one run are not quite: the same clients
    come again.

    >>> str(wilson(0, 10)), str(wilson(5, 10)), wilson(0, 0)
    ('0.000 [0.000, 0.278]', '0.500 [0.237, 0.763]', None)
    """
    if of == 0:
        return None
    z = float(ndtri((1 + confidence) / 2))
    share = hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + (z / (2 * of)) ** 2)
    low, high = max(middle - half, 0.0), min(middle + half, 1.0)
    return Figure(share, 0.0 if hits == 0 else low, 1.0 if hits == of else high)


@dataclass(frozen=True, slots=True)
class Judged:
    """One judgement beside the truth of its round: ``lied`` [n] says of each row whether a liar is
    in it, ``attacked`` whether anybody lied in the round: also one whose row did not get as far.
    """

    round: int
    judgement: Judgement
    lied: tuple[bool, ...]
    attacked: bool

    @property
    def counts(self) -> Confusion:
        """Its rows, by what was made of them and what they were."""
        kept = self.judgement.kept
        if kept is None:
            return Confusion()
        pairs = list(zip(kept, self.lied, strict=True))
        return Confusion(
            tp=sum(lie and not stays for stays, lie in pairs),
            fn=sum(lie and stays for stays, lie in pairs),
            fp=sum(not lie and not stays for stays, lie in pairs),
            tn=sum(not lie and stays for stays, lie in pairs),
        )

    @property
    def pairs(self) -> tuple[float, int]:
        """Of all pairs of a liar and an honest row, in how many the liar looked worse (ties count
        half), and how many pairs there are.
        """
        suspicion = self.judgement.suspicion
        if suspicion is None or not any(self.lied) or all(self.lied):
            return 0.0, 0
        from scipy.stats import rankdata

        lied = np.asarray(self.lied)
        ranks = rankdata(np.asarray(suspicion))
        liars, honest = int(lied.sum()), int((~lied).sum())
        return float(ranks[lied].sum() - liars * (liars + 1) / 2), liars * honest

    @property
    def auc(self) -> float | None:
        """The chance that a liar looks worse than an honest row; None where there is no pair."""
        above, of = self.pairs
        return above / of if of else None

    @property
    def ranks(self) -> npt.NDArray[np.float64] | None:
        """Each row's rank by suspicion, from 0 to 1, the worst; None where nothing was suspected
        or there is one row.
        """
        suspicion = self.judgement.suspicion
        if suspicion is None or len(suspicion) < 2:
            return None
        from scipy.stats import rankdata

        found: npt.NDArray[np.float64] = (rankdata(suspicion) - 1) / (len(suspicion) - 1)
        return found


@dataclass(frozen=True, slots=True)
class Detection:
    """One seat over all rounds of a run.

    ``counts`` are of rounds in which somebody lied, ``honest`` of those in which nobody did. A seat
    that does not accuse drops a fixed number, or none: its ``tpr``, ``fpr`` and ``precision`` are
    None, and ``among_kept`` says how many liars it selected. ``auc`` compares rows of one round
    only, and its interval resamples rounds.
    """

    seat: str
    part: str
    accuses: bool
    told_f: bool
    rounds: tuple[Judged, ...]
    counts: Confusion
    honest: Confusion
    auc: Figure | None

    @property
    def tpr(self) -> Figure | None:
        """Liars' rows that were dropped; None where nobody lied or the seat does not accuse."""
        return self.counts.tpr if self.accuses else None

    @property
    def fpr(self) -> Figure | None:
        """Honest rows that were dropped in rounds with liars; None where there were no such rounds
        or the seat does not accuse.
        """
        return self.counts.fpr if self.accuses else None

    @property
    def null_fpr(self) -> Figure | None:
        """Honest rows that were dropped in rounds without liars; None as above."""
        return self.honest.fpr if self.accuses else None

    @property
    def precision(self) -> Figure | None:
        """Dropped rows that were liars', in rounds with liars; None as above."""
        return self.counts.precision if self.accuses else None

    @property
    def among_kept(self) -> Figure | None:
        """Liars among the rows that counted, in rounds with liars."""
        return self.counts.among_kept


@dataclass(frozen=True, slots=True)
class ClientHistory:
    """One client under one seat: in how many rounds it was seen, dropped, and lied; ``rank`` is its
    mean rank by suspicion, from 0 to 1, the worst (None where nothing was suspected).
    """

    client: ClientId
    seen: int
    dropped: int
    lied: int
    rank: float | None


def detections(records: Sequence[RoundRecord]) -> list[Detection]:
    """What each seat found over all rounds, from their records alone.

    >>> ids, kept, suspicion = ((0,), (1,)), (True, False), (1.0, 3.0)
    >>> one = Judgement("Rule", "delta", ids, accuses=True, kept=kept, suspicion=suspicion)
    >>> record = RoundRecord(0, 2, 2, None, None, (), 0, {}, judgements=(one,), liars=(1,))
    >>> (found,) = detections([record])
    >>> found.tpr.value, found.fpr.value, found.auc.value
    (1.0, 0.0, 1.0)
    """
    by_seat: dict[tuple[str, str], list[Judged]] = {}
    for record in records:
        liars = set(record.liars)
        for one in record.judgements:
            lied = tuple(not liars.isdisjoint(clients) for clients in one.ids)
            by_seat.setdefault((one.seat, one.part), []).append(
                Judged(record.round, one, lied, bool(liars))
            )
    return [_over_rounds(seat, part, rounds) for (seat, part), rounds in by_seat.items()]


def clients_of(detection: Detection) -> list[ClientHistory]:
    """What a seat made of each client, over all rounds; of a client in a group, what it made of the
    group.
    """
    seen: dict[ClientId, list[tuple[bool, bool, float | None]]] = {}
    for one in detection.rounds:
        ranks, kept = one.ranks, one.judgement.kept
        for row, clients in enumerate(one.judgement.ids):
            dropped = kept is not None and not kept[row]
            rank = None if ranks is None else float(ranks[row])
            for client in clients:
                seen.setdefault(client, []).append((dropped, one.lied[row], rank))
    return [_history(client, seen[client]) for client in sorted(seen)]


def _history(client: ClientId, rows: Sequence[tuple[bool, bool, float | None]]) -> ClientHistory:
    ranks = [rank for _, _, rank in rows if rank is not None]
    return ClientHistory(
        client,
        len(rows),
        sum(dropped for dropped, _, _ in rows),
        sum(lied for _, lied, _ in rows),
        float(np.mean(ranks)) if ranks else None,
    )


def roc(detection: Detection) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """False and true positive rates [t] of all thresholds on the rank by suspicion within a round;
    None where no row of a liar was suspected beside an honest one.
    """
    ranked = [(one.ranks, np.asarray(one.lied)) for one in detection.rounds if one.pairs[1]]
    if not ranked:
        return None
    ranks = np.concatenate([rank for rank, _ in ranked if rank is not None])
    lied = np.concatenate([lies for _, lies in ranked])
    thresholds = np.concatenate([[np.inf], np.unique(ranks)[::-1]])
    return (
        np.asarray([(ranks[~lied] >= t).mean() for t in thresholds]),
        np.asarray([(ranks[lied] >= t).mean() for t in thresholds]),
    )


def _over_rounds(seat: str, part: str, rounds: Sequence[Judged]) -> Detection:
    attacked = [one for one in rounds if one.attacked]
    quiet = [one for one in rounds if not one.attacked]
    first = rounds[0].judgement
    return Detection(
        seat,
        part,
        first.accuses and any(one.judgement.kept is not None for one in rounds),
        first.told_f,
        tuple(rounds),
        _sum(one.counts for one in attacked),
        _sum(one.counts for one in quiet),
        _auc([one.pairs for one in attacked]),
    )


def _sum(counts: Iterable[Confusion]) -> Confusion:
    return sum(counts, Confusion())


def _auc(pairs: Sequence[tuple[float, int]]) -> Figure | None:
    """Over rounds, each pair counting once; the interval resamples rounds."""
    table = np.asarray([pair for pair in pairs if pair[1]], dtype=np.float64)
    if not len(table):
        return None
    value = float(table[:, 0].sum() / table[:, 1].sum())
    if len(table) < 2:
        return Figure(value)
    drawn = np.random.default_rng(0).integers(0, len(table), (DRAWS, len(table)))
    sums = table[drawn].sum(axis=1)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    return Figure(value, float(low), float(high))
