"""Random changes to bytes that come from others: ciphertexts inside of honest letters under BFV and
CKKS, and whole messages of anybody on the way, under every encrypted channel. Every round ends with
somebody excluded by name, with the exact sum of those taken, or opens nothing; nothing is raised.

`python -m benchmarks.he.mutations --seed 3 --count 500 --only bfv` plays some of them again.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.harness import Row, cost, gain, say
from benchmarks.he.foreign_bytes import CHANNELS, LIAR, Session, Tally, grown_by
from privfl.core import Bounded, Buffer, Faults, client_party, drive
from privfl.crypto import MultiPartyRLWE, OneTimeRLWE, Paillier

WIRE: dict[str, Any] = {
    **CHANNELS,
    "mp_rlwe": MultiPartyRLWE(),
    "one_time_rlwe": OneTimeRLWE(),
    "paillier-threshold": Paillier(
        keys="threshold", holders=3, threshold=2, key_bits=512, insecure_for_tests=True
    ),
}
EDGES = (b"\x00", b"\xff", b"\x7f", b"\x80")


def mutated(body: bytes, chance: random.Random) -> bytes:
    """The same bytes with one to four random changes."""
    data = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        chance.choice(CHANGES)(data, chance)
    return bytes(data)


def _place(data: bytearray, chance: random.Random) -> int:
    """Anywhere, and in the first hundred bytes as often as in all others."""
    most = min(len(data), 113) if chance.random() < 0.5 else len(data)
    return chance.randrange(most) if most else 0


def _flip(data: bytearray, chance: random.Random) -> None:
    if data:
        data[_place(data, chance)] ^= 1 << chance.randrange(8)


def _write(data: bytearray, chance: random.Random) -> None:
    at, size = _place(data, chance), min(chance.choice((1, 2, 4, 8)), len(data))
    data[at : at + size] = (chance.choice(EDGES) * size)[: len(data) - at]


def _noise(data: bytearray, chance: random.Random) -> None:
    at, size = _place(data, chance), chance.choice((1, 5, 8, 64))
    data[at : at + size] = chance.randbytes(min(size, len(data) - at))


def _insert(data: bytearray, chance: random.Random) -> None:
    at = _place(data, chance)
    data[at:at] = chance.randbytes(chance.choice((1, 2, 5, 8, 97)))


def _delete(data: bytearray, chance: random.Random) -> None:
    at = _place(data, chance)
    del data[at : at + chance.choice((1, 2, 5, 8, 97))]


def _repeat(data: bytearray, chance: random.Random) -> None:
    at, size = _place(data, chance), chance.choice((8, 97, 4096))
    data[at:at] = data[at : at + size]


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[_place(data, chance) :]


def _swap(data: bytearray, chance: random.Random) -> None:
    one, other, size = _place(data, chance), _place(data, chance), chance.choice((5, 8, 97))
    if abs(one - other) >= size and max(one, other) + size <= len(data):
        first = data[one : one + size]
        data[one : one + size] = data[other : other + size]
        data[other : other + size] = first


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip,
    _write,
    _noise,
    _insert,
    _delete,
    _repeat,
    _cut,
    _swap,
)


@dataclass
class _Judge:
    """What came of the rounds of one channel, and what went wrong, in words."""

    session: Session
    tally: Tally
    faults: list[str]

    def play(self, what: str, play: Callable[[], Any], name: str, *, garbage: bool) -> None:
        """One round in which ``name`` says something else. ``garbage``: what it says may be a
        ciphertext all the same, of anything.
        """
        tally = self.tally
        tally.tried += 1
        began = time.perf_counter()
        try:
            outcome, grown = grown_by(play)
        except Exception as error:
            self.faults.append(f"{what}: {type(error).__name__} out of the round: {error}")
            return
        finally:
            tally.slowest = max(tally.slowest, time.perf_counter() - began)
        tally.grown = max(tally.grown, grown)
        opened, said = outcome.opened, " ".join(map(str, outcome.aborts.values()))
        if opened is None:
            tally.closed += 1
            if not (garbage and "not a sum of" in said) and name != self.alone:
                self.faults.append(f"{what}: the round opened nothing: {said}")
            return
        if set(opened.excluded) - {name}:
            self.faults.append(f"{what}: somebody else is named: {opened.excluded}")
        tally.named += name in opened.excluded
        tally.taken += name not in opened.excluded
        if not (garbage and LIAR in opened.survivors) and self.session.off(opened) > 3e-4:
            tally.wrong += 1
            self.faults.append(f"{what}: the sum of {opened.survivors} is off")

    @property
    def alone(self) -> str:
        """The one decryptor, without which nothing opens."""
        helpers = self.session.channel.helpers
        return helpers[0] if len(helpers) == 1 else ""


def inside(name: str, seed: int, count: int) -> tuple[Tally, list[str]]:
    """A client's ciphertext with random changes, signed and sealed as its own."""
    judge = _Judge(Session(CHANNELS[name]), Tally(), [])
    session, who = judge.session, client_party(LIAR)
    for number in range(count):
        chance = random.Random(f"{name} {seed} {number}")  # noqa: S311
        honest = session.body(LIAR, session.plan())
        body = mutated(honest, chance)
        play = partial(session.play, {LIAR: (body,)}, session.plan())
        same = len(body) == len(honest)
        judge.play(f"{name}, seed {seed}, number {number}", play, who, garbage=same)
    return judge.tally, judge.faults


