"""From a config to a scenario: every part is looked up, built and checked, and the data is loaded
and dealt out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from privfl import catalog
from privfl.aggregators import Mean
from privfl.config import Config, DataConfig
from privfl.core import (
    Channel,
    ClientId,
    ConfigError,
    Dataset,
    FlatModel,
    Ledger,
    LocalPlan,
    Mechanism,
    OsNoise,
    RingNoise,
    SeededNoise,
    Seeds,
    Threat,
    WithMemory,
    is_private,
    unknown,
)
from privfl.data import DATASETS, Split, load
from privfl.engine import (
    Attacker,
    AttackSchedule,
    Budget,
    Sampler,
    Scenario,
    ServerOracles,
    choose_clients,
    noise_for,
    read_ledger,
)
from privfl.models import initialised
from privfl.training import Method, Workload, cross_entropy

_PLAN_KEYS = ("batch_size", "epochs", "steps")
_SCHEDULE_KEYS = ("first", "last", "every", "rounds")
_TEAM_KEYS = ("clients", "fraction", "colluding")
DEFAULT_CLIENTS = 20


def scenario(config: Config) -> Scenario:
    """The scenario that a config describes.

    Raises:
        ConfigError: an unknown name or key, a value that cannot be, or parts that do not go
            together.
        DataMissing: the data set is not on this machine.
    """
    if "epsilon" in config.mechanism and _takes_noise(config.mechanism["name"]):
        return _calibrated(config)
    return _scenario(config)


def _takes_noise(mechanism: str) -> bool:
    """Whether a mechanism of this name has a noise multiplier, in whose place an epsilon of the
    whole run may stand.
    """
    table = catalog.MECHANISMS if mechanism in catalog.MECHANISMS else catalog.RING_NOISE
    if mechanism not in table:
        return False
    keys, _ = catalog.fields_of(table[mechanism])
    return "noise_multiplier" in keys and "epsilon" not in keys


def _calibrated(config: Config) -> Scenario:
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

    made = _scenario(settings(1.0))
    made.check()
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


def _scenario(config: Config) -> Scenario:
    _refuse_impossible(config)
    seeds = Seeds(config.seed)
    ring_noise = catalog.RING_NOISE.holds(config.mechanism["name"])
    mechanism: Mechanism | WithMemory | None = (
        None if ring_noise else _optional("mechanism", catalog.MECHANISMS, config.mechanism)
    )
    private = ring_noise or (mechanism is not None and not mechanism.local)
    noised = ring_noise or mechanism is not None
    trained = _secretly(config.training) if config.threat.sampling == "secret" else config.training
    method = training(_uniform(trained) if noised else trained)
    _refuse_idle_noise_seed(config, method, ring_noise)
    bound_part = dict(config.bound)
    part_bounds = _part_bounds(bound_part.pop("parts", {}), config.training["name"])
    sampler = catalog.build("sampler", catalog.SAMPLERS, config.sampler)
    optimizer = catalog.build(
        "server_optimizer", catalog.SERVER_OPTIMIZERS, config.server_optimizer
    )
    builder, options = _model(config.model)
    _check_device(config.device)
    split = _split(config)
    clients, root = deal(config, split, seeds)
    module: nn.Module = initialised(
        builder, split.shape, split.classes, seed=seeds.derive("model"), **options
    )
    workload = Workload(
        FlatModel(module, config.device), cross_entropy, method, split.train.to(config.device)
    )
    oracles = ServerOracles(workload, clients, root)
    bound = _with("bound", catalog.BOUNDS, bound_part, oracles)
    kind = catalog.CHANNELS[config.channel["name"]].kind
    public = private and not kind.groups
    rule = _public_mean(config.aggregator, sampler, len(clients)) if public else config.aggregator
    aggregator = _with("aggregator", catalog.AGGREGATORS, rule, oracles)
    if kind.runs and kind.rule_field in config.channel:
        raise ConfigError(
            f"channel '{config.channel['name']}': its rule is the run's aggregator; set aggregator"
            f" instead of channel.{kind.rule_field}."
        )
    inside = {kind.rule_field: aggregator} if kind.runs else None
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
        test=split.test.to(config.device),
        bound=bound,
        channel=channel,
        aggregator=aggregator,
        rounds=config.rounds,
        sampler=sampler,
        defences=[_with("defence", catalog.DEFENCES, part, oracles) for part in config.defences],
        mechanism=mechanism,
        attackers=[
            _attacker(part, tuple(clients), seeds, i) for i, part in enumerate(config.attacks)
        ],
        attackers_know=config.attackers_know,
        relation=config.relation,
        threat=Threat(**config.threat.model_dump()),
        server_optimizer=optimizer,
        part_bounds=part_bounds,
        mail=config.mail,
        seed=config.seed,
        noise=OsNoise() if config.noise_seed is None else SeededNoise(config.noise_seed),
        start=_start(config.start, workload.model),
        uncharged=_fitted(split),
        facts={
            "data": split.about or split.name,
            "clients": f"{len(clients):,}",
            "split by": config.data.partition["name"],
            "model": f"{config.model['name']}, {workload.model.d:,} parameters",
            "training": config.training["name"],
            "channel": channel.describe(),
            "the server reads": channel.guarantee.server_reads(),
            "bound": bound.describe(),
        },
    )


def _check_device(device: str) -> None:
    """Refuse a device before anything is loaded onto it.

    Raises:
        ConfigError: torch knows no such device, or cannot use it here.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise ConfigError(
            f"config key 'device': torch cannot use '{device}' here ({why}); 'cpu' always works."
        ) from None


