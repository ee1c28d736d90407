"""What a coalition can compute from its mail and its keys, really computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from privfl.core import Abort, ClientId, PartyId, Received, Rows, Total, client_of
from privfl.crypto.he.wire import Refused, SignedMessage, unpack
from privfl.hybrid.encrypted_cosine.keys import KEY_HOLDER, Ring, Secret
from privfl.hybrid.encrypted_cosine.mail import CIPHERTEXT, OPENED, opened_from
from privfl.hybrid.encrypted_cosine.parameters import CosineParameters
from privfl.hybrid.encrypted_cosine.products import opened, values


def decoded(
    setting: CosineParameters, received: Received, rings: Mapping[PartyId, Ring]
) -> Rows | Total | None:
    """The sum to whoever holds the server's keys; every row to the server's mail and the key
    holder's key together; nothing to others.
    """
    server = rings.get("server")
    secret = rings[KEY_HOLDER].secret if KEY_HOLDER in rings else None
    total: Total | None = None
    rows: dict[ClientId, torch.Tensor] = {}
    messages = _of_the_round(_messages(received), list(rings.values()))
    for message in messages:
        client = client_of(message.sender)
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
                rows[client] = _row(setting, secret, message)
        except (Refused, ValueError):
            continue
    if not rows:
        return total
    return Rows(torch.stack(list(rows.values())), torch.ones(len(rows)), tuple(rows))


def _row(setting: CosineParameters, secret: Secret, message: SignedMessage) -> torch.Tensor:
    """A client's vector [d], as long as the bound.

    Raises:
        Refused: a message of another form.
    """
    plan = message.topic.plan()
    if len(parts := message.whole()) != 1:
        raise Refused("ciphertexts of another form")
    found = values(setting.lattice, opened(setting.lattice, secret.seal, unpack(parts[0])))
    length = plan.l2 if plan.l2 < float("inf") else 1.0
    row = setting.centred(found[: plan.d]) * (length / setting.unit)
    return torch.from_numpy(row.astype(np.float32))


def _of_the_round(
    mail: Sequence[tuple[PartyId, SignedMessage]], rings: Sequence[Ring]
) -> list[SignedMessage]:
    """The messages that their senders signed, under the key of this set-up, about one round: the
    one that server and key holder speak of, otherwise the one of most clients. A message of another
    round that is sent again, or one that is sent in another's name, is nobody's row.
    """
    if not rings:
        return []
    signed = [message for sender, message in mail if _is_signed(rings[0], sender, message)]
    led = [m.topic for m in signed if client_of(m.sender) is None]
    topics = Counter(led or [m.topic for m in signed])
    if not topics:
        return []
    this = max(topics, key=lambda topic: (topics[topic], topic.number))
    return [message for message in signed if message.topic == this]


def _is_signed(ring: Ring, sender: PartyId, message: SignedMessage) -> bool:
    try:
        topic = message.topic
        message.verify(ring.hello_of(sender), message.kind, topic, sender)
        return topic.key_id == ring.topic(topic.plan()).key_id
    except (Refused, Abort):
        return False


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
