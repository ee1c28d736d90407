"""The audit: attacks x adversaries x privacy layers, on real runs, scored against a truth that no
attack can reach.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from privfl.attacks import (
    ClientScores,
    Counts,
    Forward,
    GradientInversion,
    Inference,
    Knowledge,
    LabelCounts,
    LinearLeakage,
    LossThreshold,
    NotApplicable,
    PropertyInference,
    PropertyScores,
    Reconstruction,
    Result,
    Scores,
    ShadowMembership,
    UpdateMembership,
)
from privfl.audit import score
from privfl.audit.findings import AuditReport, Finding
from privfl.audit.shadows import Shadows
from privfl.core import ClientId, ConfigError, Dataset, NotVisible, Rows, Seeds, View, require
from privfl.engine import forward_of
from privfl.training import LocalSGD

Federated: TypeAlias = Any
"""A `privfl.Federation`: its ``scenario``, its ``audit`` settings, and ``run()``."""
ADVERSARIES = ("outsider", "server", "key_holder", "client(0)", "colluders(server, client(0))")
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
_MIRRORED = 0.3
_PROPERTY_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class _Ground:
    """The truth, and what the adversaries are given of it. Only scorers read the first two."""

    members: Mapping[ClientId, Tensor]
    inside: Tensor
    pool: Dataset
    auxiliary: Dataset


@dataclass(slots=True)
class _Notes:
    """What was found so far. ``told`` are a stage's answers by attack and by what it saw: who has
    the same eyes is told the same.
    """

    findings: list[Finding]
    galleries: dict[tuple[str, str, str], score.Pictures]
    curves: dict[tuple[str, str, str], score.Membership]
    told: dict[tuple[int, bytes], Result] = field(default_factory=dict)


def audit(
    layers: Mapping[str, Federated] | Federated,
    *,
    adversaries: Sequence[str] = ADVERSARIES,
    stream: Sequence[Inference] = STREAM,
    probe: Sequence[Inference] = PROBE,
    properties: Sequence[Inference] = PROPERTY,
    held_out: float = 0.5,
    probe_samples: int = 1,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> AuditReport:
    """Run every layer's federation, attack it through every adversary's view, and score.

    Nothing that an audit trains is released, so it may split the data as it needs: ``held_out`` of
    every client's samples stay outside of training and are, half and half with the test set,
    candidates that are no members and the adversaries' auxiliary data.

    Args:
        layers: federations by name, one for each set of defences; one federation is the layer "as
            configured".
        adversaries: as in `Run.view`; `NotApplicable` where a layer has no such party.
        stream: attacks on the views of all rounds; ``probe``: attacks on one round in which each
            client holds ``probe_samples``.
        properties: attacks on a run of images in which every second client has mirrored 30 % of its
            own; other data has no such run.
        progress: told what is attacked.

    Raises:
        ConfigError: no layers, shares out of range, or clients too small to hold samples back.
    """
    named: Mapping[str, Federated] = (
        layers if isinstance(layers, Mapping) else {"as configured": layers}
    )
    if not named:
        raise ConfigError("an audit needs at least one layer.")
    require.within(0.1, 0.9, held_out=held_out)
    require.at_least(1, probe_samples=probe_samples)
    began = time.perf_counter()
    notes = _Notes([], {}, {})
    about: dict[str, dict[str, Any]] = {}
    for layer, federation in named.items():
        scenario = federation.scenario
        model = scenario.workload.model
        start = model.read()
        ground = _divide(scenario, held_out, seed)
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
        _tell(progress, f"{layer}: probe")
        notes.told.clear()
        probed = _play(federation, small, rounds=1)
        _attack_probe(
            notes, layer, probed, adversaries, probe, knows, scenario.workload.data, small, progress
        )
        model.write(start)
        if properties and scenario.workload.data.x.ndim == 4:
            _tell(progress, f"{layer}: property")
            notes.told.clear()
            _attack_property(notes, layer, federation, adversaries, properties, knows, ground, seed)
            model.write(start)
        _tell(progress, f"{layer}: training")
        notes.told.clear()
        run = _play(federation, ground.members, rounds=scenario.rounds)
        own = {
            client: scenario.workload.data.take(index) for client, index in ground.members.items()
        }
        _attack_stream(
            notes,
            layer,
            run,
            adversaries,
            stream,
            replace(knows, candidates=ground.pool),
            ground,
            own,
            progress,
        )
        model.write(start)
        epsilon = dict(run.history[-1].epsilon)
        about[layer] = {
            "accuracy": run.accuracy,
            "claimed epsilon": epsilon or None,
            "the server reads": _reads(run),
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
    )


def _tell(progress: Callable[[str], None] | None, what: str) -> None:
    if progress is not None:
        progress(what)


def _reads(run: Any) -> str:
    try:
        return type(run.view("server", max(run.transcripts)).opened["delta"]).__name__.lower()
    except (NotVisible, KeyError, ValueError):
        return "nothing"


def _divide(scenario: Any, held_out: float, seed: int) -> _Ground:
    """Members, a pool in an order that tells nothing, and auxiliary samples, all disjoint."""
    members: dict[ClientId, Tensor] = {}
    spare: list[Tensor] = []
    for client, index in scenario.clients.items():
        order = index[
            torch.randperm(len(index), generator=Seeds(seed).generator("audit", int(client)))
        ]
        kept = max(1, round(len(order) * (1 - held_out)))
        members[client] = order[:kept]
        spare.append(order[kept:])
    data = scenario.workload.data
    outside = _joined(data.take(torch.cat(spare)), scenario.test)
    inside = data.take(torch.cat(list(members.values())))
    mixed = torch.randperm(outside.n, generator=Seeds(seed).generator("audit outside"))
    n = min(inside.n, outside.n // 3)
    if n < 10:
        raise ConfigError(
            f"an audit needs at least 30 samples outside of training, and there are {outside.n}:"
            " raise held_out."
        )
    shown = torch.randperm(inside.n + n, generator=Seeds(seed).generator("audit pool"))
    pool = _joined(inside, outside.take(mixed[:n]))
    return _Ground(members, shown < inside.n, pool.take(shown), outside.take(mixed[n:]))


def _joined(a: Dataset, b: Dataset) -> Dataset:
    return Dataset(torch.cat([a.x, b.x]), torch.cat([a.y, b.y]), a.classes)


def _play(
    federation: Federated,
    clients: Mapping[ClientId, Tensor],
    rounds: int,
    data: Dataset | None = None,
) -> Any:
    """The same federation with other samples at its clients, all rounds kept."""
    audited = copy.copy(federation)
    work = federation.scenario.workload
    work = work if data is None else replace(work, data=data)
    audited.scenario = replace(
        federation.scenario, clients=dict(clients), rounds=rounds, workload=work
    )
    if hasattr(federation.audit, "model_copy"):
        audited.audit = federation.audit.model_copy(update={"keep": "all"})
    return audited.run()


def _views(run: Any, adversary: str) -> list[View] | str:
    """The adversary's views of all rounds, or why there are none."""
    try:
        return [run.view(adversary, number) for number in sorted(run.transcripts)]
    except (NotVisible, ConfigError) as reason:
        return str(reason)


