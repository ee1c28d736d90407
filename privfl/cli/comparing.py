"""``privfl compare``: runs beside each other."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any

import typer

from privfl.cli.rows import result_row
from privfl.cli.screen import say, table
from privfl.core import PICTURES, ConfigError
from privfl.engine import RoundRecord
from privfl.engine.files import make_folder, refuse_full, said, write_atomically
from privfl.report import read_records
from privfl.report.charted import Charted
from privfl.report.tables import csv_of

Json = Annotated[bool, typer.Option("--json", help="One JSON array on stdout.")]
_HASH = re.compile("sha256:[0-9a-f]+")
_COLOURS = ("#2f6fb3", "#c2571a", "#3d9361", "#8a4fa3", "#b59a1f", "#555555")


def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders that ended.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="A new folder: compare.csv, differences.csv, and curves as .svg, .png, .csv."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show runs beside each other, and in what they differ."""
    if len(folders) < 2:
        raise ConfigError("compare needs two run folders or more.")
    if out is not None:
        PICTURES.require()
        refuse_full(out)
    rows = [result_row(folder, as_json) for folder in folders]
    names = [str(folder) for folder in folders]
    differing = _differences(folders)
    table("Runs", [{"run": name, **row} for name, row in zip(names, rows, strict=True)], as_json)
    if not as_json:
        print()  # noqa: T201
        table("In what they differ", differing or [{"part": "nothing"}], as_json)
    if out is None:
        return
    with said(out):
        make_folder(out)
    exact = [result_row(folder, as_json=True) for folder in folders]
    write_atomically(out / "compare.csv", csv_of(exact))
    write_atomically(out / "differences.csv", csv_of(differing))
    curves = {name: read_records(folder)[0] for name, folder in zip(names, folders, strict=True)}
    drawn = _curves(curves)
    write_atomically(out / "curves.svg", drawn.svg("curves"))
    write_atomically(out / "curves.png", drawn.png())
    write_atomically(out / "curves.csv", drawn.csv())
    say(f"privfl: the table, the differences and the curves are in {out}")


def _differences(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Of all that the runs are made of, what is not the same in all: of parts of different kinds
    the kinds, and not each kind's settings. Hashes, from which small data can be guessed, are
    letters, another one for each content.
    """
    made = [_folded(_made_of(folder)) for folder in folders]
    rows = []
    for key in dict.fromkeys(key for one in made for key in one):
        held = [one.get(key) for one in made]
        parent = key.rpartition(".")[0]
        follows = None in held and len({one.get(parent) for one in made}) > 1
        if len(set(held)) > 1 and "._" not in key and not follows:
            letters: dict[str, str] = {}
            shown = [_HASH.sub(partial(_letter, letters), value or "") for value in held]
            rows.append({"part": key} | dict(zip(map(str, folders), shown, strict=True)))
    return rows


def _folded(made: Mapping[str, str]) -> dict[str, str]:
    """With the clients' samples as one content."""
    one_by_one = [f"{key} {value}" for key, value in made.items() if key.startswith("clients.")]
    folded = {key: value for key, value in made.items() if not key.startswith("clients.")}
    if one_by_one:
        folded["clients' samples"] = f"sha256:{sha256(''.join(one_by_one).encode()).hexdigest()}"
    return folded


def _letter(known: dict[str, str], found: re.Match[str]) -> str:
    return f"content {known.setdefault(found[0], ascii_uppercase[len(known) % 26])}"


def _made_of(folder: Path) -> Mapping[str, str]:
    try:
        return dict(json.loads((folder / "fingerprint.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _curves(runs: Mapping[str, Sequence[RoundRecord]]) -> Charted:
    """Accuracy by round, one line a run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=130, layout="constrained")
    axes, rows = figure.subplots(), list[dict[str, Any]]()
    for i, (name, records) in enumerate(runs.items()):
        measured = [(one.round + 1, one.accuracy) for one in records if one.accuracy is not None]
        rows += [{"run": name, "round": at, "accuracy": accuracy} for at, accuracy in measured]
        axes.plot(
            [at for at, _ in measured],
            [accuracy for _, accuracy in measured],
            color=_COLOURS[i % len(_COLOURS)],
            linestyle=("-", "--", ":")[i // len(_COLOURS) % 3],
            label=name,
        )
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy")
    axes.legend(fontsize=8, frameon=False)
    return Charted(figure, rows)
