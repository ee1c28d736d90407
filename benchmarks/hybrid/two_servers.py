"""Rules on shares beside the plaintext rules and plain sharing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch

from benchmarks import floors
from benchmarks.harness import Row, cost, interleaved
from benchmarks.hybrid.rounds import bounded
from privfl.aggregators import CosineFilter, FLTrust, Krum, Mean
from privfl.core import Bounded, Context, RoundPlan, Rows
from privfl.crypto import AdditiveSharing
from privfl.crypto.enrolled import Enrolled
from privfl.engine import Session
from privfl.hybrid import TwoServer
from privfl.hybrid.two_server import Reveal, Security, SignTwoServer

SERVERS = ("server", "server/1", "dealer")
SECURITIES: Sequence[Security] = ("semi_honest", "malicious")


Rule = Krum | Mean | FLTrust | CosineFilter


@dataclass
class Shared:
    """One round after another over two servers, with the model told to the first."""

    channel: TwoServer | SignTwoServer
    sent: Mapping[int, Bounded]
    number: int = 0
    seconds: float = math.inf
    clients: float = math.inf

    def __post_init__(self) -> None:
        self.session = Session(self.channel)
        self.session.enrol(self.sent)

    def __call__(self) -> None:
        """The next round; the least CPU seconds so far of both servers and the dealer, and of all
        clients.
        """
        first = next(iter(self.sent.values()))
        plan = RoundPlan(
            self.number, tuple(self.sent), len(first.delta), first.l2, session=b"benchmark"
        )
        self.number += 1
        self.session.inform(Context(plan, torch.zeros(plan.d), torch.Generator()))
        self.outcome = self.session.play(plan, self.sent)
        if self.outcome.opened is None or self.outcome.opened.excluded:
            raise RuntimeError(f"the round failed: {dict(self.outcome.aborts)}")
        spent = self.outcome.seconds
        self.seconds = min(self.seconds, sum(spent.get(who, 0.0) for who in SERVERS))
        self.clients = min(self.clients, sum(s for who, s in spent.items() if who not in SERVERS))
        self.ring = self.channel.round(plan).ring

    def megabytes(self, senders: Sequence[str], receivers: Sequence[str]) -> float:
        """What these sent to those in the last round."""
        return (
            sum(
                x.size
                for x in self.outcome.messages
                if x.sender in senders and x.receiver in receivers
            )
            / 1e6
        )


def sharing(sent: Mapping[int, Bounded]) -> Callable[[], None]:
    """All clients' work of plain additive sharing over two servers: encode, mask, seal."""
    channel = AdditiveSharing()
    first = next(iter(sent.values()))
    plan = RoundPlan(0, tuple(sent), len(first.delta), first.l2, session=b"benchmark")
    clients = Enrolled.fresh(channel, sent).clients

    def run() -> None:
        for who, client in clients.items():
            client.enter(plan, sent[who]).step({})

    return run


def beside(name: str, ours: Shared, found: Mapping[str, float]) -> Iterator[Row]:
    """Ours beside the plaintext rule: the clients' sharing on its side alone, which is what the
    target was set for, then on neither side, and on both.
    """
    servers, rule = "CPU s, servers and dealer", found["plain"]
    shared = rule + found["sharing"]
    yield cost(name, "plaintext rule + sharing", servers, ours.seconds, shared, target=1 / 20)
    yield cost(name, "plaintext rule", servers, ours.seconds, rule)
    everybody = ours.seconds + ours.clients
    yield cost(name, "plaintext rule + sharing", "CPU s, clients too", everybody, shared)


def two_servers(
    rule: Krum | FLTrust | Mean, n: int, quick: bool, reveals: Sequence[Reveal]
) -> Iterator[Row]:
    """Both servers and the dealer, on one thread, against 20 times the plaintext rule with the
    clients' sharing.
    """
    sent = bounded(n, 100_000)
    rows = Rows(torch.stack([update.delta for update in sent.values()]), torch.ones(n), tuple(sent))
    context = Context(
        RoundPlan(0, tuple(sent), 100_000, 1.0), torch.zeros(100_000), torch.Generator()
    )

    def plain() -> None:
        if isinstance(rule, FLTrust):
            rule.step(rows, None, context)
        else:
            rule(rows)

    session = Session(AdditiveSharing())
    session.enrol(sent)
    summed = session.play(context.plan, sent).exchanges
    for reveal in reveals:
        hidden = Shared(TwoServer(rule, reveal=reveal, security="semi_honest"), sent)
        found = interleaved(
            {
                "ours": hidden,
                "plain": plain,
                "sharing": sharing(sent),
                "keystream": floors.keystream(4 * rows.values.numel()),
                "reading": floors.read(rows.values),
            },
            2 if quick else 5,
            time.thread_time,
        )
        name = f"two_server_{type(rule).__name__.lower()}: {reveal}, n={n}, ring {hidden.ring}"
        yield from beside(name, hidden, found)
        least, what = (
            found["keystream"] + found["reading"],
            "32 bits of AES a value, and reading it",
        )
        yield floors.floor(name, "CPU s, servers and dealer", what, hidden.seconds, least)
        upload = hidden.megabytes([f"client/{who}" for who in sent], SERVERS)
        yield cost(
            name,
            "clients' upload",
            "MB between servers and dealer",
            hidden.megabytes(SERVERS, SERVERS),
            upload,
        )
        yield cost(
            name, "AdditiveSharing", "exchanges", float(hidden.outcome.exchanges), float(summed)
        )