def _attacked(
    notes: _Notes,
    layer: str,
    adversary: str,
    attack: Inference,
    views: list[View] | str,
    knows: Knowledge,
    metric: str,
) -> tuple[Result, Finding]:
    began = time.perf_counter()
    name = _name(attack)
    if isinstance(views, str):
        result: Result = NotApplicable(name, adversary, views)
    else:
        seen = (id(attack), _eyes(views))
        result = (
            replace(notes.told[seen], adversary=adversary)
            if seen in notes.told
            else attack.run(views, knows)
        )
        if not isinstance(result, NotApplicable):  # whose reason names its adversary
            notes.told[seen] = result
    finding = Finding(
        layer,
        adversary,
        attack.family,
        name,
        metric,
        knows=knows.told(),
        seconds=time.perf_counter() - began,
    )
    if isinstance(result, NotApplicable):
        notes.findings.append(replace(finding, reason=result.reason))
    return result, finding


def _eyes(views: list[View]) -> bytes:
    """A digest of all that views show of updates and models: adversaries who see the same are told
    the same.
    """
    digest = hashlib.sha256()
    for view in views:
        shown: list[Tensor] = [view.before, view.after, *view.disclosed.values()]
        for part in view.opened.values():
            shown += (
                [part.values, part.weights]
                if isinstance(part, Rows)
                else [part.value, torch.tensor([part.weight, part.count])]
            )
            digest.update(str(part.ids if isinstance(part, Rows) else "total").encode())
        shown += [update.delta for update in view.own.values()]
        digest.update(
            f"{view.plan.number} {sorted(view.opened)} "
            f"{sorted(view.disclosed)} {sorted(view.own)}".encode()
        )
        for tensor in shown:
            digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.digest()


