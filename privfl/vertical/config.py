"""A vertical run as a config describes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from privfl.catalog import build
from privfl.core import ConfigError, OsNoise, PartyId, Seeds, mapping_in, unknown, value_of
from privfl.data import Holding, Split, dealt_columns, load
from privfl.vertical.defences import Isotropic, LabelDefence, LabelResponse, MaxNorm, Undefended
from privfl.vertical.members import VerticalTraining
from privfl.vertical.networks import VerticalLinear, VerticalMLP, VerticalModel
from privfl.vertical.parties import GUEST

MODELS: Mapping[str, Callable[..., VerticalModel]] = {
    "linear": VerticalLinear,
    "mlp": VerticalMLP,
}
DEFENCES: Mapping[str, Callable[..., LabelDefence]] = {
    "none": Undefended,
    "max_norm": MaxNorm,
    "isotropic": Isotropic,
    "label_response": LabelResponse,
}
UPDATE_SIDE = frozenset(
    {"channel", "aggregator", "defences", "mechanism", "bound", "attacks", "server_optimizer"}
)
"""Keys of `privfl run` that act on clients' updates."""
KEYS = ("data", "hosts", "model", "training", "defence", "known", "seed")


@dataclass(frozen=True, slots=True)
class VerticalConfig:
    """What a config holds; `vertical_config` reads it.

    ``data`` is a data set's name with its options, and ``samples``, how many of its training rows
    are taken (all unless said). ``hosts``: columns by host; the guest has the others and the
    labels. ``known``: how many labels of each class an attacker knows.
    """

    data: Mapping[str, Any]
    hosts: Mapping[PartyId, Sequence[str]]
    model: VerticalModel = field(default_factory=VerticalMLP)
    training: VerticalTraining = field(default_factory=VerticalTraining)
    defence: LabelDefence = field(default_factory=Undefended)
    known: int = 40
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class VerticalTask:
    """Columns by party, the guest's last, over training rows and then test rows; labels [n] of all
    of them, of which the first ``trained`` train.
    """

    holdings: Mapping[PartyId, Holding]
    y: Int[Tensor, " n"]
    classes: int
    trained: int

    @property
    def test(self) -> Int[Tensor, " m"]:
        """The test rows."""
        return torch.arange(self.trained, len(self.y))


def vertical_config(
    source: Path | Mapping[str, Any], overrides: Sequence[str] = ()
) -> VerticalConfig:
    """Read a config, with ``a.b=c`` overrides on top.

    Raises:
        ConfigError: an unknown key or name (with the nearest known one), a key that acts on
            updates, which vertical parties do not send, or a value that cannot be.

    >>> made = vertical_config({"data": "adult", "hosts": {"host/0": ["education"]}})
    >>> made.model
    VerticalMLP(cut=8, hidden=32)
    >>> vertical_config({"data": "adult", "hosts": {}, "channel": "secagg"})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    privfl.core.errors.ConfigError: 'channel' acts on updates, and vertical parties send none: ...
    """
    raw = dict(source) if isinstance(source, Mapping) else dict(mapping_in(source))
    for override in overrides:
        _set(raw, override)
    for key in raw:
        if key in UPDATE_SIDE:
            raise ConfigError(
                f"'{key}' acts on updates, and vertical parties send none: activations go up and"
                " gradients come down. Leave it out; what defends here is 'defence', one of"
                f" {', '.join(DEFENCES)}."
            )
        if key not in KEYS:
            raise ConfigError(unknown("key", key, KEYS))
    for key in ("data", "hosts"):
        if key not in raw:
            raise ConfigError(f"a vertical config needs the key '{key}'.")
    hosts = raw["hosts"]
    if not isinstance(hosts, Mapping) or not hosts:
        raise ConfigError("hosts name columns by host, as in {host/0: [education, occupation]}.")
    for host, columns in hosts.items():
        if not _names_host(host) or isinstance(columns, str) or not isinstance(columns, Sequence):
            raise ConfigError(
                f"hosts: '{host}' is no host with a list of columns, as in host/0: [education]."
            )
    defence = _part(raw.get("defence", "none"))
    coins = {} if defence.get("name") == "none" else {"source": OsNoise()}
    model = {"name": "mlp", **_part(raw.get("model", "mlp"), named=False)}
    training = {**_part(raw.get("training", {}), named=False), "name": "training"}
    return VerticalConfig(
        data=_part(raw["data"]),
        hosts={host: tuple(map(str, columns)) for host, columns in hosts.items()},
        model=build("model", MODELS, model),
        training=build("config", {"training": VerticalTraining}, training),
        defence=build("defence", DEFENCES, defence, coins),
        known=_whole("known", raw.get("known", 40), 1),
        seed=_whole("seed", raw.get("seed", 0), 0),
    )


def vertical_task(config: VerticalConfig, folder: Path | None = None) -> VerticalTask:
    """The columns of a config's data, by party.

    Raises:
        ConfigError: no such data set or column, more rows than there are, or data without columns.
        DataMissing: the data set is not on this machine.
    """
    options = dict(config.data)
    name, samples = options.pop("name"), options.pop("samples", None)
    split: Split = load(name, folder, **options)
    if not split.feature_names:
        raise ConfigError(f"data set '{name}' has no named columns, and cannot be dealt by them.")
    wanted = split.train.n if samples is None else _whole("data.samples", samples, 1)
    if wanted > split.train.n:
        raise ConfigError(f"data.samples is {wanted}, and '{name}' has {split.train.n} rows.")
    order = torch.arange(split.train.n)
    if wanted < split.train.n:
        order = torch.randperm(split.train.n, generator=Seeds(0).generator("vertical samples"))
    train = split.train.take(order[:wanted])
    holdings = dealt_columns(
        torch.cat([train.x, split.test.x]), split.feature_names, config.hosts, GUEST
    )
    return VerticalTask(holdings, torch.cat([train.y, split.test.y]), split.classes, wanted)


def _part(value: Any, *, named: bool = True) -> dict[str, Any]:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and (not named or "name" in value):
        return dict(value)
    raise ConfigError(f"'{value}' is no part of a config: give a name, or a mapping with a name.")


def _names_host(host: object) -> bool:
    kind, _, number = str(host).partition("/")
    return kind == "host" and number.isascii() and number.isdigit()


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be a whole number from {least} up, and is {value!r}.")
    return value


def _set(raw: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys) or len(keys) > 2:
        raise ConfigError(f"'{override}' is no override: write a.b=c, as in training.epochs=2.")
    value = value_of(text, override)
    if len(keys) == 1:
        raw[keys[0]] = value
        return
    held = raw.get(keys[0], {})
    if not isinstance(held, str | Mapping):
        raise ConfigError(f"'{override}' is no override: '{keys[0]}' holds no keys, and is {held}.")
    raw[keys[0]] = {**({"name": held} if isinstance(held, str) else held), keys[1]: value}
