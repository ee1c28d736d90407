"""Similarity under encryption beside one sum under encryption."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks.harness import Row, cost, interleaved
from benchmarks.hybrid.rounds import Rounds, bounded
from benchmarks.peers.encrypted import BfvSum, Similarity
from privfl.core import RoundPlan
from privfl.crypto import BFV
from privfl.hybrid import EncryptedCosine


def encrypted_cosine(quick: bool) -> Iterator[Row]:
    """20 clients, 100k values: from updates to the weighted sum under encryption, against a bare
    BFV sum on the same parameters.

    Ours counts its serialising; the bare sum stays in memory. Rounds are whole: signatures and mail
    of all parties too.
    """
    rows = torch.stack([update.delta for update in bounded(20, 100_000).values()]).double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ours, single = (
        Similarity(EncryptedCosine(norms="projections").setting, rows),
        Similarity(EncryptedCosine(norms="projections", projections=1).setting, rows),
    )
    default = Similarity(EncryptedCosine().setting, rows)
    exact = Similarity(EncryptedCosine(norms="exact", projections=1).setting, rows)
    bare = BfvSum(ours.setting.lattice, rows, ours.setting.unit)
    sent = bounded(20, 100_000)
    channel, plain = Rounds(EncryptedCosine(), sent), Rounds(BFV(), sent)
    runs: dict[str, Callable[[], object]] = {
        "ours": ours,
        "single": single,
        "bare": bare,
        "exact": exact,
        "default": default,
        "round": channel,
        "BFV round": plain,
    }
    runs |= {"our servers": ours.servers, "its servers": bare.servers}
    found = interleaved(runs, 2 if quick else 4, time.process_time)
    name = "encrypted_cosine"
    yield cost(
        name,
        "BFV sum",
        "CPU s, as shipped: exact norms, 16 projections, n=20, d=100k",
        found["default"],
        found["bare"],
        target=0.2,
    )
    yield cost(
        name,
        "BFV sum",
        "CPU s, 16 projections, n=20, d=100k",
        found["ours"],
        found["bare"],
        target=0.2,
    )
    yield cost(name, "BFV sum", "CPU s, 1 projection", found["single"], found["bare"])
    yield cost(
        name,
        "BFV sum",
        "CPU s, exact norms, 1 projection",
        found["exact"],
        found["bare"],
        target=0.2,
    )
    yield cost(
        name,
        "BFV sum",
        "CPU s, servers only, 16 projections",
        found["our servers"],
        found["its servers"],
    )
    yield cost(name, "BFV channel", "CPU s, whole round", found["round"], found["BFV round"])
    yield cost(
        name, "BFV channel", "MB, whole round", channel.sent_bytes / 1e6, plain.sent_bytes / 1e6
    )
    upload = (
        BFV()
        .scheme.generate()[0]
        .encrypt(np.rint(rows[0] * 2**15).astype(np.int64), RoundPlan(0, (0, 1), 100_000 - 1, 1.0))
    )
    yield cost(
        name,
        "BFV channel",
        "MB a client uploads",
        sum(map(len, ours.sent[0])) / 1e6,
        len(upload[0]) / 1e6,
    )
    yield cost(
        name,
        "BFV channel",
        "MB a client uploads, exact norms",
        sum(map(len, exact.sent[0])) / 1e6,
        len(upload[0]) / 1e6,
    )
