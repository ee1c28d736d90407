"""The record of a round, and the summary of a run: what is measured, and what is said."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from privfl.config import AuditConfig
from privfl.core import Bound, Channel, ClientId, Guarantee, Liars, RoundPlan, Transcript
from privfl.data import label_counts
from privfl.dp import personal, spend, statement
from privfl.dp.guarantee import distributed
from privfl.engine import (
    RoundRecord,
    RunState,
    Scenario,
    measured_by,
    measures,
    rounding_said,
    stand,
    stand_as,
    too_few,
)
from privfl.federation.certificate import certificate_of, said_of
from privfl.federation.diverged import diverged
from privfl.federation.drowned import drowned
from privfl.federation.excluded import excluded_from
from privfl.federation.paced import pace_said, pace_warned
from privfl.federation.robustness import robust_of
from privfl.training import Method, Workload, evaluate

REPEATABLE = (
    "Everybody who takes part is told the seed (repeatable: true), and draws cohorts, batches and"
    " lots from it: sampling amplifies nothing here, and nothing is claimed of rules, groups and"
    " defences that holds only against those who do not know their lots. Leave repeatable out for"
    " secret coins."
)
SHARES = "noise in shares"
"""What the record of noise that a channel carries is under, beside that of the channel."""
MOST_PRICED = 2000
"""Charges of which the tighter accountant is asked for each class."""
PROTOCOL_STAGES = ("key set-up", "channel")
"""Stages of a round whose seconds are a protocol's, and mean nothing where none ran."""


def record_of(
    scenario: Scenario,
    audit: AuditConfig,
    transcript: Transcript,
    losses: tuple[float, ...],
    state: RunState,
) -> RoundRecord:
    """The record of a round that was played; the model is measured where ``audit`` says so."""
    number, last = transcript.plan.number, scenario.rounds - 1
    real = scenario.channel.guarantee.measured
    seconds = {
        stage: spent
        for stage, spent in transcript.seconds.items()
        if real or stage not in PROTOCOL_STAGES
    }
    accuracy = loss = None
    measured: dict[str, float] = {}
    if number % audit.evaluate_every == 0 or number == last:
        began = time.perf_counter()
        stand(scenario.workload, state, scenario.measured_on)
        accuracy, loss = evaluate(scenario.workload.model.module, scenario.measured_on)
        module = scenario.workload.model.module
        measured = measures(scenario, state.clients, module, scenario.measured_on)
        measured |= measured_by(scenario.metrics, module, scenario.measured_on)
        robust = robust_of(scenario)
        measured |= {} if robust is None else robust.measures(scenario, number)
        seconds["evaluate"] = time.perf_counter() - began
    return RoundRecord(
        round=number,
        cohort=transcript.plan.n,
        survivors=len(transcript.clients_seen()),
        accuracy=accuracy,
        loss=loss,
        train_losses=losses,
        bytes_sent=transcript.bytes_sent if real else None,
        seconds=seconds,
        epsilon=_epsilon(state, audit.delta),
        fired=dict(transcript.fired),
        incidents=tuple(incident.what for incident in transcript.incidents),
        measures=measured,
        judgements=transcript.judgements,
        liars=transcript.liars,
        staleness=tuple(transcript.staleness[client] for client in transcript.staleness),
        time=transcript.time,
    )


def stopped_early(scenario: Scenario, records: Sequence[RoundRecord]) -> str:
    """That a run ends after these rounds by its early stopping; empty where it goes on."""
    stopping = scenario.early_stopping
    if stopping is None or not stopping.ends([record.accuracy for record in records]):
        return ""
    return (
        f"Ended after round {len(records)} of {scenario.rounds} by early_stopping:"
        f" {stopping.patience} measurements in a row did not gain more than"
        f" {100 * stopping.least:g} points of validation accuracy."
    )


