"""Hybrids against their plaintext rules: what robustness costs where nobody reads an update, and
whether it still defends.

``python -m benchmarks.hybrid [--quick] [--json] [--only CASE]``. Times are CPU time of one thread,
all parties together.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.harness import Row, cost, gain, interleaved, main, say
from benchmarks.peers.encrypted import BfvSum, Similarity
from privfl import Federation
from privfl.aggregators import FLTrust, Krum, Mean
from privfl.attacks import ClientUpdates, GradientDisaggregation, PropertyScores, SelectionProfile
from privfl.core import Bounded, Channel, Context, RoundPlan, Rows, client_party
from privfl.crypto import BFV, AdditiveSharing, SecAgg
from privfl.crypto.enrolled import Enrolled
from privfl.engine import Session
from privfl.hybrid import BucketedSecAgg, EncryptedCosine, TwoServer
from privfl.hybrid.two_server import Reveal, SignTwoServer


def bounded(n: int, d: int, l2: float = 1.0, seed: int = 0) -> dict[int, Bounded]:
    """Random updates within the bound."""
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    rows *= 0.9 * l2 / rows.norm(dim=1, keepdim=True)
    return {client: Bounded(client, row, l2) for client, row in enumerate(rows)}


@dataclass
class Rounds:
    """One round after another over a channel."""

    channel: Channel[Any]
    sent: Mapping[int, Bounded]
    number: int = 0

    def __post_init__(self) -> None:
        self.session = Session(self.channel)
        self.session.enrol(self.sent)

    def __call__(self) -> None:
        """The next round, all parties on one thread."""
        first = next(iter(self.sent.values()))
        plan = RoundPlan(
            self.number, tuple(self.sent), len(first.delta), first.l2, session=b"benchmark"
        )
        self.number += 1
        outcome = self.session.play(plan, self.sent)
        if outcome.opened is None or len(outcome.opened.survivors) != len(self.sent):
            raise RuntimeError(f"the round failed: {dict(outcome.aborts)}")
        self.sent_bytes = outcome.bytes_sent()


def bucketed(quick: bool) -> Iterator[Row]:
    """A whole round of 60 clients with 100k parameters, in groups, against one sum over them
    all.
    """
    sent = bounded(60, 100_000)
    plain = Rounds(SecAgg(), sent)
    for size in (2, 3, 5, 10):
        grouped = Rounds(BucketedSecAgg(size=size), sent)
        found = interleaved({"ours": grouped, "plain": plain}, 2 if quick else 5, time.process_time)
        yield cost(
            f"groups of {size}",
            "plain SecAgg",
            "CPU s, round of 60",
            found["ours"],
            found["plain"],
            target=1 / 1.2,
        )
        yield cost(
            f"groups of {size}",
            "plain SecAgg",
            "MB, round of 60",
            grouped.sent_bytes / 1e6,
            plain.sent_bytes / 1e6,
        )


def groups(quick: bool) -> Iterator[Row]:
    """What a group size buys of 50 clients: liars stood wherever they sit, and honest clients
    opened when the server and 10 collude.
    """
    n, rounds = 50, 1_000 if quick else 10_000
    colluding = {"server", *map(client_party, range(10))}
    found = {}
    for size in (2, 3, 5, 10):
        channel, opened = BucketedSecAgg(size=size), 0
        said = channel.guarantee
        for number in range(rounds):
            plan = RoundPlan(number, tuple(range(n)), 1, 1.0, session=b"benchmark")
            opened += len(said.victims(colluding, plan))
        found[size] = (float(channel.buckets.max_byzantine(n)), max(opened, 1) / rounds)
        yield gain(
            f"groups of {size}", "groups of 2", "liars stood of 50", found[size][0], found[2][0]
        )
        yield cost(
            f"groups of {size}",
            "groups of 2",
            "clients opened a round, 10 collude",
            found[size][1],
            found[2][1],
        )


def encrypted_cosine(quick: bool) -> Iterator[Row]:
    """20 clients, 100k values: from updates to the weighted sum under encryption, against a bare
    BFV sum on the same parameters.

    Ours counts its serialising; the bare sum stays in memory. Rounds are whole: signatures and mail
    of all parties too.
    """
    rows = torch.stack([update.delta for update in bounded(20, 100_000).values()]).double().numpy()
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ours, single = (
        Similarity(EncryptedCosine().setting, rows),
        Similarity(EncryptedCosine(projections=1).setting, rows),
    )
    exact = Similarity(EncryptedCosine(norms="exact", projections=1).setting, rows)
    bare = BfvSum(ours.setting.lattice, rows, ours.setting.unit)
    sent = bounded(20, 100_000)
    channel, plain = Rounds(EncryptedCosine(), sent), Rounds(BFV(), sent)
    runs: dict[str, Callable[[], object]] = {
        "ours": ours,
        "single": single,
        "bare": bare,
        "exact": exact,
        "round": channel,
        "BFV round": plain,
    }
    runs |= {"our servers": ours.servers, "its servers": bare.servers}
    found = interleaved(runs, 2 if quick else 4, time.process_time)
    name = "encrypted_cosine"
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


LEAKY: dict[str, Any] = {
    "data": {
        "name": "digits",
        "clients": 18,
        "partition": {"name": "dirichlet", "alpha": 0.3, "min_size": 20},
    },
    "model": "softmax",
    "training": {"name": "sgd", "lr": 0.02, "epochs": 1, "weighting": "uniform"},
    "bound": {"name": "clip", "l2": 1.0},
    "executor": "sequential",
    "audit": {"keep": "all", "evaluate_every": 12},
}
"""Clients with little, uneven data, whose updates are much the same from round to round."""


def leaks(quick: bool) -> Iterator[Row]:
    """What group means give away over rounds (a cosine), and what selections do (an AUC)."""
    for size in (2, 3, 6):
        channel = {"name": "bucketed_secagg", "size": size}
        run = Federation.from_config({**LEAKY, "rounds": 12, "channel": channel}).run()
        for rounds in (2, 4, 8, 12):
            found = GradientDisaggregation().run(
                [run.view("server", number) for number in range(rounds)]
            )
            if not isinstance(found, ClientUpdates):
                raise RuntimeError(str(found))
            sent = torch.stack(
                [
                    torch.stack([run.transcript(n).updates[c].delta for n in range(rounds)]).mean(0)
                    for c in found.clients
                ]
            )
            cosine = float(
                torch.cosine_similarity(found.updates, sent - sent.mean(dim=0), dim=1).mean()
            )
            yield gain(
                f"groups of {size}",
                "what was sent",
                f"cosine of what {rounds} rounds give away",
                cosine,
                1.0,
            )
    config = {
        **LEAKY,
        "rounds": 10,
        "channel": "two_server",
        "aggregator": {"name": "krum", "f": 4, "m": 10},
    }
    config |= {
        "data": {**LEAKY["data"], "clients": 20},
        "training": {**LEAKY["training"], "lr": 0.1},
    }
    for seed in (0, 1, 2):
        federation = Federation.from_config({**config, "seed": seed})
        run, workload = federation.run(), federation.scenario.workload
        told = SelectionProfile().run([run.view("server", number) for number in range(10)])
        if not isinstance(told, PropertyScores):
            raise RuntimeError(str(told))
        shares = torch.stack(
            [
                workload.data.take(i).y.bincount(minlength=10) / len(i)
                for i in federation.scenario.clients.values()
            ]
        )
        variety = -(shares * (shares + 1e-9).log()).sum(dim=1)
        auc = float(roc_auc_score((variety > variety.median()).numpy(), told.scores[-1].numpy()))
        yield gain(
            f"selections of multi-Krum, seed {seed}",
            "chance",
            "AUC: whose labels are varied",
            auc,
            0.5,
        )


# ---- defence

N, F, L2 = 50, 10, 2.0
MNIST: dict[str, Any] = {
    "data": {
        "name": "mnist",
        "clients": N,
        "partition": {"name": "dirichlet", "alpha": 0.5, "min_size": 40},
        "root": 200,
    },
    "model": {"name": "mlp", "hidden": [32]},
    "training": {"name": "sgd", "lr": 0.1, "steps": 10, "batch_size": 32, "weighting": "uniform"},
    "rounds": 15,
    "bound": {"name": "clip", "l2": L2},
    "executor": "stacked",
    "audit": {"keep": "none", "evaluate_every": 15},
}
"""50 clients hold MNIST unevenly (Dirichlet 0.5); 10 of them lie. The server has 200 clean samples
for the rules that need a root.
"""
LAST = MNIST["rounds"] - 1
LIARS = {"clients": list(range(F))}
UNCLIPPED = {"name": "skip_clip", **LIARS}
ATTACKS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "sign flip": [{"name": "sign_flip", "scale": 5.0, **LIARS}, UNCLIPPED],
    "ALIE": [{"name": "alie", **LIARS}],
    "Min-Max": [{"name": "min_max", **LIARS}],
    "label flip": [{"name": "label_flip", **LIARS}, {**UNCLIPPED, "scale": 10.0}],
    "model replacement": [
        {
            "name": "model_replacement",
            "backdoor": {"name": "pixel_pattern", "target": 0},
            "gamma": float(N),
            "training": {"epochs": 20, "lr": 0.1},
            "clients": [0],
            "rounds": [LAST],
        },
        {"name": "skip_clip", "clients": [0], "rounds": [LAST]},
    ],
}
"""Ten liars, and one for model replacement, in the last round; those who need length skip the clip,
as a modified client can.
"""
TAILORED: dict[str, list[dict[str, Any]]] = {
    f"AGR-tailored, {share} %": [{"name": "agr_tailored", "clients": list(range(share * N // 100))}]
    for share in (20, 30)
}
"""Attackers that try their rows on the rule that really judges them, the hybrid's own."""
OVER = ("AGR-tailored, 30 %",)
"""More attackers than the rules are set for, and more than half of the groups of 2: shown only."""
MIXED = {"aggregator": "median", "defences": [{"name": "nnm", "f": F}]}
KRUM = {"name": "krum", "f": F, "m": 20}
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mixed median, groups of 2": (
        MIXED,
        {**MIXED, "channel": {"name": "bucketed_secagg", "size": 2}},
    ),
    "multi-Krum, groups of 2": (
        {"aggregator": KRUM},
        {
            "aggregator": {"name": "krum", "f": F, "m": 10},
            "channel": {"name": "bucketed_secagg", "size": 2},
        },
    ),
    "verified mean, two servers": (
        {"aggregator": "mean"},
        {"aggregator": "mean", "channel": "two_server"},
    ),
    "multi-Krum, two servers": (
        {"aggregator": KRUM},
        {"aggregator": KRUM, "channel": "two_server"},
    ),
    "FLTrust, two servers": (
        {"aggregator": "fltrust"},
        {"aggregator": "fltrust", "channel": "two_server"},
    ),
    "FLTrust, encrypted cosine": (
        {"aggregator": "fltrust"},
        {"aggregator": "fltrust", "channel": "encrypted_cosine"},
    ),
}
"""A rule over plaintext rows, and the hybrid that runs it where nobody reads a row."""
SUM: dict[str, Any] = {"channel": {"name": "secagg", "fidelity": "ideal"}}


