"""BFV and CKKS beside NVFlare's settings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks import floors
from benchmarks.harness import Row, cost, gain
from benchmarks.he.peer import Peer, nvflare
from benchmarks.he.values import CLIENTS, SAMPLE, TOP, D, plan_of, rows, timed
from privfl.crypto import BFV, CKKS
from privfl.crypto.he.lattice.keys import LatticeSecret, by_seal, fresh
from privfl.crypto.he.lattice.parameters import ckks as ckks_sets


def bfv(quick: bool) -> Iterator[Row]:
    """BFV under a shared key, seeded and not, and under a public key, against NVFlare's
    settings.
    """
    peer, plan = nvflare(), plan_of(D)
    integers, _ = rows(D)
    for how in ("symmetric", "seeded", "public"):
        keys = "authority" if how == "public" else "shared"
        public, secret = BFV(keys=keys, encryption=how).scheme.generate()
        body = secret.encrypt(integers, plan)
        total = [public.add([body, body], plan)]

        def add(public: Any = public, body: Any = body, total: list[Any] = total) -> None:
            total[0] = public.add([body] * 8, plan)

        key = public.public if how == "public" else secret.secret
        seconds = timed(
            quick,
            {
                "encrypt": lambda secret=secret: secret.encrypt(integers, plan),
                "by SEAL": partial(by_seal, secret.public.lattice, how, key, integers),
                "peer encrypt": peer.encrypt,
                "add": add,
                "peer add": lambda: [peer.add() for _ in range(8)],
                "decrypt": lambda secret=secret, body=body: secret.decrypt(body, plan, 1),
                "peer decrypt": peer.decrypt,
                "transforms": floors.transforms(-(-D // 4096), 4096),
            },
        )
        case, targets = (
            f"bfv-{how}",
            {
                "symmetric": (2, 3, 1.8, 4.5),
                "seeded": (2, None, None, 9),
                "public": (None, None, None, 4.5),
            }[how],
        )
        what = "the transforms of a ring product a block of 4096"
        least = seconds["transforms"]
        yield floors.floor(case, "encrypt 1M, s", what, seconds["encrypt"], least)
        yield cost(
            case,
            "SEAL through TenSEAL",
            "encrypt 1M, s",
            seconds["encrypt"],
            seconds["by SEAL"],
            None if how == "seeded" else 2.5,
        )
        yield cost(
            case,
            "NVFlare's CKKS",
            "encrypt 1M, s",
            seconds["encrypt"],
            seconds["peer encrypt"],
            targets[0],
        )
        yield cost(
            case,
            "NVFlare's CKKS",
            "add a client, s",
            seconds["add"] / 8,
            seconds["peer add"] / 8,
            targets[1],
        )
        yield cost(
            case,
            "NVFlare's CKKS",
            "decrypt 1M, s",
            seconds["decrypt"],
            seconds["peer decrypt"],
            targets[2],
        )
        yield cost(
            case,
            "NVFlare's CKKS",
            "bytes a value",
            len(body[0]) / D,
            len(peer.body) / D,
            targets[3],
        )
        exact = public.add([body] * CLIENTS, plan)
        wrong = np.abs(secret.decrypt(exact, plan, CLIENTS) - CLIENTS * integers).max()
        yield gain(case, "NVFlare's CKKS", "sums of 100 that are exact", float(wrong == 0), 1.0, 1)


def ckks(quick: bool) -> Iterator[Row]:
    """The raw arithmetic of the short chain, unflooded, against the tutorial's default; and what
    the flooded default's error is.
    """
    peer, plan = Peer(8192, [60, 40, 40, 60], symmetric=False), plan_of(D)
    _, reals = rows(D)
    lattice = ckks_sets(clients=255)[0]
    public, raw = fresh(lattice, 1)
    secret = LatticeSecret(public, raw, "public")
    body = public.encrypt(reals, plan)
    seconds = timed(
        quick,
        {
            "encrypt": lambda: public.encrypt(reals, plan),
            "peer encrypt": peer.encrypt,
            "add": lambda: public.add([body] * 8, plan),
            "peer add": lambda: [peer.add() for _ in range(8)],
            "decrypt": lambda: secret._decrypted(body, plan),
            "peer decrypt": peer.decrypt,
        },
    )
    case, against = "ckks-4096-raw", "CKKS 8192 [60,40,40,60]"
    yield cost(case, against, "encrypt 1M, s", seconds["encrypt"], seconds["peer encrypt"], 1.7)
    yield cost(case, against, "add a client, s", seconds["add"] / 8, seconds["peer add"] / 8, 2.8)
    yield cost(case, against, "decrypt 1M, s", seconds["decrypt"], seconds["peer decrypt"], 2.5)
    yield cost(case, against, "bytes a value", len(body[0]) / D, len(peer.body) / D, 2.6)
    part, few = reals[:SAMPLE], plan_of(SAMPLE)
    total = public.add([public.encrypt(part, few) for _ in range(CLIENTS)], few)
    error = float(np.abs(secret._decrypted(total, few) - CLIENTS * part).max())
    yield cost(case, "1e-8", "error of a sum of 100", error, 1e-8, 1)
    yield cost(case, against, "error of a sum of 100", error, peer.error())
    channel = CKKS()
    yield cost(
        "ckks-flooded",
        "fixed point of 16 bits",
        "error (1 sigma) of a sum of 100",
        channel.error(plan),
        math.sqrt(CLIENTS / 12) / TOP,
    )
