"""``privfl vertical``: parties with different columns of the same samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from privfl.cli.running import Json, Settings, fresh
from privfl.cli.screen import say, strict, table
from privfl.engine.files import refuse_full, write_atomically
from privfl.report import vertical_page
from privfl.vertical import report_of, vertical_config, vertical_task


def vertical(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml")],
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="A new folder for the page; runs/NAME-TIME unless said."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a network split between parties with different columns; attack it as each could.

    Writes report.html and vertical.json.

    What is printed and written is computed from labels and features without noise: it is the
    owners', whatever the defence.
    """
    asked = vertical_config(config, settings or ())
    folder = out or fresh(config.stem)
    refuse_full(folder)
    task = vertical_task(asked)
    say(
        f"privfl: {task.trained:,} samples; "
        + ", ".join(f"{who} has {len(held.names)} features" for who, held in task.holdings.items())
    )
    _, report = report_of(asked, task)
    rows: list[dict[str, object]] = [
        {"what": "test accuracy", "figure": report.accuracy},
        {"what": "test accuracy of the guest alone", "figure": report.guest_alone},
        {"what": "of the commonest class", "figure": report.commonest},
        {"what": "MB sent in training", "figure": report.bytes_sent / 1e6},
    ]
    for host, leaks in report.labels.items():
        rows += [
            {
                "what": f"AUC of labels at {host}: {leak.attack}",
                "figure": leak.auc,
                "blind": leak.blind,
            }
            for leak in leaks
        ]
    for host, found in report.columns_read.items():
        rows += [
            {
                "what": f"variance of {host}'s columns: {one.attack}",
                "figure": one.explained,
                "blind": one.blind,
            }
            for one in found
        ]
    table(f"Vertical learning: {report.promise}", rows, as_json)
    if not report.labels:
        say("privfl: labels of more than two classes: label inference was not scored")
    folder.mkdir(parents=True, exist_ok=True)
    text = config.read_text(encoding="utf-8") + "".join(
        f"# --set {one}\n" for one in settings or ()
    )
    write_atomically(folder / "vertical.json", json.dumps(strict(report.as_json()), indent=1))
    write_atomically(folder / "report.html", vertical_page(folder.name, report, text))
    say(f"privfl: {folder / 'report.html'}")
