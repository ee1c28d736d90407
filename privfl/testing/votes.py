"""What holds of every noisy vote: neighbours look as alike as its charge says, and it answers no
more than is charged.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from privfl.core import Neighbours, OsNoise, SeededNoise
from privfl.dp.accounting import Release, pld_epsilon
from privfl.dp.charges import stepped
from privfl.dp.pate import UNANSWERED, ConfidentGNMax
from privfl.testing.building import Subject, checks_of
from privfl.testing.check import Check, expect, run_all

DRAWS = 4_000
_FAR = 5.0
"""Standard errors that chance may explain."""
_DELTAS = (0.05, 0.2, 0.4)


def check_vote(rule: ConfidentGNMax | type[ConfidentGNMax]) -> None:
    """Check a noisy vote: an object, or a class (each of its ``examples``).

    Raises:
        ConformanceError: the first property that does not hold, with what was tried, what came of
            it, and what to change.

    >>> class Thin(ConfidentGNMax):
    ...     def answer(self, counts, noise):
    ...         return ConfidentGNMax(self.deviation / 3).answer(counts, noise)
    >>> check_vote(Thin(deviation=2.0))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    privfl.testing.check.ConformanceError: Thin: it does not hold that neighbouring ...
    """
    run_all(vote_checks(rule))


def vote_checks(rule: ConfidentGNMax | type[ConfidentGNMax]) -> Iterator[Check]:
    """The single checks of `check_vote`, as callables for a test runner.

    >>> len(list(vote_checks(ConfidentGNMax(deviation=2.0))))
    3
    """
    yield from checks_of(rule, _checks, "vote")


def _checks(subject: Subject) -> Iterator[Check]:
    for says, run in (
        ("labels repeat with a seeded source, and with no other", _repeats),
        ("it answers no more queries than it charges for", _answers),
        ("neighbouring votes look as alike as its charge says", _alike),
    ):
        yield Check(subject.name, says, partial(run, subject.made))


def _repeats(rule: ConfidentGNMax) -> None:
    torn = torch.full((200, 4), _level(rule))
    seeded = [rule.answer(torn, SeededNoise(3)) for _ in range(2)]
    fresh = [rule.answer(torn, OsNoise()) for _ in range(2)]
    expect(
        torch.equal(*seeded),
        "the same seed gave other labels",
        "draw every bit from the source that is passed in",
    )
    expect(
        not torch.equal(*fresh) or rule.most_answers is not None,
        "200 undecided votes gave the same labels twice",
        "draw every bit from the source that is passed in, and seed nothing",
    )


def _answers(rule: ConfidentGNMax) -> None:
    clear = torch.zeros(60, 3, dtype=torch.int64)
    clear[:, 1] = 10 * _level(rule)
    answered = int((rule.answer(clear, OsNoise()) != UNANSWERED).sum())
    *_, paid = rule.steps(60, 10, Neighbours("client", "replace_one"))
    expect(
        answered <= paid.count,
        f"of 60 clear votes it answered {answered}, and it charges for {paid.count}",
        "stop after most_answers, or charge for every query",
    )


def _level(rule: ConfidentGNMax) -> int:
    """A count near the threshold, where both of its sides are likely."""
    return max(round(rule.threshold or 0), 1)


def _alike(rule: ConfidentGNMax) -> None:
    """One query, the largest count at the threshold and the two leaders a vote apart: where a
    replaced vote is seen best. Every draw is a vote of its own.
    """
    level, each = _level(rule), Neighbours("client", "replace_one")
    pairs = [
        ((level, level - 1), (level - 1, level)),
        ((level, 0), (level - 1, 1)),
        ((level + 1, 0), (level, 1)),
    ]
    steps = rule.steps(1, 2 * level, each)
    releases = Counter({Release.of(one): one.count for one in stepped(0, steps, each)})
    for one, other in pairs:
        here, there = (_frequencies(rule, torch.tensor(counts)) for counts in (one, other))
        for delta in _DELTAS:
            claimed = pld_epsilon(releases, delta)
            for p, q in ((here, there), (there, here)):
                seen, noise = _excess(p, q, math.exp(claimed))
                expect(
                    seen <= delta + _FAR * noise,
                    f"of the votes {list(one)} and {list(other)} it tells one from the other with"
                    f" delta {seen:.3f} at epsilon {claimed:.3f}, and its charge says {delta:g}",
                    "add the noise that steps() states, to every count and to the check",
                )


def _frequencies(rule: ConfidentGNMax, counts: Int[Tensor, " m"]) -> Tensor:
    if rule.most_answers is None:
        drawn = rule.answer(counts.repeat(DRAWS, 1), OsNoise())
    else:
        drawn = torch.cat([rule.answer(counts[None], OsNoise()) for _ in range(DRAWS)])
    return torch.bincount(drawn + 1, minlength=len(counts) + 1) / DRAWS


def _excess(p: Tensor, q: Tensor, factor: float) -> tuple[float, float]:
    """How much likelier than allowed what tells them apart best is, and the standard error."""
    seen = p > factor * q
    a, b = float(p[seen].sum()), float(q[seen].sum())
    error = math.sqrt(a * (1 - a) / DRAWS) + factor * math.sqrt(b * (1 - b) / DRAWS)
    return a - factor * b, error
