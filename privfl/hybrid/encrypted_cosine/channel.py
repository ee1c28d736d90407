"""Encrypted similarity as a channel: who takes part, what may be asked of it, and what coalitions
read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch

from privfl.aggregators import CosineFilter, FLTrust
from privfl.aggregators.cosine_filter import median_of_rows
from privfl.core import (
    Able,
    BadUpdate,
    ChannelKind,
    ClientId,
    ConfigError,
    Context,
    Examples,
    Guarantee,
    KeepsSecrets,
    KnownKeys,
    Liars,
    Member,
    Party,
    PartyId,
    PartyKeys,
    Received,
    RoundPlan,
    Rows,
    Total,
    Vector,
    client_of,
    client_party,
    no_helper,
    norm,
    refuse_others_keys,
    require,
)
from privfl.crypto.he.wire import Refused, SignedMessage, unpack
from privfl.hybrid.encrypted_cosine.client import CosineClient
from privfl.hybrid.encrypted_cosine.encoding import UnitVectors
from privfl.hybrid.encrypted_cosine.guarantee import cosine_guarantee
from privfl.hybrid.encrypted_cosine.holder import KeyHolder
from privfl.hybrid.encrypted_cosine.keys import KEY_HOLDER, CosineIntroduction, Ring
from privfl.hybrid.encrypted_cosine.mail import CIPHERTEXT, OPENED, opened_from
from privfl.hybrid.encrypted_cosine.products import opened, values
from privfl.hybrid.encrypted_cosine.server import CosineServerRound, Memory
from privfl.hybrid.encrypted_cosine.setting import CosineParameters, Norms, Similarity, unit_vector
from privfl.hybrid.encrypted_cosine.weighing import Trust


def previous_aggregate(rows: Rows, context: Context) -> Vector:
    """The last round's result, as a reference of `CosineFilter` inside `EncryptedCosine`, whose
    server keeps it.

    Raises:
        BadUpdate: asked outside of that channel, where nobody keeps it.
    """
    raise BadUpdate(
        "previous_aggregate is a reference of channel 'encrypted_cosine' only: elsewhere nobody"
        " keeps the last aggregate."
    )


@dataclass(frozen=True, slots=True)
class EncryptedCosine:
    """Clients are weighed by their similarity to a public direction, under encryption (PEFL: Liu et
    al. 2021; ShieldFL: Ma et al. 2022).

    Clients send unit vectors, encrypted under the key of ``key_holder`` (BFV on SEAL). The server
    multiplies the ciphertexts with a public reference and with random signs drawn after the upload,
    learns one masked score a product through the key holder, weighs clients as ``rule`` says, adds
    up the weighted ciphertexts, and learns that one sum, masked on its way through the key holder.

    Guarantee. Server and key holder are honest but curious and do NOT collude: the server reads
    what is disclosed (each client's cosine, estimated or exact norm, ``projections`` random
    projections, weight; with Pearson its sum of entries) and the sum; the key holder reads numbers
    uniform mod t, whatever the updates are, and who took part. The noise around a score, and around
    a coefficient of the sum, is drowned to a statistical distance of at most 2^-40 (2^-36 around an
    exact norm). TOGETHER THEY READ EVERY UPDATE. A LYING SERVER READS one client a round: the key
    holder counts questions and refuses replays, small sums and a second sum, but cannot see what a
    question asks or which weights a sum has. A lying key holder cannot move the sum by more than
    rounding, which disagrees with the scores; by lying about few scores it can push clients out of
    the sum, unless it meets a question of known answer. Clients may lie: a vector's length does not
    count, one that is too long is excluded by name. PEFL shows its cloud every gradient (Schneider
    et al. 2024) and ShieldFL masks a client's vector and the last aggregate alike (Wu et al. 2025);
    here a mask serves once.

    The result is the rule's on unit vectors: FLTrust scales them to the root's length, the filter
    to the plan's bound. Nearly all weight on one client opens that client: what counts fewer than
    ``min_clients`` stays closed.

    Args:
        rule: FLTrust, whose root update is public to the server, or CosineFilter with a reference
            that needs no rows.
        reference: "rule" asks the rule; "previous" takes the last aggregate (in a session's first
            round all count alike).
        similarity: "pearson" centres the reference and takes each vector's mean out of its length.
        norms: "projections" bounds a length to about 1.7 (certain beyond 2.8, 99 %); "exact"
            squares ciphertexts, at twice the cost.
        projections: random sign vectors with entries -1, 0, 0, 1.
        plain_bits: of the modulus t; vectors get the length 2^((plain_bits - 2) / 2).

    Raises:
        ConfigError: a reference that reads the rows, or numbers out of range.

    >>> EncryptedCosine().setting.unit
    16384
    >>> EncryptedCosine().helpers
    ('key_holder',)
    """

    examples: ClassVar[Examples] = {
        "": {"rule": FLTrust, "plain_bits": 20},
        "cosine_filter": {"rule": CosineFilter, "reference": "previous"},
    }
    kind: ClassVar[ChannelKind] = ChannelKind("total", runs=(FLTrust, CosineFilter))

    rule: FLTrust | CosineFilter = field(
        default_factory=lambda: CosineFilter(reference=previous_aggregate)
    )
    reference: Literal["rule", "previous"] = "rule"
    similarity: Similarity = "cosine"
    norms: Norms = "projections"
    projections: int = 16
    min_clients: int = 2
    plain_bits: int = 31

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("reference", self.reference, ("rule", "previous")),
            ("similarity", self.similarity, ("cosine", "pearson")),
            ("norms", self.norms, ("projections", "exact")),
        ):
            if value not in allowed:
                raise ConfigError(
                    f"encrypted_cosine: {name} is '{allowed[0]}' or '{allowed[1]}', and is"
                    f" '{value}'."
                )
        require.within(20, 31, plain_bits=self.plain_bits)
        require.within(1, 64, projections=self.projections)
        require.at_least(2, min_clients=self.min_clients)
        if (
            self.reference == "rule"
            and isinstance(self.rule, CosineFilter)
            and self.rule.reference is median_of_rows
        ):
            raise ConfigError(
                "encrypted_cosine: cosine_filter's own reference is the median of the rows, which"
                " nobody here can read: set channel.reference to 'previous', or give the filter a"
                " reference trained on the server's own data."
            )

        if isinstance(self.rule, CosineFilter) and self.rule.bound is not None:
            raise ConfigError(
                "encrypted_cosine: every row has one length, so cosine_filter has nothing to cut to"
                f" bound={self.rule.bound:g}: leave it out."
            )

    @property
    def able(self) -> Able:
        """UnitVectors arrive; the server is told the model, for its reference."""
        return Able(
            encodes=self.encoding,
            fewest=lambda n: self.min_clients,
            hosts=self.rule,
            key_holders=lambda cohort: (KEY_HOLDER,),
            informed=True,
            keyed=True,
        )

    @property
    def encoding(self) -> UnitVectors:
        """What arrives of a row."""
        rule = self.rule
        if isinstance(rule, FLTrust) and not self.remembers:
            return UnitVectors(self.setting, rule.root_l2)
        return UnitVectors(self.setting, None)

    @property
    def setting(self) -> CosineParameters:
        """The numbers that follow."""
        return CosineParameters(
            self.plain_bits, self.norms, self.similarity, self.projections, self.min_clients
        )

    @property
    def remembers(self) -> bool:
        """Whether the reference is the last aggregate."""
        return self.reference == "previous" or (
            isinstance(self.rule, CosineFilter) and self.rule.reference is previous_aggregate
        )

    @property
    def helpers(self) -> tuple[PartyId, ...]:
        """The key holder."""
        return (KEY_HOLDER,)

    def client(self, who: ClientId, identity: PartyKeys, directory: KnownKeys) -> CosineClient:
        """A client that encrypts and signs.

        Raises:
            ConfigError: another party's keys.
        """
        return CosineClient(self._ring(client_party(who), identity, directory))

    def server(self, identity: PartyKeys, directory: KnownKeys) -> CosineServer:
        """The server, which computes on ciphertexts; raises as `client`."""
        return CosineServer(self, self._ring("server", identity, directory))

    def helper(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> KeyHolder:
        """The key holder.

        Raises:
            ConfigError: as `client`, or there is no such helper.
        """
        if who != KEY_HOLDER:
            raise no_helper("encrypted_cosine", who, self.helpers)
        return KeyHolder(self._ring(KEY_HOLDER, identity, directory))

    def _ring(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> Ring:
        refuse_others_keys(who, identity)
        return Ring(who, self.setting, identity, directory)

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do, as this channel is set."""
        return cosine_guarantee(self.setting)

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return f"Similarity under encryption. {self.guarantee.describe()}"

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """The sum to the server; every row (its direction, as long as the bound) to server and key
        holder together; nothing to others.
        """
        rings = {
            who: member.ring
            for who, member in members.items()
            if isinstance(member, CosineServer | KeyHolder | CosineClient)
        }
        server, secret = (
            rings.get("server"),
            (rings[KEY_HOLDER].secret if KEY_HOLDER in rings else None),
        )
        total: Total | None = None
        rows: dict[ClientId, torch.Tensor] = {}
        for sender, message in _messages(received):
            client = client_of(sender)
            try:
                if message.kind == OPENED and server is not None:
                    note, polynomials = opened_from(server, message)
                    total = total or note.total(note.unmasked(server.setting, polynomials))
                elif (
                    message.kind == CIPHERTEXT
                    and secret is not None
                    and client is not None
                    and client not in rows
                ):
                    plan, setting = message.topic.plan(), self.setting
                    found = values(
                        setting.lattice,
                        opened(setting.lattice, secret.seal, unpack(message.whole()[0])),
                    )
                    length = plan.l2 if plan.l2 < float("inf") else 1.0
                    row = setting.centred(found[: plan.d]) * (length / setting.unit)
                    rows[client] = torch.from_numpy(row.astype(np.float32))
            except (Refused, ValueError):
                continue
        if not rows:
            return total
        return Rows(torch.stack(list(rows.values())), torch.ones(len(rows)), tuple(rows))


