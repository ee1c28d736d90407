"""The data set of a config, dealt out to the clients and the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from privfl import catalog
from privfl.assembly.refusals import refuse_fitted
from privfl.assembly.validation import set_aside
from privfl.config import Config, DataConfig
from privfl.core import ClientId, ConfigError, Dataset, PrivflError, Seeds, UserBounds, unknown
from privfl.data import DATASETS, Split, load, split_of, within_bounds

DEFAULT_CLIENTS = 20


@dataclass(frozen=True)
class Held:
    """What one machine holds of a run's data: a simulator all of it, the server of a network its
    test set and its own clean samples, a client its own samples.

    ``train`` are the samples that ``clients`` have positions in; ``root`` the server's own;
    ``shape`` is one sample's. ``facts`` are words on the data for reports, ``uncharged`` what was
    taken from the samples before any noise, ``elsewhere`` whether other clients hold theirs on
    machines of their own, ``server_elsewhere`` whether the server does.
    """

    train: Dataset
    clients: Mapping[ClientId, Tensor]
    root: Dataset
    test: Dataset
    shape: tuple[int, ...]
    classes: int
    validation: Dataset | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    uncharged: tuple[str, ...] = ()
    elsewhere: bool = False
    server_elsewhere: bool = False


def held_by_all(config: Config, *, noised: bool) -> Held:
    """All data of a config, dealt out to its clients and the server; ``noised``: privacy of rows is
    claimed, so nothing may be taken from them first.

    Raises:
        ConfigError: as `data_set` and `deal`, or bounds on users that the data do not keep.
    """
    seeds, split = Seeds(config.seed), data_set(config)
    refuse_fitted(split, noised=noised)
    split, validation = set_aside(split, config.data.validation, seeds)
    clients, root = deal(config, split, seeds)
    kept: dict[str, str] = {}
    if config.users is not None:
        users = UserBounds(**config.users.model_dump())
        dealt, clients = clients, of_users(clients, split, users, seeds)
        before, left = (sum(map(len, each.values())) for each in (dealt, clients))
        kept = {"users": f"{users.words}: {left:,} of {before:,} samples are kept"}
    said = {
        "data": split.about or split.name,
        "clients": f"{len(clients):,}",
        "split by": config.data.partition["name"],
        **kept,
    }
    return Held(
        split.train,
        clients,
        root,
        split.test,
        split.shape,
        split.classes,
        validation,
        said,
        taken_from(split),
    )


def held_by_server(config: Config, *, noised: bool) -> Held:
    """What the server of a network holds: the test set, samples to validate on, and its own clean
    ones. Of its clients it knows how many there are, from ``data.clients``.

    Raises:
        ConfigError: as `data_set`, or it is not said how many clients there are.
    """
    seeds, split = Seeds(config.seed), data_set(config)
    refuse_fitted(split, noised=noised)
    split, validation = set_aside(split, config.data.validation, seeds)
    count = config.data.clients
    if count is None:
        raise ConfigError(
            "clients hold their data elsewhere, so their number follows from none: set"
            " data.clients."
        )
    nothing = torch.empty(0, dtype=torch.int64)
    root, _ = _root(config, split.train, seeds)
    said = {
        "data": f"{split.about or split.name} (the server's own: clients hold theirs elsewhere)",
        "clients": f"{count:,}",
        "split by": "their owners",
    }
    return Held(
        split.train.take(nothing),
        dict.fromkeys(range(count), nothing),
        split.train.take(root),
        split.test,
        split.shape,
        split.classes,
        validation,
        said,
        elsewhere=True,
    )


def held_by_one(
    clients: int,
    shape: tuple[int, ...],
    classes: int,
    who: ClientId | None = None,
    own: Dataset | None = None,
) -> Held:
    """What one of so many clients holds, its ``own`` samples; or a helper, which holds nothing.
    ``shape`` is that of one sample.

    Raises:
        ConfigError: there is no such client, or its samples have another shape or more classes.
    """
    nothing = torch.empty(0, dtype=torch.int64)
    empty = Dataset(torch.empty(0, *shape), nothing, classes)
    parts: dict[ClientId, Tensor] = dict.fromkeys(range(clients), nothing)
    if own is not None and who is not None:
        if who not in parts:
            raise ConfigError(f"there are clients 0 to {clients - 1}, and this is client {who}.")
        if tuple(own.x.shape[1:]) != shape or own.classes > classes:
            raise ConfigError(
                f"client {who} holds samples of shape {list(own.x.shape[1:])} in {own.classes}"
                f" classes, and the run is on {list(shape)} in {classes}: they do not fit."
            )
        parts[who] = torch.arange(own.n)
    train = empty if own is None else own
    return Held(train, parts, empty, empty, shape, classes, elsewhere=True, server_elsewhere=True)


def data_set(config: Config) -> Split:
    """The data set, with its options: one of privfl's, a file of somebody's own, a plug-in's, or
    what a function ``module:load`` returns.

    Raises:
        ConfigError: a key that the data set has not; a function that gives no data.
    """
    name, options = config.data.name, config.data.options
    if name in catalog.DATA_FILES.built_in:
        part = {"name": name, **options}
        own: Split = catalog.build("data set", catalog.DATA_FILES, part)(None)
        return own
    if name in DATASETS or name not in catalog.DATASETS:
        known = catalog.fields_of(DATASETS[name], ())[0] if name in DATASETS else options
        for key in options:
            if key not in known:
                keys = (*DataConfig.model_fields, *known)
                raise ConfigError(f"data set '{name}': {unknown('key', key, keys)}")
        return load(name, **options)
    try:
        made = catalog.build("data set", catalog.DATASETS, {"name": name, **options})
        made = made(None) if callable(made) else made
    except PrivflError:
        raise
    except Exception as error:
        raise ConfigError(
            f"data: '{name}' failed with {type(error).__name__}: {error}. It is called with the"
            " other keys of data, and returns (train, test)."
        ) from error
    split = split_of(made, name)
    for side, held in (("training", split.train), ("test", split.test)):
        if held.n == 0:
            raise ConfigError(f"data: '{name}' gave no {side} samples: it needs one at least.")
    return split


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
    root, rest = _root(config, train, seeds)
    held = train if config.data.root == 0 else train.take(rest)
    parts = partition(held, count, seeds.generator("partition"))
    return {client: rest[index] for client, index in enumerate(parts)}, train.take(root)


def _root(config: Config, train: Dataset, seeds: Seeds) -> tuple[Tensor, Tensor]:
    """The positions of the server's own samples, and of all others."""
    if config.data.root >= train.n:
        raise ConfigError(
            f"data.root is {config.data.root}, and there are only {train.n} training samples."
        )
    shuffled = torch.randperm(train.n, generator=seeds.generator("root"))
    return shuffled[: config.data.root], shuffled[config.data.root :].sort().values


