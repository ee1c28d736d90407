"""Canary clients: a run's own rounds, whose clients hand out canaries instead of training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from privfl.audit.dp.canaries import BOOST, MOST_ROUNDS, mean_output
from privfl.audit.dp.claim import Claim, Scored, audited
from privfl.core import (
    BatchGradient,
    Bound,
    Broadcast,
    ClientId,
    ClientState,
    ConfigError,
    Dataset,
    FlatModel,
    Ledger,
    LocalPlan,
    LocalRecipe,
    Loss,
    NoisySteps,
    Seeds,
    Update,
    Vector,
    Weighting,
)
from privfl.federation import Federation, Run
from privfl.training import FedAvg, PlainGradient, Workload


@dataclass(frozen=True)
class _Rows:
    """A training method that learns nothing: client i hands out row i, with the weight that its
    real training would have.
    """

    rows: Tensor
    weighting: Weighting
    gradient: BatchGradient = PlainGradient()
    recipe: LocalRecipe = LocalRecipe(plan=LocalPlan(batch_size=1))

    def on(self, model: FlatModel, loss: Loss) -> _Rows:
        return self

    def __call__(
        self,
        client: ClientId,
        broadcast: Broadcast,
        dataset: Dataset,
        state: ClientState,
        rng: torch.Generator,
    ) -> tuple[Update, ClientState, tuple[NoisySteps, ...]]:
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

    def arrived(self, state: ClientState, sent: Mapping[str, Vector]) -> ClientState:
        return state


def audit_clients(
    federation: Federation,
    recorded: Ledger | None,
    canaries: int,
    confidence: float,
    progress: Callable[[str], None] | None,
) -> Claim:
    """Canary clients through whole rounds: bound, channel, rule, mechanism and sampler are the
    run's own.
    """
    scenario = federation.scenario
    clients = list(scenario.clients)
    n = len(clients)
    plays = math.ceil(canaries / n)
    rounds = max(1, min(scenario.rounds, MOST_ROUNDS // plays))
    replaced = scenario.pipeline().neighbours.relation == "replace_one"
    axes, d = _axes(scenario.bound, n)
    scored, ledger, incidents = Scored(), Ledger(), 0
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
    claim = audited("client", made, played, scored.both, federation.audit.delta, confidence)
    refused = f"{incidents} canaries did not get through the run's own checks." if incidents else ""
    return replace(claim, why=" ".join(filter(None, (claim.why, refused))))


def _axes(bound: Bound, n: int) -> tuple[Tensor, int]:
    """Where each of n canaries lies, and the length of all: for a clip by layer the layer with the
    most room for them.
    """
    sizes = bound.parts
    if sizes is None:
        return torch.arange(n), n
    largest = max(range(len(sizes)), key=lambda i: sizes[i])
    return sum(sizes[:largest]) + torch.arange(n) % sizes[largest], sum(sizes)


def _play(
    federation: Federation, clients: Sequence[ClientId], rows: Tensor, rounds: int, play: int
) -> Run:
    """The same federation, its clients' training replaced by these rows; every client holds as many
    samples as it really does.
    """
    scenario = federation.scenario
    method = _Rows(rows, scenario.workload.method.weighting)
    sizes = [len(scenario.clients[client]) for client in clients]
    owner = torch.repeat_interleave(torch.arange(len(clients)), torch.tensor(sizes))
    data = Dataset(torch.zeros(len(owner), 1), owner, classes=len(clients))
    positions = dict(zip(clients, torch.split(torch.arange(len(owner)), sizes), strict=True))
    model = FlatModel(nn.Linear(1, rows.shape[1], bias=False))
    model.flat.zero_()
    canaries = replace(
        scenario,
        workload=Workload(model, mean_output, method, data),
        clients=positions,
        test=data.take([0]),
        rounds=rounds,
        attackers=(),
        server_optimizer=FedAvg(),
        seed=Seeds(scenario.seed).derive("canary play", play),
    )
    kept = federation.audit.model_copy(update={"keep": "all", "evaluate_every": rounds})
    return federation.with_scenario(canaries, audit=kept, executor="sequential").run()


def _published(run: Run, local: bool, axes: Tensor, clients: Sequence[ClientId]) -> Tensor:
    """What each canary's axis showed over all rounds, in units of each round's bound."""
    total = torch.zeros(len(axes), dtype=torch.float64)
    for number in sorted(run.transcripts):
        transcript = run.transcript(number)
        if not local:
            l2 = transcript.plan.l2 if math.isfinite(transcript.plan.l2) else 1.0
            total += (transcript.after - transcript.before)[axes].double() / l2
            continue
        # without trust in the server its own mail is what is released
        seen = run.view("server", number).rows
        if seen.ids is None:
            raise ConfigError(
                "noise of each client is audited on its own row, and this channel shows rows of"
                " groups only: audit the mechanism over a channel of single rows."
            )
        at = [list(clients).index(client) for client in seen.ids]
        total[at] += seen.values[torch.arange(len(at)), axes[at]].double()
    return total


def _first(ledger: Ledger, unit: str, rounds: int) -> Ledger:
    """What a unit was charged in the first rounds."""
    return Ledger(
        tuple(charge for charge in ledger.charges if charge.unit == unit and charge.round < rounds)
    )
