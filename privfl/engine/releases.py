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
    Sampling,
)
from privfl.dp import Clip
from privfl.dp.opening import for_everybody
from privfl.dp.part_release import AnyRule, PartRelease, Sum, Weights
from privfl.dp.pipeline import Pipeline
from privfl.engine.client import BITS
from privfl.engine.opening import opening
from privfl.engine.seams import AdaptiveBound


def pipeline_of(
    bounds: Mapping[str, Bound],
    lengths: Mapping[str, int],
    *,
    channel: Channel[Any],
    rule: AnyRule,
    sampling: Sampling,
    seats: Sequence[BeforeSeat[Any]] = (),
    mechanism: Mechanism | None = None,
    uniform: bool = True,
    relation: NeighbourRelation | None = None,
    adaptive: AdaptiveBound | None = None,
    repeatable: bool = False,
    void: str = "",
) -> Pipeline:
    """The releases of rounds that send parts of these ``lengths``, each under its bound.

    ``seats`` are those before the rule (which change rows of the delta alone), ``uniform`` says
    that every weight is one, ``adaptive`` that bits about norms travel too.

    Without a ``relation`` it is replace_one under local noise, zero_out for noise in shares, and
    for noise on the aggregate add_remove where the rule divides by a public number (zero_out where
    channel or rule need more than one contribution), else (and for cohorts of a fixed size)
    replace_one. Against noise at clients and in shares stands the server,
    which sees the cohort: nothing is amplified there.

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
    opens = opening(channel, rule, seats)
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
            releases[part] = PartRelease((*sent, *grouping), rule, before, mechanism)
    if adaptive is not None:
        releases[BITS] = _bits(channel)
    public = rule.public_denominator is not None and able.groups is None
    derived: NeighbourRelation = "replace_one"
    if shares is not None:
        derived = "zero_out"
    elif public and sampling.scheme != "fixed_size" and not local:
        open_to_all = for_everybody(opens, sampling.population)
        derived = "add_remove" if open_to_all else "zero_out"
    made = Pipeline(
        releases,
        Neighbours("client", relation or derived),
        Sampling("all", 1.0, sampling.population) if local else sampling,
        sees_cohort=local or shares is not None,
        samples=Neighbours("sample", "add_remove" if uniform else "zero_out"),
        repeatable=repeatable,
        void=void,
        opens=opens,
    )
    if adaptive is None or mechanism is None:
        return made
    counted = replace(releases[BITS], mechanism=adaptive.counting(made.reach(BITS)))
    return replace(made, releases={**releases, BITS: counted})


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
