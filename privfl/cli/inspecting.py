"""``privfl inspect``: whether a run's model hides a backdoor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from privfl.audit.gates import EXIT, Light
from privfl.audit.inspection import (
    FLAGGED,
    FLAGGED_OVER,
    SMALL_SHARE,
    UNFLAGGED,
    InspectionVerdict,
    NeuralCleanse,
    class_rows,
    inspect_run,
    inspection_record,
    unit_rows,
    write_inspection,
    write_inspection_page,
)
from privfl.cli.screen import say, table
from privfl.cli.seconds import seconds_of
from privfl.core import PICTURES, ConfigError, PrivflError
from privfl.federation import Federation
from privfl.report import config_in, refuse_in_public

LIGHTS: Mapping[InspectionVerdict, Light] = {
    "flagged": "red",
    "inconclusive": "inconclusive",
    "not flagged": "green",
}


def inspect(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, finished or not, of images.")
    ],
    fail_over: Annotated[
        float,
        typer.Option(
            "--fail-over",
            metavar="INDEX",
            help="A class whose anomaly index is over this is flagged, and the exit code 1; 2 is"
            " the paper's.",
        ),
    ] = FLAGGED_OVER,
    smaller: Annotated[
        float,
        typer.Option(
            "--smaller",
            metavar="SHARE",
            help="Only a class whose mask is less than this share of the median is flagged; 1 is"
            " the paper's rule, which flags some clean models.",
        ),
    ] = SMALL_SHARE,
    samples: Annotated[
        int,
        typer.Option("--samples", min=1, help="How many clean images triggers are made on."),
    ] = 64,
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Steps of Adam; more make all masks smaller.")
    ] = 200,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", metavar="90s|3m", help="No step after this; what is left is inconclusive."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the images and of the start.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="A folder for page and record; the run's own unless said."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The record on stdout instead of tables.")
    ] = False,
) -> None:
    """Look for a backdoor in a run's model; writes inspect.json and a page, inspect.html.

    Neural Cleanse reverses the smallest patch for each class on clean images, the run's validation
    samples or its test set, and flags classes whose patch is an outlier; a stimulation analysis
    like ABS ranks the classes that one unit can lift. It needs the run's config, model and data,
    and takes models of images only.

    Exit codes: 0, no class is flagged, which does not prove that there is no backdoor; 1, one is;
    3, inconclusive: the time was up, or a class had no trigger; 2, an argument that cannot be, or a
    run that cannot be inspected.
    """
    PICTURES.require()
    folder = out or run
    refuse_in_public(folder, "page and record")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"'{folder}' is a file: give --out a folder.")
    try:
        federation = Federation.from_config(config_in(run))
        found = inspect_run(
            federation,
            run,
            limit=fail_over,
            smaller=smaller,
            samples=samples,
            budget=None if budget is None else seconds_of("--budget", budget),
            seed=seed,
            cleanse=NeuralCleanse(steps=steps),
        )
    except PrivflError as error:  # 1 is a flagged class, and no damaged folder
        raise ConfigError(str(error)) from error
    if as_json:
        print(json.dumps(inspection_record(found), allow_nan=False))  # noqa: T201
    else:
        table("The smallest patch that takes images to a class", class_rows(found), False)
        if found.stimulated:
            table("The unit that lifts a class most (like ABS)", unit_rows(found), False)
    say(f"privfl: {found.verdict}: {found.why}.")
    say(f"privfl: {FLAGGED if found.verdict == 'flagged' else UNFLAGGED}")
    write_inspection(found, folder)
    page = write_inspection_page(found, folder)
    say(f"privfl: the page is {page}, its figures are in inspect.json")
    if federation.claims_privacy:
        say("privfl: it is made with clean samples that no claim of the run covers")
    if EXIT[LIGHTS[found.verdict]]:
        raise typer.Exit(EXIT[LIGHTS[found.verdict]])
