"""The scenario that a config describes, with the noise that its epsilon asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from torch import nn

from privfl import catalog
from privfl.aggregators import Mean
from privfl.assembly.data import Held, held_by_all, held_by_server
from privfl.assembly.measuring import early_stopping, metrics
from privfl.assembly.parts import attacker, buffers, part_bounds, training
from privfl.assembly.refusals import (
    refuse_device,
    refuse_idle_noise_seed,
    refuse_in_the_wrong_place,
    refuse_other_unit,
    refuse_unreadable,
)
from privfl.config import Config
from privfl.core import (
    Channel,
    ConfigError,
    FlatModel,
    Ledger,
    Mechanism,
    OsNoise,
    RingNoise,
    SeededNoise,
    Seeds,
    Threat,
    UserBounds,
    WithMemory,
    is_private,
)
from privfl.engine import (
    STATISTICS,
    Budget,
    Pace,
    Sampler,
    Scenario,
    ServerOracles,
    check_scenario,
    noise_for,
    start_ledger,
)
from privfl.models import initialised
from privfl.training import Workload, cross_entropy


def scenario(config: Config, held: Held | Literal["server"] | None = None) -> Scenario:
    """The scenario that a config describes, on what this machine has ``held`` of the data: all
    of it unless said, or what the server of a network holds.

    Raises:
        ConfigError: an unknown name or key, a value that cannot be, or parts that do not go
            together.
        DataMissing: the data set is not on this machine.
    """
    if "epsilon" in config.mechanism and _takes_noise(config.mechanism["name"]):
        return _calibrated(config, held)
    return _scenario(config, held)


def _takes_noise(mechanism: str) -> bool:
    """Whether a mechanism of this name has a noise multiplier, in whose place an epsilon of the
    whole run may stand.
    """
    table = catalog.MECHANISMS if mechanism in catalog.MECHANISMS else catalog.RING_NOISE
    if mechanism not in table:
        return False
    keys, _ = catalog.fields_of(table[mechanism])
    return "noise_multiplier" in keys and "epsilon" not in keys


def _calibrated(config: Config, held: Held | Literal["server"] | None) -> Scenario:
    """The scenario whose noise is the least that keeps to `mechanism.epsilon`."""
    part = dict(config.mechanism)
    epsilon = part.pop("epsilon")
    if "noise_multiplier" in part:
        raise ConfigError(
            f"mechanism '{part['name']}' has both an epsilon and a noise_multiplier, and one"
            " follows from the other: leave one of them out."
        )
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float):
        raise ConfigError(f"mechanism.epsilon is a number above 0, and is {epsilon!r}.")

    def settings(noise_multiplier: float) -> Config:
        noisy = {**part, "noise_multiplier": noise_multiplier}
        return config.model_copy(update={"mechanism": noisy})

    made = _scenario(settings(1.0), held)
    check_scenario(made)
    ring_noise = catalog.RING_NOISE.holds(part["name"])

    def noised(noise_multiplier: float) -> Scenario:
        noisy = settings(noise_multiplier)
        if ring_noise:
            shares = catalog.build("mechanism", catalog.RING_NOISE, noisy.mechanism)
            return dataclasses.replace(made, channel=_with_noise(made.channel, shares, noisy))
        mechanism = catalog.build("mechanism", catalog.MECHANISMS, noisy.mechanism)
        return dataclasses.replace(made, mechanism=mechanism)

    found = noised(noise_for(epsilon, config.audit.delta, noised))
    facts = {**found.facts, "channel": found.channel.describe()}
    return dataclasses.replace(found, facts=facts)


def _scenario(config: Config, held: Held | Literal["server"] | None) -> Scenario:
    refuse_unreadable(config)
    seeds = Seeds(config.seed)
    ring_noise = catalog.RING_NOISE.holds(config.mechanism["name"])
    mechanism: Mechanism | WithMemory | None = (
        None if ring_noise else _optional("mechanism", catalog.MECHANISMS, config.mechanism)
    )
    private = ring_noise or (mechanism is not None and not mechanism.local)
    noised = ring_noise or mechanism is not None
    trained = _secretly(config.training) if config.threat.sampling == "secret" else config.training
    method = training(_uniform(trained) if noised else trained)
    refuse_idle_noise_seed(config, method)
    bound_part = dict(config.bound)
    bounds = part_bounds(bound_part.pop("parts", {}), config.training)
    sampler = catalog.build("sampler", catalog.SAMPLERS, config.sampler)
    pace: Pace = catalog.build("pace", catalog.PACES, config.pace)
    optimizer = catalog.build(
        "server_optimizer", catalog.SERVER_OPTIMIZERS, config.server_optimizer
    )
    builder, options = _model(config.model)
    refuse_device(config.device)
    refuse_other_unit(config, private=is_private(method.gradient), noised=noised)
    claims = noised or is_private(method.gradient)
    if held is None:
        held = held_by_all(config, noised=claims)
    elif held == "server":
        held = held_by_server(config, noised=claims)
    clients = held.clients
    users = None if config.users is None else UserBounds(**config.users.model_dump())
    try:
        module: nn.Module = initialised(
            builder, held.shape, held.classes, seed=seeds.derive("model"), **options
        )
    except (RuntimeError, MemoryError) as error:  # as torch says that there is no room for it
        why = (str(error) or "no memory").splitlines()[0]
        raise ConfigError(f"model '{config.model['name']}' cannot be made: {why}.") from None
    model = FlatModel(module, config.device)
    start = _start(config.start, model)  # before its running statistics are read
    workload = Workload(
        model, cross_entropy, method, held.train.to(config.device), buffers(config.training)
    )
    attackers = [attacker(part, tuple(clients), seeds, i) for i, part in enumerate(config.attacks)]
    root = held.root.to(config.device)
    oracles = ServerOracles(workload, clients, root, attackers, elsewhere=held.server_elsewhere)
    bound = _with("bound", catalog.BOUNDS, bound_part, oracles)
    kind = catalog.CHANNELS[config.channel["name"]].kind
    public = private and not kind.groups
    rule: Mapping[str, Any] = config.aggregator
    if public:
        rule = _public_mean(rule, sampler, pace, len(clients))
    aggregator = _with("aggregator", catalog.AGGREGATORS, rule, oracles)
    if kind.runs and kind.rule_field in config.channel:
        raise ConfigError(
            f"channel '{config.channel['name']}': its rule is the run's aggregator; set aggregator"
            f" instead of channel.{kind.rule_field}."
        )
    inside = {kind.rule_field: aggregator} if kind.runs else None
    if kind.takes_noise and kind.noise_field in config.channel:
        raise ConfigError(
            f"channel '{config.channel['name']}': noise in shares is the run's mechanism; put it"
            f" under mechanism instead of channel.{kind.noise_field}."
        )
    channel: Channel[Any] = catalog.build("channel", catalog.CHANNELS, config.channel, inside)
    if ring_noise:
        channel = _with_noise(
            channel, catalog.build("mechanism", catalog.RING_NOISE, config.mechanism), config
        )
    if kind.runs and not isinstance(aggregator, Mean):
        aggregator = Mean()  # the channel's servers run the rule; what they open is its result
    return Scenario(
        workload=workload,
        clients=clients,
        test=held.test.to(config.device),
        validation=None if held.validation is None else held.validation.to(config.device),
        early_stopping=early_stopping(config),
        metrics=metrics(config),
        bound=bound,
        channel=channel,
        aggregator=aggregator,
        rounds=config.rounds,
        sampler=sampler,
        pace=pace,
        defences=[_with("defence", catalog.DEFENCES, part, oracles) for part in config.defences],
        data_seats=[
            catalog.build("data_seats", catalog.DATA_SEATS, part) for part in config.data_seats
        ],
        mechanism=mechanism,
        attackers=attackers,
        attackers_know=config.attackers_know,
        relation=config.relation,
        threat=Threat(**config.threat.model_dump()),
        server_optimizer=optimizer,
        part_bounds=bounds,
        mail=config.mail,
        seed=config.seed,
        repeatable=config.repeatable,
        noise=OsNoise() if config.noise_seed is None else SeededNoise(config.noise_seed),
        start=start,
        users=users,
        uncharged=held.uncharged,
        max_weight=config.max_weight,
        elsewhere=held.elsewhere,
        facts={
            **held.facts,
            "model": f"{config.model['name']}, {workload.model.d:,} parameters",
            "training": config.training["name"],
            "channel": channel.describe(),
            "the server reads": channel.guarantee.server_reads(),
            "bound": bound.describe(),
            **({} if pace.synchronous else {"pace": pace.describe()}),
        },
    )


def budget(config: Config) -> Budget | None:
    """The budget of the data set, where the config has one."""
    had = config.budget
    return None if had is None else Budget(had.epsilon, had.delta, Path(had.ledger))


def _model(part: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    builder, options = catalog.checked("model", catalog.MODELS, part, supplied=("shape", "classes"))
    return builder, options


def _optional(seam: str, table: catalog.Table, part: Mapping[str, Any]) -> Any | None:
    return None if part["name"] == "none" else catalog.build(seam, table, part)


def _with(
    seam: str,
    table: catalog.Table,
    part: Mapping[str, Any],
    oracles: ServerOracles,
) -> Any:
    """A rule, a defence or a bound, with what it declares that it needs of the run."""
    if part["name"] not in table:
        refuse_in_the_wrong_place(seam, part["name"])
        return catalog.build(seam, table, part)
    needs = catalog.needs_of(table[part["name"]])
    return catalog.build(seam, table, part, {name: oracles.of(it) for name, it in needs.items()})


def _with_noise(channel: Channel[Any], noise: RingNoise, config: Config) -> Channel[Any]:
    if not channel.kind.takes_noise:
        able = [
            name for name in catalog.CHANNELS.usable() if catalog.CHANNELS[name].kind.takes_noise
        ]
        raise ConfigError(
            f"mechanism '{config.mechanism['name']}' is noise on the integers of a summing channel,"
            f" and channel '{config.channel['name']}' takes none: use {' or '.join(able)}."
        )
    fields: dict[str, Any] = {channel.kind.noise_field: noise}
    if config.noise_seed is not None:
        fields[channel.kind.source_field] = SeededNoise(config.noise_seed)
    noised: Channel[Any] = dataclasses.replace(channel, **fields)  # type: ignore[type-var]
    return noised


def _start(start: str, model: FlatModel) -> Literal["public"] | Ledger:
    """What was charged for the model: nothing where it is drawn from the seed, else that of the run
    whose model this becomes.
    """
    if start == "public":
        return "public"
    try:
        held = safetensors.torch.load_file(Path(start) / "model.safetensors")
        flat = held["parameters"]
    except (OSError, KeyError, safetensors.SafetensorError):
        raise ConfigError(
            f"start is public, or the folder of a run that has ended, and '{start}' holds no model."
        ) from None
    if len(flat) != model.d:
        raise ConfigError(
            f"the model in '{start}' has {len(flat):,} parameters, and this run's has"
            f" {model.d:,}: give both the same model."
        )
    model.write(flat)
    if model.s and STATISTICS in held:  # a run that kept them local left none
        model.write_state(held[STATISTICS])
    return start_ledger(Path(start))


def _secretly(part: Mapping[str, Any]) -> dict[str, Any]:
    """Batches of private training are drawn from the operating system."""
    gradient = part.get("gradient")
    if not isinstance(gradient, Mapping) or gradient.get("name") != "dp":
        return dict(part)
    return {**part, "gradient": {"sampling": "secret", **gradient}}


def _uniform(part: Mapping[str, Any]) -> dict[str, Any]:
    """Client-level privacy needs every client to weigh the same."""
    return {"weighting": "uniform", **part}


def _public_mean(
    part: Mapping[str, Any], sampler: Sampler, pace: Pace, clients: int
) -> Mapping[str, Any]:
    """Under noise a bare ``mean`` is the one with a sensitivity: unweighted, over the expected size
    of a cohort, whoever drops out.
    """
    if part != {"name": "mean"}:
        return part
    expected = sampler.sampling(clients).expected if pace.synchronous else float(pace.k)
    return {"name": "mean", "weighted": False, "denominator": expected}