def two_server_fltrust(quick: bool) -> Iterator[Row]:
    """FLTrust of 100 rows of 100k values: scores open, or nothing but the result."""
    root = 0.01 * torch.randn(100_000, generator=torch.Generator().manual_seed(1))
    yield from two_servers(
        FLTrust(lambda context: root), 100, quick, ("scores", "selection", "aggregate")
    )


def two_server_malicious(quick: bool) -> Iterator[Row]:
    """Rules that are enforced against a server that lies beside the same rules between servers that
    follow the protocol: 100 rows of 100k values, of Krum 50.
    """
    d = 100_000
    root = 0.01 * torch.randn(d, generator=torch.Generator().manual_seed(1))
    trust, near = FLTrust(lambda context: root), Krum(f=10, m=30)
    along = CosineFilter(-0.001, lambda rows, context: root)
    rules: Mapping[str, tuple[Rule, Reveal, int, float | None]] = {
        "fltrust, scores": (trust, "scores", 100, 1 / 3),
        "fltrust, aggregate": (trust, "aggregate", 100, 1 / 3),
        "mean, selection": (Mean(weighted=False), "selection", 100, None),
        "cosine_filter over -0.001, aggregate": (along, "aggregate", 100, None),
        "krum, scores": (near, "scores", 50, None),
        "krum, selection": (near, "selection", 50, 1 / 4),
        "krum, aggregate": (near, "aggregate", 50, 1 / 4),
    }
    kinds: dict[str, tuple[Callable[[Security], TwoServer | SignTwoServer], int, float | None]] = {
        name: (partial(_of_rows, rule, reveal), n, target)
        for name, (rule, reveal, n, target) in rules.items()
    }
    for shown in ("scores", "aggregate"):
        kinds[f"signs, {shown}"] = (partial(_of_signs, trust, shown), 100, None)
    for name, (channel, n, target) in kinds.items():
        sent = bounded(n, d)
        both = {security: Shared(channel(security), sent) for security in SECURITIES}
        interleaved(both, 2 if quick else 5, time.thread_time)
        before, after = both["semi_honest"], both["malicious"]
        case, peer = f"two_server, malicious: {name}, n={n}", "semi_honest"
        yield cost(case, peer, "CPU s, servers and dealer", after.seconds, before.seconds, target)
        rounds = [float(x.outcome.exchanges) for x in (after, before)]
        yield cost(case, peer, "exchanges", *rounds, target=1.0)
        for what, senders, receivers in (
            ("MB between the servers", SERVERS[:2], SERVERS[:2]),
            ("MB from the dealer", SERVERS[2:], SERVERS),
            ("MB from clients", [f"client/{who}" for who in sent], SERVERS),
        ):
            yield cost(
                case,
                peer,
                what,
                after.megabytes(senders, receivers),
                before.megabytes(senders, receivers),
            )


def _of_rows(rule: Rule, reveal: Reveal, security: Security) -> TwoServer:
    return TwoServer(rule, reveal=reveal, security=security)


def _of_signs(
    rule: FLTrust, reveal: Literal["scores", "aggregate"], security: Security
) -> SignTwoServer:
    return SignTwoServer(rule, reveal=reveal, security=security)


def two_server_krum(quick: bool) -> Iterator[Row]:
    """Multi-Krum of 50 rows of 100k values: Gram matrix open, selection open, or neither."""
    yield from two_servers(Krum(f=10, m=30), 50, quick, ("scores", "selection", "aggregate"))


def two_server_mean(quick: bool) -> Iterator[Row]:
    """Verified clipping of 100 rows of 100k values."""
    yield from two_servers(Mean(weighted=False), 100, quick, ("selection",))


def two_server_signs(quick: bool) -> Iterator[Row]:
    """Rows of 100k signs of 100 clients, weighed by Hamming distance: scores open, or nothing but
    the result.
    """
    n, d = 100, 100_000
    sent = bounded(n, d)
    rows = torch.stack([update.delta for update in sent.values()]).numpy()
    root = 0.01 * torch.randn(d, generator=torch.Generator().manual_seed(1)) + torch.from_numpy(
        rows.mean(axis=0)
    )
    ours = np.packbits(root.numpy() < 0)

    def plain() -> None:
        bits = rows < 0
        distances = np.bitwise_count(np.packbits(bits, axis=1) ^ ours).sum(axis=1, dtype=np.int64)
        weights = np.maximum(d // 2 - distances, 0).astype(np.float32)
        (weights.sum() - 2 * (weights @ bits.astype(np.float32))) / max(weights.sum(), 1)

    trust = FLTrust(lambda context: root)
    for reveal in ("scores", "aggregate"):
        hidden = Shared(_of_signs(trust, reveal, "semi_honest"), sent)
        found = interleaved(
            {
                "ours": hidden,
                "plain": plain,
                "sharing": sharing(sent),
                "keystream": floors.keystream(4 * rows.values.numel()),
                "reading": floors.read(rows.values),
            },
            2 if quick else 5,
            time.thread_time,
        )
        name = f"two_server_signs: {reveal}, n={n}"
        yield from beside(name, hidden, found)
        upload = hidden.megabytes([f"client/{who}" for who in sent], SERVERS)
        yield cost(
            name,
            "clients' upload",
            "MB between the two servers",
            hidden.megabytes(SERVERS[:2], SERVERS[:2]),
            upload,
        )
        yield cost(
            name,
            "clients' upload",
            "MB from the dealer",
            hidden.megabytes(SERVERS[2:], SERVERS),
            upload,
        )
