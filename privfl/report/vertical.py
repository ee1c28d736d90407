"""The page of a vertical run."""

from __future__ import annotations

import html
from collections.abc import Sequence

from privfl.report.page import document
from privfl.report.tables import table
from privfl.vertical import VerticalReport

READS = (
    "The guest reads each sample's activations at each host, a host each sample's gradient; nothing"
    " hides them from each other. A label attack's AUC is .5 where it learns nothing; its blind"
    " figure is what somebody reaches who knows as much and saw no run. All figures are computed"
    " from labels and columns without noise: this page is the owners', whatever the defence."
)


def vertical_page(name: str, report: VerticalReport, config: str) -> str:
    """One self-contained HTML page of a run's figures; ``config`` is its config's text."""
    tiles = [
        ("test accuracy", f"{100 * report.accuracy:.2f} %"),
        ("the guest alone", f"{100 * report.guest_alone:.2f} %"),
        ("the commonest class", f"{100 * report.commonest:.2f} %"),
        ("sent in training", f"{report.bytes_sent / 1e6:.3g} MB"),
        ("CPU time of training", f"{report.seconds:.1f} s"),
    ]
    shown = "".join(
        f'<div class="tile"><b>{html.escape(value)}</b><span>{html.escape(what)}</span></div>'
        for what, value in tiles
    )
    parts = [
        f"<h1>{html.escape(name)}</h1>",
        f'<div class="soft">Vertical learning of {report.samples:,} samples</div>',
        f'<div class="tiles">{shown}</div>',
        f'<div class="warn">{html.escape(READS)}</div>',
        f"<h2>Defence</h2><p>{html.escape(report.promise)}</p>",
        "<h2>Columns</h2>",
        table(_rows([("party", "features"), *sorted(report.columns.items())])),
    ]
    for host, leaks in report.labels.items():
        lines: list[Sequence[object]] = [("attack", "AUC", "blind")]
        lines += [(leak.attack, f"{leak.auc:.3f}", f"{leak.blind:.3f}") for leak in leaks]
        parts += [f"<h2>What {html.escape(host)} learns of labels</h2>", table(_rows(lines))]
    for host, found in report.columns_read.items():
        lines = [("attack", "variance explained", "blind")]
        lines += [(one.attack, f"{one.explained:.3f}", f"{one.blind:.3f}") for one in found]
        parts += [f"<h2>What the guest learns of {html.escape(host)}'s columns</h2>"]
        parts.append(table(_rows(lines)))
    parts.append(f"<h2>Configuration</h2><pre>{html.escape(config)}</pre>")
    return document(name, parts)


def _rows(lines: Sequence[Sequence[object]]) -> str:
    made = []
    for number, line in enumerate(lines):
        cell = "td" if number else "th"
        cells = "".join(f"<{cell}>{html.escape(str(one))}</{cell}>" for one in line)
        made.append(f"<tr>{cells}</tr>")
    return "".join(made)