def outcome(changes: Mapping[str, Any], attack: str, seed: int) -> tuple[float, float]:
    """Test accuracy and, where there is one, the backdoor's success at the end of a run, in per
    cent.
    """
    result = Federation.from_config(
        {**MNIST, **changes, "attacks": {**ATTACKS, **TAILORED}[attack], "seed": seed}
    ).run()
    backdoor = [value for name, value in result.history[-1].measures.items() if "backdoor" in name]
    return 100 * float(result.accuracy or 0.0), 100 * (backdoor[0] if backdoor else 0.0)


def defence(quick: bool) -> Iterator[Row]:
    """MNIST under five attacks: every hybrid beside its plaintext rule (within 2 points), and the
    sum that nobody defends.
    """
    yield from _under(ATTACKS, quick)


def tailored(quick: bool) -> Iterator[Row]:
    """The same under attackers that know the rule, 20 and 30 % of the clients."""
    yield from _under(TAILORED, quick)


def _under(attacks: Mapping[str, Any], quick: bool) -> Iterator[Row]:
    seeds = (0,) if quick else (0, 1, 2)
    for attack in attacks:
        undefended = [outcome(SUM, attack, seed) for seed in seeds]
        say(f"  {attack}: plain SecAgg {_spread(undefended)}")
        for name, (plaintext, hidden) in PAIRS.items():
            theirs = [outcome(plaintext, attack, seed) for seed in seeds]
            ours = [outcome(hidden, attack, seed) for seed in seeds]
            say(f"  {attack}: {name} {_spread(ours)}, in plaintext {_spread(theirs)}")
            case = f"{attack}: {name}"
            yield gain(
                case,
                "its plaintext rule",
                "accuracy %, 2 points less allowed",
                _main(ours) + 2.0,
                _main(theirs),
                target=None if attack in OVER else 1,
            )
            yield gain(case, "plain SecAgg", "accuracy %", _main(ours), _main(undefended))
            if attack == "model replacement":
                yield cost(
                    case, "plain SecAgg", "backdoor %", _backdoor(ours), _backdoor(undefended)
                )


