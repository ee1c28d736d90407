"""Decryptors that lie under a split Paillier key, in whole rounds: the sum is exact and the liars
are named in every one in which enough honest ones are left.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.harness import Row, cost, gain, interleaved, say
from privfl.core import Bounded, RoundPlan, client_party, drive, drive_all
from privfl.crypto import Paillier
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.he.paillier.keys import from_primes
from privfl.crypto.he.paillier.safe_primes import safe_prime
from privfl.crypto.he.paillier.threshold import proven, split

SETTINGS = ((3, 2, 1), (4, 3, 1), (5, 3, 1), (5, 3, 2))
"""Holders, threshold, liars."""
Part = tuple[bytes, bytes, bytes]
Lying = Callable[[Any, Part, random.Random], tuple[bytes, ...]]


def _powers(change: Callable[[Any, bytes, random.Random], bytes]) -> Lying:
    def lie(share: Any, part: Part, chance: random.Random) -> tuple[bytes, ...]:
        return part[0], change(share, part[1], chance), part[2]

    return lie


def _moved(share: Any, body: bytes, chance: random.Random) -> bytes:
    public = share.public
    first = int.from_bytes(body[: public.width], "little")
    moved = first * (1 + chance.randrange(1, public.n) * public.n) % public.n2
    return moved.to_bytes(public.width, "little") + body[public.width :]


def _random(share: Any, body: bytes, chance: random.Random) -> bytes:
    public = share.public
    count = len(body) // public.width
    return b"".join(
        chance.randrange(2, public.n2).to_bytes(public.width, "little") for _ in range(count)
    )


def _one_more(share: Any, body: bytes, chance: random.Random) -> bytes:
    number = (int.from_bytes(body[: share.public.width], "little") + 1) % share.public.n2
    return number.to_bytes(share.public.width, "little") + body[share.public.width :]


LIES: dict[str, Lying] = {
    "a constant more": _powers(_moved),
    "random numbers": _powers(_random),
    "a number changed by one": _powers(_one_more),
    "zeros": _powers(lambda share, body, chance: bytes(len(body))),
    "too short": _powers(lambda share, body, chance: body[:-1]),
    "another's number": lambda share, part, chance: (
        bytes([share.index % share.holders + 1, share.holders]),
        part[1],
        part[2],
    ),
    "no proof": lambda share, part, chance: (part[0], part[1], b""),
    "no part": lambda share, part, chance: (),
    "a proof of something else": lambda share, part, chance: (
        part[0],
        part[1],
        part[2][:-9] + chance.randbytes(9),
    ),
}


@dataclass
class LyingShare:
    """A holder's share, whose parts are lies."""

    honest: Any
    lie: Lying
    chance: random.Random

    def to_bytes(self) -> bytes:
        return bytes(self.honest.to_bytes())

    def partial(self, ciphertext: Any, plan: RoundPlan) -> tuple[bytes, ...]:
        return self.lie(self.honest, self.honest.partial(ciphertext, plan), self.chance)


class Session:
    """Clients, a server and decryptors under a split key of ``key_bits``."""

    def __init__(self, holders: int, threshold: int, key_bits: int = 512, d: int = 30) -> None:
        self.channel = Paillier(
            keys="threshold",
            holders=holders,
            threshold=threshold,
            key_bits=key_bits,
            insecure_for_tests=True,
        )
        self.members: dict[str, Any] = dict(Enrolled.fresh(self.channel, range(3)).members)
        drive_all({who: member.set_up() for who, member in self.members.items()})
        rows = torch.randn(3, d, generator=torch.Generator().manual_seed(4))
        self.rows, self.d, self.number = 0.9 * rows / rows.norm(dim=1, keepdim=True), d, 0

    def play(self, liars: dict[str, Lying], seed: int = 0) -> Any:
        """One round in which these decryptors lie so."""
        self.number += 1
        plan = RoundPlan(self.number, (0, 1, 2), self.d, l2=1.0, session=b"s")
        honest = {who: self.members[who].ring.share for who in liars}
        for who, lie in liars.items():
            lies = random.Random(seed)  # noqa: S311
            self.members[who].ring.share = LyingShare(honest[who], lie, lies)
        parties = {
            client_party(i): self.members[client_party(i)].enter(
                plan, Bounded(i, self.rows[i], 1.0)
            )
            for i in range(3)
        }
        parties |= {who: self.members[who].enter(plan) for who in self.channel.helpers}
        outcome = drive(self.members["server"].enter(plan), parties)
        for who, share in honest.items():
            self.members[who].ring.share = share
        return outcome

    def right(self, outcome: Any, liars: dict[str, Lying]) -> bool:
        """Whether the sum is exact and the liars, and nobody else, are named."""
        opened = outcome.opened
        if opened is None or set(opened.excluded) != set(liars):
            return False
        return float((opened.what.value - self.rows.sum(dim=0)).abs().max()) < 3e-4


def played(rounds: int, seed: int = 1) -> tuple[int, list[str]]:
    """How many of so many rounds with random lies ended right, and those that did not, in words."""
    chance, right, faults = random.Random(seed), 0, []  # noqa: S311
    sessions = {setting: Session(*setting[:2]) for setting in SETTINGS}
    for number in range(rounds):
        setting = chance.choice(SETTINGS)
        session = sessions[setting]
        who = chance.sample(session.channel.arrangement.decryptors, setting[2])
        names = {liar: chance.choice(list(LIES)) for liar in who}
        liars = {liar: LIES[name] for liar, name in names.items()}
        outcome = session.play(liars, seed=number)
        if session.right(outcome, liars):
            right += 1
        else:
            said = outcome.opened.excluded if outcome.opened else outcome.aborts
            faults.append(f"{setting}: {names}: {said}")
    return right, faults


def lying_decryptors(quick: bool) -> Iterator[Row]:
    """Rounds with lying decryptors under keys of 512 bits; what a proof costs at 3072 bits."""
    rounds = 100 if quick else 1000
    right, faults = played(rounds)
    for fault in faults:
        say("lying decryptors:", fault)
    yield gain("lying-decryptors", "rounds", "exact, the liars named", right, rounds, 1)
    began = time.process_time()
    secret = from_primes(safe_prime(1536), safe_prime(1536), 16)
    say(f"two safe primes of 1536 bits: {time.process_time() - began:.1f} CPU s")
    public, shares = split(secret, 3, 2)
    plan = RoundPlan(0, tuple(range(100)), 22 * 127 - 1, l2=1.0)
    total = public.blinded([1] * 22, public.fresh_blinding(22))
    bare = type(shares[0])(1, shares[0].value, 3, secret.public)
    part = shares[0].partial(total, plan)
    seconds = interleaved(
        {
            "bare": lambda: bare.partial(total, plan),
            "proven": lambda: shares[0].partial(total, plan),
            "checked": lambda: proven(public, total, part, 1, plan),
        },
        1 if quick else 3,
        time.process_time,
    )
    case = "paillier-3072-parts"
    yield cost(case, "without a proof", "22 parts, s", seconds["proven"], seconds["bare"])
    yield cost(case, "22 parts", "checking their proof, s", seconds["checked"], seconds["bare"])
    yield cost(case, "22 parts", "bytes of a proof", len(part[2]), len(part[1]))