def on_the_way(name: str, seed: int, count: int) -> tuple[Tally, list[str]]:
    """All that one client or decryptor sends in a round, with random changes."""
    judge = _Judge(Session(WIRE[name], d=500), Tally(), [])
    session = judge.session
    for number in range(count):
        chance = random.Random(f"way {name} {seed} {number}")  # noqa: S311
        clients = [client_party(client) for client in range(session.n)]
        who = chance.choice([*clients, *session.channel.helpers])

        def changed(body: Buffer, chance: random.Random = chance) -> bytes:
            return mutated(bytes(body), chance)

        def play(who: str = who, changed: Callable[[Buffer], Buffer] = changed) -> Any:
            plan = session.plan()
            parties = {
                client_party(i): session.members[client_party(i)].enter(
                    plan, Bounded(i, session.rows[i], 1.0)
                )
                for i in range(session.n)
            }
            parties |= {w: session.members[w].enter(plan) for w in session.channel.helpers}
            server = session.members["server"].enter(plan)
            return drive(server, parties, Faults(malformed={who: changed}))

        judge.play(f"{name}, seed {seed}, number {number}: {who}", play, who, garbage=False)
    return judge.tally, judge.faults


def rows(cases: dict[str, tuple[Tally, list[str]]]) -> Iterator[Row]:
    for case, (tally, faults) in cases.items():
        for fault in faults:
            say(fault)
        say(f"{case}: {tally}")
        handled = float(tally.tried - len(faults))
        yield gain(case, "rounds", "handled as they must be", handled, tally.tried, 1)
        yield cost(case, "64 MB", "growth of the largest memory, MB", max(tally.grown, 0.1), 64, 1)
        yield cost(case, "1 s", "slowest round, s", tally.slowest, 1, 1)


def mutations(quick: bool) -> Iterator[Row]:
    """Random changes inside of ciphertexts, and of whole messages."""
    count = 40 if quick else 500
    yield from rows({f"inside-{name}": inside(name, 1, count) for name in CHANNELS})
    yield from rows({f"way-{name}": on_the_way(name, 1, count) for name in WIRE})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.he.mutations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--only", choices=list(WIRE), help="one channel")
    options = parser.parse_args()
    for one in WIRE if options.only is None else [options.only]:
        played = {f"way-{one}": on_the_way(one, options.seed, options.count)}
        if one in CHANNELS:
            played[f"inside-{one}"] = inside(one, options.seed, options.count)
        for row in rows(played):
            print(row)
