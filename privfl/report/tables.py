"""Tables of a page, and of files for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: str) -> str:
    """Rows of HTML as a table that scrolls by itself where the screen is narrower.

    >>> table("<tr><td>1</td></tr>")
    '<div class="wide"><table><tr><td>1</td></tr></table></div>'
    """
    return f'<div class="wide"><table>{rows}</table></div>'


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    r"""Rows as a table that other programs read, with a column for every key of any row.

    >>> csv_of([{"a": 1}, {"a": 2.5, "b": "x, y"}])
    'a,b\n1,\n2.5,"x, y"\n'
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
