"""Lies under encrypted similarity, told by real parties: a server that weighs one client and nobody
else, a key holder that answers other numbers or another sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from privfl.core import (
    Cast,
    ClientId,
    ConfigError,
    KeepsSecrets,
    Liars,
    Mail,
    Party,
    RoundPlan,
)
from privfl.crypto.he.lattice.residues import Words
from privfl.crypto.he.wire import SignedMessage, unpack
from privfl.crypto.lies import victim
from privfl.hybrid.encrypted_cosine.holder import HolderRound
from privfl.hybrid.encrypted_cosine.keys import KEY_HOLDER
from privfl.hybrid.encrypted_cosine.mail import OPENED, SUM, box, numbers_to_bytes
from privfl.hybrid.encrypted_cosine.parameters import Integers
from privfl.hybrid.encrypted_cosine.products import opened
from privfl.hybrid.encrypted_cosine.queries import Answering
from privfl.hybrid.encrypted_cosine.server import CosineServerRound
from privfl.hybrid.encrypted_cosine.weighing import Floats, Trust

FAINT = 1e-3
"""The trust that a lying server gives to all but one: enough that the key holder counts them."""


@dataclass(frozen=True, slots=True)
class OneAlone(Trust):
    """Trust in one client, by its place in the cohort, whatever the similarities are."""

    place: int = 0

    def __call__(self, similar: Floats) -> Floats:
        """One for it, and hardly anything for the others."""
        trusted = np.full(len(similar), FAINT)
        trusted[self.place] = 1.0
        return trusted


def weighs_one() -> Liars:
    """A server that puts nearly all weight of the sum on one client: the key holder cannot see
    weights.

    Raises:
        ConfigError: the party is no server of encrypted similarity.
    """

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        server = honest["server"]
        if not isinstance(server, CosineServerRound):
            raise ConfigError(f"{type(server).__name__} is no server of encrypted similarity.")
        place = plan.cohort.index(victim(plan, honest))
        server.trust = OneAlone(server.trust.threshold, server.trust.fixed, place)
        if server.reference is None:  # a session's first round compares with nothing
            server.reference = np.ones(plan.d, dtype=np.int64)
        return honest

    return Liars(enter=enter)


class WrongAnswers(Answering):
    """The key's answers, but for one of them."""

    def __init__(self, honest: Answering, t: int) -> None:
        self.honest, self.t = honest, t

    def answers(self, asked: Words) -> Integers:
        """The honest scores, one moved far."""
        found = self.honest.answers(asked)
        if len(found):
            found[0] = (found[0] + self.t // 3) % self.t
        return found


def answers_one_wrong() -> Liars:
    """A key holder that moves one random score: unless its answer was known, its client seems too
    long, or unlike.
    """

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        holder = holder_of(honest[KEY_HOLDER])
        secret = holder.ring.secret
        if secret is not None:
            secret.answering = WrongAnswers(secret.answering, holder.ring.setting.t)
        return honest

    return Liars(enter=enter)


def holder_of(party: Party) -> HolderRound:
    """The key holder.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(party, HolderRound):
        raise ConfigError(f"{type(party).__name__} is no key holder.")
    return party


@dataclass(repr=False)
class MovesTheOpenedSum(KeepsSecrets):
    """A key holder that adds to one coefficient of the sum that it opens."""

    honest: HolderRound
    who: ClientId = 0

    def step(self, mail: Mail) -> Mail:
        """What the honest key holder says, the sum moved."""
        honest, ring = self.honest, self.honest.ring
        out = dict(honest.step(mail))
        message = SignedMessage.read(mail["server"]) if "server" in mail and out else None
        if message is not None and message.kind == SUM and ring.secret is not None:
            note, _, body = message.whole()
            polynomials = opened(ring.setting.lattice, ring.secret.seal, unpack(body))
            polynomials[0, 0] = (polynomials[0, 0] + ring.setting.t // 4) % ring.setting.t
            parts = (bytes(note), numbers_to_bytes(polynomials.ravel()))
            out["server"] = box(ring, "server", OPENED, ring.topic(honest.plan), parts)
        return out


def moves_the_sum() -> Liars:
    """The key holder as `MovesTheOpenedSum`."""

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        return {KEY_HOLDER: MovesTheOpenedSum(holder_of(honest[KEY_HOLDER]))}

    return Liars(enter=enter)
