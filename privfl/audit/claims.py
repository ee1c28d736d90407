"""The audit of what a run claims: canary clients and canary samples go through the run's own code,
and epsilon is bounded from below.

Canary i has an axis of its own. A fair coin decides whether it is there for a whole run; its score
is what the run publishes along its axis. Nothing of the real data is used, so an audit spends no
privacy.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from privfl.audit.bounds import Scores
from privfl.audit.canaries import mean_output
from privfl.audit.dp import Audited, Method, audit_scores
from privfl.core import (
    Broadcast,
    Charge,
    ClientId,
    ClientState,
    ConfigError,
    Dataset,
    FlatModel,
    Ledger,
    LocalPlan,
    Loss,
    RoundPlan,
    Seeds,
    Update,
    Vector,
    require,
)
from privfl.dp import Spent, spend
from privfl.training import FedAvg, LocalSGD, Workload

Federated: TypeAlias = Any
"""A `privfl.Federation`: its ``scenario``, its ``audit`` settings, and ``run()``."""
CANARIES = 2000
"""How many canaries all plays have together."""
MOST_ROUNDS = 400
"""How many rounds all plays of a client-level audit have together; steps at sample level are
bounded by the same number times 10.
"""
BOOST = 10.0
"""A canary is this many times as long as its clip, so that a clip that is left out shows."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One unit's claim, audited. ``found`` is None where there is no claim to audit; ``why`` then
    says so.
    """

    unit: str
    subject: str
    releases: int
    canaries: int
    found: Audited | None = None
    why: str = ""

    @property
    def verdict(self) -> str:
        """PASS, FAIL or no claim."""
        return "no claim" if self.found is None else self.found.verdict

    def row(self) -> dict[str, Any]:
        """One row of a table."""
        found = self.found
        return {
            "unit": self.unit,
            "who pays": self.subject,
            "claimed epsilon": (
                None if found is None else found.claim if math.isfinite(found.claim) else "infinite"
            ),
            "at least": None if found is None else found.lower,
            "verdict": self.verdict,
            "by": (
                ""
                if found is None
                else ", ".join(f"{name} {value:.2f}" for name, value in found.by.items())
            ),
            "delta": None if found is None else found.delta,
            "confidence": None if found is None else found.confidence,
            "releases": self.releases,
            "canaries": self.canaries,
            "why": self.why,
        }


def audit_claims(
    federation: Federated,
    *,
    recorded: Ledger | None = None,
    canaries: int = CANARIES,
    confidence: float = 0.95,
    progress: Callable[[str], None] | None = None,
) -> tuple[Claim, ...]:
    """Audit every unit that a federation makes a claim for: clients under noise on the aggregate,
    samples under DP-SGD.

    What is audited is the run's own configuration, engine, bound, channel, rule, sampler and noise;
    only local training (client level) or the data (sample level) are canaries. Long runs are
    audited for their first rounds, against what those rounds claim. ``recorded`` is the ledger of a
    run that was made: its claim is then held against what its configuration really does.

    Raises:
        ConfigError: there is no noise, so there is nothing to audit; fewer than 8 canaries.
    """
    require.at_least(8, canaries=canaries)
    scenario = federation.scenario
    found = []
    if scenario.mechanism is not None or _noisy(scenario):
        found.append(_clients(federation, recorded, canaries, confidence, progress))
    gradient = getattr(scenario.workload.method, "gradient", None)
    if hasattr(gradient, "noise_multiplier"):
        found.append(
            _samples(scenario, recorded, canaries, confidence, federation.audit.delta, progress)
        )
    if not found:
        raise ConfigError(
            "there is no noise in this run, so it claims nothing: set mechanism, or"
            " training.gradient to {name: dp, ...}."
        )
    return tuple(found)


def _noisy(scenario: Any) -> bool:
    """Whether the channel's clients add noise."""
    event = getattr(scenario.channel, "noise_event", None)
    plan = RoundPlan(0, tuple(scenario.clients), scenario.workload.model.d, scenario.bound.l2)
    return event is not None and event(plan, len(scenario.clients)) is not None


def _audited(
    unit: str,
    made: Ledger,
    played: Ledger,
    scores: tuple[Scores, Scores],
    delta: float,
    confidence: float,
) -> Claim:
    """The claim of a ledger against scores of what really happened."""
    claims = [spent for spent in spend(made, delta) if spent.unit == unit]
    total = len(scores[0]) + len(scores[1])
    if not claims:
        return Claim(unit, unit, 0, total, why=f"the ledger charges nothing at {unit} level.")
    dearest: Spent = max(
        claims, key=lambda spent: (spent.refused is not None, spent.epsilon or 0.0)
    )
    if dearest.refused is not None:
        return Claim(unit, dearest.subject, dearest.releases, total, why=dearest.refused)
    told = audit_scores(
        *scores,
        claim=dearest.claim(),
        delta=delta,
        confidence=confidence,
        methods=_methods(played.charges),
    )
    return Claim(unit, dearest.subject, dearest.releases, total, told)


