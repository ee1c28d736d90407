"""What a coalition can compute from a round's wire and its own keys, really computed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from privfl.core import ClientId, PartyId, Received, RoundPlan, Rows, Total, client_of
from privfl.crypto.encoding import FixedPoint
from privfl.crypto.primitives import Backend, Words, fields, mask, open_one
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.ring import lift, word
from privfl.crypto.sharing.additive import SEED
from privfl.crypto.sharing.parameters import FORMAT, HELD, SEEDS, SUM, VECTOR, bound_to


def decode(
    code: FixedPoint,
    others: tuple[PartyId, ...],
    received: Received,
    secrets: Mapping[PartyId, bytes],
    library: Backend,
) -> Rows | Total | None:
    """What a coalition can compute: rows from the first server's vectors and all other servers'
    seeds, the total from its mail alone.
    """
    vectors: dict[int, tuple[ClientId, Words]] = {}
    sums: dict[PartyId, Words] = {}
    held: list[frozenset[int]] = []
    plan, ring, tag = None, 32, b""
    for mail in received.get("server", ()):
        for who, body in mail.items():
            try:
                kind, its_ring, position, its_tag, content = FORMAT.read(body)
                client = client_of(who)
                if kind == VECTOR and client is not None:
                    plan, packed = fields.read_facts(content)
                    ring, tag = its_ring, its_tag
                    vectors.setdefault(
                        position, (client, fields.unpack(packed, ring, code.length(plan)))
                    )
                elif plan is not None and kind == HELD:
                    held.append(fields.read_bit_set(content, plan.n)[0])
                elif plan is not None and kind == SUM and who in others:
                    sums[who] = fields.unpack(content, ring, code.length(plan))
            except Malformed:
                continue
    if plan is None:
        return None
    rows = _rows(code, plan, ring, tag, vectors, others, received, secrets, library)
    if rows is not None:
        return rows
    left = frozenset(vectors).intersection(*held)
    if len(sums) < len(others) or not left:
        return None
    total: Words = np.zeros(code.length(plan), dtype=word(ring))
    for share in [*sums.values(), *(vectors[i][1] for i in left)]:
        np.add(total, share, out=total)
    return code.decode(lift(total, ring), plan, len(left))


def _rows(
    code: FixedPoint,
    plan: RoundPlan,
    ring: int,
    tag: bytes,
    vectors: Mapping[int, tuple[ClientId, Words]],
    others: tuple[PartyId, ...],
    received: Received,
    secrets: Mapping[PartyId, bytes],
    library: Backend,
) -> Rows | None:
    if not set(others) <= secrets.keys():
        return None
    seeds: dict[int, list[bytes]] = {i: [] for i in vectors}
    for server in others:
        for mail in received.get(server, ()):
            for body in mail.values():
                try:
                    kind, _, position, its_tag, content = FORMAT.read(body)
                    if kind == SEEDS and its_tag == tag and position in seeds:
                        seeds[position].append(
                            open_one(
                                content,
                                SEED,
                                secrets[server],
                                bound_to(tag, position, server),
                                library,
                            )
                        )
                except Malformed:
                    continue
    values, weights, ids = [], [], []
    for i in sorted(i for i, found in seeds.items() if len(found) == len(others)):
        vector = np.array(vectors[i][1], dtype=word(ring))
        mask(vector, [(seed, 1) for seed in seeds[i]], library)
        single = code.decode(lift(vector, ring), plan, 1)
        values.append(single.value / single.weight if single.weight else single.value)
        weights.append(single.weight)
        ids.append(vectors[i][0])
    return Rows(torch.stack(values), torch.tensor(weights), tuple(ids)) if values else None
