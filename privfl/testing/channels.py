"""What holds of every channel: it opens what its clients sent, through faults and sleep, shows
nobody more than it says, and is able to do what it declares.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from privfl.core import Channel, ChannelKind, Grouping, Moves, Neighbours, Opens, Rows
from privfl.testing import channel_faults, channel_sums
from privfl.testing.building import Subject, checks_of
from privfl.testing.channel_rounds import L2, D, N, Rounds, updates
from privfl.testing.check import Check, expect, run_all
from privfl.testing.guarantees import check_guarantee

REPLACE, ZERO = (Neighbours("client", relation) for relation in ("replace_one", "zero_out"))


def check_channel(channel: Any) -> None:
    """Check a channel: an object, a class (each of its ``examples``), or a function that makes one.

    Rounds of six clients are played through its real parties; a class that takes seconds for that
    takes a minute here.

    Raises:
        ConformanceError: the first property that does not hold, with what was tried, what came of
            it, and what to change.

    >>> from privfl.crypto import Plain
    >>> check_channel(Plain)
    >>> class Blind(Plain):
    ...     def decode(self, received, members):
    ...         return None
    >>> check_channel(Blind)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    privfl.testing.check.ConformanceError: Blind: it does not hold that ...
    """
    run_all(channel_checks(channel))


def channel_checks(channel: Any) -> Iterator[Check]:
    """The single checks of `check_channel`, as callables for a test runner.

    >>> from privfl.crypto import Plain
    >>> str(next(channel_checks(Plain)))
    'Plain: it declares what it is and may do'
    """
    yield from checks_of(channel, _checks, "channel")


def _checks(subject: Subject) -> Iterator[Check]:
    rounds = Rounds(subject.made)
    properties: list[tuple[str, Callable[[Rounds], None]]] = [
        ("it declares what it is and may do", _declares),
        ("it opens what arrives of what clients send", channel_sums.opens_what_arrives),
        ("weights count", channel_sums.weighs),
        ("the longest updates do not overflow", channel_sums.has_headroom),
        ("what cannot be encoded does not arrive", channel_sums.refuses_what_cannot_be_encoded),
        ("nobody sees more than it says", channel_sums.hides_what_it_says),
        ("noise that it carries is in the sum and accounted for", channel_sums.carries_noise),
        ("a silent client is left out", channel_faults.silent),
        ("nothing is opened of nobody", channel_faults.nobody_left),
        ("garbled mail falsifies no sum and crashes nobody", channel_faults.garbled),
        ("a garbled key set-up falsifies no sum", channel_faults.key_set_up_garbled),
        ("late and doubled mail falsifies no sum", channel_faults.late),
        ("mail of another round does not count", channel_faults.other_round),
        ("members and parties survive sleep", channel_faults.sleeps),
        ("no row is longer, and none moves farther, than it proves", _proves),
        ("groups are means of every row once, by the caller's coin", _groups),
        ("who holds keys reads rows together with the server", _key_holders),
    ]
    for says, run in properties:
        yield Check(subject.name, says, partial(run, rounds))
    yield from _guarantee(subject)


def _guarantee(subject: Subject) -> Iterator[Check]:
    """The lies of a channel's record, each played and measured, and who reads what alone."""
    yield Check(
        subject.name, "lies do what its record says, no more and no less", partial(_lies, subject)
    )


def _lies(subject: Subject) -> None:
    wrong = check_guarantee(subject.made, most=1)
    expect(
        not wrong,
        "; ".join(wrong),
        "stop what the record does not name, or say in guarantee what a liar can do",
    )


def _declares(rounds: Rounds) -> None:
    channel: Any = rounds.channel
    missing = {"kind", "able", "guarantee", "describe", "decode"} - set(dir(channel))
    expect(
        not missing and isinstance(channel, Channel),
        f"it has no {', '.join(sorted(missing)) or 'client, server and helpers'}",
        "write what core.Channel names",
    )
    kind, able = channel.kind, channel.able
    expect(
        isinstance(kind, ChannelKind) and kind.opens in typing.get_args(Opens),
        f"kind is {kind!r}",
        "declare kind: ClassVar[ChannelKind] with opens 'rows' or 'total'",
    )
    expect(
        kind.groups == (able.groups is not None) and (kind.opens == "rows" or not kind.groups),
        f"kind.groups is {kind.groups}, and able.groups is {able.groups}",
        "declare both alike",
    )
    expect(
        bool(kind.runs) == (able.hosts is not None)
        and (able.hosts is None or isinstance(able.hosts, kind.runs)),
        f"kind.runs is {[rule.__name__ for rule in kind.runs]}, and able.hosts is {able.hosts}",
        "host one of the rules that kind.runs names",
    )
    fields = set(dir(channel))
    for name, used in ((kind.rule_field, bool(kind.runs)), (kind.noise_field, kind.takes_noise)):
        expect(
            not used or name in fields,
            f"kind names the field '{name}', and there is none",
            "name the field that takes it",
        )
    parties = set(rounds.members)
    expect(
        bool(able.told) and set(able.told) <= parties,
        f"able.told is {able.told}, and the parties are {sorted(parties)}",
        "name parties",
    )
    said = channel.describe()
    expect(
        len(said.split()) > 3 and said.rstrip().endswith("."),
        f"describe() says {said!r}",
        "say in sentences who can read what",
    )


