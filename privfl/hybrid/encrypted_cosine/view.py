"""What a coalition can compute from its mail and its keys, really computed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from privfl.core import ClientId, PartyId, Received, Rows, Total, client_of
from privfl.crypto.he.wire import Refused, SignedMessage, unpack
from privfl.hybrid.encrypted_cosine.keys import KEY_HOLDER, Ring
from privfl.hybrid.encrypted_cosine.mail import CIPHERTEXT, OPENED, opened_from
from privfl.hybrid.encrypted_cosine.parameters import CosineParameters
from privfl.hybrid.encrypted_cosine.products import opened, values


def decoded(
    setting: CosineParameters, received: Received, rings: Mapping[PartyId, Ring]
) -> Rows | Total | None:
    """The sum to whoever holds the server's keys; every row to the server's mail and the key
    holder's key together; nothing to others.
    """
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
                plan = message.topic.plan()
                if len(parts := message.whole()) != 1:
                    raise Refused("ciphertexts of another form")
                found = values(
                    setting.lattice,
                    opened(setting.lattice, secret.seal, unpack(parts[0])),
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
