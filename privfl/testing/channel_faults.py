"""What goes wrong on the way: who is silent, late, doubled or garbled is left out or ends the
round, and no sum is ever of other clients than it says.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Mapping

from privfl.core import (
    Bounded,
    Buffer,
    Faults,
    SecretsStay,
    StateKey,
    drive,
    seal_state,
    unseal_state,
)
from privfl.testing.channel_rounds import L2, N, Rounds, arrived, updates
from privfl.testing.channel_sums import exact
from privfl.testing.check import expect

LOST = "client/1"
GARBLED: Mapping[str, Callable[[Buffer], Buffer]] = {
    "nothing": lambda body: b"",
    "a few bytes": lambda body: bytes(body[:3]),
    "half of it": lambda body: bytes(body[: len(body) // 2]),
    "all but a byte": lambda body: bytes(body[:-1]),
    "a byte more": lambda body: bytes(body) + b"x",
    "64 zero bytes": lambda body: bytes(64),
}
FLIPPED: Mapping[str, Callable[[Buffer], Buffer]] = {
    "zeros": lambda body: bytes(len(body)),
    "ones": lambda body: b"\xff" * len(body),
    "ten bytes flipped": (
        lambda body: bytes(body[:40]) + bytes(b ^ 0x5A for b in body[40:50]) + bytes(body[50:])
    ),
}


def _told(rounds: Rounds, faults: Faults, what: str, *, without: bool) -> None:
    """Play a round with a fault: what it opens is exact for whom it names, and without whoever
    failed where that is so from the start.
    """
    plan, outcome = rounds.play(faults)
    for who, abort in outcome.aborts.items():
        expect(bool(str(abort)), f"{what}: {who} gave up without a word", "say why in the Abort")
    if outcome.opened is None:
        return
    if without:
        expect(
            1 not in outcome.opened.survivors,
            f"{what}, and {LOST} counts as a survivor",
            "leave it out",
        )
    if rounds.channel.able.hosts is None:
        exact(rounds, plan, outcome.opened, arrived(rounds.channel, updates(), plan))


def silent(rounds: Rounds) -> None:
    """A client that says nothing from the first exchange is left out and the others' sum is opened;
    one that falls silent later is in it, out of it, or ends the round.
    """
    plan, _, opened = rounds.opened(Faults(silent_from={LOST: 0}))
    expect(
        sorted(opened.survivors) == [0, *range(2, N)]
        or rounds.channel.able.hosts is not None
        or rounds.channel.kind.groups,
        f"{LOST} never spoke, and survivors are {sorted(opened.survivors)}",
        "open what the others sent",
    )
    if rounds.channel.able.hosts is None:
        exact(rounds, plan, opened, arrived(rounds.channel, updates(), plan))
    for exchange in (1, 2, 3):
        _told(
            rounds,
            Faults(silent_from={LOST: exchange}),
            f"{LOST} fell silent in exchange {exchange}",
            without=False,
        )


def nobody_left(rounds: Rounds) -> None:
    """Where every client is silent, nothing is opened."""
    gone = {f"client/{client}": 0 for client in range(N)}
    _, outcome = rounds.play(Faults(silent_from=gone))
    expect(outcome.opened is None, "no client spoke, and something was opened", "open nothing")


def garbled(rounds: Rounds) -> None:
    """Mail that no longer has its shape leaves its sender out, or ends the round with a word; mail
    with other numbers in it crashes nobody.
    """
    for what, garble in GARBLED.items():
        _told(
            rounds,
            Faults(malformed={LOST: garble}),
            f"of each message of {LOST} arrived {what}",
            without=True,
        )
    for garble in FLIPPED.values():
        rounds.play(Faults(malformed={LOST: garble}))
    others = [who for who in rounds.members if not who.startswith("client/")]
    for who, garble in itertools.product(others, (GARBLED["half of it"], FLIPPED["zeros"])):
        rounds.play(Faults(malformed={who: garble}))


def late(rounds: Rounds) -> None:
    """Late mail is out of the sum or in it, and doubled mail changes nothing."""
    _told(rounds, Faults(late={LOST: 1}), f"mail of {LOST} came late", without=False)
    plan, _, opened = rounds.opened(Faults(duplicated={LOST, "client/2"}))
    if rounds.channel.able.hosts is None:
        exact(rounds, plan, opened, arrived(rounds.channel, updates(), plan))
        expect(
            len(opened.survivors) == N,
            f"two clients' mail came twice, and survivors are {opened.survivors}",
            "ignore the second copy",
        )


def other_round(rounds: Rounds) -> None:
    """What a client said in another round does not count in this one."""
    old, plan = rounds.plan(), rounds.plan()
    parties = rounds.parties(plan)
    server = parties.pop("server")
    member = rounds.members[LOST]
    parties[LOST] = member.enter(old, Bounded(1, updates()[1], L2))  # type: ignore[attr-defined]
    outcome = drive(server, parties)
    if outcome.opened is None:
        return
    expect(
        1 not in outcome.opened.survivors,
        f"{LOST} took part in round {old.number}, and round {plan.number} counts it",
        "bind messages to the plan",
    )
    if rounds.channel.able.hosts is None:
        exact(rounds, plan, outcome.opened, arrived(rounds.channel, updates(), plan))


def sleeps(rounds: Rounds) -> None:
    """Members between rounds, and parties between exchanges, can be put to rest on a disk and woken
    again; what holds secrets does not serialise by another way.
    """
    rounds.opened(asleep=True)
    key, hides = StateKey(), rounds.channel.kind.opens == "total" or rounds.channel.kind.groups
    for who, member in rounds.members.items():
        rounds.members[who] = unseal_state(
            seal_state(member, key), key, type(member), lent=rounds.enrolled.directory
        )
    for who, party in rounds.parties(rounds.plan()).items() if hides else ():
        expect(
            not who.startswith("client/") or _stays(party),
            f"the party of {who} in a round, which must keep its update secret, can be pickled",
            "inherit core.KeepsSecrets",
        )
    plan, _, opened = rounds.opened()
    if rounds.channel.able.hosts is None:
        exact(rounds, plan, opened, arrived(rounds.channel, updates(), plan))


def _stays(member: object) -> bool:
    try:
        pickle.dumps(member)
    except SecretsStay:
        return True
    return False


def key_set_up_garbled(rounds: Rounds) -> None:
    """A client that garbles the key set-up is left out, or ends it with a word; no later sum is
    wrong.
    """
    fresh = Rounds(rounds.channel, set_up=Faults(malformed={LOST: GARBLED["half of it"]}))
    plan, outcome = fresh.play()
    if outcome.opened is not None and rounds.channel.able.hosts is None:
        exact(fresh, plan, outcome.opened, arrived(rounds.channel, updates(), plan))
