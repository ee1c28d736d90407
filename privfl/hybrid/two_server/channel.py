"""A robust rule computed by two servers that each see uniform noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import torch

from privfl.aggregators import CosineFilter, FLTrust, Krum, Mean
from privfl.core import (
    Able,
    ChannelKind,
    ClientId,
    ClientMember,
    ConfigError,
    Context,
    DpEvent,
    Examples,
    Guarantee,
    HelperMember,
    KnownKeys,
    Liars,
    Member,
    NoiseSource,
    OsNoise,
    PartyId,
    PartyKeys,
    Received,
    RingNoise,
    RoundPlan,
    Rows,
    ServerMember,
    Total,
    Vector,
    require,
)
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.primitives import BackendName, backend
from privfl.hybrid.two_server.ahead.files import DealtAhead, where_dealt, write_dealings
from privfl.hybrid.two_server.guarantee import check_operators, two_server_guarantee
from privfl.hybrid.two_server.members import (
    FirstMember,
    TwoServerClient,
    helper_of,
    helpers_of,
)
from privfl.hybrid.two_server.parameters import (
    Direction,
    Security,
    TwoServerParameters,
    check_security,
    direct,
)
from privfl.hybrid.two_server.recipe import Recipe, round_of, unit_l2
from privfl.hybrid.two_server.row_encoding import RowEncoding
from privfl.hybrid.two_server.rule_checks import check_rule
from privfl.hybrid.two_server.rules import (
    CosineOnShares,
    FLTrustOnShares,
    KrumOnShares,
    MeanOnShares,
    Reveal,
    SharedRule,
)
from privfl.hybrid.two_server.soundness import RINGS
from privfl.hybrid.two_server.view import opened_by

CLIENTS_FIX = (
    "under security 'malicious' clients tell the dealer the masks with which they fix their rows,"
    " and what it deals hangs on them: leave preprocessing out, or set security to 'semi_honest'."
)


@dataclass(frozen=True, slots=True)
class TwoServer:
    """A robust rule run by two servers on shares: ``server`` holds masked updates, ``server/1`` the
    masks, a ``dealer`` helps them.

    Every client sends one masked vector and one sealed seed. The servers prove each row's norm to
    be within the clip (projections on joint coins, in the manner of PINE, then the exact norm; both
    compared on shares), refuse by name who fails, run the rule, and open one weighted sum. ``Mean``
    is verified clipping: the sum of the updates whose norm was proved.

    Guarantee (``guarantee`` says it whole): while ``server``, ``server/1`` and the ``dealer``, of
    whom no two collude, FOLLOW THE PROTOCOL, each with any number of clients learns the result,
    which clients were refused, what ``reveal`` names, and nothing else of honest clients (the
    dealer: nothing). Any two of the three read every update. Clients may lie in any way: one longer
    than C, the clip and what rounding adds to it, passes with chance 2^-soundness.

    UNDER ``security: malicious``, the default, one server that lies, with up to ``colluders``
    clients and an honest dealer, gets the declared function or an abort, but for a chance of 2^-48
    a round: clients fix their rows, what is computed of them is tagged, what is opened is proved,
    and a failed proof ends the session (docs/hybrid.md, Theorem 2). It still chooses which clients
    take part, a quorum at least; ``server`` chooses the reference, and what it publishes;
    ``server/1`` can add a constant to a sum under noise (of any size) or hidden weights (the result
    is cut to a row's length).

    UNDER ``security: semi_honest`` it gets capped sums of the mean, Krum and CosineFilter: the sum
    of one set of accepted rows OF ITS OWN CHOICE, of exactly m rows (Krum) or at least
    ``colluders`` + 2, one bit a row (its norm check; one more for an opened selection of
    CosineFilter) and one bit an abort, but with chance 2^-40; under ``scores`` also what is opened
    of rows that it has moved (docs/hybrid.md, Theorem 1). The rule itself is NOT enforced against
    it. UNDER FLTRUST IT READS ANY ROW: weights that are any number tell rows apart in their sum. A
    lying dealer can move weights. Where the weights of the sum are public and there is no noise,
    ``server/1`` cannot change its share of the sum (the dealer's tags; chance 2^-24 at most up to
    20 bits and 500 clients).

    What leaks beside the result and the refused clients, by ``reveal``:
        ``scores``: norms; for Krum the Gram matrix, so that clients colluding with a server learn
        the others' products with their own rows; for FLTrust and CosineFilter norms and cosines.
        ``selection``: which clients count, no scores. ``aggregate``: how many clients count. Under
        both FLTrust shows the sum of the trust to ``server``.

    Args:
        rule: what to compute. Krum needs m >= ``min_selected``; CosineFilter a reference that needs
            no rows: it is called with none, and its rows are as long as the clip lets them be (no
            median of norms is taken). Robust rules give every row the weight 1;
            ``Mean(weighted=True)`` sends weights hidden, each proved to be in range; a liar can
            pair the longest vector with the weight 0.
        reference: of CosineFilter: "rule" asks the rule; "previous" takes the model's last change
            (in the first round nobody is filtered).
        reveal: what the servers may open on the way.
        min_selected: the fewest rows that a sum may be of, at least 2.
        colluders: how many clients may collude with a server that lies: no sum is of fewer than two
            more.
        bits: of one value, sign included: a row of norm l2 has the integer norm 2^(bits - 1).
            ``ring`` (32, 40, 64; None: the smallest that is proved to hold sums, norms and
            products) is what travels.
        threshold: the fraction of the cohort below which nothing is opened (never fewer than 2).
        noise: under ``Mean(weighted=False)``, noise that EACH server adds to its half of the sum:
            one honest server is enough, and the event counts one server's noise alone.
        run_by: who runs ``server``, ``server/1`` and the ``dealer``, three different names for the
            report; whoever ran two of them would read every update.
        security: "malicious", in rings of 32 and 40 bits, so up to 16 bits a value (FLTrust with
            hidden scores: of 64, too), and of Krum with hidden scores at most 64 rows; or
            "semi_honest", which takes all of these and ``preprocessing``, up to 3 times less CPU
            and twice the exchanges. Under "malicious" clients also write to the dealer.
        preprocessing: the folder with what the dealer dealt ahead (`deal`, ``privfl deal``), so
            that it need not be online; each server needs its own file of it alone, and a dealing
            serves one round. ``server/1`` then sends as many bytes again. Not under ``security:
            malicious``. ``dealer_key``: the public key in hex that signed it.

    Raises:
        ConfigError: a setting that cannot be; and when a round begins, no ring that holds it, fewer
            than 2 clients, or no finite bound.

    >>> TwoServer(Krum(f=2, m=5), reveal="scores").helpers
    ('server/1', 'dealer')
    """

    examples: ClassVar[Examples] = {
        "": {"bits": 8},
        "semi_honest": {"bits": 8, "security": "semi_honest"},
        "krum": {"rule": Krum(f=1, m=2), "bits": 8},
        "fltrust": {"rule": FLTrust},
        "cosine_filter": {"rule": CosineFilter, "reference": "previous", "bits": 8},
    }
    kind: ClassVar[ChannelKind] = ChannelKind(
        "total", runs=(Mean, Krum, FLTrust, CosineFilter), takes_noise=True
    )

    rule: Mean | Krum | FLTrust | CosineFilter = Mean()
    reveal: Reveal = "selection"
    reference: Literal["rule", "previous"] = "rule"
    min_selected: int = 2
    colluders: int = 0
    bits: int = 16
    ring: int | None = None
    threshold: float = 0.5
    soundness: int = 40
    noise: RingNoise | None = None
    noise_source: NoiseSource = field(default_factory=OsNoise, compare=False)
    backend: BackendName = "auto"
    run_by: tuple[str, ...] = ()
    security: Security = "malicious"
    preprocessing: str = ""
    dealer_key: str = ""

    def __post_init__(self) -> None:
        require.at_least(2, min_selected=self.min_selected)
        require.at_least(0, colluders=self.colluders)
        require.within(8, 24, bits=self.bits)
        require.within(0, 1, threshold=self.threshold)
        require.within(20, 64, soundness=self.soundness)
        if self.ring not in (None, *RINGS):
            raise ConfigError(f"ring is 32, 40, 64 or None, and is {self.ring}.")
        if self.reveal not in ("scores", "selection", "aggregate"):
            raise ConfigError(
                f"reveal is 'scores', 'selection' or 'aggregate', and is '{self.reveal}'."
            )
        backend(self.backend)
        check_operators(self.run_by)
        check_rule(self)
        self._check_security()
        if self.dealt_ahead is not None and self.security == "malicious":
            raise ConfigError(CLIENTS_FIX)

    def _check_security(self) -> None:
        check_security(self.security)
        if self.security == "semi_honest":
            return
        if self.ring == 64 and not self._real_weights:
            raise ConfigError(
                "security 'malicious' proves what is opened in the bits above the ring, and a ring"
                " of 64 has none (but under FLTrust with hidden scores, whose weights are proved in"
                " 128 bits): set ring to 40, 32 or None, or security: semi_honest."
            )

    @property
    def _real_weights(self) -> bool:
        return isinstance(self.rule, FLTrust) and self.reveal != "scores"

    @property
    def able(self) -> Able:
        """Both servers learn what is opened on the way; the first is told the model."""
        return Able(
            streams=True,
            encodes=RowEncoding(
                self.code, self.recipe.traits.normalised, selects=not isinstance(self.rule, Mean)
            ),
            fewest=self.quorum,
            hosts=self.rule,
            noise=None if self.noise is None else self,
            seeded=self.noise is not None and self.noise_source.repeatable,
            told=("server", "server/1"),
            informed=True,
            keyed=True,
            deals=None if self.security == "malicious" else self,
        )

    @property
    def code(self) -> FixedPoint:
        """How values become integers."""
        return FixedPoint(self.bits)

    @property
    def recipe(self) -> Recipe:
        """The rule as numbers."""
        c = self.colluders
        noisy = self.noise is not None
        least = max(self.min_selected, c + 2)
        return Recipe(
            self._on_shares,
            least,
            c,
            self.security == "malicious",
            noisy,
            self.noise,
            self.noise_source,
            ahead=bool(self.preprocessing),
        )

    @property
    def dealt_ahead(self) -> DealtAhead | None:
        """Where the dealer left what it dealt ahead; None where it is online."""
        return where_dealt(self.preprocessing, self.dealer_key)

    def deal(self, plan: RoundPlan, folder: Path, count: int, dealer: PartyKeys) -> None:
        """Make dealings for ``count`` rounds like this one, as their dealer: a file for each server
        in ``folder``.

        Raises:
            ConfigError: as the channel, a dealer that cannot deal ahead, or files that exist.
            CannotWrite: the operating system refuses.
        """
        if self.security == "malicious":
            raise ConfigError(CLIENTS_FIX)
        write_dealings(self.round(plan), self.recipe, folder, count, dealer)

    @property
    def _on_shares(self) -> SharedRule:
        rule, reveal = self.rule, self.reveal
        match rule:
            case Krum():
                return KrumOnShares(reveal, rule.f, rule.m)
            case FLTrust():
                return FLTrustOnShares(reveal, rule.fixed)
            case CosineFilter():
                return CosineOnShares(reveal, rule.threshold, self.reference == "previous")
            case Mean():
                return MeanOnShares(reveal, rule.weighted)

    def round(self, plan: RoundPlan) -> TwoServerParameters:
        """A round's public parameters: ring, projections, quorum."""
        return _round(self, plan)

    def quorum(self, n: int) -> int:
        """The fewest contributions of a cohort of n that are ever opened."""
        return self.recipe.quorum(n, self.threshold)

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, as this channel is set."""
        noise = None if self.noise is None else self.noise.guarantee
        return (
            two_server_guarantee(self.recipe, self.quorum, self.run_by)
            .needing(self.threshold)
            .under(noise)
        )

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return (
            f"Two servers and a dealer{' that dealt ahead' if self.preprocessing else ''} run"
            f" {type(self.rule).__name__} on shares."
            f" {self.guarantee.describe()}"
        )

    @property
    def helpers(self) -> tuple[PartyId, ...]:
        """The second server and the dealer."""
        return helpers_of(self)

    def client(self, who: ClientId, identity: PartyKeys, directory: KnownKeys) -> ClientMember:
        """A client, which keeps nothing between rounds and seals to the second server's key in the
        directory.
        """
        return TwoServerClient(self, who, directory)

    def server(self, identity: PartyKeys, directory: KnownKeys) -> ServerMember[Total]:
        """The server that learns the result. It seals, and is sent nothing sealed to its
        identity.
        """
        return FirstMember(self, directory)

    def helper(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> HelperMember:
        """The second server or the dealer.

        Raises:
            ConfigError: no such helper, or another party's keys.
        """
        return helper_of(self, who, identity, directory)

    def reference_of(self, context: Context, before: Vector | None) -> Vector | None:
        """What rows are compared with in the coming round; ``before``: the model a round ago. None
        where it is not known yet.
        """
        rule = self.rule
        if isinstance(rule, FLTrust):
            return rule.root(context)
        if self.reference == "previous":
            return None if before is None else context.parameters - before
        if isinstance(rule, CosineFilter):
            return rule.reference(
                Rows(torch.empty(0, len(context.parameters)), torch.empty(0), ()), context
            )
        return None

    def direction_of(self, now: TwoServerParameters, reference: Vector) -> Direction | None:
        """The reference as integers; None where it is zero.

        Raises:
            BadUpdate: it is not finite.
        """
        direction = direct(reference, now.steep)
        if direction is None or not isinstance(self.rule, FLTrust):
            return direction
        return replace(direction, length=min(direction.length, self.rule.root_l2))

    def noise_event(
        self, plan: RoundPlan, survivors: int | None = None, colluders: int = 0
    ) -> DpEvent | None:
        """What accounts for ONE server's noise in the sum: the other may be who looks, and knows
        its own. Clients add none. None where there is none.
        """
        if self.noise is None:
            return None
        return self.noise.event(unit_l2(self.round(plan)), plan.d, 1, 1)

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """What a coalition can compute: the result for whoever is, or reads, the first server;
        every row for any two of the three.
        """
        return opened_by(received, members)


@lru_cache(maxsize=64)
def _round(channel: TwoServer, plan: RoundPlan) -> TwoServerParameters:
    return round_of(
        channel.recipe,
        plan,
        bits=channel.bits,
        ring=channel.ring,
        threshold=channel.threshold,
        soundness=channel.soundness,
        library=channel.backend,
    )
