"""The page of a sweep: privacy, utility and robustness of its runs beside each other."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from privfl.core import PICTURES
from privfl.report.canvas import BLUE, GREEN, ORANGE, axes_of, figure_of
from privfl.report.charted import Charted
from privfl.report.page import document
from privfl.report.tables import table

Row = Mapping[str, Any]
_COLOURS = (BLUE, ORANGE, GREEN, "#8a63b8", "#c04f5e", "#c9a227", "#5b8a8a", "#9aa3ad")
_WIDE = 20
"""The largest figure over the least beyond which an axis is logarithmic."""


def sweep_page(
    name: str, chosen: Sequence[Row], results: Sequence[Row], said: Sequence[str]
) -> str:
    """One self-contained page: what was said of the whole sweep, pictures, and a row for each run.

    ``chosen`` are the values of the swept keys, ``results`` what each run came to, with what its
    attacks measured under ``measures``.
    """
    say = html.escape
    accuracy = "validation accuracy" if all(map(_validated, results)) else "accuracy"
    shown = "Validation accuracy" if accuracy.startswith("validation") else "Test accuracy"
    parts = [f"<h1>{say(name)}</h1>", f'<div class="soft">{len(results)} runs</div>']
    parts += [f'<div class="warn">{say(line)}</div>' for line in said]
    if PICTURES.missing:
        parts.append(f"<p>No figures: {say(PICTURES.missing)}</p>")
    else:
        for number, (caption, drawn) in enumerate(_pictures(chosen, results, accuracy, shown)):
            parts.append(drawn.framed(f"sweep-{number}", caption))
    parts += ["<h2>Runs</h2>", _runs(chosen, results)]
    return document(name, parts)


def _validated(row: Row) -> bool:
    return row.get("validation accuracy") is not None


def _pictures(
    chosen: Sequence[Row], results: Sequence[Row], accuracy: str, shown: str
) -> list[tuple[str, Charted]]:
    found = []
    for key in chosen[0]:
        if key != "seed" and len({str(values[key]) for values in chosen}) > 1:
            caption = f"{shown} by {key}: a dot for each run, the line through their means."
            found.append((caption, _by_key(key, chosen, results, accuracy, shown)))
    spent = [name for name in results[0] if name.startswith("epsilon")]
    for name in spent:
        points = [(row[name], row[accuracy]) for row in results if isinstance(row.get(name), float)]
        if len(points) > 1:
            caption = f"Privacy and utility: {name} and {shown.lower()} of each run."
            found.append((caption, _scatter(name, chosen, results, accuracy, shown)))
    measured = dict.fromkeys(name for row in results for name in row["measures"])
    for name in measured:
        plain = [{**row, name: row["measures"].get(name)} for row in results]
        caption = f"Robustness and utility: {name} and {shown.lower()} of each run."
        found.append((caption, _scatter(name, chosen, plain, accuracy, shown)))
    return found


def _by_key(
    key: str, chosen: Sequence[Row], results: Sequence[Row], accuracy: str, shown: str
) -> Charted:
    """Accuracy by the values of one key, all others mixed."""
    values = list(dict.fromkeys(str(one[key]) for one in chosen))
    numbers = [_number(value) for value in values]
    at = numbers if all(number is not None for number in numbers) else list(range(len(values)))
    figure = figure_of(9, 3.0)
    axes = axes_of(figure, f"{shown} by {key}", key, "%")
    means = []
    for value, x in zip(values, at, strict=True):
        ys = [
            100 * row[accuracy]
            for one, row in zip(chosen, results, strict=True)
            if str(one[key]) == value
        ]
        axes.scatter([x] * len(ys), ys, color=BLUE, s=14, alpha=0.6)
        means.append(fmean(ys))
    axes.plot(at, means, color=ORANGE, linewidth=2)
    if all(number is None for number in numbers) or len(values) <= 6:
        axes.set_xticks(at, values)
    rows = [
        {key: one[key], f"{accuracy}, %": 100 * row[accuracy]}
        for one, row in zip(chosen, results, strict=True)
    ]
    return Charted(figure, rows)


def _scatter(
    name: str, chosen: Sequence[Row], results: Sequence[Row], accuracy: str, shown: str
) -> Charted:
    """Accuracy against another figure; a colour for each value of the first key that is no seed."""
    key = next((one for one in chosen[0] if one != "seed"), next(iter(chosen[0])))
    groups = list(dict.fromkeys(str(one[key]) for one in chosen))
    figure = figure_of(9, 3.4)
    axes = axes_of(figure, f"{shown} against {name}", name, "%")
    rows = []
    for one, row in zip(chosen, results, strict=True):
        if isinstance(row.get(name), int | float):
            colour = _COLOURS[groups.index(str(one[key])) % len(_COLOURS)]
            axes.scatter([row[name]], [100 * row[accuracy]], color=colour, s=22)
            rows.append({**one, name: row[name], f"{accuracy}, %": 100 * row[accuracy]})
    for i, group in enumerate(groups):
        axes.scatter([], [], color=_COLOURS[i % len(_COLOURS)], s=22, label=f"{key} {group}")
    axes.legend(frameon=False, fontsize=8)
    axes.xaxis.get_major_locator().set_params(integer=False)
    xs = [row[name] for row in rows]
    if min(xs) > 0 and max(xs) > _WIDE * min(xs):
        axes.set_xscale("log")
    return Charted(figure, rows)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _runs(chosen: Sequence[Row], results: Sequence[Row]) -> str:
    rows = [
        {**one, **{k: v for k, v in row.items() if k != "measures"}, **row["measures"]}
        for one, row in zip(chosen, results, strict=True)
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(row.get(column))}</td>" for column in columns) + "</tr>"
        for row in rows
    )
    return table(f"<tr>{head}</tr>{body}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.5g}" if isinstance(value, float) else html.escape(str(value))
