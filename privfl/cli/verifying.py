"""``privfl verify``: whether a run folder is as its transcript says."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from privfl.cli.screen import say
from privfl.engine.verifying import PROMISE, verify


def verify_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or not.")],
    head: Annotated[
        str | None,
        typer.Option("--head", metavar="HASH", help="A head that was published before."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The findings on stdout instead of sentences.")
    ] = False,
) -> None:
    """Check a run folder against its hash-chained transcript, and print its head for publishing.

    Exit codes: 0, every file that the transcript covers is as it was written; 1, one is not, and
    the first round and file are named; 2, there is no run, or an argument cannot be.
    """
    found = verify(run, head)
    if as_json:
        print(json.dumps({**asdict(found), "whole": found.whole}))  # noqa: T201
    else:
        state = "ended" if found.ended else "has not ended"
        say(f"privfl: {found.rounds} rounds in {found.lines} lines; the run {state}")
        for one in found.breaks:
            say(f"privfl: broken: {one}")
        if found.whole:
            say("privfl: whole: every file that the transcript covers is as it was written")
        for note in found.notes:
            say(f"privfl: {note}")
        if found.uncovered:
            say(f"privfl: not covered: {', '.join(found.uncovered)}")
        say(f"privfl: {PROMISE}")
        say(f"privfl: head {found.head or 'none'}")
    if not found.whole:
        raise typer.Exit(1)
