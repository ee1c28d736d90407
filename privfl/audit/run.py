"""The audit: attacks x adversaries x privacy layers, on real runs, scored against a truth that no
attack can reach.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from privfl.attacks import (
    GradientInversion,
    Inference,
    Knowledge,
    LabelCounts,
    LinearLeakage,
    LossThreshold,
    PropertyInference,
    ShadowMembership,
    UpdateMembership,
)
from privfl.audit.findings import AuditReport
from privfl.audit.games import (
    AuditNotes,
    Truth,
    attack_probe,
    attack_property,
    attack_stream,
    tell,
)
from privfl.audit.lying import FRAMES, LieFinding, told_lies
from privfl.audit.rehearsal import divide, rehearse
from privfl.audit.shadows import Shadows
from privfl.core import ConfigError, NotVisible, RoundPlan, require
from privfl.engine import forward_of
from privfl.federation import Federation, Run
from privfl.training import LocalSGD

STREAM: tuple[Inference, ...] = (
    LossThreshold(),
    ShadowMembership("lira_online"),
    ShadowMembership("rmia"),
    UpdateMembership(statistic="cosine"),
    UpdateMembership(),
    UpdateMembership(statistic="cosine", target="sum"),
    UpdateMembership(target="sum"),
)
"""Attacks on the whole run."""
PROBE: tuple[Inference, ...] = (
    LabelCounts(),
    LabelCounts(target="sum"),
    LinearLeakage(),
    LinearLeakage(target="sum"),
    GradientInversion(iterations=300),
)
"""Attacks on the first round of a run whose clients hold few samples: the worst case of the same
layers.
"""

PROPERTY: tuple[Inference, ...] = (PropertyInference(), PropertyInference(target="sum"))
"""Attacks on a run in which half of the clients hold mirrored images."""


def audit(
    layers: Mapping[str, Federation] | Federation,
    *,
    adversaries: Sequence[str] | None = None,
    stream: Sequence[Inference] = STREAM,
    probe: Sequence[Inference] = PROBE,
    properties: Sequence[Inference] = PROPERTY,
    held_out: float = 0.5,
    probe_samples: int = 1,
    seed: int = 0,
    lies: int | None = FRAMES,
    progress: Callable[[str], None] | None = None,
) -> AuditReport:
    """Run every layer's federation, attack it through every adversary's view, and score.

    Nothing that an audit trains is released, so it may split the data as it needs: ``held_out`` of
    every client's samples stay outside of training and are, half and half with the test set,
    candidates that are no members and the adversaries' auxiliary data.

    Args:
        layers: federations by name, one for each set of defences; one federation is the layer "as
            configured".
        adversaries: as in `Run.view`; `NotApplicable` where a layer has no such party. None asks
            whom each layer's channel names in its record (`adversaries_of`).
        stream: attacks on the views of all rounds; ``probe``: attacks on one round in which each
            client holds ``probe_samples``.
        properties: attacks on a run of images in which every second client has mirrored 30 % of its
            own; other data has no such run.
        lies: beside the lies that a channel declares, how many in single frames of each of two
            servers are told (`told_lies`); None tells no lies at all.
        progress: told what is attacked.

    Raises:
        ConfigError: no layers, shares out of range, or clients too small to hold samples back.
    """
    named: Mapping[str, Federation] = (
        layers if isinstance(layers, Mapping) else {"as configured": layers}
    )
    if not named:
        raise ConfigError("an audit needs at least one layer.")
    require.within(0.1, 0.9, held_out=held_out)
    require.at_least(1, probe_samples=probe_samples)
    began = time.perf_counter()
    notes = AuditNotes([], {}, {})
    about: dict[str, dict[str, Any]] = {}
    told_by_liars: list[LieFinding] = []
    for layer, federation in named.items():
        scenario = federation.scenario
        asked = adversaries_of(federation) if adversaries is None else adversaries
        model = scenario.workload.model
        start = model.read()
        ground = divide(scenario, held_out, seed)
        forward = forward_of(
            model,
            scenario.workload.loss,
            scenario.workload.method,
            scenario.workload.data,
            scenario.bound,
            scenario.mechanism,
        )
        method = scenario.workload.method
        trainer = (
            Shadows(model.module, method, scenario.workload.loss)
            if isinstance(method, LocalSGD)
            else None
        )
        knows = Knowledge(forward=forward, auxiliary=ground.auxiliary, trainer=trainer, seed=seed)
        small = {client: index[:probe_samples] for client, index in ground.members.items()}
        tell(progress, f"{layer}: probe")
        notes.told.clear()
        probed = rehearse(federation, small, rounds=1)
        truth = Truth(small, scenario.workload.data, ground)
        attack_probe(notes, layer, probed, asked, probe, knows, truth, progress)
        model.write(start)
        if properties and scenario.workload.data.x.ndim == 4:
            tell(progress, f"{layer}: property")
            notes.told.clear()
            attack_property(notes, layer, federation, asked, properties, knows, ground, seed)
            model.write(start)
        tell(progress, f"{layer}: training")
        notes.told.clear()
        run = rehearse(federation, ground.members, rounds=scenario.rounds)
        attack_stream(
            notes,
            layer,
            run,
            asked,
            stream,
            replace(knows, candidates=ground.pool),
            ground,
            progress,
        )
        if lies is not None:
            tell(progress, f"{layer}: liars")
            told_by_liars += told_lies(layer, scenario, run, lies)
        model.write(start)
        epsilon = dict(run.history[-1].epsilon)
        about[layer] = {
            "accuracy": run.accuracy,
            "claimed epsilon": epsilon or None,
            "the server reads": _reads(run),
            "fidelity": scenario.channel.guarantee.fidelity,
        }
    told = {
        "split": f"{held_out:.0%} of every client's samples were held out of training",
        "seed": str(seed),
        "probe": f"one round, {probe_samples} sample(s) a client",
    }
    return AuditReport(
        tuple(notes.findings),
        about,
        notes.galleries,
        notes.curves,
        told,
        time.perf_counter() - began,
        tuple(told_by_liars),
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


def _reads(run: Run) -> str:
    try:
        return type(run.view("server", max(run.transcripts)).opened["delta"]).__name__.lower()
    except (NotVisible, KeyError, ValueError):
        return "nothing"
