"""From a config to a scenario: every part is looked up, built and checked, and the data is loaded and dealt out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from privfl import catalog
from privfl.config import Config
from privfl.core import ClientId, ConfigError, FlatModel, LocalPlan, OsNoise, SeededNoise, Seeds
from privfl.data import Split, load
from privfl.engine import Attacker, Scenario, Schedule, choose_clients, opens_to
from privfl.models import initialised
from privfl.training import Method, Workload, cross_entropy

_PLAN_KEYS = ("batch_size", "epochs", "steps")
_SCHEDULE_KEYS = ("first", "last", "every", "rounds")
DEFAULT_CLIENTS = 20


def scenario(config: Config) -> Scenario:
    """The scenario that a config describes.

    Raises:
        ConfigError: an unknown name or key, a value that cannot be, or parts that do not go together.
        DataMissing: the data set is not on this machine.
    """
    seeds = Seeds(config.seed)
    mechanism = _optional("mechanism", catalog.MECHANISMS, config.mechanism)
    method = training(config.training)
    bound_part = dict(config.bound)
    part_bounds = bound_part.pop("parts", {})
    bound = catalog.build("bound", catalog.BOUNDS, bound_part)
    channel = catalog.build("channel", catalog.CHANNELS, config.channel, catalog.NESTED)
    aggregator = catalog.build("aggregator", catalog.AGGREGATORS, config.aggregator, catalog.NESTED)
    defences = [catalog.build("defence", catalog.DEFENCES, part, catalog.NESTED) for part in config.defences]
    sampler = catalog.build("sampler", catalog.SAMPLERS, config.sampler)
    optimizer = catalog.build("server_optimizer", catalog.SERVER_OPTIMIZERS, config.server_optimizer)
    builder, options = _model(config.model)
    split = load(config.data.name, **config.data.options)
    clients = deal(config, split, seeds)
    module: nn.Module = initialised(builder, split.shape, split.classes, seed=seeds.derive("model"), **options)
    workload = Workload(FlatModel(module, config.device), cross_entropy, method, split.train.to(config.device))
    return Scenario(
        workload=workload,
        clients=clients,
        test=split.test.to(config.device),
        bound=bound,
        channel=channel,
        aggregator=aggregator,
        rounds=config.rounds,
        sampler=sampler,
        defences=defences,
        mechanism=mechanism,
        attackers=[_attacker(part, tuple(clients), seeds, i) for i, part in enumerate(config.attacks)],
        server_optimizer=optimizer,
        part_bounds=part_bounds,
        seed=config.seed,
        noise=OsNoise() if config.noise_seed is None else SeededNoise(config.noise_seed),
        facts={
            "data": split.about or split.name,
            "clients": f"{len(clients)}, split by {config.data.partition['name']}",
            "model": f"{config.model['name']}, {workload.model.d:,} parameters",
            "training": config.training["name"],
            "channel": _first_sentence(channel),
            "the server reads": "every update" if opens_to(channel) == "rows" else "only the sum of a round's updates",
            "bound": "none" if bound.l2 == float("inf") else f"every update's L2 norm at most {bound.l2:g}",
        },
    )


def training(part: Mapping[str, Any]) -> Method:
    """A training method from its part; ``batch_size``, ``epochs`` and ``steps`` stand beside its own keys.

    >>> training({"name": "sgd", "lr": 0.5, "epochs": 2}).plan
    LocalPlan(batch_size=32, epochs=2, steps=None)
    """
    own = {key: value for key, value in part.items() if key not in _PLAN_KEYS}
    plan = {key: value for key, value in part.items() if key in _PLAN_KEYS}
    method: Method = catalog.build("training", catalog.TRAINING, own, catalog.NESTED)
    if not plan:
        return method
    checked = catalog.build("training", {part["name"]: LocalPlan}, {"name": part["name"], "batch_size": 32, **plan})
    try:
        changed: Method = dataclasses.replace(method, plan=checked)  # type: ignore[type-var]
    except ConfigError as error:
        raise ConfigError(f"training '{part['name']}': {error}") from None
    return changed


def deal(config: Config, split: Split, seeds: Seeds) -> dict[ClientId, Tensor]:
    """Each client's positions in the training data."""
    part = config.data.partition
    partition = catalog.build("partition", catalog.PARTITIONERS, part)
    count = config.data.clients
    if count is None and part["name"] != "natural":
        count = DEFAULT_CLIENTS
    return dict(enumerate(partition(split.train, count, seeds.generator("partition"))))


def _model(part: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    builder, options = catalog.checked("model", catalog.MODELS, part, supplied=("shape", "classes"))
    return builder, options


def _optional(seam: str, table: catalog.Table, part: Mapping[str, Any]) -> Any | None:
    return None if part["name"] == "none" else catalog.build(seam, table, part, catalog.NESTED)


def _attacker(part: Mapping[str, Any], clients: Sequence[ClientId], seeds: Seeds, i: int) -> Attacker:
    own = {key: value for key, value in part.items() if key not in (*_SCHEDULE_KEYS, "clients", "fraction")}
    when = {key: value for key, value in part.items() if key in _SCHEDULE_KEYS}
    attack = catalog.build("attack", catalog.ATTACKS, own, catalog.NESTED)
    schedule = catalog.build("attack", {part["name"]: Schedule}, {"name": part["name"], **when})
    who = choose_clients(clients, seeds.generator("attackers", i), part.get("clients"), part.get("fraction"))
    return Attacker(part["name"], attack, who, schedule)


def _first_sentence(part: Any) -> str:
    return (type(part).__doc__ or "").strip().splitlines()[0].rstrip(".")
