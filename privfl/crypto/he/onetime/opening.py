"""How the server finds the sum of the one-time keys among the decryptors' answers, although some
may be lies, and whom it may blame.

Every group of t answers gives a candidate. A sum of short vectors is short, and what it leaves of
the running sum below one step of the plaintext is a sum of errors; of a wrong candidate it is
uniform, because a is. So one right group is enough, and decryptors cannot steer the sum: a
multiplies their error.

Blame is another matter. Answers off the polynomial through a right group need not be the wrong
ones: with x as the decryptor's number, liars 1 and 2 that err by x(x - 3) leave the group 1, 2, 3
right at 0, where the key is, and the honest 4 and 5 look off. A polynomial that is right at 0 and
is not the honest one meets it in at most t - 2 answers more, so with l liars at most l + t - 2
answers lie on it. All that holds for the key that the contributions fit, and a client that works
with l decryptors makes them fit another one, which a polynomial through l + t - 1 answers gives: so
a holder that is off is named together with what would clear it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from privfl.crypto.he.onetime.dealing import Values, centred, interpolated
from privfl.crypto.he.onetime.pad import Sum
from privfl.crypto.he.onetime.parameters import P
from privfl.crypto.sharing.decoding import decoded, value

FEW = 9
"""As many decryptors have so few groups that all are tried."""
_MIXES = 4


@dataclass(frozen=True, slots=True)
class SumOfKeys:
    """The sum of the one-time keys [N], and the points of those who answered something else, where
    that is certain.
    """

    short: Sum
    liars: frozenset[int]


def solve(
    answers: Mapping[int, Values], threshold: int, reach: int, right: Callable[[Sum], bool]
) -> SumOfKeys | None:
    """The sum of the one-time keys from answers [N] by point; None where no ``threshold`` of them
    give one. ``reach``: how long it can be; ``right``: whether it fits the running sum.
    """
    if len(answers) > FEW:
        return _corrected(answers, threshold, reach, right)
    for group in combinations(sorted(answers), threshold):
        some = {point: answers[point] for point in group}
        short = centred(interpolated(some, 0))
        if (np.abs(short) <= reach).all() and right(short):
            return SumOfKeys(short, _liars(answers, threshold, short))
    return None


def _corrected(
    answers: Mapping[int, Values], threshold: int, reach: int, right: Callable[[Sum], bool]
) -> SumOfKeys | None:
    """The same for more answers than have groups to try: (m - t) / 2 of m may be wrong, which a
    decoder finds in one random combination of all coordinates, but with probability 1 / P a try.
    """
    for _ in range(_MIXES):
        off = _off(answers, threshold)
        if off is None:
            return None
        some = {x: answers[x] for x in [x for x in sorted(answers) if x not in off][:threshold]}
        short = centred(interpolated(some, 0))
        if (np.abs(short) <= reach).all() and right(short):
            most = max(threshold - 1, len(off))
            certain = len(answers) - len(off) > most + threshold - 2
            return SumOfKeys(short, off if certain else frozenset())
    return None


def _off(answers: Mapping[int, Values], threshold: int) -> frozenset[int] | None:
    """Who is off the polynomial that most are on, by a random combination of all coordinates; None
    where there is none.
    """
    size = len(next(iter(answers.values())))
    mix = np.array([secrets.randbelow(P) for _ in range(size)], dtype=np.int64)
    mixed = {point: int((mix * said % P).sum() % P) for point, said in answers.items()}
    found = decoded(mixed, threshold, P)
    if found is None:
        return None
    return frozenset(x for x, y in mixed.items() if value(found, x, P) != y)


def _liars(answers: Mapping[int, Values], threshold: int, short: Sum) -> frozenset[int]:
    """Who answered off the one polynomial that is right at 0 and on which more answers lie than on
    a false one: whatever fewer than ``threshold`` liars do, nobody honest is among them, as long as
    no client works with them.
    """
    for group in combinations(sorted(answers), threshold):
        some = {point: answers[point] for point in group}
        if (centred(interpolated(some, 0)) != short).any():
            continue
        off = frozenset(
            point for point, said in answers.items() if (interpolated(some, point) != said).any()
        )
        most = max(threshold - 1, len(off))
        if len(answers) - len(off) > most + threshold - 2:
            return off
    return frozenset()


def agreed(answers: Mapping[int, Values], threshold: int) -> bool:
    """Whether more answers than the threshold lie on one polynomial: then a decryptor's lie is not
    why nothing opens.
    """
    group = sorted(answers)[:threshold]
    some = {point: answers[point] for point in group}
    return len(answers) > threshold and all(
        (interpolated(some, point) == said).all() for point, said in answers.items()
    )


@dataclass(frozen=True, slots=True)
class ChosenSum:
    """Which decryptors open, by name, and whose messages."""

    holders: frozenset[str]
    ids: frozenset[bytes]


def choose(accepted: Mapping[str, Set[bytes]], threshold: int) -> ChosenSum:
    """The decryptors, at least ``threshold`` of them, that have the most messages in common whose
    dealings they found good; of equals the largest group.

    >>> said = {"a": {b"1", b"2"}, "b": {b"1", b"2"}, "c": {b"1"}}
    >>> found = choose(said, 2)
    >>> sorted(found.holders), sorted(found.ids)
    (['a', 'b'], [b'1', b'2'])
    """
    if len(accepted) > FEW:
        return _grown(accepted, threshold)
    groups = [
        ChosenSum(frozenset(group), frozenset(set.intersection(*(set(accepted[w]) for w in group))))
        for size in range(threshold, len(accepted) + 1)
        for group in combinations(sorted(accepted), size)
    ]
    return max(groups, key=lambda found: (len(found.ids), len(found.holders)))


def _grown(accepted: Mapping[str, Set[bytes]], threshold: int) -> ChosenSum:
    """The same among more decryptors than have groups to try: of the groups that are left when one
    after the other goes who found the fewest good.
    """
    order = sorted(accepted, key=lambda who: (-len(accepted[who]), who))
    groups = [
        ChosenSum(
            frozenset(order[:size]),
            frozenset(set.intersection(*(set(accepted[who]) for who in order[:size]))),
        )
        for size in range(threshold, len(order) + 1)
    ]
    return max(groups, key=lambda found: (len(found.ids), len(found.holders)))


def disputes(
    accepted: Mapping[str, Set[bytes]],
    names: Mapping[bytes, str],
    dealt: Mapping[bytes, Collection[str]],
    threshold: int,
) -> dict[str, str]:
    """Why somebody is named whose dealing was turned down, or who turned one down. ``names``: the
    clients by message, ``dealt``: to whom they dealt at all.

    A dealing that ``threshold`` decryptors turn down is bad, because one of them is honest;
    otherwise one of two lied, and nobody can say who.
    """
    said: dict[str, str] = {}
    for name, client in names.items():
        against = [who for who, ids in sorted(accepted.items()) if name not in ids]
        left_out = [who for who in against if who not in dealt[name]]
        against = [who for who in against if who in dealt[name]]
        if len(against) >= threshold:
            said[client] = f"{_listed(against)} found its dealing bad"
        elif against:
            both = f"{_listed(against)} found the dealing of {client} bad, and others found it good"
            why = f"{both}: one of the two lied"
            said.update({who: why for who in against if who not in said})
            said[client] = why
        elif left_out:
            said[client] = (
                f"it dealt nothing to {_listed(left_out)}, or heard nothing of them in the set-up"
            )
    return said


def _listed(parties: Collection[str]) -> str:
    return " and ".join(parties)
