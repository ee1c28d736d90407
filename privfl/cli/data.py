"""``privfl data list`` and ``privfl data fetch``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from privfl.cli.screen import say, table
from privfl.data import ORIGINS, data_folder, fetch, present

app = typer.Typer(no_args_is_help=True, help="Data sets: what is here, and how to get the rest.")
Json = Annotated[bool, typer.Option("--json", help="One JSON array on stdout.")]


@app.command("list")
def show(as_json: Json = False) -> None:
    """Show every data set: whether it is here, its licence, where it comes from."""
    rows = [
        {"name": name, "here": present(name), "licence": origin.licence, "source": origin.page}
        for name, origin in ORIGINS.items()
    ]
    table(f"Data sets in {data_folder()}", rows, as_json)


@app.command("fetch")
def get(names: Annotated[list[str], typer.Argument(metavar="NAME...")]) -> None:
    """Download data sets from their official addresses; goes on where it stopped, and checks every
    file.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True
    ) as progress:
        tasks: dict[str, int] = {}

        def moved(file: str, done: int, size: int) -> None:
            if file not in tasks:
                tasks[file] = progress.add_task(file, total=size)
            progress.update(tasks[file], completed=done, total=size)  # type: ignore[arg-type]

        for name in names:
            for path in fetch(name, progress=moved):
                say(f"privfl: {name}: {path}")