def _methods(charges: Sequence[Charge]) -> tuple[Method, ...]:
    """The bounds that hold for these releases: a Gaussian trade-off without sampling only,
    independent scores without fixed sizes.
    """
    if all(
        c.event.mechanism == "gaussian" and (c.sampling.rate >= 1 or not c.cohort_hidden)
        for c in charges
    ):
        return ("clopper_pearson", "one_run", "gaussian", "one_run_f_dp")
    return (
        ("one_run",)
        if any(c.sampling.scheme == "fixed_size" for c in charges)
        else ("clopper_pearson", "one_run")
    )


# ---- clients
# -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """A training method that learns nothing: client i hands out row i, with the weight that its
    real training would have.
    """

    rows: Tensor
    weighting: str
    plan: LocalPlan = LocalPlan(batch_size=1)

    def on(self, model: FlatModel, loss: Loss) -> _Rows:
        return self

    def __call__(
        self,
        client: ClientId,
        broadcast: Broadcast,
        dataset: Dataset,
        state: ClientState,
        rng: torch.Generator,
    ) -> tuple[Update, ClientState, tuple[Charge, ...]]:
        weight = float(dataset.n) if self.weighting == "samples" else 1.0
        return Update(client, self.rows[int(dataset.y[0])].clone(), weight), state, ()

    def parts(self, d: int) -> Mapping[str, int]:
        return {}

    def init(self, d: int) -> Mapping[str, Any]:
        return {}

    def broadcast(self, state: Mapping[str, Any]) -> Mapping[str, Vector]:
        return {}

    def combine(
        self,
        aggregate: Vector,
        aux: Mapping[str, Vector],
        state: Mapping[str, Any],
        cohort_fraction: float,
    ) -> tuple[Vector, Mapping[str, Any]]:
        return aggregate, state


@dataclass(slots=True)
class _Scored:
    inside: list[Scores] = field(default_factory=list)
    outside: list[Scores] = field(default_factory=list)

    def add(self, scores: Tensor, coins: Tensor) -> None:
        self.inside.append(scores[coins].double().numpy())
        self.outside.append(scores[~coins].double().numpy())

    @property
    def both(self) -> tuple[Scores, Scores]:
        return np.concatenate(self.inside), np.concatenate(self.outside)


def _clients(
    federation: Federated,
    recorded: Ledger | None,
    canaries: int,
    confidence: float,
    progress: Callable[[str], None] | None,
) -> Claim:
    scenario = federation.scenario
    clients = list(scenario.clients)
    n = len(clients)
    plays = math.ceil(canaries / n)
    rounds = max(1, min(scenario.rounds, MOST_ROUNDS // plays))
    replaced = scenario.local_noise or scenario.relation() == "replace_one"
    axes, d = _axes(scenario.bound, n)
    scored, ledger, incidents = _Scored(), Ledger(), 0
    for play in range(plays):
        if progress is not None:
            progress(f"client level: play {play + 1} of {plays}, {rounds} rounds")
        coins = (
            torch.rand(n, generator=Seeds(scenario.seed).generator("client canaries", play)) < 0.5
        )
        signs = torch.where(
            coins, 1.0, -1.0 if replaced else 0.0
        )  # who is replaced pulls the other way; who is removed, nowhere
        rows = torch.zeros(n, d)
        rows[torch.arange(n), axes] = signs * BOOST * scenario.bound.l2
        run = _play(federation, clients, rows, rounds, play)
        ledger = run.ledger
        incidents += sum(len(record.incidents) for record in run.history)
        scored.add(_published(run, scenario.local_noise, axes, clients), coins)
    played = _first(ledger, "client", rounds)
    made = played if recorded is None else _first(recorded, "client", rounds)
    claim = _audited("client", made, played, scored.both, federation.audit.delta, confidence)
    refused = f"{incidents} canaries did not get through the run's own checks." if incidents else ""
    return replace(claim, why=" ".join(filter(None, (claim.why, refused))))


def _axes(bound: Any, n: int) -> tuple[Tensor, int]:
    """Where each of n canaries lies, and the length of all: for a clip by layer the layer with the
    most room for them.
    """
    sizes = getattr(bound, "sizes", None)
    if sizes is None:
        return torch.arange(n), n
    largest = max(range(len(sizes)), key=lambda i: sizes[i])
    return sum(sizes[:largest]) + torch.arange(n) % sizes[largest], sum(sizes)


def _play(
    federation: Federated, clients: Sequence[ClientId], rows: Tensor, rounds: int, play: int
) -> Any:
    """The same federation, its clients' training replaced by these rows; every client holds as many
    samples as it really does.
    """
    scenario = federation.scenario
    method = _Rows(rows, getattr(scenario.workload.method, "weighting", "samples"))
    sizes = [len(scenario.clients[client]) for client in clients]
    owner = torch.repeat_interleave(torch.arange(len(clients)), torch.tensor(sizes))
    data = Dataset(torch.zeros(len(owner), 1), owner, classes=len(clients))
    positions = dict(zip(clients, torch.split(torch.arange(len(owner)), sizes), strict=True))
    model = FlatModel(nn.Linear(1, rows.shape[1], bias=False))
    model.flat.zero_()
    played = copy.copy(federation)
    played.scenario = replace(
        scenario,
        workload=Workload(model, mean_output, method, data),
        clients=positions,
        test=data.take([0]),
        rounds=rounds,
        attackers=(),
        server_optimizer=FedAvg(),
        seed=Seeds(scenario.seed).derive("canary play", play),
    )
    played.audit = federation.audit.model_copy(update={"keep": "all", "evaluate_every": rounds})
    played._executor = "sequential"
    return played.run()


def _published(run: Any, local: bool, axes: Tensor, clients: Sequence[ClientId]) -> Tensor:
    """What each canary's axis showed over all rounds, in units of each round's bound."""
    total = torch.zeros(len(axes), dtype=torch.float64)
    for number in sorted(run.transcripts):
        transcript = run.transcript(number)
        if not local:
            l2 = transcript.plan.l2 if math.isfinite(transcript.plan.l2) else 1.0
            total += (transcript.after - transcript.before)[axes].double() / l2
            continue
        seen = run.view(
            "server", number
        ).rows  # without trust in the server its own mail is what is released
        at = [list(clients).index(client) for client in seen.ids]
        total[at] += seen.values[torch.arange(len(at)), axes[at]].double()
    return total


def _first(ledger: Ledger, unit: str, rounds: int) -> Ledger:
    """What a unit was charged in the first rounds."""
    return Ledger(
        tuple(charge for charge in ledger.charges if charge.unit == unit and charge.round < rounds)
    )


# ---- samples
# -------------------------------------------------------------------------------------------------


def _samples(
    scenario: Any,
    recorded: Ledger | None,
    canaries: int,
    confidence: float,
    delta: float,
    progress: Callable[[str], None] | None,
) -> Claim:
    """Canary samples at the client whose samples pay most: the one with the fewest."""
    method = scenario.workload.method
    client = min(scenario.clients, key=lambda c: len(scenario.clients[c]))
    n = len(scenario.clients[client])
    m = max(1, min(n, 1000, 40_000_000 // n))
    plays = math.ceil(canaries / m)
    steps = method.gradient.steps(n, method.plan)
    joined = math.ceil(scenario.sampler.sampling(len(scenario.clients)).rate * scenario.rounds)
    rounds = max(1, min(joined, 10 * MOST_ROUNDS // (plays * steps)))
    trained = LocalSGD(lr=1.0, plan=method.plan, gradient=method.gradient)
    scored = _Scored()
    charges: tuple[Charge, ...] = ()
    for play in range(plays):
        if progress is not None:
            progress(f"sample level: play {play + 1} of {plays}, {rounds * steps} steps")
        seeds = Seeds(scenario.seed)
        coins = torch.rand(m, generator=seeds.generator("sample canaries", play)) < 0.5
        x = torch.zeros(n, m)
        x[torch.arange(m), torch.arange(m)] = coins * BOOST * method.gradient.l2
        data = Dataset(x, torch.zeros(n), classes=1)
        model = FlatModel(nn.Linear(m, 1, bias=False))
        total = torch.zeros(m, dtype=torch.float64)
        charges = ()
        for number in range(rounds):
            broadcast = Broadcast(RoundPlan(number, (client,), m, l2=1.0), torch.zeros(m))
            rng = seeds.generator("canary training", play, number)
            update, _, charged = trained.on(model, mean_output)(
                client, broadcast, data, ClientState(), rng
            )
            total -= update.delta.double()
            charges += charged
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
    return _audited("sample", made, played, scored.both, delta, confidence)