def _name(attack: Inference) -> str:
    words = [
        str(getattr(attack, field)) for field in ("statistic", "target") if hasattr(attack, field)
    ]
    return type(attack).__name__ + (f" ({', '.join(words)})" if words else "")


def _attack_stream(
    notes: _Notes,
    layer: str,
    run: Any,
    adversaries: Sequence[str],
    attacks: Sequence[Inference],
    knows: Knowledge,
    ground: _Ground,
    own: Mapping[ClientId, Dataset],
    progress: Callable[[str], None] | None,
) -> None:
    whose = _owners(ground, own)
    for adversary in adversaries:
        views = _views(run, adversary)
        for attack in attacks:
            _tell(progress, f"{layer}: {adversary}: {_name(attack)}")
            result, finding = _attacked(notes, layer, adversary, attack, views, knows, "AUC")
            if isinstance(result, NotApplicable):
                continue
            if isinstance(result, ClientScores):
                mine = torch.stack([whose == client for client in result.clients])
                asked = mine | ~ground.inside  # a client's own samples against those of nobody
                scores, truth = result.scores[asked], mine[asked]
                source = (
                    torch.tensor(result.clients)[result.scores[:, ground.inside].argmax(dim=0)]
                    == whose[ground.inside]
                ).float()
                named = score.proportion(int(source.sum()), len(source))
                more = f"; source named {named} (chance {1 / len(result.clients):.3f})"
            elif isinstance(result, Scores):
                scores, truth, more = result.scores, ground.inside, ""
            else:
                continue
            told = score.membership(scores, truth, seed=knows.seed)
            control = score.null_membership(scores, truth, seed=knows.seed)
            more = (
                f"TPR at 1 % FPR {told.at_hundredth}, at .1 % {told.at_thousandth}; balanced"
                f" accuracy {told.balanced:.3f}{more}"
            )
            notes.curves[layer, adversary, finding.attack] = told
            notes.findings.append(
                replace(
                    finding,
                    value=told.auc,
                    control=control.auc,
                    baseline=score.Figure(0.5),
                    more=more,
                )
            )


def _owners(ground: _Ground, own: Mapping[ClientId, Dataset]) -> Tensor:
    """By pool position: which client trained on it, -1 for nobody's."""
    owners = torch.full((ground.pool.n,), -1, dtype=torch.int64)
    flat = ground.pool.x.flatten(1).double()
    for client, data in own.items():
        near = torch.cdist(data.x.flatten(1).double(), flat)
        near[:, ~ground.inside] = float("inf")
        owners[near.argmin(dim=1)] = client
    return owners