def budget(config: Config) -> Budget | None:
    """The budget of the data set, where the config has one."""
    had = config.budget
    return None if had is None else Budget(had.epsilon, had.delta, Path(had.ledger))


def training(part: Mapping[str, Any]) -> Method:
    """A training method from its part; ``batch_size``, ``epochs`` and ``steps`` stand beside its
    own keys.

    Raises:
        ConfigError: an unknown name or key, or a value out of range.

    >>> training({"name": "sgd", "lr": 0.5, "epochs": 2}).plan
    LocalPlan(batch_size=32, epochs=2, steps=None)
    """
    own = {key: value for key, value in part.items() if key not in _PLAN_KEYS}
    gradient = own.get("gradient")
    if (
        isinstance(gradient, Mapping) and gradient.get("name") == "dp"
    ):  # it divides by the plan's batch size
        own["gradient"] = {"batch_size": part.get("batch_size", 32), **gradient}
    plan = {key: value for key, value in part.items() if key in _PLAN_KEYS}
    method: Method = catalog.build("training", catalog.TRAINING, own)
    if not plan:
        return method
    checked = catalog.build(
        "training", {part["name"]: LocalPlan}, {"name": part["name"], "batch_size": 32, **plan}
    )
    try:
        changed: Method = dataclasses.replace(method, plan=checked)  # type: ignore[type-var]
    except ConfigError as error:
        raise ConfigError(f"training '{part['name']}': {error}") from None
    return changed


def deal(config: Config, split: Split, seeds: Seeds) -> tuple[dict[ClientId, Tensor], Dataset]:
    """Each client's positions in the training data, and the samples that the server keeps clean for
    itself.

    Raises:
        ConfigError: the server keeps more samples than there are, or an unknown split.
    """
    part, train = config.data.partition, split.train
    if part["name"] == "natural" and "attribute" not in part and split.natural is not None:
        part = {**part, "attribute": split.natural}
    partition = catalog.build("partition", catalog.PARTITIONERS, part)
    count = config.data.clients
    if count is None and part["name"] != "natural":
        count = DEFAULT_CLIENTS
    if config.data.root >= train.n:
        raise ConfigError(
            f"data.root is {config.data.root}, and there are only {train.n} training samples."
        )
    shuffled = torch.randperm(train.n, generator=seeds.generator("root"))
    root, rest = shuffled[: config.data.root], shuffled[config.data.root :].sort().values
    held = train if config.data.root == 0 else train.take(rest)
    parts = partition(held, count, seeds.generator("partition"))
    return {client: rest[index] for client, index in enumerate(parts)}, train.take(root)


def _split(config: Config) -> Split:
    """The data set, with its options: one of privfl's, or a plug-in's."""
    name, options = config.data.name, config.data.options
    if name in DATASETS or name not in catalog.DATASETS:
        own = catalog.fields_of(DATASETS[name], ())[0] if name in DATASETS else options
        for key in options:
            if key not in own:
                keys = (*DataConfig.model_fields, *own)
                raise ConfigError(f"data set '{name}': {unknown('key', key, keys)}")
        return load(name, **options)
    split: Split = catalog.build("data set", catalog.DATASETS, {"name": name, **options})(None)
    return split


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
        _refuse_in_the_wrong_place(seam, part["name"])
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
    noised: Channel[Any] = dataclasses.replace(channel, **{channel.kind.noise_field: noise})  # type: ignore[type-var]
    return noised


def _start(start: str, model: FlatModel) -> Literal["public"] | Ledger:
    """What was charged for the model: nothing where it is drawn from the seed, else that of the run
    whose model this becomes.
    """
    if start == "public":
        return "public"
    try:
        flat = safetensors.torch.load_file(Path(start) / "model.safetensors")["parameters"]
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
    return read_ledger(Path(start))


def _fitted(split: Split) -> tuple[str, ...]:
    """What the loader took from the training data itself."""
    if split.kind == "text":
        return ("the vocabulary, taken from the text itself",) if split.vocabulary else ()
    if not split.mean:
        return ()
    if split.kind == "tabular":
        return ("means, spreads and categories of the table's columns, taken from its rows",)
    return ("the mean and spread of the pixels, taken from the images",)


def _secretly(part: Mapping[str, Any]) -> dict[str, Any]:
    """Batches of private training are drawn from the operating system."""
    gradient = part.get("gradient")
    if not isinstance(gradient, Mapping) or gradient.get("name") != "dp":
        return dict(part)
    return {**part, "gradient": {"sampling": "secret", **gradient}}


