"""What people see: tables on stdout (or one JSON array), everything else on stderr."""

from __future__ import annotations

import json
import math
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # torch is imported when a command needs it
    from privfl.engine import RoundRecord

_WIDE = 100


def say(words: str) -> None:
    """Tell the person, not the pipe."""
    print(words, file=sys.stderr, flush=True)  # noqa: T201


def complain(error: Exception) -> None:
    """One sentence about what went wrong."""
    say(f"privfl: {error}")


def table(title: str, rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Rows of one shape, as a table of 100 columns away from a terminal, or as one JSON array; as
    one paragraph a row where that is too narrow for a table that can be read.
    """
    if as_json:
        print(json.dumps(strict(list(rows)), allow_nan=False))  # noqa: T201
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    console = Console(width=None if terminal else _WIDE)
    words = [_longest_word(name, rows) for name in columns]
    if sum(words) + 3 * len(words) + 1 > console.width:  # with a table's rules
        print("\n\n".join([title, *_paragraphs(columns, rows, console.width)]))  # noqa: T201
        return
    shown = Table(title=Text(title), title_justify="left")  # Text: names are no markup
    longest = [max(len(name), *(len(cell(row.get(name))) for row in rows)) for name in columns]
    widths = _widths(words, longest, console.width - 3 * len(words) - 1)
    for column, width in zip(columns, widths, strict=True):
        numeric = any(isinstance(row.get(column), int | float) for row in rows)
        side: Literal["right", "left"] = "right" if numeric else "left"
        shown.add_column(Text(column), justify=side, overflow="fold", width=width)
    for row in rows:
        shown.add_row(*(Text(cell(row.get(column))) for column in columns))
    if terminal:
        console.print(shown)
    else:
        console.print(shown, soft_wrap=False, crop=False)


def _widths(least: Sequence[int], most: Sequence[int], room: int) -> list[int]:
    """The width of every column, from its longest word to its longest cell: where the room is
    short, the one that needs most lines gets more.

    >>> _widths([3, 5], [30, 6], 20)
    [15, 5]
    """
    widths = list(least)
    for _ in range(room - sum(least)):
        short = [i for i in range(len(widths)) if widths[i] < most[i]]
        if not short:
            break
        widths[max(short, key=lambda i: most[i] / widths[i])] += 1
    return widths


def _longest_word(name: str, rows: Sequence[Mapping[str, Any]]) -> int:
    texts = (name, *(cell(row.get(name)) for row in rows))
    return max(len(word) for text in texts for word in text.split() or [""])


def _paragraphs(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], width: int
) -> Iterator[str]:
    """Each row as its first cell, and a line for every other one that says something."""
    for row in rows:
        first = row.get(columns[0])
        lines = [f"{columns[0]}: {cell(first)}"]
        for name in columns[1:]:
            if row.get(name) not in (None, ""):
                text = f"{name}: {cell(row[name])}"
                lines += textwrap.wrap(
                    text,
                    width,
                    initial_indent="  ",
                    subsequent_indent="    ",
                    break_on_hyphens=False,
                )
        yield "\n".join(lines)


def strict(value: Any) -> Any:
    """The same without numbers that JSON has no word for: these become "inf", "-inf" and "nan".

    >>> strict([{"epsilon": float("inf"), "round": 3}])
    [{'epsilon': 'inf', 'round': 3}]
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: strict(inner) for key, inner in value.items()}
    return [strict(inner) for inner in value] if isinstance(value, list | tuple) else value


def cell(value: Any) -> str:
    """A value as people read it.

    >>> cell(0.123456), cell(None), cell(12), cell(1234567.0)
    ('0.1235', '-', '12', '1,234,567')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


class Bar:
    """A progress bar with the time left, on stderr; silent away from a terminal."""

    def __init__(self, progress: Progress, label: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=total, words="")

    def step(self, words: str = "") -> None:
        """One unit done."""
        self._progress.update(self._task, advance=1, words=words)

    def round(self, record: RoundRecord, rounds: int) -> None:
        """One round done."""
        accuracy = "" if record.accuracy is None else f"accuracy {100 * record.accuracy:.1f} %"
        self._progress.update(self._task, completed=record.round + 1, total=rounds, words=accuracy)


@contextmanager
def bar(label: str, total: int) -> Iterator[Bar]:
    """A progress bar for a block."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}", markup=False),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        yield Bar(progress, label, total)
