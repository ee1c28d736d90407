"""The data set of a config, dealt out to the clients and the server."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from privfl import catalog
from privfl.config import Config, DataConfig
from privfl.core import ClientId, ConfigError, Dataset, Seeds, UserBounds, unknown
from privfl.data import DATASETS, Split, load, split_of, within_bounds

DEFAULT_CLIENTS = 20


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
    made = catalog.build("data set", catalog.DATASETS, {"name": name, **options})
    return split_of(made(None) if callable(made) else made, name)


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
