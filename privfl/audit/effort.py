"""Which attacks an audit plays, and how hard each of them tries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from privfl.attacks import (
    DAGER,
    DLG,
    LAMP,
    SPEAR,
    BlackBoxProperty,
    ClientGAN,
    ClientPresence,
    EmbeddingLeakage,
    FedMIA,
    GaussNewton,
    GradientDisaggregation,
    GradientInversion,
    GradInversion,
    Inference,
    LabelCounts,
    LinearLeakage,
    LossThreshold,
    PropertyInference,
    SelectionProfile,
    ServerGAN,
    ShadowMembership,
    StatisticCounts,
    SubjectMembership,
    TabLeak,
    Targeted,
    UpdateMembership,
)
from privfl.audit.games.property import MIRRORED
from privfl.catalog import ATTACKS, INFERENCE, JoinedTable, build
from privfl.core import ConfigError

Effort: TypeAlias = Literal["low", "default", "high"]


@dataclass(frozen=True, slots=True)
class Attacks:
    """The attacks of an audit, by the run that they look at.

    ``probe`` looks at one round in which each client holds few samples, ``text`` at the same round
    of clients who hold text, ``properties`` at a run in which half of the clients hold mirrored
    images, ``stream`` at all rounds, ``presence`` at runs that some clients' data are no part of;
    ``representatives`` are generators that look at all rounds, or take part in a run of their own;
    ``rounds`` are attacks on what clients send again and again (``target="rounds"``), where sums
    are over clients who change. ``active``: a server also pushes models of its own
    (`privfl.attacks.GradientAscent`).
    """

    probe: tuple[Inference, ...] = ()
    text: tuple[Inference, ...] = ()
    properties: tuple[Inference, ...] = ()
    stream: tuple[Inference, ...] = ()
    active: bool = False
    presence: tuple[Inference, ...] = ()
    representatives: tuple[ClientGAN | ServerGAN, ...] = ()
    rounds: tuple[Targeted, ...] = ()


def attacks_of(effort: Effort) -> Attacks:
    """The default attacks: ``low`` leaves out what optimises or trains shadows, ``high`` gives it
    several times as much.

    >>> len(attacks_of("low").stream) < len(attacks_of("default").stream)
    True
    """
    counted: tuple[Inference, ...] = (LabelCounts(), LabelCounts(target="sum"))
    closed: tuple[Inference, ...] = (LinearLeakage(), LinearLeakage(target="sum"))
    updates: tuple[Inference, ...] = (
        UpdateMembership(statistic="cosine"),
        UpdateMembership(),
        UpdateMembership(statistic="cosine", target="sum"),
        UpdateMembership(target="sum"),
    )
    optimised: tuple[Inference, ...] = ()
    shadows: tuple[Inference, ...] = ()
    if effort == "default":
        optimised = (GradientInversion(iterations=200, tune=True),)
        shadows = (ShadowMembership("lira_online"), ShadowMembership("rmia"))
    elif effort == "high":
        closed = (*closed, SPEAR(), SPEAR(target="sum"))
        optimised = (
            GradientInversion(iterations=2000, restarts=4, tune=True),
            GradientInversion(iterations=2000, restarts=4, tune=True, target="sum"),
        )
        shadows = (
            ShadowMembership("lira_online", shadows=64),
            ShadowMembership("rmia", shadows=64),
        )
        updates = (*updates, FedMIA(), FedMIA("loss"))
    return Attacks(
        probe=(*counted, *closed, *optimised),
        text=(EmbeddingLeakage(), EmbeddingLeakage(target="sum"), DAGER(), DAGER(target="sum")),
        properties=(
            PropertyInference(),
            PropertyInference(target="sum"),
            BlackBoxProperty(share=MIRRORED / 2),
        ),
        stream=(LossThreshold(), *shadows, *updates),
        active=effort != "low",
        presence=(ClientPresence("loss"), ClientPresence(), ClientPresence(target="sum")),
        rounds=(
            LabelCounts(target="rounds"),
            LinearLeakage(target="rounds"),
            UpdateMembership(statistic="cosine", target="rounds"),
            UpdateMembership(target="rounds"),
        ),
    )


def on_statistics(effort: Effort) -> tuple[Inference, ...]:
    """The further attacks on one round of a network whose running statistics clients send.

    >>> [type(attack).__name__ for attack in on_statistics("low")]
    ['StatisticCounts', 'StatisticCounts']
    """
    counted = (StatisticCounts(), StatisticCounts(target="sum"))
    if effort == "low":
        return counted
    if effort == "high":
        return (*counted, GradInversion(tune=True), GradInversion(tune=True, target="sum"))
    return (*counted, GradInversion(iterations=200, seeds=1, tune=True))


def on_tables(effort: Effort) -> tuple[Inference, ...]:
    """The further attacks on one round of clients whose samples are records of a table.

    >>> [attack.restarts for attack in on_tables("default")]
    [2]
    """
    if effort == "low":
        return ()
    if effort == "high":
        return TabLeak(), TabLeak(target="sum")
    return (TabLeak(iterations=150, restarts=2),)


_UNSCORED: tuple[type[Inference], ...] = (
    GradientDisaggregation,
    SelectionProfile,
    SubjectMembership,
)
"""Attacks whose claims no game of the audit scores."""


_OVER_ROUNDS = (
    UpdateMembership,
    LabelCounts,
    LinearLeakage,
    GradientInversion,
    SPEAR,
    DLG,
    GaussNewton,
    TabLeak,
)
"""Attacks that may be set to rounds in an audit."""
_PLAYED = JoinedTable((INFERENCE, {"client_gan": ATTACKS["client_gan"]}))
"""What ``audit.attacks`` can name: who looks, and the generator that also takes part."""


def named_attacks(parts: Sequence[Mapping[str, Any]]) -> Attacks:
    """The attacks that a config names under ``audit.attacks``, each with its keys.

    Raises:
        ConfigError: an unknown name or key, or an attack that an audit cannot score.

    >>> named_attacks([{"name": "label_counts"}]).probe
    (LabelCounts(target='client', client=None),)
    """
    probe: list[Inference] = []
    text: list[Inference] = []
    properties: list[Inference] = []
    stream: list[Inference] = []
    presence: list[Inference] = []
    representatives: list[ClientGAN | ServerGAN] = []
    rounds: list[Targeted] = []
    for part in parts:
        attack = build("audit.attacks", _PLAYED, part)
        if isinstance(attack, _UNSCORED):
            raise ConfigError(
                f"audit.attacks: '{part['name']}' is scored by no game of the audit: run it on a"
                " view, as in attack.run(run.view('server', 0))."
            )
        if attack.takes_rounds:
            if not isinstance(attack, _OVER_ROUNDS):
                raise ConfigError(
                    f"audit.attacks: '{part['name']}' is scored by no game of the audit with"
                    " target: rounds; of attacks on membership update_membership is, of those on"
                    " samples every one that attacks single rows."
                )
            rounds.append(attack)
        elif isinstance(attack, EmbeddingLeakage | DAGER | LAMP):
            text.append(attack)
        elif isinstance(attack, ClientPresence):
            presence.append(attack)
        elif isinstance(attack, ClientGAN | ServerGAN):
            representatives.append(attack)
        elif attack.family == "inversion":
            probe.append(attack)
        elif attack.family == "property":
            properties.append(attack)
        else:
            stream.append(attack)
    return Attacks(
        tuple(probe),
        tuple(text),
        tuple(properties),
        tuple(stream),
        presence=tuple(presence),
        representatives=tuple(representatives),
        rounds=tuple(rounds),
    )