def _attack_probe(
    notes: _Notes,
    layer: str,
    run: Any,
    adversaries: Sequence[str],
    attacks: Sequence[Inference],
    knows: Knowledge,
    data: Dataset,
    held: Mapping[ClientId, Tensor],
    progress: Callable[[str], None] | None,
) -> None:
    forward = knows.forward
    for adversary in adversaries:
        views = _views(run, adversary)
        for attack in attacks:
            _tell(progress, f"{layer}: {adversary}: {_name(attack)}")
            metric = "share of labels" if isinstance(attack, LabelCounts) else "PSNR, dB"
            result, finding = _attacked(notes, layer, adversary, attack, views, knows, metric)
            if isinstance(result, NotApplicable) or isinstance(views, str) or forward is None:
                continue
            whole = getattr(attack, "target", "client") == "sum"
            rows = None if whole else views[0].rows.ids
            clients = (
                tuple(run.transcript(views[0].plan.number).clients_seen())
                if rows is None
                else rows[:1]
            )
            true = data.take(torch.cat([held[client] for client in clients]))
            if isinstance(result, Counts):
                right = torch.minimum(
                    result.counts, torch.bincount(true.y, minlength=data.classes)
                ).sum()
                blind = (
                    torch.bincount(knows.auxiliary.y, minlength=data.classes)
                    if knows.auxiliary is not None
                    else right
                )
                guess = (
                    torch.minimum(
                        blind / blind.sum() * true.n, torch.bincount(true.y, minlength=data.classes)
                    ).sum()
                    / true.n
                )
                value = score.proportion(int(right), true.n)
                notes.findings.append(
                    replace(finding, value=value, baseline=score.Figure(float(guess)))
                )
            elif isinstance(result, Reconstruction):
                found, original = _unit(result.samples, forward), _unit(true.x, forward)
                told = score.pictures(found, original)
                blind_guess = (
                    score.prior(_unit(knows.auxiliary.x, forward), original)
                    if knows.auxiliary is not None
                    else told
                )
                more = (
                    f"best {float(told.psnr.max()):.1f} dB; SSIM {float(told.ssim.mean()):.3f};"
                    f" over 20 dB {told.over_20}"
                )
                notes.galleries[layer, adversary, finding.attack] = told
                value = score.Figure(float(told.psnr.mean()))
                notes.findings.append(
                    replace(
                        finding,
                        value=value,
                        baseline=score.Figure(float(blind_guess.psnr.mean())),
                        more=more,
                    )
                )


def _attack_property(
    notes: _Notes,
    layer: str,
    federation: Federated,
    adversaries: Sequence[str],
    attacks: Sequence[Inference],
    knows: Knowledge,
    ground: _Ground,
    seed: int,
) -> None:
    """Whose images are mirrored: a fact that has nothing to do with the task. The sum is asked with
    and without such clients.
    """
    data, held = federation.scenario.workload.data, ground.auxiliary
    marked = sorted(ground.members)[1::2]
    some = torch.cat(
        [ground.members[c][: max(1, round(_MIRRORED * len(ground.members[c])))] for c in marked]
    )
    x = data.x.clone()
    x[some] = x[some].flip(-1)
    half = torch.arange(held.n) % 2
    known = Dataset(
        torch.where(half.view(-1, 1, 1, 1) == 1, held.x.flip(-1), held.x),
        held.y,
        held.classes,
        {"mirrored": half},
    )
    informed = replace(knows, auxiliary=known, attribute="mirrored", seed=seed)
    start = federation.scenario.workload.model.read()
    run = _play(
        federation,
        ground.members,
        min(_PROPERTY_ROUNDS, federation.scenario.rounds),
        Dataset(x, data.y, data.classes),
    )
    federation.scenario.workload.model.write(start)
    without = _play(federation, ground.members, min(_PROPERTY_ROUNDS, federation.scenario.rounds))
    for adversary in adversaries:
        views = _views(run, adversary)
        for attack in attacks:
            result, finding = _attacked(notes, layer, adversary, attack, views, informed, "AUC")
            if not isinstance(result, PropertyScores):
                continue
            if result.clients == (None,):
                other = attack.run(_views(without, adversary), informed)  # type: ignore[arg-type]
                if not isinstance(other, PropertyScores):
                    continue
                scores = torch.cat([result.scores.flatten(), other.scores.flatten()])
                truth = torch.cat(
                    [torch.ones(result.scores.numel()), torch.zeros(other.scores.numel())]
                ).bool()
            else:
                scores = result.scores.flatten()
                truth = torch.tensor([client in marked for client in result.clients]).repeat(
                    len(result.rounds)
                )
            if not bool(truth.any()) or bool(truth.all()):
                continue
            told = score.membership(scores, truth, seed=seed)
            control = score.null_membership(scores, truth, seed=seed)
            more = f"{len(scores)} updates of {len(result.rounds)} rounds"
            notes.findings.append(
                replace(
                    finding,
                    value=told.auc,
                    control=control.auc,
                    baseline=score.Figure(0.5),
                    more=more,
                )
            )


def _unit(x: Tensor, forward: Forward) -> Tensor:
    """Features in [0, 1], as the recipe's range says."""
    low, high = forward.span(x)
    return (x - low) / (high - low).clamp(min=1e-9)