def _uniform(part: Mapping[str, Any]) -> dict[str, Any]:
    """Client-level privacy needs every client to weigh the same."""
    return {"weighting": "uniform", **part}


def _public_mean(part: Mapping[str, Any], sampler: Sampler, clients: int) -> Mapping[str, Any]:
    """Under noise a bare ``mean`` is the one with a sensitivity: unweighted, over the expected size
    of a cohort, whoever drops out.
    """
    sampling = sampler.sampling(clients)
    if part != {"name": "mean"}:
        return part
    return {"name": "mean", "weighted": False, "denominator": sampling.rate * clients}


def _refuse_in_the_wrong_place(seam: str, name: str) -> None:
    """Say where a rule that is named among the defences, or the other way round, belongs."""
    if seam == "aggregator" and name in catalog.DEFENCES:
        raise ConfigError(
            f"'{name}' is no aggregator but a defence beside one: name it in defences, as in"
            f" defences: [{name}]."
        )
    if seam == "defence" and name in catalog.AGGREGATORS:
        raise ConfigError(
            f"'{name}' is no defence but an aggregator: name it there, as in aggregator: {name}."
        )


def _refuse_impossible(config: Config) -> None:
    """Say which rules would work where this one cannot, and through which channels it would."""
    for seam, table, part in (
        ("channel", catalog.CHANNELS, config.channel),
        ("aggregator", catalog.AGGREGATORS, config.aggregator),
    ):
        if part["name"] not in table:
            _refuse_in_the_wrong_place(seam, part["name"])
            raise ConfigError(unknown(seam, part["name"], table))
    name, over = config.aggregator["name"], config.channel["name"]
    if catalog.works(name, over):
        return
    why = catalog.verdict(name, over)["because"]
    able = [rule for rule in catalog.AGGREGATORS.usable() if catalog.works(rule, over)]
    through = [
        channel
        for channel in catalog.CHANNELS.usable()
        if catalog.works(name, channel) and channel != "plain"
    ]
    ways = (
        f"{name} works through {', '.join(through)}, and over plain"
        if through
        else f"{name} works over plain alone"
    )
    raise ConfigError(
        f"aggregator '{name}' does not go with channel '{over}': {why}."
        f" {ways[0].upper() + ways[1:]}; over {over} work: {', '.join(able)}. See 'privfl list"
        " --compat'."
    )


def _refuse_idle_noise_seed(config: Config, method: Method, ring_noise: bool) -> None:
    """A noise seed has streams for the server's noise alone: it would not repeat the run."""
    if config.noise_seed is None:
        return
    private = is_private(method.gradient)
    if not private and not ring_noise:
        return
    whose = "DP-SGD" if private else config.mechanism["name"]
    raise ConfigError(
        f"noise_seed={config.noise_seed} repeats the noise on aggregates, and that of {whose} is"
        " drawn at the clients from the operating system, whatever the seed: leave noise_seed out."
    )


def _attacker(
    part: Mapping[str, Any], clients: Sequence[ClientId], seeds: Seeds, i: int
) -> Attacker:
    own = {key: value for key, value in part.items() if key not in (*_SCHEDULE_KEYS, *_TEAM_KEYS)}
    when = {key: value for key, value in part.items() if key in _SCHEDULE_KEYS}
    if part["name"] in catalog.INFERENCE:
        raise ConfigError(
            f"attack '{part['name']}' only looks: it acts in no round. Run 'privfl audit' on the"
            " config, or its class on a run's view."
        )
    attack = catalog.build("attack", catalog.ATTACKS, own)
    schedule = catalog.build(
        "attack", {part["name"]: AttackSchedule}, {"name": part["name"], **when}
    )
    who = choose_clients(
        clients, seeds.generator("attackers", i), part.get("clients"), part.get("fraction")
    )
    return Attacker(part["name"], attack, who, schedule, part.get("colluding", True))


def _part_bounds(given: Any, method: str) -> dict[str, float]:
    """The L2 bounds of a method's extra vectors, by part.

    Raises:
        ConfigError: a part that the method does not send, or a bound that is no number above 0.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"bound.parts gives an L2 bound to each part, and is {given!r}.")
    maker = catalog.TRAINING.get(method)
    known = [] if maker is None else list(training({"name": method}).parts(1))
    for part, l2 in given.items():
        if maker is not None and part not in known:
            sends = f"it sends {', '.join(known)}" if known else "it sends the delta alone"
            raise ConfigError(
                f"bound.parts bounds '{part}', which {method} does not send: {sends}."
            )
        if isinstance(l2, bool) or not isinstance(l2, int | float) or not l2 > 0:
            raise ConfigError(
                f"bound.parts: {part} needs a number above 0, its largest L2 norm, as in"
                f" {{{part}: 1.0}}, and is {l2!r}."
            )
    return {part: float(l2) for part, l2 in given.items()}
