"""Flower's records as vectors and envelopes, and back. Flower is imported where it is used."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from privfl.core import BadUpdate, Vector
from privfl.wrapper.tree import UpdateLayout

POLL = 0.2
NAME = "privfl"
"""The record in a message that is ours."""
_LARGE = 1 << 20
"""From this many bytes on an envelope travels as an array, which Flower cuts into pieces."""


def content_of(envelope: bytes, beside: Mapping[str, Any] | None = None) -> Any:
    """The content of a message that carries an envelope, ``beside`` records of the app's own."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

    record: Any
    if len(envelope) < _LARGE:
        record = ConfigRecord({"envelope": envelope})
    else:
        held = Array(dtype="uint8", shape=(len(envelope),), stype="raw", data=envelope)
        record = ArrayRecord({"envelope": held})
    return RecordDict({**(beside or {}), NAME: record})


def envelope_in(content: Any) -> bytes | None:
    """The envelope that a content carries; None where there is none."""
    from flwr.app import ArrayRecord, ConfigRecord

    record = None if content is None else content.get(NAME)
    if isinstance(record, ConfigRecord) and isinstance(record.get("envelope"), bytes):
        return bytes(record["envelope"])
    if isinstance(record, ArrayRecord) and "envelope" in record:
        return bytes(record["envelope"].data)
    return None


def hello() -> Any:
    """A content that asks a node who it is."""
    from flwr.app import ConfigRecord, RecordDict

    return RecordDict({NAME: ConfigRecord({"hello": True})})


def named(who: str) -> Any:
    """The answer to `hello`. It proves nothing: envelopes are signed."""
    from flwr.app import ConfigRecord, RecordDict

    return RecordDict({NAME: ConfigRecord({"who": who})})


def only_arrays(content: Any, whose: str) -> tuple[str, Any]:
    """The one record of arrays in a content, with its name.

    Raises:
        BadUpdate: there are several, or none.
    """
    found = {name: one for name, one in content.array_records.items() if name != NAME}
    if len(found) != 1:
        raise BadUpdate(
            f"{whose} holds {len(found)} ArrayRecords, and one travels through a private round: put"
            " all parameters into one."
        )
    return next(iter(found.items()))


def arrays_of(record: Any) -> dict[str, Any]:
    """The arrays of a record by name; those of float64 as float32, in which rounds compute (FedAdam
    makes a model float64, from which apps train in float32).
    """
    arrays = {name: array.numpy() for name, array in record.items()}
    return {
        name: values.astype(np.float32) if values.dtype == np.float64 else values
        for name, values in arrays.items()
    }


def record_of(layout: UpdateLayout[Any], vector: Vector) -> Any:
    """A vector [d] as a record of arrays of this layout."""
    from flwr.app import Array, ArrayRecord

    arrays = layout.write(vector)
    return ArrayRecord({name: Array(np.asarray(values)) for name, values in arrays.items()})


def weight_in(content: Any, key: str, drop: Collection[str], whose: str) -> float:
    """The weight that a client's reply claims, once nothing else in it would leave unprotected.

    Raises:
        BadUpdate: no such number; metrics or other records that are not to be dropped.
    """
    metrics = dict[str, Any]()
    for record in content.metric_records.values():
        metrics |= dict(record)
    others = sorted((metrics.keys() - {key}) - set(drop))
    others += sorted(set(content.config_records) - {NAME})
    if others:
        raise BadUpdate(
            f"{whose} holds '{others[0]}' beside its arrays, which would reach the server as it is:"
            f" leave it out, or say that it stays at the client, private(..., drop=('{others[0]}',"
            " ...))."
        )
    weight = metrics.get(key)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
        raise BadUpdate(f"{whose} holds no '{key}' above 0, which is its weight, but {weight!r}.")
    return float(weight)


def replies_to(grid: Any, messages: Sequence[Any], seconds: float | None) -> dict[int, Any]:
    """Replies by node, as many as come in time."""
    if not messages:
        return {}
    end = time.monotonic() + (float("inf") if seconds is None else seconds)
    pending = set(grid.push_messages(messages))
    found: dict[int, Any] = {}
    while pending:
        for reply in grid.pull_messages(list(pending)):
            pending.discard(reply.metadata.reply_to_message_id)
            found[reply.metadata.src_node_id] = reply
        if not pending or time.monotonic() > end:
            break
        time.sleep(POLL)
    return found