def summary_of(
    scenario: Scenario,
    audit: AuditConfig,
    records: Sequence[RoundRecord],
    state: RunState,
    picked: str,
    plan: RoundPlan | None,
) -> dict[str, Any]:
    """A run's summary: accuracy, traffic, time, what it claims and what to be warned of.

    ``picked`` is the executor, ``plan`` the last round's.
    """
    workload, clients, channel = scenario.workload, scenario.clients, scenario.channel
    here = () if scenario.elsewhere else tuple(clients.values())
    own = [
        _own_accuracy(workload, state, client, index)
        for client, index in (() if scenario.elsewhere else list(clients.items())[:500])
    ]
    last = [record for record in records if record.accuracy is not None]
    told = statement(state.ledger, audit.delta, excluded_from(scenario))
    accuracy, loss = (last[-1].accuracy, last[-1].loss) if last else (None, None)
    stand(workload, state, scenario.measured_on)
    if records and records[-1].accuracy is None:  # it ended before a round that is measured
        accuracy, loss = evaluate(workload.model.module, scenario.measured_on)
    validated = {}
    if scenario.validation is not None:
        validated = {"validation": {"accuracy": accuracy, "loss": loss}}
        stand(workload, state, scenario.test)
        accuracy, loss = evaluate(workload.model.module, scenario.test)
    certificate = certificate_of(scenario, records)
    return {
        "accuracy": accuracy,
        "loss": loss,
        **validated,
        **({"certificate": {"says": said_of(certificate), **certificate}} if certificate else {}),
        "rounds": len(records),
        "diverged": diverged(state.parameters, records, loss, scenario.rounds),
        "clients": len(clients),
        "parameters": workload.model.d,
        "bytes_sent": _together([record.bytes_sent for record in records]),
        "seconds": sum(sum(record.seconds.values()) for record in records),
        "executor": picked,
        "client_accuracy": [accuracy for accuracy in own if accuracy is not None],
        "label_counts": label_counts(workload.data, here).tolist() if here else [],
        "facts": {
            **{k: v for k, v in scenario.facts.items() if k != "forward"},
            "channel": _described(scenario),
            **_error(scenario, plan),
            **rounding_said(scenario),
            **pace_said(scenario, records),
            "trained by": "clients elsewhere" if scenario.elsewhere else picked,
        },
        "guarantees": guarantees_of(scenario),
        "privacy": [line.to_json() for line in told.lines],
        **_personal(state, audit.delta),
        "warnings": [
            *channel.able.warnings,
            *([unsigned] if (unsigned := _promised(scenario).unsigned) else []),
            *told.warnings,
            *([REPEATABLE] if scenario.repeatable else ()),
            *pace_warned(scenario),
            *drowned(state.ledger, workload.model.d),
        ],
    }


def guarantees_of(scenario: Scenario) -> dict[str, dict[str, Any]]:
    """Who may collude, who may lie and what comes of it, of the run's channel and of its noise, for
    a cohort of the expected size, or the next larger one that can be opened.
    """
    clients = len(scenario.clients)
    n = max(2, round(scenario.sampling.expected))
    n = next((k for k in range(n, clients) if not too_few(scenario.channel, k)), n)
    said = {"channel": {**_promised(scenario).record(n), "cohort": n}}
    if scenario.mechanism is not None:
        said["mechanism"] = scenario.mechanism.guarantee.record(n)
    if scenario.channel.able.noise is not None:
        said[SHARES] = distributed().record(n)
    return said


def _promised(scenario: Scenario) -> Guarantee[Liars]:
    """The channel's guarantee over the run's mail."""
    said = scenario.channel.guarantee
    return said.signed() if scenario.mail == "signed" else said


def _described(scenario: Scenario) -> str:
    """The channel in sentences, with the guarantee over the run's mail."""
    bare = scenario.channel.guarantee.describe()
    return scenario.channel.describe().replace(bare, _promised(scenario).describe())


def _together(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _epsilon(state: RunState, delta: float) -> dict[str, float]:
    """The dearest of each unit; where a seed draws the samples, with secret coins and without."""
    known: dict[str, float] = {}
    for one in spend(state.ledger, delta, pld=False):
        secret, seen = one.epsilon, one.as_drawn
        if secret is None:
            continue
        words = f"{one.unit} level" if seen is None else f"{one.unit} level, with secret coins"
        known[words] = max(known.get(words, 0.0), secret)
        if seen is not None:
            words = f"{one.unit} level, seed known"
            known[words] = max(known.get(words, 0.0), seen)
    return known


def _personal(state: RunState, delta: float) -> dict[str, Any]:
    """What a client of each class has spent, where clients are drawn at rates of their own."""
    classes = [
        {
            "class": one.name,
            "clients": one.clients,
            "rate": one.rate,
            "epsilon": one.spent.epsilon,
            "seed known": one.spent.as_drawn,
            "refused": one.spent.refused,
        }
        for one in personal(state.ledger, delta, pld=len(state.ledger.charges) <= MOST_PRICED)
    ]
    return {"personal": classes} if classes else {}


def _error(scenario: Scenario, plan: RoundPlan | None) -> dict[str, str]:
    """What a channel with approximate sums adds to those of a round like the last one."""
    deviation = scenario.channel.able.approximate
    if plan is None or plan.n == 0 or deviation is None:
        return {}
    error = deviation(plan)
    mean = error / (plan.n * plan.max_weight)
    return {
        "error of the channel": (
            f"noise of standard deviation {error:.2g} in each value of the weighted sum of"
            f" {plan.n} updates, {mean:.2g} in their mean where all weigh the most"
        )
    }


def _own_accuracy(
    workload: Workload, state: RunState, client: ClientId, index: torch.Tensor
) -> float | None:
    stand_as(workload, state, client)
    try:
        return evaluate(workload.model.module, workload.data.take(index)).accuracy
    except (IndexError, RuntimeError, ValueError):  # data that its client could not train on either
        return None


def facts_of(training: Method, bound: Bound, channel: Channel[Any]) -> dict[str, Any]:
    """Public facts about a run that was put together in Python."""
    return {
        "training": repr(training),
        "bound": repr(bound),
        "channel": channel.describe(),
        "the server reads": channel.guarantee.server_reads(),
    }
