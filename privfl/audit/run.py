"""The audit: attacks x adversaries x privacy layers, on real runs, scored against a truth that no
attack can reach.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from privfl.attacks import Forward, Inference, Knowledge, LabelCounts
from privfl.audit.claimed import claims_of
from privfl.audit.effort import Attacks, Effort, attacks_of, on_statistics, on_tables
from privfl.audit.findings import AuditReport
from privfl.audit.games import (
    AuditNotes,
    Truth,
    attack_actively,
    attack_presence,
    attack_probe,
    attack_property,
    attack_representatives,
    attack_stream,
    attack_text,
    tell,
)
from privfl.audit.lying import FRAMES, LieFinding, told_lies
from privfl.audit.own_models import OwnModels
from privfl.audit.rehearsal import divide, rehearse, views_of
from privfl.audit.shadows import FederatedShadows, Shadows
from privfl.audit.threats import ThreatModel, threat_model
from privfl.core import (
    BUFFERS,
    ClientId,
    ConfigError,
    Dataset,
    Loss,
    NotVisible,
    RoundFailed,
    RoundPlan,
    require,
)
from privfl.engine import Scenario, forward_in
from privfl.engine.compatibility import name_of
from privfl.engine.encoding import check_data_seats, seat_facts
from privfl.federation import Federation, Run
from privfl.training import LocalSGD, Method, WithStatistics, plain

MARGIN = 0.1
"""By what share of the range of its own samples an attacker widens the range that it expects."""
_NO_TEXT = "the samples are numbers and no tokens of a vocabulary: no text is in them."
_NO_LABELS = "each label is the next token of the text itself, which is asked under text."


def audit(
    layers: Mapping[str, Federation] | Federation,
    *,
    adversaries: Sequence[str] | None = None,
    stream: Sequence[Inference] | None = None,
    probe: Sequence[Inference] | None = None,
    properties: Sequence[Inference] | None = None,
    active: bool | None = None,
    presence: Sequence[Inference] | None = None,
    attacks: Attacks | None = None,
    effort: Effort = "default",
    held_out: float = 0.5,
    probe_samples: int = 1,
    budget: float | None = None,
    seed: int = 0,
    lies: int | None = FRAMES,
    progress: Callable[[str], None] | None = None,
) -> AuditReport:
    """Run every layer's federation, attack it through every adversary's view, and score.

    Nothing that an audit trains is released, so it may split the data as it needs: ``held_out`` of
    every client's samples stay outside of training; they are candidates that are no members, and
    with the test set the adversaries' auxiliary data.

    Args:
        layers: federations by name, one for each set of defences; one federation is the layer "as
            configured".
        adversaries: as in `Run.view`; `NotApplicable` where a layer has no such party. None asks
            whom each layer's channel names in its record (`adversaries_of`).
        stream: attacks on the views of all rounds; ``probe``: attacks on one round in which each
            client holds ``probe_samples``. None, here and of ``properties``, plays those of
            ``attacks``.
        properties: attacks on a run of images in which half of the clients have mirrored 30 % of
            their own; other data has no such run.
        active: whether a server also sends models of its own, where it is among the adversaries;
            None: as ``attacks`` say, and not where ``stream`` is named.
        presence: attacks on runs in which half of the clients' data take no part; None: as
            ``attacks`` say, and none where ``stream`` is named.
        attacks: the attacks that are not named one by one; None: those of `attacks_of` at this
            ``effort``.
        budget: seconds after which no further attack begins; those that are left out say so.
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
    if budget is not None:
        require.positive(budget=budget)
    began = time.perf_counter()
    notes = AuditNotes([], {}, {})
    notes.deadline = None if budget is None else began + budget
    chosen = attacks_of(effort) if attacks is None else attacks
    pushes = chosen.active and stream is None if active is None else active
    if presence is None:
        presence = chosen.presence if stream is None else ()
    stream, probe, properties = (
        usual if named is None else named
        for usual, named in (
            (chosen.stream, stream),
            (chosen.probe, probe),
            (chosen.properties, properties),
        )
    )
    usual_probe = attacks is None and probe is chosen.probe
    about: dict[str, dict[str, Any]] = {}
    threats: dict[tuple[str, str], ThreatModel] = {}
    data = next(iter(named.values())).scenario.workload.data
    absent = _absent(data)
    if "labels" in absent:
        probe = [attack for attack in probe if not isinstance(attack, LabelCounts)]
    told_by_liars: list[LieFinding] = []
    models: list[OwnModels] = []
    sizes: dict[str, int] = {}
    for layer, federation in named.items():
        scenario = federation.scenario
        work = scenario.workload
        asked = adversaries_of(federation) if adversaries is None else adversaries
        start = work.model.read()
        ground = divide(scenario, held_out, seed)
        knows = _knowledge(scenario, ground.auxiliary, seed)
        tell(progress, f"{layer}: probe")
        notes.told.clear()
        small, probed = _probed(federation, ground.members, probe_samples)
        sizes[layer] = max(map(len, small.values()))
        for adversary in asked:
            views = views_of(probed, adversary)
            if not isinstance(views, str):
                threats[layer, adversary] = threat_model(views, knows)
        truth = Truth(small, work.data, ground)
        sends = BUFFERS in work.method.parts(work.model.d)
        more = on_statistics(effort) if usual_probe and sends else ()
        table = work.data.x.is_floating_point() and work.data.x.ndim == 2
        more += on_tables(effort) if usual_probe and table else ()
        attack_probe(notes, layer, probed, asked, [*probe, *more], knows, truth, progress)
        if not work.data.x.is_floating_point():
            attack_text(notes, layer, probed, asked, chosen.text, knows, truth, progress)
        work.model.write(start)
        if properties and work.data.x.ndim == 4:
            tell(progress, f"{layer}: property")
            notes.told.clear()
            attack_property(notes, layer, federation, asked, properties, knows, ground, seed)
            work.model.write(start)
        if presence and not notes.late:
            notes.told.clear()
            attack_presence(
                notes, layer, federation, asked, presence, knows, ground, seed, progress
            )
            work.model.write(start)
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
        if pushes and "server" in asked:
            notes.told.clear()
            pool = replace(knows, candidates=ground.pool)
            work.model.write(start)
            models += attack_actively(notes, layer, federation, run, pool, ground, progress)
        if chosen.representatives:
            notes.told.clear()
            work.model.write(start)
            attack_representatives(
                notes,
                layer,
                federation,
                run,
                asked,
                chosen.representatives,
                knows,
                ground,
                progress,
            )
        if lies is not None and not notes.late:
            tell(progress, f"{layer}: liars")
            told_by_liars += told_lies(layer, scenario, run, lies)
        work.model.write(start)
        about[layer] = {
            "accuracy": run.accuracy,
            "claimed epsilon": dict(run.history[-1].epsilon) or None,
            "the server reads": _reads(run),
            "fidelity": scenario.channel.guarantee.fidelity,
            "claims": claims_of(run.ledger, federation.audit.delta),
            **seat_facts(scenario),
        }
        _doubt_seats(notes, layer, scenario)
    told = {
        "split": f"{held_out:.0%} of every client's samples were held out of training",
        "seed": str(seed),
        "probe": f"one round, {_said(sizes, probe_samples)}",
    }
    return AuditReport(
        tuple(notes.findings),
        about,
        notes.galleries,
        notes.curves,
        told,
        time.perf_counter() - began,
        tuple(told_by_liars),
        threats,
        effort,
        absent,
        tuple(models),
    )