def _messages(received: Received) -> list[tuple[PartyId, SignedMessage]]:
    found = []
    for mails in received.values():
        for mail in mails:
            for sender, body in mail.items():
                try:
                    found.append((sender, SignedMessage.read(body)))
                except Refused:
                    continue
    return found


class CosineServer(KeepsSecrets):
    """The server between rounds: its identity, the public key, the reference of the coming round,
    the last aggregate.
    """

    def __init__(self, channel: EncryptedCosine, ring: Ring) -> None:
        self.channel, self.ring, self.memory = channel, ring, Memory()
        self.root: Vector | None = None
        self.seen: Vector | None = None

    def set_up(self) -> Party:
        """Say hello, take the public key."""
        self.memory.previous = self.root = self.seen = None
        return CosineIntroduction(self.ring)

    def inform(self, context: Context) -> None:
        """Ask the rule for its public reference; or keep how the model moved, in case the last
        aggregate is not at hand.

        Raises:
            BadUpdate: the reference is not a finite vector of the model's length.
        """
        channel, rule = self.channel, self.channel.rule
        if channel.remembers:
            if (
                self.memory.previous is None
                and self.seen is not None
                and bool((context.parameters != self.seen).any())
            ):
                self.memory.previous = context.parameters - self.seen
            self.seen = context.parameters.clone()
            return
        d = len(context.parameters)
        found = (
            rule.root(context)
            if isinstance(rule, FLTrust)
            else rule.reference(Rows(torch.empty(0, d), torch.empty(0), ()), context)
        )
        if found.shape != (d,) or not norm(found) < float("inf"):
            raise BadUpdate(
                f"{type(rule).__name__}: the reference is no finite vector of {d} values."
            )
        self.root = found.detach().cpu()

    def enter(self, plan: RoundPlan) -> CosineServerRound:
        """Weigh and sum one round.

        Raises:
            ConfigError: another part than the update, no reference, or one that reads a single
                coordinate of every client.
        """
        channel = self.channel
        if plan.part != "delta":
            raise ConfigError(
                f"encrypted_cosine compares updates with a reference, and '{plan.part}' is none:"
                " train without extra vectors."
            )
        vector = self.memory.previous if channel.remembers else self.root
        if vector is None and not channel.remembers:
            raise ConfigError(
                f"encrypted_cosine: {type(channel.rule).__name__} needs the model for its"
                " reference: tell the server by inform(context)."
            )
        if vector is not None and len(vector) != plan.d:
            raise ConfigError(
                f"encrypted_cosine: a reference of {len(vector)} values for updates of {plan.d}."
            )
        return CosineServerRound(
            self.ring,
            plan,
            Trust.of(channel.rule),
            self.memory,
            self._reference(vector),
            self._length(plan),
        )

    def _reference(self, vector: Vector | None) -> np.ndarray | None:
        if vector is None:
            return None
        values = vector.numpy().astype(np.float64)
        if self.channel.similarity == "pearson":
            values = values - values.mean()
        integers = unit_vector(values, self.channel.setting.unit)
        if len(integers) > 1 and np.count_nonzero(integers) == 1:
            raise ConfigError(
                "encrypted_cosine: a reference with a single coordinate reads that coordinate of"
                " every client; take another."
            )
        return integers

    def _length(self, plan: RoundPlan) -> float:
        rule = self.channel.rule
        if isinstance(rule, FLTrust) and not self.channel.remembers and self.root is not None:
            return min(norm(self.root), rule.root_l2)
        if not plan.l2 < float("inf"):
            raise ConfigError(
                "encrypted_cosine gives every row the length of the bound, so updates need one: set"
                " bound to a clip."
            )
        return plan.l2
