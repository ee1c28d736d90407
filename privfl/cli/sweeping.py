"""``privfl sweep``: a config for every combination of some keys' values."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from shutil import rmtree
from typing import Annotated, Any

import typer

from privfl.cli.rows import result_row
from privfl.cli.running import NOT_COVERED, Json, Settings, fresh
from privfl.cli.screen import bar, say, table
from privfl.config import load
from privfl.core import ConfigError, Ledger, ProcessDied
from privfl.core.pool import pool_of, put
from privfl.dp import over_runs, sentence, spend
from privfl.engine import RunFolder, read_ledger
from privfl.engine.files import LOCK, make_folder, refuse_full, said, write_atomically
from privfl.engine.folder import CONFIG, FINGERPRINT, README, SUMMARY
from privfl.federation import Federation
from privfl.report import config_in, read_records, write_report
from privfl.report.sweep_page import sweep_page
from privfl.report.tables import csv_of

PLAN = "sweep.json"
CHOSEN = (
    ". Which one it is was chosen on the validation samples, and no epsilon covers these: whoever"
    " is told learns of them"
)


def sweep(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG.yaml")] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            "--over",
            metavar="A.B=X,Y,Z",
            help="A key and the values it takes; repeatable: all combinations.",
        ),
    ] = None,
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="A new folder; one run folder inside for each combination."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with the sweep in this folder: runs that have ended stay."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="How many runs at a time, each in a process of its own.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Run a config for every combination of some keys' values, and print one row for each.

    The rows are in sweep.csv as well, pictures in sweep.html. With data.validation the best run is
    named, by its validation accuracy; without it none is, because a run that is chosen on the test
    set says nothing there.
    """
    if resume is not None:
        if config is not None or out is not None or settings or over:
            raise ConfigError(
                "--resume takes everything from the sweep's folder: leave CONFIG, --over, --out and"
                " --set out."
            )
        folder, plan = resume, _read_plan(resume)
    elif config is None or not over:
        raise ConfigError("give a CONFIG.yaml and --over, or --resume with a sweep's folder.")
    else:
        folder = out or fresh(f"sweep-{config.stem}")
        refuse_full(folder, "sweep")
        plan = _plan(config, settings or (), over)
    federations = [Federation.from_config(one) for one in plan["configs"]]  # refuse before any run
    if resume is None:
        with said(folder):
            make_folder(folder)
    held = RunFolder(folder)
    held.lock()
    try:
        if resume is None:
            refuse_full(folder, "sweep")  # another one was faster
            write_atomically(folder / PLAN, json.dumps(plan, indent=1))
        _sweep(folder, plan, federations, jobs, as_json)
    finally:
        held.close()


def _sweep(
    folder: Path,
    plan: Mapping[str, Any],
    federations: list[Federation],
    jobs: int,
    as_json: bool,
) -> None:
    """Play a sweep that was written down, in its folder, which is locked."""
    claims = any(federation.claims_privacy for federation in federations)
    if claims:
        say(f"privfl: {NOT_COVERED}")
    delta = max(one.audit.delta for one in federations)
    federations.clear()  # of their data no more than that of the run in play stays in memory
    todo = [(folder / f"{i:03d}", one) for i, one in enumerate(plan["configs"])]
    with bar("sweep", len(todo)) as shown:
        for number in _played(todo, jobs):
            shown.step(" ".join(f"{key}={value}" for key, value in plan["chosen"][number].items()))
    rows = [
        {**keys, **result_row(path, as_json=False)}
        for keys, (path, _) in zip(plan["chosen"], todo, strict=True)
    ]
    exact = [
        {**keys, **result_row(path, as_json=True)}
        for keys, (path, _) in zip(plan["chosen"], todo, strict=True)
    ]
    write_atomically(folder / "sweep.csv", csv_of(exact))
    table("Sweep", exact if as_json else rows, as_json)
    lines = [*_together([read_ledger(path) for path, _ in todo], delta), _best(exact, claims)]
    lines += [
        f"{path}: {why}" for path, _ in todo if (why := read_records(path)[1].get("diverged"))
    ]
    for line in lines:
        say(f"privfl: {line}")
    measured = [
        {**row, "measures": read_records(path)[0][-1].measures}
        for row, (path, _) in zip((result_row(p, as_json=True) for p, _ in todo), todo, strict=True)
    ]
    private = [NOT_COVERED] if claims else []
    page = sweep_page(folder.name, plan["chosen"], measured, [*private, *lines])
    write_atomically(folder / "sweep.html", page)
    say(
        f"privfl: the runs are in {folder}, the rows in {folder / 'sweep.csv'}, the pictures in"
        f" {folder / 'sweep.html'}"
    )


