"""A dealer that dealt before the rounds beside one that is online: what a dealing takes, and what a
round then takes the two servers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.harness import Row, cost, interleaved
from benchmarks.hybrid.rounds import bounded
from benchmarks.hybrid.two_servers import SERVERS, Shared
from privfl.aggregators import FLTrust
from privfl.core import RoundPlan
from privfl.crypto.primitives import Identity
from privfl.hybrid import TwoServer

ROWS, VALUES = 100, 100_000
DEALINGS = 12


def dealt_ahead(quick: bool) -> Iterator[Row]:
    """FLTrust with open scores of 100 rows of 100k values."""
    root = 0.01 * torch.randn(VALUES, generator=torch.Generator().manual_seed(1))
    trust = FLTrust(lambda context: root)
    online = TwoServer(trust, reveal="scores", security="semi_honest")
    sent, dealer = bounded(ROWS, VALUES), Identity.fresh("dealer")
    plan = RoundPlan(0, tuple(sent), VALUES, 1.0, session=b"benchmark")
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "dealt"
        began = time.thread_time()
        online.deal(plan, files, DEALINGS, dealer)
        each = (time.thread_time() - began) / DEALINGS
        size = sum(file.stat().st_size for file in files.iterdir()) / DEALINGS
        key = dealer.public.signing.hex()
        ahead = replace(online, preprocessing=str(files), dealer_key=key)
        both = {"online": Shared(online, sent), "ahead": Shared(ahead, sent)}
        interleaved(both, 2 if quick else 5, time.thread_time)
    before, after = both["online"], both["ahead"]
    case = f"two_server, dealt ahead: fltrust, scores, n={ROWS}, d={VALUES}"
    yield cost(case, "none", "CPU s of the dealer, a dealing", each, 0.0)
    yield cost(case, "none", "MB a dealing, both files", size / 1e6, 0.0)
    yield cost(case, "online, the dealer too", "CPU s, servers", after.seconds, before.seconds)
    between = [shared.megabytes(SERVERS[:2], SERVERS[:2]) for shared in (after, before)]
    yield cost(case, "online", "MB between the servers", *between)
    exchanges = [float(shared.outcome.exchanges) for shared in (after, before)]
    yield cost(case, "online", "exchanges", *exchanges)
