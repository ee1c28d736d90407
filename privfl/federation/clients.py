"""Clients' data sets as one, with the positions of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from privfl.core import ClientId, ConfigError, Dataset
from privfl.data import UNTOLD, ByClient, Samples, spooled
from privfl.engine import Scenario


def joined(held: Mapping[ClientId, Samples]) -> tuple[Dataset, dict[ClientId, torch.Tensor]]:
    """All samples in one data set, and by client the positions [n_i] of its own: in memory where
    privfl's own data sets are given, else on disk, read client by client.
    """
    own = {client: data for client, data in held.items() if isinstance(data, Dataset)}
    return _in_memory(own) if len(own) == len(held) else spooled(held)


def numbered(
    clients: Mapping[Any, Samples] | Sequence[Samples],
) -> tuple[Dataset, dict[ClientId, torch.Tensor], dict[str, str]]:
    """As `joined`, and whose each number is where clients have other names than whole numbers from
    0 on. Of a split's clients (`Split.by_client`) nothing is read yet.

    Raises:
        ConfigError: there are no clients.

    >>> one = Dataset(torch.zeros(2, 1), torch.tensor([0, 1]), classes=2)
    >>> numbered({"ward 1": one, "ward 2": one})[2]
    {'names': '0: ward 1, 1: ward 2'}
    """
    if not isinstance(clients, Mapping):
        clients = dict(enumerate(clients))
    if not clients:
        raise ConfigError("there are no clients: give at least one data set.")
    names = tuple(clients)
    own = all(isinstance(name, int) and name >= 0 for name in names)
    ids = names if own else range(len(names))
    said = {} if own else {"names": ", ".join(f"{i}: {name}" for i, name in enumerate(names))}
    if isinstance(clients, ByClient):
        return (
            clients.samples,
            {i: clients.places[n] for i, n in zip(ids, names, strict=True)},
            said,
        )
    data, places = joined(dict(zip(ids, clients.values(), strict=True)))
    return data, places, said


def taken_before(clients: object) -> tuple[str, ...]:
    """What was, or may have been, taken from clients' samples before a federation had them."""
    public = isinstance(clients, ByClient) and clients.fitted == ()
    return () if public else (UNTOLD,)


def refuse_taken(clients: object) -> None:
    """Refuse to claim privacy of clients of a table from which something was taken.

    Raises:
        ConfigError: it was.
    """
    if isinstance(clients, ByClient) and clients.fitted:
        raise ConfigError(
            f"{', '.join(clients.fitted)} of these clients' table were taken from their rows, and"
            " no noise counts that: load it with bounds, categories and classes, which are public,"
            " or leave such columns out with drop."
        )


def _in_memory(
    held: Mapping[ClientId, Dataset],
) -> tuple[Dataset, dict[ClientId, torch.Tensor]]:
    """All samples in one data set, and by client the positions [n_i] of its own.

    Raises:
        ConfigError: clients' samples or labels are not of one shape and type.
    """
    first = next(iter(held))
    for client, data in held.items():
        for what, own, theirs in (
            ("samples", data.x, held[first].x),
            ("labels", data.y, held[first].y),
        ):
            if own.shape[1:] != theirs.shape[1:] or own.dtype != theirs.dtype:
                raise ConfigError(
                    f"the {what} of client {client} are {_kind(own)} each, and those of client"
                    f" {first} {_kind(theirs)}: one model trains on all, so give all the same."
                )
    if (parted := _parted(held)) is not None:
        return parted
    x = torch.cat([data.x for data in held.values()])
    y = torch.cat([data.y for data in held.values()])
    positions: dict[ClientId, torch.Tensor] = {}
    start = 0
    for client, data in held.items():
        positions[client] = torch.arange(start, start + data.n)
        start += data.n
    parts = list(held.values())
    shared = [
        name for name in parts[0].attributes if all(name in data.attributes for data in parts)
    ]
    attributes = {name: torch.cat([data.attributes[name] for data in parts]) for name in shared}
    spans = {data.span for data in parts}
    span = parts[0].span if len(spans) == 1 else None
    classes = max(data.classes for data in parts)
    return Dataset(x, y, classes, attributes, parts[0].groups, span), positions


def _parted(
    held: Mapping[ClientId, Dataset],
) -> tuple[Dataset, dict[ClientId, torch.Tensor]] | None:
    """The data set that was parted between these clients by `Dataset.take`, every sample of it to
    one of them, with the positions of each: a third copy of all samples is not made. None where
    that is not so, or what a client holds is not what lies there any more.
    """
    origins = {client: data.origin for client, data in held.items()}
    found = {client: origin for client, origin in origins.items() if origin is not None}
    if len(found) < len(held):
        return None
    whole = next(iter(found.values()))[0]
    if any(one is not whole for one, _ in found.values()):
        return None
    positions = {client: index.clone() for client, (_, index) in found.items()}
    if sum(len(index) for index in positions.values()) != whole.n:
        return None
    taken = torch.cat(list(positions.values()))
    if taken.min() < 0 or not (torch.bincount(taken, minlength=whole.n) == 1).all():
        return None
    for client, data in held.items():
        own = {"x": data.x, "y": data.y, **data.attributes}
        there = {"x": whole.x, "y": whole.y, **whole.attributes}
        if own.keys() != there.keys():
            return None
        if not all(torch.equal(one, there[name][positions[client]]) for name, one in own.items()):
            return None
    return whole, positions


def refuse_samples(scenario: Scenario) -> None:
    """Refuse labels that are no class, before anybody trains on them, and samples on which nothing
    can be measured, before they make a run look diverged.

    Raises:
        ConfigError: a label is below 0, or not below the number of classes; a feature of the test
            set or of the validation set is NaN or infinite.
    """
    _refuse_labels(scenario)
    _refuse_unmeasurable(scenario)


def _refuse_labels(scenario: Scenario) -> None:
    data = scenario.workload.data
    whose = {
        f"client {client}": data.y[i.to(data.y.device)] for client, i in scenario.clients.items()
    }
    for who, labels in {**whose, "the test set": scenario.test.y}.items():
        if labels.is_floating_point() or not labels.numel():
            continue
        least, most = int(labels.min()), int(labels.max())
        if data.classes > 0 and not 0 <= least <= most < data.classes:
            raise ConfigError(
                f"{who} has a label {least if least < 0 else most}, and with {data.classes} classes"
                f" labels are 0 to {data.classes - 1}: number them so, or give more classes."
            )


def _refuse_unmeasurable(scenario: Scenario) -> None:
    for name, data in (("test", scenario.test), ("validation", scenario.validation)):
        if data is None or not data.x.is_floating_point():
            continue
        finite = data.x.reshape(data.n, -1).isfinite().all(1) if data.n else data.x.isfinite()
        if not bool(finite.all()):
            first = int((~finite).nonzero()[0])
            raise ConfigError(
                f"the {name} set holds NaN or infinite values, first in sample {first}: nothing can"
                " be measured on it. Fill them, or leave those samples out."
            )


def _kind(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} {list(values.shape[1:])}"
