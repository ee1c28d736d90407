"""Random rounds of secure aggregation through the real parties: honest ones with drop-outs at every
stage, and ones with a client that lies at random.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from privfl.audit.protocol.clients import AnswersWrongly, DealsWrongly, Garbles, Shares
from privfl.core import (
    Bounded,
    ClientId,
    ConfigError,
    Faults,
    Outcome,
    Party,
    PartyId,
    PrivflError,
    RoundPlan,
    Total,
    client_party,
    drive,
)
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.secagg.channel import SecAgg
from privfl.crypto.secagg.client import SecAggClientParty
from privfl.crypto.secagg.stage import Kind

SPOKEN = (Kind.ADVERTISE, Kind.SHARES, Kind.MASKED, Kind.CONSISTENCY, Kind.UNMASK)
Lie = Callable[[Party], Party]


@dataclass(frozen=True)
class FuzzedRound:
    """One random round: the channel, the plan, and everybody's update."""

    channel: SecAgg
    plan: RoundPlan
    updates: dict[ClientId, Bounded]

    @classmethod
    def drawn(cls, rng: random.Random) -> FuzzedRound:
        """A cohort of 3 to 14 in either mode, on a complete graph or a sparse one."""
        n, d = rng.randint(3, 14), rng.randint(1, 9)
        degree, bits = rng.choice([4, 6, 8]), rng.choice([8, 12, 16])
        modes: tuple[Literal["semi_honest", "active"], ...] = ("semi_honest", "active")
        graph: Literal["complete"] | int = "complete" if rng.random() < 0.5 else degree
        channel = SecAgg(mode=rng.choice(modes), graph=graph, corrupt=0.0, bits=bits)
        plan = RoundPlan(
            rng.randint(0, 99), tuple(rng.sample(range(1000), n)), d, 1.0, 4.0, session=b"fuzz"
        )
        draw = torch.Generator().manual_seed(rng.getrandbits(60))
        updates = {}
        for client in plan.cohort:
            row = torch.randn(d, generator=draw)
            weight = rng.choice([0.5, 1.0, 3.0])
            updates[client] = Bounded(client, 0.99 * row / row.norm(), 1.0, weight=weight)
        return cls(channel, plan, updates)

    def play(self, faults: Faults) -> Outcome[Total]:
        """The round."""
        everybody = Enrolled.fresh(self.channel, self.plan.cohort)
        parties = {
            client_party(c): member.enter(self.plan, self.updates[c])
            for c, member in everybody.clients.items()
        }
        return drive(everybody.server.enter(self.plan), parties, faults)

    def wrong(self, outcome: Outcome[Total]) -> str:
        """What is wrong with what an honest round opened; empty where nothing is."""
        if outcome.opened is None:
            return ""
        code, survivors = self.channel.code, outcome.opened.survivors
        if len(survivors) < self.channel.fewest(self.plan.n):
            return "below the quorum"
        numbers = sum(code.encode(self.updates[c], self.plan) for c in survivors)
        exact = code.decode(np.asarray(numbers), self.plan, len(survivors))
        same = torch.equal(exact.value, outcome.opened.what.value)
        return "" if same and exact.weight == outcome.opened.what.weight else "a wrong sum"


def accused(outcome: Outcome[Total]) -> set[PartyId]:
    """Whom anybody blames, and who is excluded by name."""
    blamed = {abort.blamed for abort in outcome.aborts.values() if abort.blamed is not None}
    return blamed | set(outcome.opened.excluded if outcome.opened is not None else ())


def honest(seed: int) -> str:
    """What came of one round in which anybody may leave at any stage: "opened", "refused", or what
    is wrong with it.
    """
    rng = random.Random(seed)  # noqa: S311  which rounds are tried is no secret
    scene = _standing(rng)
    silent = {
        client_party(c): 2 * rng.randint(0, 4) for c in scene.plan.cohort if rng.random() < 0.12
    }
    outcome = scene.play(Faults(silent_from=silent))
    if accused(outcome):
        return f"blames {sorted(accused(outcome))} where nobody lied"
    return scene.wrong(outcome) or ("refused" if outcome.opened is None else "opened")


def with_a_liar(seed: int) -> str:
    """What came of one round in which one client lies and another may leave: "opened", "refused",
    or "blames ..." where it accuses somebody else.
    """
    rng = random.Random(seed)  # noqa: S311  which rounds are tried is no secret
    scene = _standing(rng)
    liar, other = (client_party(c) for c in rng.sample(scene.plan.cohort, 2))
    silent = {other: 2 * rng.randint(0, 4)} if rng.random() < 0.3 else {}
    outcome = scene.play(Faults(byzantine={liar: _lie(rng)}, silent_from=silent))
    others = accused(outcome) - {liar}
    if others:
        return f"blames {sorted(others)} where {liar} lied"
    if outcome.opened is not None and len(outcome.opened.survivors) < scene.channel.fewest(
        scene.plan.n
    ):
        return "below the quorum"
    return "refused" if outcome.opened is None else "opened"


def counted(play: Callable[[int], str], seeds: Iterable[int]) -> Counter[str]:
    """How often what came of rounds of these seeds; a crash counts as one."""
    found: Counter[str] = Counter()
    for seed in seeds:
        try:
            found[play(seed)] += 1
        except Exception as crash:  # whatever it is, it must not happen
            found[f"crash: {crash!r}"] += 1
    return found


def _standing(rng: random.Random) -> FuzzedRound:
    """A scene whose graph the channel does not refuse."""
    while True:
        scene = FuzzedRound.drawn(rng)
        try:
            scene.channel.parameters(scene.plan)
        except ConfigError:
            continue
        return scene


def _lie(rng: random.Random) -> Lie:
    kind, how = rng.choice(SPOKEN), rng.randrange(4)
    if how == 0:
        return lambda party: DealsWrongly(_client(party), _random_shares(rng))
    if how == 1:
        return lambda party: AnswersWrongly(_client(party), _random_answers(rng))
    return lambda party: Garbles(_client(party), kind, _random_bytes(rng))


def _client(party: Party) -> SecAggClientParty:
    if not isinstance(party, SecAggClientParty):
        raise PrivflError(f"{type(party).__name__} is no client of secure aggregation.")
    return party


def _random_shares(rng: random.Random) -> Callable[[int, bytes], bytes]:
    some = rng.random()

    def change(holder: int, plain: bytes) -> bytes:
        if rng.random() > some:
            return plain
        return rng.choice([rng.randbytes(64), b"\xff" * 64, plain[:32] + rng.randbytes(32)])

    return change


def _random_answers(rng: random.Random) -> Callable[[Shares, Shares], tuple[Shares, Shares]]:
    some = rng.random()

    def spoilt(shares: Shares) -> Shares:
        out = {}
        for owner, share in shares.items():
            drawn = rng.random()
            if drawn > some:
                out[owner] = share
            elif drawn > some / 3:
                out[owner] = rng.randbytes(31) + b"\0"
        return out

    def change(seeds: Shares, gone: Shares) -> tuple[Shares, Shares]:
        if rng.random() < 0.2:
            return gone, seeds
        return spoilt(seeds), spoilt(gone)

    return change


def _random_bytes(rng: random.Random) -> Callable[[bytes], bytes]:
    def change(body: bytes) -> bytes:
        at = rng.randrange(len(body))
        return rng.choice(
            [
                rng.randbytes(len(body)),
                body[:at],
                body + rng.randbytes(5),
                body[:at] + bytes([body[at] ^ (1 << rng.randrange(8))]) + body[at + 1 :],
                body[:at] + rng.randbytes(len(body) - at),
                b"",
            ]
        )

    return change
