"""One layer of an audit: its runs, and every adversary's attacks on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from privfl.attacks import Forward, Inference, Knowledge
from privfl.audit import score
from privfl.audit.claimed import claims_of
from privfl.audit.effort import Attacks, Effort, on_statistics, on_tables
from privfl.audit.findings import Finding
from privfl.audit.games import (
    AuditNotes,
    Truth,
    attack_actively,
    attack_presence,
    attack_probe,
    attack_property,
    attack_representatives,
    attack_rounds,
    attack_stream,
    attack_text,
    doubt_proofs,
    tell,
    who_solves,
)
from privfl.audit.lying import LieFinding, told_lies
from privfl.audit.own_models import OwnModels
from privfl.audit.rehearsal import divide, rehearse, views_of
from privfl.audit.shadows import FederatedShadows, Shadows
from privfl.audit.threats import ThreatModel, threat_model
from privfl.core import (
    BUFFERS,
    ClientId,
    ConfigError,
    Dataset,
    FlatModel,
    Loss,
    NotVisible,
    RoundFailed,
    RoundPlan,
)
from privfl.engine import Scenario, forward_in
from privfl.engine.compatibility import name_of
from privfl.engine.encoding import check_data_seats, seat_facts
from privfl.federation import Federation, Run
from privfl.training import LocalSGD, Method, WithStatistics, plain

MARGIN = 0.1
"""By what share of the range of its own samples an attacker widens the range that it expects."""


@dataclass(frozen=True, slots=True)
class AskedOfLayers:
    """What is asked of every layer alike: the arguments of `audit`, with what it chose for those
    that are None. ``usual_probe``: whether the probe's attacks are those of the effort.
    """

    adversaries: Sequence[str] | None
    stream: Sequence[Inference]
    probe: Sequence[Inference]
    properties: Sequence[Inference]
    presence: Sequence[Inference]
    pushes: bool
    chosen: Attacks
    usual_probe: bool
    rounds: Sequence[Inference]
    usual: bool
    effort: Effort
    held_out: float
    probe_samples: int
    seed: int
    lies: int | None


@dataclass(frozen=True, slots=True)
class LayerFound:
    """What came of one layer; ``samples`` is how many a client held in the probe."""

    findings: Sequence[Finding]
    facts: Mapping[str, Any]
    galleries: Mapping[tuple[str, str, str], score.Pictures]
    curves: Mapping[tuple[str, str, str], score.Membership]
    threats: Mapping[tuple[str, str], ThreatModel]
    samples: int
    lies: Sequence[LieFinding] = ()
    models: Sequence[OwnModels] = ()


def attack_layer(
    layer: str,
    federation: Federation,
    asked: AskedOfLayers,
    seconds: float | None,
    progress: Callable[[str], None] | None,
) -> LayerFound:
    """Run a layer's federation, and attack it through every adversary's view. After ``seconds`` no
    further attack begins.
    """
    notes = AuditNotes([], {}, {})
    notes.deadline = None if seconds is None else time.perf_counter() + seconds
    chosen = asked.chosen
    scenario = federation.scenario
    work = scenario.workload
    who = adversaries_of(federation) if asked.adversaries is None else asked.adversaries
    start = work.model.read()
    ground = divide(scenario, asked.held_out, asked.seed)
    knows = _knowledge(scenario, ground.auxiliary, asked.seed)
    tell(progress, f"{layer}: probe")
    small, probed = _probed(federation, ground.members, asked.probe_samples)
    threats = {}
    for adversary in who:
        views = views_of(probed, adversary)
        if not isinstance(views, str):
            threats[layer, adversary] = threat_model(views, knows)
    truth = Truth(small, work.data.to("cpu"), ground)
    sends = BUFFERS in work.method.parts(work.model.d)
    more = on_statistics(asked.effort) if asked.usual_probe and sends else ()
    table = work.data.x.is_floating_point() and work.data.x.ndim == 2
    more += on_tables(asked.effort) if asked.usual_probe and table else ()
    attack_probe(notes, layer, probed, who, [*asked.probe, *more], knows, truth, progress)
    if not work.data.x.is_floating_point():
        attack_text(notes, layer, probed, who, chosen.text, knows, truth, progress)
    work.model.write(start)
    if asked.properties and work.data.x.ndim == 4:
        tell(progress, f"{layer}: property")
        notes.told.clear()
        attack_property(notes, layer, federation, who, asked.properties, knows, ground, asked.seed)
        work.model.write(start)
    if asked.presence:
        notes.told.clear()
        attack_presence(
            notes, layer, federation, who, asked.presence, knows, ground, asked.seed, progress
        )
        work.model.write(start)
    tell(progress, f"{layer}: training")
    notes.told.clear()
    run = rehearse(federation, ground.members, rounds=scenario.rounds)
    doubt_proofs(notes, layer, who_solves(run, who))
    pool = replace(knows, candidates=ground.pool)
    attack_stream(notes, layer, run, who, asked.stream, pool, ground, progress)
    if asked.rounds:
        work.model.write(start)
        attack_rounds(
            notes, layer, federation, run, small, who, asked.rounds, pool, truth, progress,
            all_asked=not asked.usual,
        )  # fmt: skip
    models: Sequence[OwnModels] = ()
    if asked.pushes and "server" in who:
        notes.told.clear()
        work.model.write(start)
        models = attack_actively(notes, layer, federation, run, pool, ground, progress)
    if chosen.representatives:
        notes.told.clear()
        work.model.write(start)
        generators = chosen.representatives
        attack_representatives(
            notes, layer, federation, run, who, generators, knows, ground, progress
        )
    lies: Sequence[LieFinding] = ()
    if asked.lies is not None and not notes.late:
        tell(progress, f"{layer}: liars")
        lies = tuple(told_lies(layer, scenario, run, asked.lies))
    work.model.write(start)
    _doubt_seats(notes, scenario)
    facts = {
        "accuracy": run.accuracy,
        "claimed epsilon": dict(run.history[-1].epsilon) or None,
        "the server reads": _reads(run),
        "fidelity": scenario.channel.guarantee.fidelity,
        "claims": claims_of(run.ledger, federation.audit.delta),
        **seat_facts(scenario),
    }
    samples = max(map(len, small.values()))
    return LayerFound(
        notes.findings, facts, notes.galleries, notes.curves, threats, samples, lies, models
    )


def adversaries_of(federation: Federation) -> tuple[str, ...]:
    """Whom an audit asks: the parties that the channel's record names, alone and with a client, a
    tap on the wires, and the least coalitions that read single updates.
    """
    clients = tuple(federation.scenario.clients)
    plan = RoundPlan(0, clients, federation.scenario.workload.model.d, l2=1.0)
    return tuple(
        min(who) if len(who) == 1 else f"colluders({', '.join(sorted(who))})"
        for who in federation.scenario.channel.guarantee.adversaries(plan)
    )


def _probed(
    federation: Federation, members: Mapping[ClientId, Tensor], samples: int
) -> tuple[dict[ClientId, Tensor], Run]:
    """The first so many samples of each client, and a round of them; two of each where no client
    trains on one alone, as networks with BatchNorm of columns do not, and as many as a data seat
    mixes.
    """
    model = federation.scenario.workload.model
    start = model.read()
    samples = _mixable(federation.scenario, members, samples)
    small = {client: index[:samples] for client, index in members.items()}
    try:
        return small, rehearse(federation, small, rounds=1)
    except RoundFailed:
        if samples > 1:
            raise
    model.write(start)
    return _probed(federation, members, 2)


def _mixable(scenario: Scenario, members: Mapping[ClientId, Tensor], samples: int) -> int:
    """The least number of samples of each client, from ``samples``, that the data seats take."""
    for more in range(samples, max(map(len, members.values()), default=0)):
        small = {client: index[:more] for client, index in members.items()}
        try:
            check_data_seats(replace(scenario, clients=small))
        except ConfigError:
            continue
        return more
    return samples


def _doubt_seats(notes: AuditNotes, scenario: Scenario) -> None:
    """Say of what was not found under data seats that nobody looked behind them: the attacks of an
    audit train shadows without them, and take what clients trained on for what they hold.
    """
    for seat in scenario.data_seats:
        why = (
            f"it does not look behind {name_of(seat)}, which guarantees nothing: play"
            f" {', '.join(seat.broken_by)} on the views of a run"
        )
        notes.findings[:] = [
            replace(one, undone=why) if one.verdict == "not found" and not one.undone else one
            for one in notes.findings
        ]


def _knowledge(scenario: Scenario, auxiliary: Dataset, seed: int) -> Knowledge:
    """What the adversaries know: the public recipe, their own samples, and how to train."""
    work = scenario.workload
    forward = forward_in(scenario)
    trainer = _trainer(work.model, work.method, work.loss)
    federated = None
    if trainer is not None:
        federated = FederatedShadows(trainer, float(scenario.bound.l2), forward.local_noise)
    return Knowledge(
        forward=_ranged(forward, auxiliary.x),
        auxiliary=auxiliary,
        trainer=trainer,
        federated=federated,
        seed=seed,
    )


def _ranged(forward: Forward, own: Tensor) -> Forward:
    """The recipe with a range of features: the public one, else that of the adversary's own samples
    by channel, somewhat wider.
    """
    if forward.low or not own.is_floating_point() or own.ndim < 2:
        return forward
    by_channel = own.transpose(0, 1).flatten(1)
    low, high = by_channel.amin(dim=1), by_channel.amax(dim=1)
    more = MARGIN * (high - low)
    return replace(forward, low=tuple((low - more).tolist()), high=tuple((high + more).tolist()))


def _trainer(model: FlatModel, method: Method, loss: Loss) -> Shadows | None:
    """Shadow training by the run's own method; of one that needs more of a server than the model
    (control variates), by plain steps of the same recipe.
    """
    policy = method.policy if isinstance(method, WithStatistics) else None
    method = plain(method)
    if not isinstance(method, LocalSGD):
        return None
    if method.parts(1):
        method = LocalSGD(
            method.lr,
            method.plan,
            weight_decay=method.weight_decay,
            decay=method.decay,
            weighting=method.weighting,
            gradient=method.gradient,
        )
    return Shadows(model.module, method, loss, policy, model.flat.device)


def _reads(run: Run) -> str:
    try:
        return type(run.view("server", max(run.transcripts)).opened["delta"]).__name__.lower()
    except (NotVisible, KeyError, ValueError):
        return "nothing"
