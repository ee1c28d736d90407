"""The audit: attacks x adversaries x privacy layers, on real runs, scored against a truth that no
attack can reach.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import get_args

from torch import Tensor

from privfl.attacks import Inference, LabelCounts
from privfl.audit.abreast import each
from privfl.audit.effort import Attacks, Effort, attacks_of
from privfl.audit.findings import AuditReport
from privfl.audit.glance import glance
from privfl.audit.layer import AskedOfLayers
from privfl.audit.lying import FRAMES
from privfl.audit.rehearsal import require_enough
from privfl.core import Adversary, ClientId, ConfigError, Dataset, client_party, require, unknown
from privfl.federation import Federation

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
    jobs: int = 1,
    progress: Callable[[str], None] | None = None,
) -> AuditReport:
    """Run every layer's federation, attack it through every adversary's view, and score.

    Nothing that an audit trains is released, so it may split the data as it needs: ``held_out`` of
    every client's samples stay outside of training; they are candidates that are no members, and
    with the test set the adversaries' auxiliary data.

    Args:
        layers: federations by name, one for each set of defences; one federation is the layer "as
            configured".
        adversaries: as in `Run.view`; not applicable where a layer has no such party, and refused
            where none has. None asks whom each layer's channel names in its record
            (`adversaries_of`).
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
        jobs: how many layers at a time, from two on each in a process of its own, with its share of
            torch's threads. The findings are the same but for last digits (other numbers of threads
            add in another order), and but for noise, which each audit draws anew. A script needs
            ``if __name__ == "__main__":`` around it then, and layers that travel to other processes
            (pickle).
        progress: told what is attacked; from other processes, which layers are done.

    Raises:
        ConfigError: no layers, or something else than federations, shares out of range, an unknown
            effort or adversary, something that is no attack, samples that are not finite
            or too few outside of training (`require_enough`), all before one layer is played; or a
            layer that does not travel.
        ProcessDied: the process of a layer was killed.
    """
    named: Mapping[str, Federation] = (
        layers if isinstance(layers, Mapping) else {"as configured": layers}
    )
    if not named:
        raise ConfigError("an audit needs at least one layer.")
    _require_federations(named)
    require.within(0.1, 0.9, held_out=held_out)
    require.at_least(1, probe_samples=probe_samples)
    if budget is not None:
        require.positive(budget=budget)
    require.at_least(1, jobs=jobs)
    if effort not in get_args(Effort):
        raise ConfigError(unknown("effort", effort, get_args(Effort)))
    _require_parties(adversaries or (), named.values())
    _require_attacks(stream=stream, probe=probe, properties=properties, presence=presence)
    for layer, federation in named.items():
        require_enough(federation.scenario, held_out)
        _require_finite(layer, federation.scenario.clients, federation.scenario.workload.data)
    began = time.perf_counter()
    chosen = attacks_of(effort) if attacks is None else attacks
    absent = _absent(next(iter(named.values())).scenario.workload.data)
    own = [*(chosen.probe if probe is None else probe)]
    whole = [*(chosen.stream if stream is None else stream)]
    over = [one for one in (*own, *whole) if one.takes_rounds]
    if probe is None and stream is None:
        over += chosen.rounds
    asked = AskedOfLayers(
        adversaries=adversaries,
        stream=[one for one in whole if not one.takes_rounds],
        probe=[one for one in _labelled(own, absent) if not one.takes_rounds],
        properties=chosen.properties if properties is None else properties,
        presence=(chosen.presence if stream is None else ()) if presence is None else presence,
        pushes=(chosen.active and stream is None) if active is None else active,
        chosen=chosen,
        usual_probe=attacks is None and probe is None,
        rounds=_labelled(over, absent),
        usual=attacks is None and probe is None and stream is None,
        effort=effort,
        held_out=held_out,
        probe_samples=probe_samples,
        seed=seed,
        lies=lies,
    )
    found = each(named, asked, None if budget is None else began + budget, jobs, progress)
    first = next(iter(named.values())).scenario
    kind = "sample" if first.workload.data.x.is_floating_point() else "sequence"
    probed = _said({k: one.samples for k, one in found.items()}, probe_samples, kind)
    n = sum(map(len, first.clients.values()))
    told = {
        "data": f"{n:,} {kind}s of {len(first.clients)} clients, {first.test.n:,} to test with",
        "split": f"{held_out:.0%} of every client's {kind}s were held out of training",
        "seed": str(seed),
        "probe": f"one round, {probed}",
    }
    return AuditReport(
        tuple(finding for one in found.values() for finding in one.findings),
        {layer: one.facts for layer, one in found.items()},
        {key: value for one in found.values() for key, value in one.galleries.items()},
        {key: value for one in found.values() for key, value in one.curves.items()},
        told,
        time.perf_counter() - began,
        tuple(lie for one in found.values() for lie in one.lies),
        {key: value for one in found.values() for key, value in one.threats.items()},
        effort,
        absent,
        tuple(model for one in found.values() for model in one.models),
        glance,
    )


def _require_federations(named: Mapping[str, object]) -> None:
    for layer, given in named.items():
        if not isinstance(given, Federation):
            raise ConfigError(
                f"layer '{layer}' is {type(given).__name__}, and an audit plays federations: give"
                " Federation.from_config(CONFIG), or several by name, as in"
                " {'plain': Federation.from_config({...})}."
            )


def _require_parties(adversaries: Sequence[str], layers: Iterable[Federation]) -> None:
    """Refuse an adversary that has no party under any layer: nothing would be asked of it, and a
    misspelt name would look like a run without leaks.
    """
    scenarios = [federation.scenario for federation in layers]
    clients = {client for scenario in scenarios for client in scenario.clients}
    helpers = sorted({who for scenario in scenarios for who in scenario.channel.helpers})
    there = {"server", "key_holder", *helpers, *map(client_party, clients)}
    for adversary in adversaries:
        for party in sorted(Adversary.parse(adversary).parties - there):
            raise ConfigError(
                f"adversaries: '{adversary}' needs the party '{party}', which no layer has: beside"
                f" outsider, server and key_holder there are client({min(clients)}) to"
                f" client({max(clients)}), and {', '.join(helpers) or 'no helpers'}."
            )


def _require_attacks(**played: Sequence[Inference] | None) -> None:
    for key, attacks in played.items():
        for one in attacks or ():
            if not isinstance(one, Inference):
                raise ConfigError(
                    f"{key} holds {one!r}, which is no attack that only looks: give objects, as in"
                    f" {key}=[LinearLeakage()], or names by attacks=named_attacks([...])."
                )


def _require_finite(layer: str, clients: Mapping[ClientId, Tensor], data: Dataset) -> None:
    """No score is a number where a sample is none: refuse it before anything trains."""
    if not data.x.is_floating_point():
        return
    finite = data.x.reshape(data.n, -1).isfinite().all(1)
    for client, index in clients.items():
        if not bool(finite[index].all()):
            raise ConfigError(
                f"client {int(client)} of layer '{layer}' holds NaN or infinite values, first in"
                f" its sample {int((~finite[index]).nonzero()[0])}: nothing can be scored against"
                " them. Fill them, or leave those samples out."
            )


def _labelled(attacks: Sequence[Inference], absent: Mapping[str, str]) -> list[Inference]:
    """Without counts of labels where the data have none."""
    return [one for one in attacks if "labels" not in absent or not isinstance(one, LabelCounts)]


def _absent(data: Dataset) -> dict[str, str]:
    """The assets that such data do not have, each with the sentence that says why."""
    absent = {"text": _NO_TEXT} if data.x.is_floating_point() else {}
    return absent | ({"labels": _NO_LABELS} if data.y.ndim > 1 else {})


def _said(sizes: Mapping[str, int], samples: int, kind: str) -> str:
    other = [layer for layer, size in sizes.items() if size > samples]
    named = ", ".join(f"{sizes[layer]} under {layer}" for layer in other)
    more = f" ({named}: nobody trains on fewer there)" if other else ""
    return f"{samples} {kind}{'s' * (samples > 1)} a client{more}"
