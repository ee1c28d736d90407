"""Logistic regression over columns of two parties, residuals under Paillier (Hardy et al. 2017).

With y = +-1 the loss is replaced by its second-order Taylor polynomial at 0, whose derivative is
u/4 - y/2 at u = x w: linear, so that additions under encryption compute it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from privfl.core import Buffer, ConfigError, KeepsSecrets, Mail, PartyId, require
from privfl.crypto.he.libraries import gmpy2
from privfl.crypto.he.paillier.keys import PaillierPublic, PaillierSecret
from privfl.crypto.he.wire import Refused
from privfl.vertical.encrypted_mail import (
    COLUMN_BITS,
    LARGEST,
    SHARE_BITS,
    Numbers,
    closed,
    coded,
    letter_of,
    opened,
    sealed,
)
from privfl.vertical.message import Batch
from privfl.vertical.parties import GUEST

HOST: PartyId = "host/0"
HOLDER: PartyId = "key_holder"


@dataclass(frozen=True, slots=True)
class EncryptedStep:
    """What guest and host agree on: the step's length, and the weights' decay.

    Raises:
        ConfigError: a rate that is not above zero, or a negative decay.
    """

    lr: float = 0.5
    decay: float = 0.0

    def __post_init__(self) -> None:
        require.positive(lr=self.lr)
        require.at_least(0.0, decay=self.decay)

    def taken(self, weights: Numbers, gradient: Numbers) -> Numbers:
        """The weights after it."""
        moved: Numbers = weights - self.lr * (gradient + self.decay * weights)
        return moved


class EncryptedLearner(KeepsSecrets):
    """What guest and host have in common: columns [n, d], weights [d], the key holder's public key,
    and the masks of the batch that is under way.

    ``gradient`` is the last batch's, which it learns in the clear, as the protocol has it.
    """

    def __init__(self, public: PaillierPublic, x: Numbers, step: EncryptedStep) -> None:
        self.public, self.x, self.step_ = public, x, step
        self.w: Numbers = np.zeros(x.shape[1])
        self.gradient: Numbers | None = None
        self._masks: list[int] = []
        whole = (x == np.rint(x)).all(axis=0)  # one-hot columns need additions only
        self._bits = [0 if one else COLUMN_BITS for one in whole.tolist()]

    def masked(self, batch: Batch, residuals: Sequence[Any]) -> bytes:
        """[[X^T r + mask]], to the key holder. Masks are uniform mod n, so plaintexts are, and
        fresh factors hide what the exponents were.
        """
        public = self.public
        rows = self.x[batch.rows.numpy()]
        self._masks = [secrets.randbelow(public.n) for _ in range(rows.shape[1])]
        out = sealed(public, self._masks)
        for j, (column, bits) in enumerate(zip(rows.T, self._bits, strict=True)):
            powers = coded(column, bits)
            for power, residual in zip(powers, residuals, strict=True):
                if power:
                    factor = residual if power == 1 else gmpy2.powmod(residual, power, public.n2)
                    out[j] = out[j] * factor % public.n2
        return closed(public, batch, b"masked", out, public.width)

    def learn(self, batch: Batch, body: Buffer) -> None:
        """Take the masks off, and step.

        Raises:
            Refused: no message, or a number that is no gradient.
        """
        public, rows = self.public, len(batch.rows)
        numbers = opened(public, batch, b"opened", self.x.shape[1], body)
        limit = rows * LARGEST * LARGEST << (SHARE_BITS + COLUMN_BITS)
        found = []
        for number, mask, bits in zip(numbers, self._masks, self._bits, strict=True):
            value = int((number - mask) % public.n)
            value -= public.n if value > public.n // 2 else 0
            if abs(value) > limit:
                raise Refused(
                    "a number that no gradient can be: it was not opened truly, or something in the"
                    " sum was none"
                )
            found.append(value / (1 << (SHARE_BITS + bits)) / rows)
        self._masks = []
        self.gradient = np.array(found)
        self.w = self.step_.taken(self.w, self.gradient)


class EncryptedHost(EncryptedLearner):
    """The party with columns and without labels."""

    def enter(self, batch: Batch) -> EncryptedHostParty:
        """Its part in one batch."""
        self.gradient = None
        return EncryptedHostParty(self, batch)


class EncryptedGuest(EncryptedLearner):
    """The party with columns and labels y [n] of +-1.

    Raises:
        ConfigError: other labels.
    """

    def __init__(self, public: PaillierPublic, x: Numbers, y: Numbers, step: EncryptedStep) -> None:
        super().__init__(public, x, step)
        if set(np.unique(y).tolist()) - {-1.0, 1.0}:
            raise ConfigError("labels are -1 and 1 here.")
        self._y = y

    def residual(self, batch: Batch, shares: Sequence[Any]) -> list[Any]:
        """[[u/4 - y/2]] of [[u_h/4]], under fresh factors: without these the host, which knows
        the factors of its shares, would read all that was added.
        """
        rows = batch.rows.numpy()
        own = self.x[rows] @ self.w / 4 - self._y[rows] / 2
        added = sealed(self.public, coded(own, SHARE_BITS))
        return [a * b % self.public.n2 for a, b in zip(shares, added, strict=True)]

    def enter(self, batch: Batch) -> EncryptedGuestParty:
        """Its part in one batch."""
        self.gradient = None
        return EncryptedGuestParty(self, batch)


class EncryptedHolder(KeepsSecrets):
    """The party with the key: it opens numbers that are uniform mod n, whatever the data are."""

    def __init__(self, secret: PaillierSecret) -> None:
        self.secret = secret

    def enter(self, batch: Batch, columns: dict[PartyId, int]) -> EncryptedHolderParty:
        """Its part in one batch."""
        return EncryptedHolderParty(self.secret, batch, columns)


class EncryptedHostParty:
    """A share of u goes up; the residuals come, encrypted; a masked gradient goes to the key
    holder, and comes back.
    """

    def __init__(self, host: EncryptedHost, batch: Batch) -> None:
        self._host, self._batch, self._asked, self._done = host, batch, False, False

    def step(self, mail: Mail) -> Mail:
        """The three messages, each once."""
        host, batch, public = self._host, self._batch, self._host.public
        if not mail:
            share = host.x[batch.rows.numpy()] @ host.w / 4
            sent = sealed(public, coded(share, SHARE_BITS))
            return {GUEST: closed(public, batch, b"share", sent, public.width)}
        if GUEST in mail and not self._asked:
            self._asked = True
            with letter_of(GUEST):
                residuals = opened(public, batch, b"residual", len(batch.rows), mail[GUEST])
            return {HOLDER: host.masked(batch, residuals)}
        if HOLDER in mail and self._asked and not self._done:
            self._done = True
            with letter_of(HOLDER):
                host.learn(batch, mail[HOLDER])
        return {}


class EncryptedGuestParty:
    """Shares come, residuals go down, encrypted; a masked gradient goes to the key holder."""

    def __init__(self, guest: EncryptedGuest, batch: Batch) -> None:
        self._guest, self._batch, self._asked, self._done = guest, batch, False, False

    def step(self, mail: Mail) -> Mail:
        """Each message once."""
        guest, batch, public = self._guest, self._batch, self._guest.public
        if HOST in mail and not self._asked:
            self._asked = True
            with letter_of(HOST):
                shares = opened(public, batch, b"share", len(batch.rows), mail[HOST])
            residuals = guest.residual(batch, shares)
            return {
                HOST: closed(public, batch, b"residual", residuals, public.width),
                HOLDER: guest.masked(batch, residuals),
            }
        if HOLDER in mail and self._asked and not self._done:
            self._done = True
            with letter_of(HOLDER):
                guest.learn(batch, mail[HOLDER])
        return {}


class EncryptedHolderParty:
    """Opens one masked gradient of each, and no more."""

    def __init__(self, secret: PaillierSecret, batch: Batch, columns: dict[PartyId, int]) -> None:
        self._secret, self._batch, self._left = secret, batch, dict(columns)

    def step(self, mail: Mail) -> Mail:
        """What was opened goes back to whom it came from."""
        public, out = self._secret.public, {}
        for who in [who for who in mail if who in self._left]:
            count = self._left.pop(who)
            with letter_of(who):
                numbers = opened(public, self._batch, b"masked", count, mail[who])
            plain = self._secret.plaintexts(numbers)
            out[who] = closed(public, self._batch, b"opened", plain, public.width)
        return out
