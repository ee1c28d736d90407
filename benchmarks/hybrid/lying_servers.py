"""One of two servers lies at random, at every frame that it sends: what the other lets pass."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from benchmarks.harness import Row, cost
from privfl.aggregators import CosineFilter, FLTrust, Krum, Mean
from privfl.core import (
    Bounded,
    Context,
    Faults,
    InformedServer,
    Opened,
    Party,
    RoundPlan,
    Total,
    client_party,
    drive,
)
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.mpc.words import I64, U64, ring_mask, signed
from privfl.hybrid.two_server import SignTwoServer, TwoServer
from privfl.hybrid.two_server.client import integers
from privfl.hybrid.two_server.fixed_checks import Announce
from privfl.hybrid.two_server.fixed_choice import HIDDEN
from privfl.hybrid.two_server.forged import Forge, ForgesFrames
from privfl.hybrid.two_server.frame_lies import FrameLie, notes
from privfl.hybrid.two_server.machine import Machine, Step
from privfl.hybrid.two_server.oblivious_selection import ObliviousSum
from privfl.hybrid.two_server.opened_scores import SCORES
from privfl.hybrid.two_server.proved_choice import MASKED_WEIGHTS
from privfl.hybrid.two_server.registers import WEIGHTS
from privfl.hybrid.two_server.rules.fltrust import MASKED_TRUST
from privfl.hybrid.two_server.rules.krum import GRAM
from privfl.hybrid.two_server.sign_rows import DISTANCE
from privfl.hybrid.two_server.tampering import server_of

Servers = TwoServer | SignTwoServer
N, D = 7, 6
SERVERS = ("server", "server/1")
POWERS = (0, 20, 39, 63, None)
"""Lies of these powers of two; None: any word."""


def held(seed: int = 0) -> torch.Tensor:
    """The rows [N, D] of one honest data set, of a common length."""
    drawn = torch.Generator().manual_seed(seed)
    rows = torch.randn(D, generator=drawn) + torch.randn(N, D, generator=drawn)
    return 0.98 * rows / rows.norm(dim=1, keepdim=True)


ALONG = torch.ones(D)
FILTER = CosineFilter(-0.2, lambda rows, context: ALONG)
ABOVE = CosineFilter(0.0, lambda rows, context: ALONG)
STEEP = CosineFilter(0.3, lambda rows, context: ALONG)
FOLLOW = partial(TwoServer, bits=8, security="semi_honest")
CHANNELS: Mapping[str, Servers] = {
    "mean, selection": FOLLOW(Mean(weighted=False), ring=40),
    "krum, scores": FOLLOW(Krum(f=1, m=3), reveal="scores", ring=40),
    "krum, selection": FOLLOW(Krum(f=1, m=3)),
    "krum, aggregate": FOLLOW(Krum(f=1, m=3), reveal="aggregate", ring=40),
    "cosine filter, selection": FOLLOW(FILTER, ring=64),
    "cosine filter, aggregate": FOLLOW(FILTER, ring=64, reveal="aggregate"),
}
TRUST = FLTrust(lambda context: ALONG)
NEAR = FLTrust(lambda context: held().mean(dim=0))
ENFORCED: Mapping[str, Servers] = {
    f"{name}, malicious": TwoServer(rule, reveal=reveal, bits=8, security="malicious", ring=ring)
    for name, rule, reveal, ring in (
        ("mean, selection", Mean(weighted=False), "selection", 40),
        ("mean, scores", Mean(), "scores", 32),
        ("krum, scores", Krum(f=1, m=3), "scores", 40),
        ("fltrust, scores", TRUST, "scores", 40),
        ("cosine filter, scores", FILTER, "scores", 40),
        ("cosine filter, selection", ABOVE, "selection", 40),
        ("cosine filter, aggregate", ABOVE, "aggregate", 40),
        ("krum, selection", Krum(f=1, m=3), "selection", 40),
        ("krum, aggregate", Krum(f=1, m=3), "aggregate", 40),
        ("fltrust, selection", TRUST, "selection", 64),
        ("fltrust, aggregate", TRUST, "aggregate", 64),
        ("cosine filter over -0.2, selection", FILTER, "selection", 40),
        ("cosine filter over 0.3, aggregate", STEEP, "aggregate", 40),
    )
} | {
    "signs, scores, malicious": SignTwoServer(NEAR, reveal="scores", security="malicious"),
    "signs, aggregate, malicious": SignTwoServer(NEAR, security="malicious"),
}
"""Where the rule itself is enforced, not only the size of a sum."""


@dataclass
class Told:
    """One round in which a server changed what ``forge`` changes: the parties of both servers, and
    what was opened.
    """

    channel: Servers
    liar: str
    forge: Forge
    rows: torch.Tensor = field(default_factory=held)

    def __post_init__(self) -> None:
        plan = RoundPlan(0, tuple(range(N)), D, l2=1.0, session=b"lies")
        everybody = Enrolled.fresh(self.channel, plan.cohort)
        if isinstance(everybody.server, InformedServer):
            everybody.server.inform(Context(plan, torch.zeros(D), torch.Generator()))
        parties: dict[str, Party] = {
            client_party(i): member.enter(plan, Bounded(i, self.rows[i], 1.0))
            for i, member in everybody.clients.items()
        }
        parties |= {who: helper.enter(plan) for who, helper in everybody.helpers.items()}
        opener = everybody.server.enter(plan)
        self.machines = {"server": server_of(opener), "server/1": server_of(parties["server/1"])}
        lies = Faults(
            byzantine={self.liar: lambda party: ForgesFrames(server_of(party), self.forge)}
        )
        outcome = drive(opener, parties, lies)
        self.opened: Opened[Total] | None = outcome.opened
        self.aborts = outcome.aborts

    @property
    def passed(self) -> bool:
        """Whether the honest server went through to the end."""
        if self.liar == "server/1":
            return self.opened is not None
        machine = self.machines["server/1"].machine
        return machine is not None and machine.done

    def weights(self) -> U64:
        """What each row weighs in the sum that the honest server let pass."""
        both = [server.machine for server in self.machines.values()]
        honest = both[1] if self.liar == "server" else both[0]
        if honest is None or None in both:
            return np.zeros(0, dtype=np.uint64)
        if WEIGHTS in honest.public:
            return honest.public[WEIGHTS]
        if HIDDEN in honest.public or MASKED_TRUST in honest.public:
            known = sum(
                m.fixed.dealt.weights[:, 0] if m.fixed else m.preprocessing.weights
                for m in both
                if m is not None
            )
            proved = HIDDEN in honest.public
            told = honest.public[HIDDEN][:-1] if proved else honest.public[MASKED_TRUST][:, 0]
            return (told[: honest.n] + known) & ring_mask(honest.now.ring)
        dealt = sum(m.preprocessing.weights for m in both if m is not None)
        return (honest.public[MASKED_WEIGHTS] + dealt) & ring_mask(honest.now.ring)

    @property
    def wrong(self) -> bool:
        """Whether the honest server let a sum pass that is not of enough whole accepted rows; where
        the rule is enforced, that is not the rule's.
        """
        if not self.passed:
            return False
        if self.channel.security == "malicious":
            return self._another()
        server = self.machines["server/1" if self.liar == "server" else "server"]
        weights, recipe = self.weights(), self.channel.recipe
        machine = server.machine
        if machine is None or not len(weights) or (weights > 1).any():
            return True
        picked = set(np.flatnonzero(weights).tolist())
        least = recipe.traits.exact or (
            server.now.quorum if recipe.rule.kind == "mean" else recipe.least
        )
        exact = not recipe.traits.exact or len(picked) == recipe.traits.exact
        return not (picked <= set(machine.valid) and (len(picked) >= least or not picked) and exact)

    def _another(self) -> bool:
        """Whether the honest server let pass another sum than the rule's of the rows that take
        part, or opened anything else on the way.
        """
        server = self.machines["server/1" if self.liar == "server" else "server"]
        machine = server.machine
        if machine is None or len(machine.valid) < server.now.quorum:
            return True
        now = machine.now
        if now.signs:
            return self._another_of_signs(machine)
        whole = [integers(now, Bounded(i, self.rows[i], 1.0)) for i in range(N)]
        rows = np.stack(whole).view(np.int64)[list(machine.positions)]
        values, valid = rows[:, :D], list(machine.valid)
        scores = [(values * values).sum(axis=1)]
        if machine.direction is not None:
            scores = [values @ machine.direction.values, *scores]
        if SCORES in machine.public:
            opened = signed(machine.public[SCORES], now.ring)
            if (opened != np.stack(scores)[:, valid]).any():
                return True
        exact = values[valid] @ values[valid].T
        if GRAM in machine.public and (signed(machine.public[GRAM], now.ring) != exact).any():
            return True
        weights = self.weights().view(np.int64)
        if not self._weighs(weights[valid], scores[-1][valid], scores[0][valid], exact, machine):
            return True
        if self.liar == "server/1" and MASKED_TRUST in machine.public and self.opened is not None:
            mass = float(weights.sum()) * machine.trust_unit or 1.0
            if self.opened.what.weight != mass:
                return True
        if self.opened is None or self.liar == "server" or self.channel.recipe.traits.hidden:
            return bool(set(np.flatnonzero(weights)) - set(valid))  # that share nothing tags
        total = weights @ rows
        mean = torch.from_numpy((total[:D] * machine.unit).astype(np.float32))
        return not now.weighted and not torch.equal(self.opened.what.value, mean)

    def _another_of_signs(self, machine: Machine) -> bool:
        """The same of rows of signs, whose sum nothing tags."""
        below = (self.rows.numpy() < 0)[list(machine.positions)]
        if machine.direction is None:
            return True
        away = (below != machine.direction.values.astype(bool)).sum(axis=1)
        if DISTANCE in machine.public and (machine.public[DISTANCE] != away).any():
            return True
        due = np.maximum(int(self.channel.threshold * D) - away, 0)
        if (self.weights().view(np.int64) != due).any():
            return True
        mass = None if self.opened is None else self.opened.what.weight
        return self.liar == "server/1" and mass != float(due.sum() or 1)

    def _weighs(self, weights: I64, squares: I64, dots: I64, inner: I64, machine: Machine) -> bool:
        """Whether the valid rows weigh what the rule says in the clear, from exact squared norms,
        products with the direction and with each other.
        """
        rule, n = self.channel.rule, len(weights)
        if isinstance(rule, Krum):
            apart = np.sort(squares[:, None] + squares - 2 * inner, axis=1)
            scores = apart[:, 1 : n - rule.f - 1].sum(axis=1)
            chosen = np.argsort(scores, kind="stable")[: rule.m]
            return bool(weights.sum() == rule.m and (weights[chosen] == 1).all())
        if machine.direction is None or isinstance(rule, Mean):
            return bool((weights == 1).all())
        cosines = dots / np.sqrt(squares * float(machine.direction.square))
        if isinstance(rule, CosineFilter):
            return bool((weights == (cosines > rule.threshold)).all())
        if self.channel.recipe.traits.hidden:
            return bool((weights == np.maximum(dots, 0)).all())
        trust = np.maximum(cosines, 0) * machine.now.longest / np.sqrt(squares) * machine.now.fine
        return bool((np.abs(weights - trust) <= 2).all())


def frames(channel: Servers, liar: str) -> list[tuple[Step, int]]:
    """Every frame that a server sends in an honest round: its step, and its bytes."""
    seen: list[tuple[Step, int]] = []
    Told(channel, liar, notes(seen))
    return seen


def adds(number: int, amount: int, draw: np.random.Generator) -> Forge:
    """A lie in one frame: an amount on one of its words; half of the time the liar believes it
    too.
    """
    lie = FrameLie(number, "adds", amount, at=draw.random(), believed=draw.random() < 0.5)
    return lie.forge()


def fuzz(
    count: int, seed: int = 0, channels: Mapping[str, Servers] = CHANNELS
) -> tuple[int, int, int]:
    """So many lies, in turn at every frame of either server under every channel: how many results
    were let pass, how many of them were wrong, and how many frames there are.
    """
    draw = np.random.default_rng(seed)
    places = [
        (channel, liar, number)
        for channel in channels.values()
        for liar in SERVERS
        for number in range(len(frames(channel, liar)))
    ]
    order = draw.permutation(len(places)).tolist()
    passed = wrong = 0
    for place in itertools.islice(itertools.cycle(order), count):
        channel, liar, number = places[place]
        power = POWERS[draw.integers(len(POWERS))]
        amount = int(draw.integers(1 << 63)) * 2 + 1 if power is None else 1 << power
        told = Told(channel, liar, adds(number, amount, draw))
        passed, wrong = passed + told.passed, wrong + told.wrong
    return passed, wrong, len(places)


def aborts(
    channel: Servers,
    rows: torch.Tensor,
    liar: str,
    runs: int,
    seed: int,
    powers: Sequence[int] = (20, 39, 63),
    what: type = ObliviousSum,
) -> float:
    """How often a lie of one of these powers of two ends the round: on a hidden weight, or in the
    first message of another kind of step.
    """
    draw = np.random.default_rng(seed)
    number = next(i for i, (step, _) in enumerate(frames(channel, liar)) if isinstance(step, what))
    ended = 0
    for _ in range(runs):
        forge = adds(number, 1 << int(draw.choice(powers)), draw)
        ended += not Told(channel, liar, forge, rows).passed
    return ended / runs


def two_server_lies(quick: bool) -> Iterator[Row]:
    """A thousand lies at every frame of either server, none of which may get a wrong sum past the
    other, nor, where the rule is enforced, another result than the rule's; and how often one lie
    ends the round, on two honest data sets.
    """
    count = 100 if quick else 1000
    passed, wrong, places = fuzz(count)
    name = f"{count} lies, {places} frames"
    yield Row(name, "none", "wrong sums let pass", wrong, 0.0, 1.0 if not wrong else 0.0, 1.0)
    yield cost(name, "all", "rounds that went on", float(passed), float(count))
    passed, wrong, places = fuzz(count, channels=ENFORCED)
    name = f"malicious: {count} lies, {places} frames"
    yield Row(name, "none", "wrong results let pass", wrong, 0.0, 1.0 if not wrong else 0.0, 1.0)
    yield cost(name, "all", "rounds that went on", float(passed), float(count))
    channel = CHANNELS["krum, aggregate"]
    spread = 4 * math.sqrt(0.5 / count)
    one, two = (aborts(channel, held(seed), "server", count, 3) for seed in (0, 1))
    same = 1.0 if abs(one - two) <= spread else 0.0
    yield Row("a weight off by 2^20 or more", "another data set", "aborts", one, two, same, 1.0)
    runs = {
        "fltrust, scores": count,
        "fltrust, aggregate": count // 4,
        "krum, aggregate": count // 4,
    }
    for rule, each in runs.items():
        channel = ENFORCED[f"{rule}, malicious"]
        one, two = (
            aborts(channel, rows, "server", each, 3, (62, 63), Announce)
            for rows in (-held(0), -0.9 * held(1))
        )
        same = 1.0 if abs(one - two) <= 4 * math.sqrt(0.5 / each) else 0.0
        name = f"{rule}: a product off by 2^62 or more"
        yield Row(name, "another data set", "aborts", one, two, same, 1.0)
