"""What a run's CRFL certifies against the attackers that the run had (Xie, Chen, Chen, Li 2021,
theorem 1), in its summary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from privfl.aggregators import CRFL, Mean, Poisoner, certified_radius, certify
from privfl.attacks.backdoor.trigger import Trigger
from privfl.core import Seeds, cross_entropy
from privfl.engine import All, RoundRecord, Scenario
from privfl.training import FedAvg, LocalSGD

VOTES, SAMPLES, ALPHA = 1000, 500, 0.001
"""Noisy copies that vote, test samples they vote on, and how often a bound on votes may fail."""
LABEL = math.sqrt(2)
"""How far another label alone moves a sample whose label is a unit vector."""


def certificate_of(scenario: Scenario, records: Sequence[RoundRecord]) -> dict[str, Any]:
    """Of each of the first test samples the radius within which no backdoor of the run's attackers
    changes what most noisy copies of its last model answer; or ``nothing``, why that is nothing.
    Empty where no seat is CRFL.

    A radius is the L2 length of what a backdoor adds to each poisoned sample and its label. The
    theorem is of attackers that poison data in one round, of convex losses with small steps, and
    asks for a Lipschitz constant of the gradient in the data, which is known of softmax regression
    alone: everything else is refused with a sentence, as is a run that ended early, or in which a
    client's update was lost or refused. ``records`` are of the rounds that were played.
    """
    seats = [seat for seat in scenario.defences if isinstance(seat, CRFL)]
    if not seats:
        return {}
    why = _not_covered(scenario, seats) or _not_played(scenario, records)
    if why:
        return {"nothing": why}
    return _certified(scenario, seats[0])


def _not_covered(scenario: Scenario, seats: Sequence[CRFL]) -> str:
    """Why theorem 1 says nothing of this run; empty where it does."""
    method, model = scenario.workload.method, scenario.workload.model.module
    optimizer, rule = scenario.server_optimizer, scenario.aggregator
    rounds = _rounds_attacked(scenario)
    if not scenario.attackers:
        return (
            "no attacker is in this run, and a certificate is against attackers of known strength."
        )
    if len(seats) > 1 or len(scenario.defences) > 1:
        return "other defences act beside CRFL, and the theorem is of CRFL alone."
    if seats[0].rounds != scenario.rounds:
        return (
            f"CRFL was told of {seats[0].rounds} rounds and the run has {scenario.rounds}: its last"
            " model is smoothed when it is used, and only the last."
        )
    if not (isinstance(rule, Mean) and rule.denominator is None):
        return "the theorem is of the weighted mean, and another rule judges here."
    if not (isinstance(optimizer, FedAvg) and optimizer.lr == 1):
        return "the theorem adds the mean as it is, and this server's step is another one."
    if not isinstance(scenario.sampler, All) or scenario.elsewhere:
        return "an attacker's share is known where everybody takes part in every round."
    if scenario.mechanism is not None or math.isfinite(scenario.bound.l2):
        return "clients' rows are clipped or noised here, which the theorem does not have."
    if not (isinstance(method, LocalSGD) and _plain(method)):
        return "the theorem is of plain local SGD."
    if scenario.workload.loss is not cross_entropy or _linear(model) is None:
        return (
            "the Lipschitz constant of the gradient in the data is known of softmax regression"
            " under cross-entropy, and this is another model or loss."
        )
    if not all(_replaces(one.attack) for one in scenario.attackers):
        return (
            "the theorem is of backdoors in data, without noise and of a known share, and an"
            " attacker lies in another way."
        )
    if len(rounds) != 1 or min(rounds) == 0:
        return (
            "the theorem is of attackers that act in one round and together, after a first one in"
            f" which CRFL has clipped the model; these act in {len(rounds)} rounds."
        )
    return ""


def _not_played(scenario: Scenario, records: Sequence[RoundRecord]) -> str:
    """Why what was played is not what the theorem is of; empty where it is."""
    if len(records) != scenario.rounds:
        return f"{len(records)} of {scenario.rounds} rounds were played: the run ended early."
    if any(record.survivors != len(scenario.clients) for record in records):
        return "a client's update was lost or refused, so that the others weighed more."
    return ""


def _rounds_attacked(scenario: Scenario) -> set[int]:
    return {
        number
        for number in range(scenario.rounds)
        for one in scenario.attackers
        if one.schedule.active(number)
    }


def _replaces(attack: object) -> bool:
    """Whether an attack replaces ``fraction`` of the samples by fixed ones, and does no more."""
    return (
        isinstance(attack, Trigger)
        and type(attack).poison_data is Trigger.poison_data
        and attack.noise == 0
    )


def _plain(method: LocalSGD) -> bool:
    return method == LocalSGD(lr=method.lr, plan=method.plan, weighting=method.weighting)


def _linear(module: nn.Module) -> nn.Linear | None:
    """The one layer of softmax regression; None where the model is another one."""
    parts = [part for _, part in module.named_modules(remove_duplicate=False)]
    layers = [part for part in parts if type(part) not in (nn.Sequential, nn.Flatten)]
    return layers[0] if len(layers) == 1 and type(layers[0]) is nn.Linear else None


def _poisoners(scenario: Scenario, method: LocalSGD) -> list[Poisoner]:
    """Each attacking client's strength: its part of the mean, scale 1, steps, rate, and at most so
    much poison in a batch, on average over its steps.
    """
    most = math.inf if scenario.max_weight is None else scenario.max_weight
    sizes = {client: len(index) for client, index in scenario.clients.items()}
    weighs = {client: min(float(n), most) for client, n in sizes.items()}
    uniform = method.weighting == "uniform"
    everybody = len(sizes) if uniform else sum(weighs.values())
    batch, found = method.plan.batch_size, []
    for attacker in scenario.attackers:
        if not isinstance(attacker.attack, Trigger):
            continue
        for client in sorted(attacker.clients):
            n = sizes[client]
            steps = method.plan.steps or method.plan.epochs * math.ceil(n / batch)
            share = 1.0
            if method.plan.steps is None:
                least = n % batch or min(batch, n)
                bad = method.plan.epochs * round(attacker.attack.fraction * n)
                share = min(bad / least / steps, 1.0)
            weight = 1 if uniform else weighs[client]
            found.append(Poisoner(weight / everybody, 1.0, steps, method.lr, share))
    return found


def _certified(scenario: Scenario, seat: CRFL) -> dict[str, Any]:
    workload = scenario.workload
    method, layer = workload.method, _linear(workload.model.module)
    if not isinstance(method, LocalSGD) or layer is None:
        return {}
    (attacked,) = _rounds_attacked(scenario)
    poisoners = _poisoners(scenario, method)
    data = workload.data
    poison = [
        _longest(one.attack.samples(data.take(scenario.clients[client])).x)
        for one in scenario.attackers
        if isinstance(one.attack, Trigger)
        for client in one.clients
    ]
    longest = max(_longest(data.x), _longest(scenario.test.x), *poison)
    steps = max(one.steps for one in poisoners)
    d = workload.model.d
    weights = (
        seat.bound(attacked - 1)
        + seat.sigma * (math.sqrt(d) + math.sqrt(2 * math.log(1 / ALPHA)))
        + steps * method.lr * LABEL * longest
    )
    lipschitz = math.hypot(weights * longest / 2 + LABEL, longest)
    facts = {
        "attackers": len(poisoners),
        "round of the attack": attacked + 1,
        "share of the mean, each at most": max(one.share for one in poisoners),
        "steps, rate": [steps, method.lr],
        "poison in a batch at most": max(one.poisoned for one in poisoners),
        "longest sample, with its 1": longest,
        "weights at most": weights,
        "Lipschitz constant": lipschitz,
    }
    later = [(seat.bound(t), seat.sigma) for t in range(attacked + 1, scenario.rounds)]
    if not (math.isfinite(lipschitz) and all(bound >= 0 for bound, _ in later)):
        return {"nothing": "samples that are not finite, or bounds below 0, are no ground for it."}
    if method.lr > 4 / longest**2:
        return {
            "nothing": (
                f"local steps are convex and not too long under a rate of {4 / longest**2:.3g}, and"
                f" the rate is {method.lr:g}."
            ),
            "facts": facts,
        }
    radii = []
    for votes in _votes(scenario, layer, seat.sigma):
        _, p_a, p_b = certify(votes, ALPHA)
        radius = certified_radius(
            p_a, p_b, sigma=seat.sigma, lipschitz=lipschitz, attackers=poisoners, later=later
        )
        radii.append(0.0 if radius is None else radius)
    return {"facts": facts, "radius": radii}


def _votes(scenario: Scenario, layer: nn.Linear, sigma: float) -> Tensor:
    """How many noisy copies of the last model give each class [n, classes]."""
    x, weight = scenario.test.x[:SAMPLES].flatten(1).cpu(), layer.weight.cpu()
    rng = Seeds(scenario.seed).generator("certificate")
    found = torch.zeros(len(x), layer.out_features, dtype=torch.int64)
    with torch.no_grad():
        bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.cpu()
        for _ in range(VOTES):
            noisy = weight + sigma * torch.randn(weight.shape, generator=rng)
            shift = bias + sigma * torch.randn(bias.shape, generator=rng)
            found[torch.arange(len(x)), (x @ noisy.T + shift).argmax(dim=1)] += 1
    return found


def _longest(x: Tensor) -> float:
    """The length of the longest sample with a 1 beside it, for the bias."""
    return float((x.flatten(1).square().sum(dim=1).amax() + 1).sqrt()) if len(x) else 1.0


def said_of(certificate: Mapping[str, Any]) -> str:
    """A sentence on a certificate."""
    if "nothing" in certificate:
        return f"CRFL certifies nothing here: {certificate['nothing']}"
    radii = torch.tensor(certificate["radius"])
    over = 100 * float((radii > LABEL).double().mean())
    return (
        f"Of {len(radii)} test samples {100 * float((radii > 0).double().mean()):.0f} % have a"
        f" radius; the median is {float(radii.median()):.3g}, the largest {float(radii.max()):.3g}."
        f" Another label alone is {LABEL:.3g} long: {over:.0f} % are certified against a backdoor"
        " that changes labels."
    )