def _absent(data: Dataset) -> dict[str, str]:
    """The assets that such data do not have, each with the sentence that says why."""
    absent = {"text": _NO_TEXT} if data.x.is_floating_point() else {}
    return absent | ({"labels": _NO_LABELS} if data.y.ndim > 1 else {})


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


def _doubt_seats(notes: AuditNotes, layer: str, scenario: Scenario) -> None:
    """Say of what was not found under data seats that nobody looked behind them: the attacks of an
    audit train shadows without them, and take what clients trained on for what they hold.
    """
    for seat in scenario.data_seats:
        why = (
            f"it does not look behind {name_of(seat)}, which guarantees nothing: play"
            f" {', '.join(seat.broken_by)} on the views of a run"
        )
        notes.findings[:] = [
            replace(one, undone=why)
            if one.layer == layer and one.verdict == "not found" and not one.undone
            else one
            for one in notes.findings
        ]


def _said(sizes: Mapping[str, int], samples: int) -> str:
    other = [layer for layer, size in sizes.items() if size > samples]
    named = ", ".join(f"{sizes[layer]} under {layer}" for layer in other)
    more = f" ({named}: nobody trains on fewer there)" if other else ""
    return f"{samples} sample(s) a client{more}"


def _knowledge(scenario: Scenario, auxiliary: Dataset, seed: int) -> Knowledge:
    """What the adversaries know: the public recipe, their own samples, and how to train."""
    work = scenario.workload
    forward = forward_in(scenario)
    trainer = _trainer(work.model.module, work.method, work.loss)
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


def _trainer(module: nn.Module, method: Method, loss: Loss) -> Shadows | None:
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
    return Shadows(module, method, loss, policy)


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
