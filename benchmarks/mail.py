"""What signing and sealing every letter costs: a round with its training, the protocols alone, and
what travels.

``python -m benchmarks.mail [--quick] [--json] [--only CASE]``. Times are CPU time of all threads,
signed and bare mail turn by turn in one process.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Any

import torch

from benchmarks.harness import Row, cost, interleaved, main
from privfl import Federation
from privfl.aggregators import Krum
from privfl.config import AuditConfig
from privfl.core import Bounded, Context, Dataset, LocalPlan, RoundPlan
from privfl.crypto import BFV, AdditiveSharing, Plain, SecAgg
from privfl.dp import Clip
from privfl.engine import Engine, MailMode, Session
from privfl.hybrid import TwoServer
from privfl.models import mlp
from privfl.training import LocalSGD, Sequential

N, SAMPLES, D = 20, 600, 100_000
MODES: tuple[MailMode, ...] = ("bare", "signed")


def channels(names: Collection[str] | None = None) -> dict[str, Any]:
    """A channel that hides nothing, one of many small letters, one with a second server, one with
    large ciphertexts, one whose servers talk a lot; or those of these names.
    """
    every = {
        "plain": Plain(),
        "secagg": SecAgg(),
        "additive_sharing": AdditiveSharing(),
        "bfv": BFV(),
        "two_server, krum": TwoServer(Krum(f=4, m=8), security="semi_honest"),
    }
    return {name: made for name, made in every.items() if names is None or name in names}


def training(quick: bool, names: Collection[str] | None = None) -> Iterator[Row]:
    """20 clients with 600 samples each train an MLP of 100,180 parameters and send their updates:
    5 epochs of batches of 10 (McMahan et al. 2017), and a single epoch of 32, which is almost none.
    """
    generator = torch.Generator().manual_seed(0)
    clients = [
        Dataset(
            torch.rand(SAMPLES, 1, 28, 28, generator=generator),
            torch.randint(10, (SAMPLES,), generator=generator),
            classes=10,
        )
        for _ in range(N)
    ]
    for epochs, batch, target in ((5, 10, 1 / 1.05), (1, 32, None)):
        for name, channel in channels(names).items():
            engines = {}
            for mail in MODES:
                scenario = Federation(
                    mlp((1, 28, 28), 10, hidden=(126,)),
                    clients,
                    clients[0],
                    training=LocalSGD(lr=0.1, plan=LocalPlan(batch_size=batch, epochs=epochs)),
                    bound=Clip(l2=1.0),
                    channel=channel,
                    mail=mail,
                    audit=AuditConfig(keep="none"),
                ).scenario
                engine = Engine(scenario, Sequential(scenario.workload))
                engines[mail] = (engine, engine.begin("sequential"))
            runs = {
                mail: lambda engine=engine, state=state: engine.play(state)
                for mail, (engine, state) in engines.items()
            }
            found = interleaved(runs, 4 if quick else 8, time.process_time)
            yield cost(
                f"{name}, {epochs} epochs of batch {batch}",
                "bare mail",
                "CPU s, a round with its training",
                found["signed"],
                found["bare"],
                target,
            )


def protocol(quick: bool, names: Collection[str] | None = None) -> Iterator[Row]:
    """The channel's parties alone, everybody in one process; and the bytes."""
    rows = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    rows *= 0.99 / rows.norm(dim=1, keepdim=True)
    for name, channel in channels(names).items():
        sessions = {mail: Session(channel, mail) for mail in MODES}
        for session in sessions.values():
            session.enrol(range(N))
        sizes, number = {}, iter(range(1 << 20))

        def play(
            mail: MailMode, sessions: Any = sessions, sizes: Any = sizes, number: Any = number
        ) -> None:
            plan = RoundPlan(next(number), tuple(range(N)), D, 1.0, session=b"a benchmark")
            sessions[mail].inform(Context(plan, torch.zeros(D), torch.Generator()))
            updates = {i: Bounded(i, rows[i], 1.0) for i in range(N)}
            outcome = sessions[mail].play(plan, updates)
            if outcome.opened is None:
                raise RuntimeError(f"the round failed: {outcome.aborts}")
            sizes[mail] = float(outcome.bytes_sent())

        found = interleaved(
            {mail: lambda mail=mail: play(mail) for mail in MODES},
            2 if quick else 6,
            time.process_time,
        )
        label = f"{name}, 20 clients, d=100k"
        yield cost(label, "bare mail", "CPU s, the protocol alone", found["signed"], found["bare"])
        yield cost(label, "bare mail", "bytes a round", sizes["signed"], sizes["bare"], 1 / 1.05)


def two_server(quick: bool) -> Iterator[Row]:
    """The channel with the most mail alone, with more repeats: minimum of interleaved rounds."""
    names = ("two_server, krum",)
    yield from training(quick, names)
    yield from protocol(False, names)


CASES = {"training": training, "protocol": protocol, "two_server": two_server}

if __name__ == "__main__":
    main("mail", CASES)