def _proves(rounds: Rounds) -> None:
    able = rounds.channel.able
    for neighbours in (REPLACE, ZERO):
        moves = Moves(neighbours.ends * L2, L2, changed=1, rows=N)
        if able.encodes is not None:
            moves = able.encodes.stage(D).stability(moves, neighbours)
            _moves_no_farther(rounds, moves, neighbours)
        if able.groups is not None:
            moves = able.groups.stage().stability(moves, neighbours)
            _means_move_no_farther(able.groups, moves, neighbours)


def _means_move_no_farther(groups: Grouping, moves: Moves, neighbours: Neighbours) -> None:
    """One client's row against the means of groups, whatever the coin."""
    before = updates(6) / 0.9
    after = before.clone()
    after[2] = -before[2] if neighbours is REPLACE else 0
    for seed in range(10):
        one, other = (
            groups.means(Rows.of(rows), torch.Generator().manual_seed(seed)).values
            for rows in (before, after)
        )
        apart = float((one - other).norm(dim=1).sum())
        expect(
            apart <= moves.total * (1 + 1e-6),
            f"one row of {N} moved the group means by {apart:.6g}, and groups.stage proves"
            f" {moves.total:.6g} under {neighbours.relation}",
            "divide by the least group that may be",
        )


def _moves_no_farther(rounds: Rounds, moves: Moves, neighbours: Neighbours) -> None:
    encodes, plan = rounds.channel.able.encodes, rounds.plan()
    if encodes is None or math.isinf(moves.total):
        return
    for x, y in (
        (updates(1), updates(2)),
        (updates(3), -updates(3)),
        (updates(4), updates(4) * 1.001),
        (updates(5) / 0.9, -updates(5) / 0.9),
    ):
        for before, after in zip(x, y if neighbours is REPLACE else torch.zeros(N, D), strict=True):
            sent = encodes.arrives(before, plan)
            apart = float((sent - encodes.arrives(after, plan)).norm())
            expect(
                apart <= moves.total * (1 + 1e-6)
                and float(sent.norm()) <= moves.longest * 1.000001,
                f"a row came out {float(sent.norm()):.6g} long and moved by {apart:.6g}, and"
                f" encodes.stage proves {moves.longest:.6g} and {moves.total:.6g}",
                "prove more, or round less",
            )


def _groups(rounds: Rounds) -> None:
    groups = rounds.channel.able.groups
    if groups is None:
        return
    for n in (4 * N, 4 * N + 1):
        rows = Rows.of(torch.eye(n))
        made, again, other = (
            groups.means(rows, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
        )
        expect(
            torch.equal(made.values, again.values) and not torch.equal(made.values, other.values),
            f"the groups of {n} rows do not follow the caller's generator",
            "draw groups from rng and from nothing else",
        )
        expect(
            made.n == groups.rows(n) < n
            and made.ids is None
            and torch.allclose(made.weights.to(made.values) @ made.values, torch.ones(n)),
            f"{n} rows became {made.n} (declared {groups.rows(n)}), or a row counts in none or two",
            "put every row in one group, weigh means by their rows, and give no ids",
        )
        expect(
            0 <= groups.max_byzantine(n) <= (made.n - 1) // 2,
            f"{groups.max_byzantine(n)} liars among {n}, each in a group of its own, leave no"
            f" majority of {made.n} groups",
            "lower max_byzantine",
        )


def _key_holders(rounds: Rounds) -> None:
    named = rounds.channel.able.key_holders
    if named is None:
        return
    holders = set(named(range(N)))
    expect(
        bool(holders) and holders <= set(rounds.members),
        f"able.key_holders names {sorted(holders)}",
        "name parties of the channel",
    )
    _, outcome, _ = rounds.opened()
    seen = rounds.seen(outcome, {"server", *holders})
    expect(
        isinstance(seen, Rows),
        f"{', '.join(sorted(holders))} with the server's mail read no rows",
        "decode what they can decrypt, or name who can",
    )
