"""The fields of a dataclass with their values, slots or not."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


def field_values(record: Any) -> dict[str, Any]:
    """By name what the fields of a dataclass hold, as it is: nothing is copied.

    Raises:
        TypeError: it is no dataclass.

    >>> from privfl.core import Neighbours
    >>> field_values(Neighbours("client", "replace_one"))
    {'unit': 'client', 'relation': 'replace_one'}
    """
    return {field.name: getattr(record, field.name) for field in fields(record)}
