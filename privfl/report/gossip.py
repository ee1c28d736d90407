"""The page of a gossip run: accuracy and spread of its nodes, and who reads what."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from privfl.core import PICTURES
from privfl.engine.files import write_atomically
from privfl.gossip.folder import read_gossip
from privfl.report.canvas import BLUE, ORANGE, axes_of, figure_of
from privfl.report.charted import Charted
from privfl.report.page import document
from privfl.report.tables import table

Record = Mapping[str, Any]
CAPTION = (
    "Honest nodes after each round: the mean and the least accuracy on the test set, and how far"
    " their models lie from their mean, over its norm."
)


def write_gossip_report(folder: Path) -> Path:
    """Draw the curves of a run folder into it, with their numbers, and ``report.html`` around them.

    Raises:
        ConfigError: the folder holds no gossip run that has ended.
        CannotWrite: the operating system refuses.
    """
    config, records, summary = read_gossip(folder)
    pictures = [f"<p>No figures: {html.escape(PICTURES.missing)}</p>"]
    if not PICTURES.missing:
        drawn = curves(records)
        svg = drawn.svg("gossip")
        write_atomically(folder / "gossip.svg", svg)
        write_atomically(folder / "gossip.csv", drawn.csv())
        pictures = [drawn.framed("gossip", CAPTION, svg)]
    page = folder / "report.html"
    write_atomically(page, gossip_page(folder.name, config, records, summary, pictures))
    return page


def curves(records: Sequence[Record]) -> Charted:
    """Accuracy and spread, round by round."""
    figure = figure_of(9, 3.2)
    rounds = [one["round"] + 1 for one in records]
    left = axes_of(figure, "Test accuracy of honest nodes", "round", "%", (1, 2, 1))
    for name, key, colour in (("mean", "accuracy", BLUE), ("least", "worst", ORANGE)):
        left.plot(rounds, [100 * one[key] for one in records], color=colour, label=name)
    left.legend(frameon=False, fontsize=8)
    right = axes_of(figure, "Spread of honest nodes", "round", "", (1, 2, 2))
    right.plot(rounds, [one["spread"] for one in records], color=BLUE)
    if min(one["spread"] for one in records) > 0:
        right.set_yscale("log")
    keys = ("accuracy", "worst", "loss", "spread", "bytes_sent", "cut")
    return Charted(
        figure,
        [{"round": one["round"] + 1, **{key: one[key] for key in keys}} for one in records],
    )


def gossip_page(
    name: str,
    config: Mapping[str, Any],
    records: Sequence[Record],
    summary: Mapping[str, Any],
    pictures: Sequence[str],
) -> str:
    """One self-contained page; ``pictures`` are framed figures."""
    say = html.escape
    sent = summary["bytes_sent"]
    each = "ideal: not measured"
    if sent is not None:
        each = f"{sent / summary['nodes'] / summary['rounds'] / 1e3:.3g} kB"
    tiles = [
        ("mean accuracy of honest nodes", f"{100 * summary['accuracy']:.2f} %"),
        ("least accuracy", f"{100 * summary['worst']:.2f} %"),
        ("spread", f"{summary['spread']:.3g}"),
        ("nodes, of them liars", f"{summary['nodes']}, {len(summary['liars'])}"),
        ("sent, a node and round", each),
    ]
    for one in summary["privacy"]:
        shown = f"{one['epsilon']:.3g}" if "epsilon" in one else "refused"
        tiles.append((f"epsilon of a node's data, delta {one['delta']:g}", shown))
    parts = [
        f"<h1>{say(name)}</h1>",
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{say(v)}</b><span>{say(k)}</span></div>' for k, v in tiles)
        + "</div>",
        *(f'<div class="warn">{say(one["refused"])}</div>' for one in _refused(summary)),
        "<h2>Who reads what</h2>",
        f"<p>{say(summary['reads'])}</p>",
        *(f"<p>{say(line)}</p>" for line in summary["exposed"]),
        _rows(
            ("who (of one node's run)", "what it does", "what comes of it"),
            [
                (line["who"], line["does"], line["can"])
                for line in summary["guarantee"]["who can do what"]
            ],
        ),
        "<h2>What ran</h2>",
        _rows(("what", "is"), [(k, str(v)) for k, v in summary["facts"].items()]),
        "<h2>Pictures</h2>",
        *pictures,
    ]
    wrong = [(f"round {one['round'] + 1}", what) for one in records for what in one["incidents"]]
    if wrong:
        parts += ["<h2>What went wrong</h2>", _rows(("when", "what"), wrong[:200])]
    written = yaml.safe_dump(dict(config), sort_keys=False)
    return document(name, [*parts, f"<h2>Configuration</h2><pre>{say(written)}</pre>"])


def _refused(summary: Mapping[str, Any]) -> list[Mapping[str, str]]:
    return [one for one in summary["privacy"] if "refused" in one]


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    rest = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return table(f"<tr>{first}</tr>{rest}")