def _plan(config: Path, settings: Sequence[str], over: Sequence[str]) -> dict[str, Any]:
    """The config of every run, and what each has of the keys that change."""
    axes = [_axis(text) for text in over]
    chosen = [
        {key: value for (key, _), value in zip(axes, values, strict=True)}
        for values in itertools.product(*(values for _, values in axes))
    ]
    configs = [
        load(config, [*settings, *(f"{key}={value}" for key, value in keys.items())]).model_dump()
        for keys in chosen
    ]
    return {"chosen": chosen, "configs": configs}


def _read_plan(folder: Path) -> dict[str, Any]:
    try:
        plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        return {"chosen": list(plan["chosen"]), "configs": list(plan["configs"])}
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"'{folder}' holds no sweep: it has no {PLAN} that can be read. It is what 'privfl"
            " sweep CONFIG.yaml --over ... --out FOLDER' leaves."
        ) from None


def _played(todo: Sequence[tuple[Path, Mapping[str, Any]]], jobs: int) -> Iterator[int]:
    """Play all runs that have not ended; the number of each once it has.

    Raises:
        ProcessDied: a process that ran one was killed.
    """
    if jobs == 1:
        for number, one in enumerate(todo):
            play(*one)
            yield number
        return
    try:
        with pool_of(jobs) as pool:
            asked = {put(pool, play, *one): number for number, one in enumerate(todo)}
            for done in as_completed(asked):
                done.result()
                yield asked[done]
    except BrokenProcessPool:
        raise ProcessDied(
            "a process of the sweep was killed, for want of memory perhaps: go on with it by"
            f" privfl sweep --resume {todo[0][0].parent}, with fewer --jobs."
        ) from None


def play(folder: Path, config: Mapping[str, Any]) -> None:
    """One run of a sweep: from its start, or from where it was killed; nothing where it ended.

    Raises:
        ConfigError: the folder holds something else, or another process writes to it.
    """
    began = (folder / FINGERPRINT).exists()
    if began and (folder / SUMMARY).exists():
        _refuse_another(folder, config)
        return
    if folder.exists() and not began:
        _clear(folder)
    Federation.from_config(config).run(folder, resume=began)
    write_report(folder)


def _refuse_another(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a run that ended and is not the sweep's: its row would stand under other keys."""
    if load(config_in(folder)) != load(config):
        raise ConfigError(
            f"the run in '{folder}' is not the sweep's own: move it away, and the sweep plays its"
            " own there (--resume)."
        )


def _clear(folder: Path) -> None:
    """Remove what a run left that was killed before it had begun."""
    held = RunFolder(folder)
    held.lock()
    try:
        begun = {LOCK, CONFIG, README}
        strange = [
            inside.name
            for inside in folder.iterdir()
            if inside.name not in begun and not inside.name.endswith(".draft")
        ]
        if strange:
            raise ConfigError(
                f"'{folder}' holds '{min(strange)}' and no run of the sweep: move it away, and the"
                " sweep plays its own there (--resume)."
            )
        with said(folder):
            rmtree(folder)
    finally:
        held.close()


def _best(rows: Sequence[Mapping[str, Any]], claims: bool) -> str:
    """Which run is the best by its validation accuracy."""
    measured = [row for row in rows if row.get("validation accuracy") is not None]
    if not measured:
        return (
            "no run is named the best: it would be chosen on the test set. Set data.validation, as"
            " in --set data.validation=0.1, to choose on other data"
        )
    best = max(measured, key=lambda row: float(row["validation accuracy"]))
    return (
        f"the best by validation accuracy ({100 * best['validation accuracy']:.2f} %) is"
        f" {best['folder']}, with {100 * best['accuracy']:.2f} % on the test set"
        f"{CHOSEN if claims else ''}"
    )


def _together(ledgers: list[Ledger], delta: float) -> list[str]:
    """What all runs of a sweep spent together: whoever looks at all of them learns that much, and
    so does who is shown the best one alone.
    """
    if not any(ledger.charges for ledger in ledgers):
        return []
    bare = sum(not ledger.charges for ledger in ledgers)
    if bare:
        return [
            f"{bare} of the sweep's {len(ledgers)} runs had no noise: together they claim nothing."
        ]
    told = []
    for spent in spend(over_runs(ledgers, delta), delta, pld=False):
        charges = [c for c in over_runs(ledgers, delta).charges if c.unit == spent.unit]
        told.append(f"the sweep's {len(ledgers)} runs together: {sentence(spent, charges)}")
    return told


def _axis(text: str) -> tuple[str, list[str]]:
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise ConfigError(f"'{text}' is no axis: write a.b=x,y,z, as in seed=0,1,2.")
    return key, _split(values)


def _split(values: str) -> list[str]:
    """Values at top-level commas: those inside of brackets belong to a value."""
    parts, depth = [""], 0
    for letter in values:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
