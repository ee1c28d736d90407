"""A robust rule computed by two servers that each see uniform noise."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import torch

from privfl.aggregators import CosineFilter, FLTrust, Krum, Mean
from privfl.aggregators.cosine_filter import median_of_rows
from privfl.core import (
    BadUpdate,
    Bounded,
    ClientId,
    ClientMember,
    ConfigError,
    Context,
    DpEvent,
    HelperMember,
    KeepsSecrets,
    Member,
    NoiseSource,
    Opener,
    OsNoise,
    Party,
    PartyId,
    Received,
    RingNoise,
    RoundPlan,
    RowBound,
    Rows,
    ServerMember,
    Silent,
    Total,
    Vector,
    require,
)
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.primitives import BackendName, Directory, backend
from privfl.hybrid.two_server.client import enter
from privfl.hybrid.two_server.recipe import Recipe, Reveal, round_of, unit_l2
from privfl.hybrid.two_server.rounds import Direction, Round, direct
from privfl.hybrid.two_server.servers import Dealer, FirstServer, SecondServer
from privfl.hybrid.two_server.soundness import RINGS
from privfl.hybrid.two_server.view import Wiretap

_LEAKS = {
    ("mean", "scores"): "every accepted update's norm",
    ("krum", "scores"): "all inner products of the updates, so their whole geometry up to a rotation",
    ("fltrust", "scores"): "every update's norm and its cosine with the root update",
    ("cosine_filter", "scores"): "every update's norm and its cosine with the reference",
}


@dataclass(frozen=True, slots=True)
class TwoServer:
    """A robust rule run by two servers on shares: ``server`` holds masked updates, ``server/1`` the masks, a ``dealer`` helps them.

    Every client sends one masked vector and one sealed seed. The servers prove each row's norm to be within the clip (projections on
    joint coins, in the manner of PINE, then the exact norm; both compared on shares), refuse by name who fails, run the
    rule, and open one weighted sum. ``Mean`` is verified clipping: the sum of the updates whose norm was proved.

    Guarantee: ``server``, ``server/1`` and the ``dealer``, of whom no two collude, follow the protocol; each with any number of
    clients learns the result, which clients were refused, what ``reveal`` names, and nothing else of honest clients (the dealer: nothing).
    Any two of the three read every update. Clients may lie in any way: one longer than C, the clip and what rounding adds to it,
    passes with chance 2^-soundness. SERVERS ARE TRUSTED TO COMPUTE CORRECTLY: a lying server shifts the result unnoticed.

    What leaks beside the result and the refused clients, by ``reveal``:
        ``scores``: norms; for Krum the Gram matrix; for FLTrust and CosineFilter norms and cosines.
        ``selection``: which clients count, no scores.
        ``aggregate``: how many clients count.

    Args:
        rule: what to compute. Krum needs m >= ``min_selected``; CosineFilter a reference that needs no rows: it is called with none.
            Robust rules give every row the weight 1; ``Mean(weighted=True)`` sends weights hidden, each proved to be in range.
        reference: of CosineFilter: "rule" asks the rule; "previous" takes the model's last change (in the first round nobody is filtered).
        reveal: what the servers may open on the way.
        min_selected: the fewest rows that a sum may be of; 1 lets a rule open a single client.
        bits: of one value, sign included: a row of norm l2 has the integer norm 2^(bits - 1). ``ring`` (32, 40, 64; None: the smallest
            that is proved to hold sums, norms and products) is what travels.
        threshold: the fraction of the cohort below which nothing is opened (never fewer than 2).
        noise: under ``Mean(weighted=False)``, noise that EACH server adds to its half of the sum: one honest server is enough, and
            the event counts one server's noise alone.

    Raises:
        ConfigError: a setting that cannot be; and when a round begins, no ring that holds it, fewer than 2 clients, or no finite bound.

    >>> sorted(TwoServer(Krum(f=2, m=5), reveal="scores").helpers())
    ['dealer', 'server/1']
    """

    rule: Mean | Krum | FLTrust | CosineFilter = Mean()
    reveal: Reveal = "selection"
    reference: Literal["rule", "previous"] = "rule"
    min_selected: int = 2
    bits: int = 16
    ring: int | None = None
    threshold: float = 0.5
    soundness: int = 40
    noise: RingNoise | None = None
    noise_source: NoiseSource = field(default_factory=OsNoise, compare=False)
    backend: BackendName = "auto"
    directory: Directory = field(default_factory=Directory, compare=False, repr=False)

    def __post_init__(self) -> None:
        require.at_least(1, min_selected=self.min_selected)
        require.within(8, 24, bits=self.bits)
        require.within(0, 1, threshold=self.threshold)
        require.within(20, 64, soundness=self.soundness)
        if self.ring not in (None, *RINGS):
            raise ConfigError(f"ring is 32, 40, 64 or None, and is {self.ring}.")
        if self.reveal not in ("scores", "selection", "aggregate"):
            raise ConfigError(f"reveal is 'scores', 'selection' or 'aggregate', and is '{self.reveal}'.")
        backend(self.backend)
        self._check_rule()

    def _check_rule(self) -> None:
        rule = self.rule
        if isinstance(rule, Krum) and rule.m < self.min_selected:
            raise ConfigError(
                f"Krum with m={rule.m} opens the sum of {rule.m}, which is fewer than min_selected={self.min_selected}: raise m"
                " (Multi-Krum), or set min_selected: 1 to open a single client's update on purpose."
            )
        if self.reference not in ("rule", "previous"):
            raise ConfigError(f"reference is 'rule' or 'previous', and is '{self.reference}'.")
        if self.reference == "previous" and not isinstance(rule, CosineFilter):
            raise ConfigError(f"reference 'previous' is for cosine_filter, and the rule is {type(rule).__name__}.")
        if self.reference == "rule" and isinstance(rule, CosineFilter) and rule.reference is median_of_rows:
            raise ConfigError(
                "two_server: cosine_filter's own reference is the median of the rows, which nobody here can read:"
                " set channel.reference to 'previous', or give the filter a reference trained on the server's own data."
            )
        if self.noise is not None and not (isinstance(rule, Mean) and not rule.weighted and self.reveal != "scores"):
            raise ConfigError(
                "noise under two_server needs the rule Mean(weighted=False) and a reveal that opens no norms: what else a rule"
                " lets through, and every exact score, has no proved sensitivity."
            )

    @property
    def code(self) -> FixedPoint:
        """How values become integers."""
        return FixedPoint(self.bits)

    @property
    def recipe(self) -> Recipe:
        """The rule as numbers."""
        rule, common = self.rule, (self.reveal, self.min_selected)
        match rule:
            case Krum():
                return Recipe("krum", *common, f=rule.f, m=rule.m)
            case FLTrust():
                return Recipe("fltrust", *common, fixed=rule.fixed)
            case CosineFilter():
                return Recipe("cosine_filter", *common, threshold=rule.threshold)
            case Mean():
                return Recipe("mean", *common, weighted=rule.weighted, noise=self.noise, source=self.noise_source)

    def round(self, plan: RoundPlan) -> Round:
        """A round's public parameters: ring, projections, quorum."""
        return _round(self, plan)

    def describe(self) -> str:
        """Who must not collude, who may lie, and what leaks, for the report."""
        leaks = _LEAKS.get((self.recipe.kind, self.reveal), {"aggregate": "how many count"}.get(self.reveal, "which clients count"))
        return (
            f"Two servers and a dealer, no two of whom may collude, run {type(self.rule).__name__} on shares; clients may lie, and one"
            f" whose norm is over the clip is refused by name. Beside the result leaks {leaks}. Servers are trusted to compute"
            " correctly: a lying server shifts the result unnoticed."
        )

    def client(self, who: ClientId) -> ClientMember:
        """A client, which keeps nothing between rounds."""
        return TwoServerClient(self, who)

    def server(self) -> ServerMember[Total]:
        """The server that learns the result."""
        return FirstMember(self)

    def helpers(self) -> Mapping[PartyId, HelperMember]:
        """The second server and the dealer, each with a fresh key whose public half is entered in the directory."""
        made: dict[PartyId, HelperMember] = {}
        for who, kind in (("server/1", SecondMember), ("dealer", DealerMember)):
            secret = secrets.token_bytes(32)
            self.directory.enrol(who, sealing=backend(self.backend).x25519_public(secret))
            made[who] = kind(self, secret)
        return made

    def row_bound(self, l2: float, d: int) -> RowBound:
        """The sum's sensitivity through a selection is not proved; under Mean, what one proved row adds to it."""
        if not isinstance(self.rule, Mean):
            return RowBound(self.code.inflated(l2, d), math.inf)
        longest = self.code.inflated(l2, d) * (1 + 1e-5)
        return RowBound(longest, 2 * longest)

    def noise_event(self, plan: RoundPlan, survivors: int) -> DpEvent | None:
        """What accounts for ONE server's noise in the sum: the other may be who looks, and knows its own. None where there is none."""
        if self.noise is None:
            return None
        return self.noise.event(unit_l2(self.round(plan)), plan.d, 1, 1)

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """What a coalition can compute: the result for whoever is, or reads, the first server; every row for any two of the three."""
        first, second, dealer = members.get("server"), members.get("server/1"), members.get("dealer")
        again = first.kept if isinstance(first, FirstMember) else {}
        rounds = {tag: party.now for tag, party in again.items()}
        for helper in (second, dealer):
            rounds |= helper.rounds if isinstance(helper, SecondMember | DealerMember) else {}
        return Wiretap(
            received,
            rounds,
            again,
            second.secret if isinstance(second, SecondMember) else None,
            dealer.secret if isinstance(dealer, DealerMember) else None,
        ).opened()


