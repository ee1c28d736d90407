"""An attacker who controls a share of the clients and acts whenever one of them is drawn
(Bagdasaryan et al. 2020, figure 4b), cut to a small net on MNIST: model replacement against
poisoned data alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from benchmarks.harness import Row, gain
from benchmarks.robustness.evading import FEW, HONEST, TRAINING, Room
from benchmarks.robustness.workers import Experiment, Played, between, one_each
from privfl import Federation, attacks
from privfl.config import AuditConfig
from privfl.engine import Attacker, FixedSize
from privfl.training import FedAvg

COHORT, ROUNDS = 10, 30
SHARES = (1, 5, 10, 20)
"""Clients of a hundred that are the attacker's."""
PAPER, PLAIN = "eta 1", "FedAvg"
RATES = {PAPER: COHORT / FEW, PLAIN: 1.0}
"""The server's rate: eta m / n with the paper's eta = 1, and eta = n / m, which is the mean."""
REPLACED, POISONED = "replacement", "poisoned data alone"
PLAYED = [
    *((PAPER, how, share) for how in (REPLACED, POISONED) for share in SHARES),
    (PLAIN, REPLACED, SHARES[0]),
    (PLAIN, POISONED, SHARES[-1]),
]
Figures = dict[str, float]


def rounds(seed: int) -> dict[tuple[str, str, int], Figures]:
    """Every setting from the same model, which it is put back to; by rate, attack and share."""
    room = Room.of(seed)
    kept = torch.nn.utils.parameters_to_vector(room.model.parameters()).detach().clone()
    before = room.tail.measure(room.model, room.split.test)["backdoor"]
    how: dict[str, Any] = {
        REPLACED: attacks.ModelReplacement(room.tail, TRAINING, split="same"),
        POISONED: room.tail,
    }
    found = {}
    for rate, attack, share in PLAYED:
        run = Federation(
            room.model,
            [*room.own[:share], *room.clients[: FEW - share]],
            room.split.test,
            rounds=ROUNDS,
            training=HONEST,
            sampler=FixedSize(COHORT),
            attackers=[Attacker("a", how[attack], frozenset(range(share)))],
            server_optimizer=FedAvg(lr=RATES[rate]),
            seed=seed,
            executor="stacked",
            audit=AuditConfig(keep=[], evaluate_every=1),
        ).run()
        told = [record.measures for record in run.history]
        found[rate, attack, share] = {
            "backdoor before": before,
            "backdoor, mean of all rounds": statistics.mean(one["a: backdoor"] for one in told),
            "backdoor, last round": told[-1]["a: backdoor"],
            "main, last round": told[-1]["a: main"],
            "rounds with an attacker": float(sum(bool(one.liars) for one in run.history)),
        }
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(kept, room.model.parameters())
    return found


def repeated(played: Played) -> Iterable[Row]:
    """The mean backdoor by share, and whether a replacing 1 % does as much as a poisoning 20 %."""
    each: Sequence[dict[tuple[str, str, int], Figures]] = played.each

    def told(rate: str, attack: str, share: int, figure: str) -> list[float]:
        return [found[rate, attack, share][figure] for found in each]

    for rate, attack, share in PLAYED:
        for figure in each[0][rate, attack, share]:
            values = told(rate, attack, share, figure)
            what = f"{rate}, {attack}, {share} %: {figure}"
            yield gain("repeated", "all", what, statistics.mean(values), 1.0)
            yield between("repeated", what, values)
    mean = "backdoor, mean of all rounds"
    for rate in RATES:
        one, twenty = (
            statistics.mean(told(rate, attack, share, mean))
            for attack, share in ((REPLACED, SHARES[0]), (POISONED, SHARES[-1]))
        )
        what = f"figure 4b, {rate}: {mean}, {REPLACED} with {SHARES[0]} %"
        beside = f"{POISONED}, {SHARES[-1]} %"
        yield gain(
            "repeated", beside, what, one, twenty or 1e-3, target=1.0 if rate == PAPER else None
        )


REPEATED = Experiment(rounds, one_each, repeated)
