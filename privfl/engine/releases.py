"""From a run's parts to the `Pipeline` that its vectors leave by: the same for the engine and for
the layer around other people's loops, so that both charge alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from privfl.core import (
    BeforeSeat,
    Bound,
    Channel,
    ConfigError,
    Decides,
    Defence,
    Mechanism,
    NeighbourRelation,
    Neighbours,
    RunNoise,
    Sampling,
)
from privfl.dp import Clip
from privfl.dp.part_release import AnyRule, PartRelease, Sum, Weights
from privfl.dp.pipeline import Pipeline
from privfl.engine.client import BITS
from privfl.engine.samplers import Sampler
from privfl.engine.seams import AdaptiveBound, adapts


def pipeline_of(
    bounds: Mapping[str, Bound],
    lengths: Mapping[str, int],
    *,
    channel: Channel[Any],
    rule: AnyRule,
    sampling: Sampling,
    seats: Sequence[BeforeSeat[Any]] = (),
    mechanism: Mechanism | None = None,
    over: RunNoise[Any] | None = None,
    uniform: bool = True,
    relation: NeighbourRelation | None = None,
    adaptive: AdaptiveBound | None = None,
    repeatable: bool = False,
    void: str = "",
) -> Pipeline:
    """The releases of rounds that send parts of these ``lengths``, each under its bound.

    ``seats`` are those before the rule (which change rows of the delta alone), ``over`` is noise
    that hangs together over the rounds, in place of a mechanism, ``uniform`` says that every weight
    is one, ``adaptive`` that bits about norms travel too.

    Without a ``relation`` it is replace_one under local noise, zero_out for noise in shares and for
    noise that hangs together, and for other noise on the aggregate add_remove where the rule
    divides by a public number, else (and for cohorts of a fixed size) replace_one. Against noise at
    clients and in shares stands the server, which sees the cohort: nothing is amplified there.

    Raises:
        ConfigError: noise in shares and a mechanism beside it.
    """
    able, shares = channel.able, channel.able.noise
    local = mechanism is not None and mechanism.local
    if shares is not None and mechanism is not None:
        raise ConfigError(
            f"{type(channel).__name__} carries noise in shares already, and"
            f" {type(mechanism).__name__} would noise its sum again: leave one of them out."
        )
    if over is not None:
        _refuse_beside(over, channel, rule)
    grouping = () if able.groups is None else (able.groups.stage(),)
    releases: dict[str, PartRelease] = {}
    for part, length in lengths.items():
        own = (bounds[part], Weights(uniform))
        sent = own if able.encodes is None else (*own, able.encodes.stage(length))
        before = tuple(seats) if part == "delta" else ()
        if local:  # the client's half noises the delta alone
            releases[part] = PartRelease(own, mechanism=mechanism if part == "delta" else None)
        elif shares is not None:
            releases[part] = PartRelease(sent, shares=shares)
        else:
            releases[part] = PartRelease((*sent, *grouping), rule, before, mechanism, over=over)
    if adaptive is not None:
        releases[BITS] = _bits(channel)
    public = rule.public_denominator is not None and able.groups is None
    derived: NeighbourRelation = "replace_one"
    if shares is not None or over is not None:
        derived = "zero_out"
    elif public and sampling.scheme != "fixed_size" and not local:
        derived = "add_remove"
    made = Pipeline(
        releases,
        Neighbours("client", relation or derived),
        Sampling("all", 1.0, sampling.population) if local else sampling,
        sees_cohort=local or shares is not None,
        samples=Neighbours("sample", "add_remove" if uniform else "zero_out"),
        repeatable=repeatable,
        void=void,
    )
    if adaptive is None or mechanism is None:
        return made
    counted = replace(releases[BITS], mechanism=adaptive.counting(made.reach(BITS)))
    return replace(made, releases={**releases, BITS: counted})


def require_steady(bound: Bound, rounds: int) -> None:
    """Refuse a bound that changes under noise that hangs together over rounds.

    Raises:
        ConfigError: it follows the clients' norms, or a schedule.
    """
    first = bound.at(0).l2
    if adapts(bound) or any(bound.at(number).l2 != first for number in range(rounds)):
        raise ConfigError(
            f"{type(bound).__name__} changes from round to round, and correlated noise cancels only"
            " at one scale: use clip."
        )


def refuse_turns(sampler: Sampler) -> None:
    """Refuse clients that are drawn in turns, for noise of which nothing is known there.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        f"{type(sampler).__name__} draws clients in turns, and what that saves is known of"
        " correlated noise over a banded matrix only: use the mechanism correlated with the"
        " strategy banded, or the sampler poisson."
    )


def _refuse_beside(over: RunNoise[Any], channel: Channel[Any], rule: AnyRule) -> None:
    """Refuse what correlated noise does not go with.

    Raises:
        ConfigError: noise in shares; a rule that divides by how many came.
    """
    if channel.able.noise is not None:
        raise ConfigError(
            f"{type(channel).__name__} carries noise in shares, and correlated noise cannot be"
            " shared out: rounds would have to cancel noise of the same survivors every time. Use"
            " a channel without noise, whose server adds it, or noise in shares alone."
        )
    if rule.public_denominator is None or channel.able.groups is not None:
        raise ConfigError(
            f"{type(rule).__name__} divides by how many rows came, and correlated noise cancels"
            " from round to round only at one scale: use the mean over a public denominator, as in"
            " {name: mean, weighted: false, denominator: ...}, and a channel without groups."
        )


def _bits(channel: Channel[Any]) -> PartRelease:
    """The sum of the clients' bits: plus or minus one half each."""
    encodes = channel.able.encodes
    return PartRelease((Clip(0.5), *(() if encodes is None else (encodes.stage(1),))), Sum())


def refuse_asking(parts: Sequence[Decides | Defence]) -> None:
    """Refuse rules and seats that ask clients about their data, in runs that claim privacy.

    Raises:
        ConfigError: one of them does.
    """
    for part in parts:
        for oracle in part.needs.values():
            if oracle.asks_clients:
                raise ConfigError(
                    f"{type(part).__name__} asks clients about their own data ({oracle.value}), and"
                    " the answers leave without noise: no epsilon counts them. Leave it out, or the"
                    " noise."
                )