def _main(runs: Sequence[tuple[float, float]]) -> float:
    return statistics.mean(accuracy for accuracy, _ in runs)


def _backdoor(runs: Sequence[tuple[float, float]]) -> float:
    return statistics.mean(backdoor for _, backdoor in runs)


def _spread(runs: Sequence[tuple[float, float]]) -> str:
    accuracies = [accuracy for accuracy, _ in runs]
    return (
        f"{_main(runs):.1f} % ({min(accuracies):.1f}..{max(accuracies):.1f}), backdoor"
        f" {_backdoor(runs):.0f} %"
    )


# ---- two servers

SERVERS = ("server", "server/1", "dealer")


@dataclass
class Shared:
    """One round after another over two servers, with the model told to the first."""

    channel: TwoServer | SignTwoServer
    sent: Mapping[int, Bounded]
    number: int = 0
    seconds: float = math.inf

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
        self.seconds = min(self.seconds, sum(self.outcome.seconds[who] for who in SERVERS))
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
        hidden = Shared(TwoServer(rule, reveal=reveal), sent)
        found = interleaved(
            {"ours": hidden, "plain": plain, "sharing": sharing(sent)},
            2 if quick else 5,
            time.thread_time,
        )
        name, ours = (
            f"two_server_{type(rule).__name__.lower()}: {reveal}, n={n}, ring {hidden.ring}",
            hidden.seconds,
        )
        both = found["plain"] + found["sharing"]
        yield cost(
            name, "plaintext rule + sharing", "CPU s, servers and dealer", ours, both, target=1 / 20
        )
        yield cost(name, "plaintext rule", "CPU s, servers and dealer", ours, found["plain"])
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

    for reveal in ("scores", "aggregate"):
        hidden = Shared(SignTwoServer(FLTrust(lambda context: root), reveal=reveal), sent)
        found = interleaved(
            {"ours": hidden, "plain": plain, "sharing": sharing(sent)},
            2 if quick else 5,
            time.thread_time,
        )
        name = f"two_server_signs: {reveal}, n={n}"
        both = found["plain"] + found["sharing"]
        yield cost(
            name,
            "plaintext rule + sharing",
            "CPU s, servers and dealer",
            hidden.seconds,
            both,
            target=1 / 20,
        )
        yield cost(
            name, "plaintext rule", "CPU s, servers and dealer", hidden.seconds, found["plain"]
        )
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


CASES = {
    "bucketed": bucketed,
    "groups": groups,
    "leaks": leaks,
    "defence": defence,
    "tailored": tailored,
    "encrypted_cosine": encrypted_cosine,
    "two_server_fltrust": two_server_fltrust,
    "two_server_krum": two_server_krum,
    "two_server_mean": two_server_mean,
    "two_server_signs": two_server_signs,
}

if __name__ == "__main__":
    main("hybrid", CASES)
