"""Canary samples: the run's own local training on them, at the client that pays most."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from privfl.audit.dp.canaries import BOOST, MOST_ROUNDS, mean_output
from privfl.audit.dp.claim import Claim, Scored, audited
from privfl.core import (
    Broadcast,
    Charge,
    ClientState,
    Dataset,
    FlatModel,
    Ledger,
    PrivateGradient,
    Seeds,
)
from privfl.engine import Scenario
from privfl.training import LocalSGD


def audit_samples(
    scenario: Scenario,
    gradient: PrivateGradient,
    recorded: Ledger | None,
    canaries: int,
    confidence: float,
    delta: float,
    progress: Callable[[str], None] | None,
) -> Claim:
    """Canary samples at the client whose samples pay most: the one with the fewest."""
    plan = scenario.workload.method.recipe.plan
    client = min(scenario.clients, key=lambda c: len(scenario.clients[c]))
    n = len(scenario.clients[client])
    m = max(1, min(n, 1000, 40_000_000 // n))
    plays = math.ceil(canaries / m)
    steps = gradient.steps(n, plan)
    joined = math.ceil(scenario.sampler.sampling(len(scenario.clients)).rate * scenario.rounds)
    rounds = max(1, min(joined, 10 * MOST_ROUNDS // (plays * steps)))
    pipeline = scenario.pipeline()
    trained = LocalSGD(lr=1.0, plan=plan, gradient=gradient)
    scored = Scored()
    charges: tuple[Charge, ...] = ()
    for play in range(plays):
        if progress is not None:
            progress(f"sample level: play {play + 1} of {plays}, {rounds * steps} steps")
        seeds = Seeds(scenario.seed)
        coins = torch.rand(m, generator=seeds.generator("sample canaries", play)) < 0.5
        x = torch.zeros(n, m)
        x[torch.arange(m), torch.arange(m)] = coins * BOOST * gradient.l2
        data = Dataset(x, torch.zeros(n), classes=1)
        model = FlatModel(nn.Linear(m, 1, bias=False))
        total = torch.zeros(m, dtype=torch.float64)
        charges = ()
        for number in range(rounds):
            broadcast = Broadcast(number, torch.zeros(m))
            rng = seeds.generator("canary training", play, number)
            update, _, noisy = trained.on(model, mean_output)(
                client, broadcast, data, ClientState(), rng
            )
            total -= update.delta.double()
            charges += pipeline.trained(number, client, noisy)
        scored.add(total, coins)
    subject = charges[0].subject
    played = made = Ledger(charges)
    if recorded is not None:
        own = [
            charge
            for charge in recorded.charges
            if charge.unit == "sample" and charge.subject == subject
        ]
        made = Ledger(tuple(own[:rounds]))
        if len(own) < rounds:
            return Claim(
                "sample",
                subject,
                sum(c.count for c in own),
                0,
                why=f"its client took part in {len(own)} rounds only.",
            )
    return audited("sample", made, played, scored.both, delta, confidence)
