"""Clients' data sets as one, with the positions of each."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from privfl.core import ClientId, Dataset


def joined(held: Mapping[ClientId, Dataset]) -> tuple[Dataset, dict[ClientId, torch.Tensor]]:
    """All samples in one data set, and by client the positions [n_i] of its own."""
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
