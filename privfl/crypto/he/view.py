"""What a coalition can compute from its mail and its keys, really computed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch

from privfl.core import Buffer, KeepsSecrets, PartyId, Received, RoundPlan, Rows, Total, client_of
from privfl.crypto.he.boxes import is_sealed, letter
from privfl.crypto.he.decryption_policy import ANSWER, CIPHERTEXT, SUM, opened_answer
from privfl.crypto.he.keyring import Keyring
from privfl.crypto.he.parameters import Arrangement
from privfl.crypto.he.scheme import PublicKey, Scheme, SecretKey, ThresholdScheme
from privfl.crypto.he.wire import Numbers, Parts, Refused, SignedMessage, unpack, unpack_numbers


def opened(
    rings: list[Keyring], scheme: Scheme, arrangement: Arrangement, received: Received
) -> Rows | Total | None:
    """Every row whose ciphertext and key the members of these keyrings hold, otherwise a sum that
    they hold or were told, or nothing.
    """
    opener = _opener(rings, arrangement)
    server = next((ring for ring in rings if ring.who == "server"), None)
    told: Total | None = None
    rows: dict[str, Total] = {}
    partials: dict[PartyId, Parts] = {}
    for message in messages_in(received, rings):
        try:
            plan = message.topic.plan()
            if message.kind == ANSWER and server is not None:
                count, parts = opened_answer(message, server)
                if arrangement.keys == "threshold":
                    partials[message.sender] = parts
                    told = told or _combined(
                        scheme, arrangement, server.key(), partials, plan, count
                    )
                else:
                    told = told or scheme.total(unpack_numbers(parts[0]), plan, count)
            elif message.kind == CIPHERTEXT and opener is not None and message.sender not in rows:
                rows[message.sender] = scheme.total(opener(message.whole(), plan, 1), plan, 1)
            elif message.kind == SUM and opener is not None:
                said, *total = message.whole()
                count = int.from_bytes(bytes(said), "little")
                told = told or scheme.total(opener(tuple(total), plan, count), plan, count)
        except (Refused, ValueError):
            continue
    return rows_of(rows) if rows else told


def _combined(
    scheme: Scheme,
    arrangement: Arrangement,
    public: PublicKey,
    partials: Mapping[PartyId, Parts],
    plan: RoundPlan,
    count: int,
) -> Total | None:
    """The sum from the decryptors' parts, where there are enough of them."""
    if not isinstance(scheme, ThresholdScheme):
        return None
    numbers = scheme.combine(public, partials, plan, count, arrangement.threshold)
    return None if numbers is None else scheme.total(numbers, plan, count)


class _Opener(KeepsSecrets):
    """Decrypts with what a coalition holds: a secret key, or enough shares of one."""

    def __init__(
        self, secret: SecretKey | None, rings: list[Keyring], public: PublicKey | None
    ) -> None:
        self.secret, self.rings, self.public = secret, rings, public

    def __call__(self, parts: Parts, plan: RoundPlan, count: int) -> Numbers:
        if self.secret is not None:
            return self.secret.decrypt(parts, plan, count)
        ring = self.rings[0]
        if self.public is None or not isinstance(ring.scheme, ThresholdScheme):
            raise Refused("no key")
        partials = {r.who: r.share.partial(parts, plan) for r in self.rings if r.share is not None}
        numbers = ring.scheme.combine(
            self.public, partials, plan, count, ring.arrangement.threshold
        )
        if numbers is None:
            raise Refused("too few shares")
        return numbers


def _opener(rings: list[Keyring], arrangement: Arrangement) -> _Opener | None:
    secret = next((ring.secret for ring in rings if ring.secret is not None), None)
    holders = [ring for ring in rings if ring.share is not None]
    if secret is None and (len(holders) < arrangement.threshold or not holders):
        return None
    return _Opener(
        secret, holders, next((ring.public for ring in rings if ring.public is not None), None)
    )


def messages_in(received: Received, rings: Sequence[Keyring]) -> Iterator[SignedMessage]:
    """Every signed message in somebody's mail that these parties can read, forwarded ones too."""
    for mails in received.values():
        for mail in mails:
            for sender, body in mail.items():
                plain = _unsealed(body, sender, rings)
                for item in _items(plain, forwarded=client_of(sender) is None):
                    try:
                        yield SignedMessage.read(item)
                    except Refused:
                        continue


def _unsealed(body: Buffer, sender: PartyId, rings: Sequence[Keyring]) -> Buffer:
    """What is in a sealed letter, for whoever of these it is sealed to; anything else as it is."""
    if is_sealed(body):
        for ring in rings:
            with contextlib.suppress(Refused):
                return letter(ring.identity, body, sender)
    return body


def _items(body: Buffer, *, forwarded: bool) -> list[Buffer]:
    if bytes(body[:3]) == b"PFH" or not forwarded:
        return [body]
    try:
        return list(unpack(body))
    except Refused:
        return []


def rows_of(rows: Mapping[PartyId, Total]) -> Rows | None:
    """Totals of one contribution each, as rows."""
    d = len(next(iter(rows.values())).value)
    usable = {who: total for who, total in rows.items() if len(total.value) == d}
    ids = tuple(int(who.partition("/")[2]) for who in usable)
    weights = torch.tensor([total.weight for total in usable.values()])
    values = torch.stack([total.value for total in usable.values()]) / weights[:, None]
    return Rows(values, weights, ids)