def of_users(
    clients: Mapping[ClientId, Tensor], split: Split, users: UserBounds, seeds: Seeds
) -> dict[ClientId, Tensor]:
    """What of each client's positions is within the bounds on users.

    Raises:
        ConfigError: the data do not say whose a sample is, or not in whole numbers.
    """
    if users.ids not in split.train.attributes:
        known = ", ".join(split.train.attributes) or "none at all"
        raise ConfigError(
            f"users.ids is '{users.ids}', and data set '{split.name}' has no such attribute:"
            f" nothing is claimed for users where nobody knows whose a sample is."
            f" Attributes: {known}."
        )
    ids = users.told_apart(split.train.attributes[users.ids])
    return within_bounds(clients, ids, users, seeds.derive("users"))


def taken_from(split: Split) -> tuple[str, ...]:
    """What the loader took from the training data itself, or may have taken."""
    if split.untold:
        return (split.untold,)
    if split.fitted is not None:
        return (f"{', '.join(split.fitted)}, taken from the rows",) if split.fitted else ()
    if split.kind == "text":
        return ("the vocabulary, taken from the text itself",) if split.vocabulary else ()
    if not split.mean:
        return ()
    if split.kind == "tabular":
        return ("means, spreads and categories of the table's columns, taken from its rows",)
    return ("the mean and spread of the pixels, taken from the images",)
