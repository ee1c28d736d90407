"""What a coalition can compute from its mail and its members, really computed."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from privfl.core import Buffer, ClientId, Member, PartyId, Received, Rows, Total
from privfl.crypto import SecAgg
from privfl.crypto.primitives import fields
from privfl.crypto.secagg import wire
from privfl.crypto.secagg.stage import Kind


def opened(
    inside: SecAgg, received: Received, secret: Mapping[PartyId, Member]
) -> Rows | Total | None:
    """Group means from the server's mail, and single updates where all others of a group are among
    the colluding members of the protocol inside.
    """
    rows: list[tuple[torch.Tensor, float, ClientId | None]] = []
    for mail in _by_group(received):
        found = inside.decode(mail, secret)
        if isinstance(found, Rows) and found.ids is not None:
            rows += [(value, 1.0, who) for value, who in zip(found.values, found.ids, strict=True)]
        elif isinstance(found, Total) and found.count:
            rows.append((found.value / found.count, float(found.count), None))
    if not rows:
        return None
    single = [row for row in rows if row[2] is not None]
    shown = single or rows
    ids = tuple(who for _, _, who in single if who is not None) or None
    return Rows(
        torch.stack([value for value, _, _ in shown]),
        torch.tensor([weight for _, weight, _ in shown]),
        ids,
    )


def _by_group(received: Received) -> list[Received]:
    """The server's mail, group by group in the order of their numbers: messages carry their group's
    tag, and vectors its name.
    """
    mails: dict[bytes, list[Mapping[PartyId, Buffer]]] = {}
    number: dict[bytes, int] = {}
    for mail in received.get("server", ()):
        own: dict[bytes, dict[PartyId, Buffer]] = {}
        for who, body in mail.items():
            try:
                kind, _, tag, content = wire.read(body)
                if kind is Kind.MASKED:
                    number[tag] = int(fields.read_facts(content)[0].part.rpartition("/")[2])
            except (fields.Malformed, ValueError):  # what the server could not read either
                continue
            own.setdefault(tag, {})[who] = body
        for tag, mine in own.items():
            mails.setdefault(tag, []).append(mine)
    return [{"server": mails[tag]} for tag in sorted(number, key=number.__getitem__)]
