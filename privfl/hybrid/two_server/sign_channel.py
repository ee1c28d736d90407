"""FLTrust on signs: two servers compare bits by Hamming distance and sum them with weights, and
each sees uniform noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np

from privfl.aggregators import FLTrust
from privfl.core import (
    Able,
    BadUpdate,
    ChannelKind,
    ClientId,
    ClientMember,
    ConfigError,
    Context,
    Examples,
    Guarantee,
    HelperMember,
    KnownKeys,
    Liars,
    Member,
    PartyId,
    PartyKeys,
    Received,
    RoundPlan,
    Rows,
    ServerMember,
    Total,
    Vector,
    require,
)
from privfl.crypto.primitives import BackendName, backend
from privfl.hybrid.two_server.guarantee import check_operators, sign_guarantee
from privfl.hybrid.two_server.members import (
    HELPERS,
    FirstMember,
    TwoServerClient,
    helper_of,
)
from privfl.hybrid.two_server.parameters import (
    Direction,
    Security,
    TwoServerParameters,
    check_security,
)
from privfl.hybrid.two_server.recipe import Recipe, sign_round
from privfl.hybrid.two_server.row_encoding import SignEncoding
from privfl.hybrid.two_server.rules import SignsOnShares
from privfl.hybrid.two_server.view import opened_by


@dataclass(frozen=True, slots=True)
class SignTwoServer:
    """Sign rows weighed by their Hamming distance to the signs of the server's clean update (FLOD:
    Dong, Chen, Li, Wang, Zeng 2021).

    Each client sends the signs of its update, a bit a value, masked, and one sealed seed. With h_i
    the distance to the root update's signs and tau = ``threshold`` d, the result is sum max(0, tau
    - h_i) s_i / sum max(0, tau - h_i), where rows s_i of signs have the plan's length l2. Any bits
    are some row of signs, so a client cannot be longer than the others and nothing needs a proof.

    Guarantee (``guarantee`` says it whole): while ``server``, ``server/1`` and the ``dealer``, of
    whom no two collude, FOLLOW THE PROTOCOL, each, with any clients, learns the result and what
    ``reveal`` names: ``scores``, all Hamming distances; ``aggregate``, how many clients count, and
    to the first server the sum of their weights. Any two of the three read every row of signs.

    UNDER ``security: malicious``, the default, one server that lies gets the rule's own weights or
    an abort, but for a chance of 2^-(64 - k) a round, k bits of the number of values (2^-47 at
    100k): clients fix their bits, and the dealer authenticates every bit that hides one. It still
    chooses which clients take part, and ``server`` the signs that rows are compared with;
    ``server/1`` can add a constant to the sum, whose length is then cut to what rows of these
    weights can have, so it may be any vector of up to a row's length (docs/hybrid.md, Theorem 2).

    UNDER ``security: semi_honest`` EACH OF THE THREE, IF IT LIES, READS: it puts nearly all weight
    on one client, and the result is that client's row (so does the dealer under "malicious", where
    weights stay shared).

    Args:
        rule: FLTrust, for its ``root`` update, which both servers see the signs of; ``fixed`` and
            ``root_l2`` stay at their defaults.
        threshold: tau over d: 0.5 is the distance of a row that has nothing to do with the root.
        colluders, run_by, security: as of `TwoServer`; with "malicious" the dealer sends 8 bytes a
            value more.

    Raises:
        ConfigError: a setting that cannot be; and when a round begins, fewer than 2 clients, no
            finite bound, or a ring too small.

    >>> channel = SignTwoServer(FLTrust(lambda context: context.parameters))
    >>> channel.helpers
    ('server/1', 'dealer')
    """

    examples: ClassVar[Examples] = {"": {"rule": FLTrust}}
    kind: ClassVar[ChannelKind] = ChannelKind("total", runs=(FLTrust,))

    rule: FLTrust
    threshold: float = 0.5
    reveal: Literal["scores", "aggregate"] = "aggregate"
    min_selected: int = 2
    colluders: int = 0
    quorum: float = 0.5
    backend: BackendName = "auto"
    run_by: tuple[str, ...] = ()
    security: Security = "malicious"

    def __post_init__(self) -> None:
        require.within(0, 1, threshold=self.threshold, quorum=self.quorum)
        require.at_least(2, min_selected=self.min_selected)
        require.at_least(0, colluders=self.colluders)
        if self.reveal not in ("scores", "aggregate"):
            raise ConfigError(f"reveal is 'scores' or 'aggregate', and is '{self.reveal}'.")
        if self.rule.fixed or self.rule.root_l2 < math.inf:
            raise ConfigError(
                "rows of signs have one length, so FLTrust's fixed and root_l2 do nothing here:"
                " leave them out."
            )
        check_security(self.security)
        backend(self.backend)
        check_operators(self.run_by)

    @property
    def recipe(self) -> Recipe:
        """The rule as numbers."""
        least = max(self.min_selected, self.colluders + 2)
        return Recipe(self._on_shares, least, self.colluders, self.security == "malicious")

    @property
    def _on_shares(self) -> SignsOnShares:
        return SignsOnShares(self.reveal, self.threshold)

    def round(self, plan: RoundPlan) -> TwoServerParameters:
        """A round's public parameters."""
        return _round(self, plan)

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, as this channel is set."""
        return sign_guarantee(self._on_shares, self.recipe, self.fewest, self.run_by)

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return (
            f"Two servers and a dealer weigh rows of signs on shares. {self.guarantee.describe()}"
        )

    @property
    def able(self) -> Able:
        """Both servers learn what is opened on the way; the first is told the model."""
        return Able(
            streams=True,
            encodes=SignEncoding(),
            fewest=self.fewest,
            hosts=self.rule,
            told=("server", "server/1"),
            informed=True,
            keyed=True,
        )

    def fewest(self, n: int) -> int:
        """The fewest contributions of a cohort of n that are ever opened."""
        return self.recipe.quorum(n, self.quorum)

    @property
    def helpers(self) -> tuple[PartyId, ...]:
        """The second server and the dealer."""
        return HELPERS

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

    @property
    def dealt_ahead(self) -> None:
        """Its dealer is online: bits of rows are dealt for masks that clients draw."""
        return None

    def reference_of(self, context: Context, before: Vector | None) -> Vector | None:
        """The root update."""
        return self.rule.root(context)

    def direction_of(self, now: TwoServerParameters, reference: Vector) -> Direction | None:
        """The root update's signs, 1 where it is below zero.

        Raises:
            BadUpdate: it is not finite, or zero everywhere.
        """
        exact = reference.detach().cpu().numpy()
        if not np.isfinite(exact).all() or not exact.any():
            raise BadUpdate(
                "the root update holds NaN or infinite values, or is zero and has no signs."
            )
        return Direction.of((exact < 0).astype(np.int64), 1.0)

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """What a coalition can compute: the result for the first server; every row of signs for any
        two of the three.
        """
        return opened_by(received, members)


@lru_cache(maxsize=64)
def _round(channel: SignTwoServer, plan: RoundPlan) -> TwoServerParameters:
    return sign_round(channel.recipe, plan, threshold=channel.quorum, library=channel.backend)
