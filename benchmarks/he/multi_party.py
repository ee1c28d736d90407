"""Multi-party RLWE beside NVFlare's settings."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import Row, cost, gain
from benchmarks.he.peer import nvflare
from benchmarks.he.values import CLIENTS, D, plan_of, rows, timed
from privfl.crypto.he.mprlwe.keys import JointPublic, TernaryPart, add_c0, partial
from privfl.crypto.he.mprlwe.ring import summed


def mp_rlwe(quick: bool) -> Iterator[Row]:
    """Multi-party RLWE with three decryptors against NVFlare's settings."""
    peer, plan = nvflare(), plan_of(D)
    integers, _ = rows(D)
    pieces, seed = [TernaryPart() for _ in range(3)], bytes(32)
    public = JointPublic(seed, summed([piece.public(seed) for piece in pieces]), 16)
    body, blocks = public.encrypt(integers, plan), public.blocks(plan)

    seconds = timed(
        quick,
        {
            "encrypt": lambda: public.encrypt(integers, plan),
            "peer encrypt": peer.encrypt,
            "add": lambda: (add_c0([body[0]] * 8), public.add_c1([body[1]] * 8, plan)),
            "peer add": lambda: [peer.add() for _ in range(8)],
            "partial": lambda: partial(pieces[:1], body[1], blocks, 67),
            "peer decrypt": peer.decrypt,
        },
    )
    case = "mp-rlwe"
    yield cost(
        case, "NVFlare's CKKS", "encrypt 1M, s", seconds["encrypt"], seconds["peer encrypt"], 8
    )
    yield cost(
        case, "NVFlare's CKKS", "add a client, s", seconds["add"] / 8, seconds["peer add"] / 8, 15
    )
    yield cost(
        case,
        "NVFlare's CKKS",
        "partial decrypt 1M, s",
        seconds["partial"],
        seconds["peer decrypt"],
        1.3,
    )
    yield cost(
        case,
        "NVFlare's CKKS",
        "bytes a value",
        (len(body[0]) + len(body[1])) / D,
        len(peer.body) / D,
        3.5,
    )
    c0, c1 = public.add([body] * CLIENTS, plan)
    opened = public.opened(bytes(c0), [partial([piece], c1, blocks, 67) for piece in pieces], plan)
    yield gain(
        case,
        "NVFlare's CKKS",
        "sums of 100 that are exact",
        float(bool((opened == CLIENTS * integers).all())),
        1.0,
        1,
    )