@lru_cache(maxsize=64)
def _round(channel: TwoServer, plan: RoundPlan) -> Round:
    return round_of(
        channel.recipe, plan, bits=channel.bits, ring=channel.ring, threshold=channel.threshold, soundness=channel.soundness,
        library=channel.backend,
    )  # fmt: skip


def _boxes(channel: TwoServer, who: PartyId) -> tuple[bytes, ...]:
    boxes = channel.directory.boxes(who)
    if not boxes:
        raise ConfigError(f"the directory knows no key of {who}: make the helpers before a round begins.")
    return boxes


@dataclass
class TwoServerClient:
    """A client between rounds."""

    channel: TwoServer
    who: ClientId

    def set_up(self) -> Party:
        """Nothing to say: the servers' keys are in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan, update: Bounded) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as `TwoServer`, or a client that is not in the cohort, or servers whose keys nobody knows.
        """
        if self.who not in plan.cohort:
            raise ConfigError(f"round {plan.number}: client {self.who} is not in the cohort.")
        return enter(self.channel.round(plan), self.who, _boxes(self.channel, "server/1"), update)


@dataclass(repr=False)
class FirstMember(KeepsSecrets):
    """The first server between rounds: the direction of the coming round, the model before, and the randomness of past rounds.

    What it remembers of a round is what a curious server would: enough to compute the result again from its mail.
    """

    channel: TwoServer
    reference: Vector | None = None
    before: Vector | None = None
    kept: dict[bytes, FirstServer] = field(default_factory=dict)

    def set_up(self) -> Party:
        """Nothing to say."""
        return Silent()

    def inform(self, context: Context) -> None:
        """Compute the direction that rows are compared with, or note how the model moved."""
        rule = self.channel.rule
        if isinstance(rule, FLTrust):
            self.reference = rule.root(context)
        elif self.channel.reference == "previous":
            self.reference = None if self.before is None else context.parameters - self.before
            self.before = context.parameters.clone()
        elif isinstance(rule, CosineFilter):
            self.reference = rule.reference(Rows(torch.empty(0, len(context.parameters)), torch.empty(0), ()), context)

    def enter(self, plan: RoundPlan) -> Opener[Total]:
        """The party of one round.

        Raises:
            ConfigError: as `TwoServer`, or a rule that needs the model and was not told it.
        """
        channel, now = self.channel, self.channel.round(plan)
        rule, recipe = channel.rule, channel.recipe
        direction: Direction | None = None
        refused: str | None = None
        lasting = channel.reference == "previous"
        if recipe.directed and self.reference is None and not lasting:
            raise ConfigError(
                f"round {plan.number}: {type(rule).__name__} needs the model for its reference: call inform before the round."
            )
        if self.reference is not None:
            if len(self.reference) != plan.d:
                raise ConfigError(f"round {plan.number}: a reference of {len(self.reference)} values where rows have {plan.d}.")
            try:
                direction = direct(self.reference, now.steep)
            except BadUpdate as bad:
                refused = f"{type(rule).__name__}: {bad}"
        if direction is not None and isinstance(rule, FLTrust):
            direction = replace(direction, length=min(direction.length, rule.root_l2))
        half, seed, key = (secrets.token_bytes(32) for _ in range(3))
        unknown, boxes = lasting and self.reference is None, (_boxes(channel, "server/1"), _boxes(channel, "dealer"))
        party = FirstServer(now, recipe, *boxes, half, seed, key, direction, unknown, refused)
        self.kept[now.tag] = party.anew()
        return party


@dataclass(repr=False)
class SecondMember(KeepsSecrets):
    """The second server between rounds: the key to which clients seal their seeds."""

    channel: TwoServer
    secret: bytes
    rounds: dict[bytes, Round] = field(default_factory=dict)

    def set_up(self) -> Party:
        """Nothing to say: its public key is in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as `TwoServer`.
        """
        channel, now = self.channel, self.channel.round(plan)
        self.rounds[now.tag] = now
        return SecondServer(now, channel.recipe, self.secret, _boxes(channel, "dealer"))


@dataclass(repr=False)
class DealerMember(KeepsSecrets):
    """The dealer between rounds: the key to which the servers seal their seeds."""

    channel: TwoServer
    secret: bytes
    rounds: dict[bytes, Round] = field(default_factory=dict)

    def set_up(self) -> Party:
        """Nothing to say: its public key is in the directory."""
        return Silent()

    def enter(self, plan: RoundPlan) -> Party:
        """The party of one round.

        Raises:
            ConfigError: as `TwoServer`.
        """
        now = self.rounds[self.channel.round(plan).tag] = self.channel.round(plan)
        return Dealer(now, self.channel.recipe, self.secret)
