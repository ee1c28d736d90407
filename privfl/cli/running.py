"""``privfl run`` and ``privfl report``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from privfl.cli.rows import result_row
from privfl.cli.screen import bar, say, table
from privfl.core import ConfigError
from privfl.dp import above
from privfl.engine import PUBLIC
from privfl.engine.files import refuse_full
from privfl.federation import Federation, Tracker
from privfl.federation.tracking import Ending, Fact
from privfl.report import config_in, play_honest, read_records, write_report
from privfl.trackers import MLflow, TensorBoard

NOT_COVERED = (
    "this run claims privacy, and what is shown here is not covered by it: accuracy and loss are of"
    " the test data, which no epsilon counts; MB sent, seconds and incidents show who took part."
    " Publish public/ of its folder alone"
)
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Override a key of the config; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON array on stdout.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="A new folder for the run; runs/NAME-TIME unless said.")
]


def run(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG.yaml", help="An empty file is a run, too.")
    ] = None,
    settings: Settings = None,
    out: Out = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with the run in this folder. Where noise repeats, or there is none, it ends"
            " with the same numbers."
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write TensorBoard's event files, too.")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(metavar="URI", help="Tell an MLflow server or store, too.")
    ] = None,
    private_trackers: Annotated[
        bool,
        typer.Option(
            "--private-trackers",
            help="Of a run that claims privacy trackers get what may be published, once it has"
            " ended; with this, everything: who sees them is who sees the run folder.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train federatedly as a config says; leaves a run folder with a report."""
    if resume is not None:
        if config is not None or out is not None or settings:
            raise ConfigError(
                "--resume takes everything from the run folder: leave CONFIG, --out and --set out."
            )
        federation, folder = Federation.from_config(config_in(resume)), resume
    elif config is None:
        raise ConfigError("give a CONFIG.yaml, or --resume with a run folder.")
    else:
        folder = out or fresh(config.stem)
        refuse_full(folder, "run")
        federation = Federation.from_config(config, settings or ())
    told = [_Heading(federation), *_trackers(tensorboard, mlflow, private_trackers)]
    with bar(f"run {folder.name}", federation.scenario.rounds) as shown:
        result = federation.run(
            folder, resume=resume is not None, progress=shown.round, trackers=told
        )
    for line in (one for one in result.summary["warnings"] if "is damaged" in one):
        say(f"privfl: {line}")
    page = write_report(folder)
    table("Result", [result_row(folder, as_json)], as_json)
    for line in result.summary["privacy"]:
        say(f"privfl: {line['claim']}")
    for one in result.summary.get("personal", ()):
        spent = "none" if one["epsilon"] is None else above(one["epsilon"])
        say(f"privfl: class '{one['class']}', drawn at rate {one['rate']:.4g}: epsilon {spent}")
    say(f"privfl: the run is in {folder}, its report in {page}")
    if federation.claims_privacy:
        say(f"privfl: what may be published of it is in {folder / PUBLIC}, and nowhere else")
    end_diverged(folder)


@dataclass(frozen=True)
class _Heading:
    """Says above a run what it is, once nothing refuses it any more."""

    federation: Federation
    private: bool = True

    def begin(self, facts: Mapping[str, Fact], first: int) -> None:
        say(f"privfl: {_about(self.federation)}")
        if self.federation.claims_privacy:
            say(f"privfl: {NOT_COVERED}")

    def round(self, number: int, figures: Mapping[str, float]) -> None:
        """Nothing: the bar shows it."""

    def end(self, figures: Mapping[str, float], how: Ending) -> None:
        """Nothing: the command says more."""


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or not.")],
    honest: Annotated[
        bool,
        typer.Option(
            "--honest",
            help="Play the run again without its attackers first, and show whom its defences accuse"
            " where nobody lies.",
        ),
    ] = False,
) -> None:
    """Draw the report of a run again."""
    if honest:
        play_honest(Federation.from_config(config_in(folder)), folder)
    say(f"privfl: wrote {write_report(folder)}")


def end_diverged(folder: Path) -> None:
    """End a command by exit code 1 where the run in this folder diverged.

    Raises:
        Exit: it did.
    """
    why = read_records(folder)[1].get("diverged")
    if why:
        say(f"privfl: {why}")
        raise typer.Exit(1)


def fresh(name: str) -> Path:
    """A new folder under ``runs/``.

    Raises:
        ConfigError: there are a hundred of this second.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for extra in ("", *(f"-{i}" for i in range(2, 100))):
        folder = Path("runs") / f"{name}-{stamp}{extra}"
        if not folder.exists():
            return folder
    raise ConfigError("runs/ holds a hundred runs of this second: give --out.")


def _trackers(tensorboard: Path | None, mlflow: str | None, private: bool) -> list[Tracker]:
    found: list[Tracker] = []
    if tensorboard is not None:
        found.append(TensorBoard(tensorboard, private=private))
    if mlflow is not None:
        found.append(MLflow(mlflow, private=private))
    return found


def _about(federation: Federation) -> str:
    facts = federation.scenario.facts
    return (
        f"{facts['model']}; {str(facts['data']).rstrip('.')}; {facts['clients']} clients, split by"
        f" {facts['split by']}; the server reads {facts['the server reads']}"
    )
