"""``privfl run``, ``privfl sweep``, ``privfl report``."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from privfl.cli.screen import bar, say, table
from privfl.core import ConfigError, Ledger
from privfl.dp import above, over_runs, sentence, spend
from privfl.engine import PUBLIC
from privfl.federation import Federation, Run
from privfl.report import config_in, play_honest, write_report

_NOT_COVERED = (
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
        federation, folder = (
            Federation.from_config(config, settings or ()),
            out or _fresh(config.stem),
        )
    say(f"privfl: {_about(federation)}")
    if federation.claims_privacy:
        say(f"privfl: {_NOT_COVERED}")
    with bar(f"run {folder.name}", federation.scenario.rounds) as shown:
        result = federation.run(folder, resume=resume is not None, progress=shown.round)
    page = write_report(folder)
    table("Result", [_result(result, as_json)], as_json)
    for line in result.summary["privacy"]:
        say(f"privfl: {line['claim']}")
    say(f"privfl: the run is in {folder}, its report in {page}")
    if federation.claims_privacy:
        say(f"privfl: what may be published of it is in {folder / PUBLIC}, and nowhere else")


def sweep(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml")],
    over: Annotated[
        list[str],
        typer.Option(
            "--over",
            metavar="A.B=X,Y,Z",
            help="A key and the values it takes; repeatable: all combinations.",
        ),
    ],
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="A new folder; one run folder inside for each combination."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a config for every combination of some keys' values, and print one row for each."""
    axes = [_axis(text) for text in over]
    combinations = list(itertools.product(*(values for _, values in axes)))
    folder = out or _fresh(f"sweep-{config.stem}")
    chosen = [
        [f"{key}={value}" for (key, _), value in zip(axes, combination, strict=True)]
        for combination in combinations
    ]
    federations = [
        Federation.from_config(config, [*(settings or ()), *keys]) for keys in chosen
    ]  # refuse before the first run
    if any(federation.claims_privacy for federation in federations):
        say(f"privfl: {_NOT_COVERED}")
    rows: list[dict[str, Any]] = []
    ledgers: list[Ledger] = []
    with bar("sweep", len(chosen)) as shown:
        for number, (keys, federation) in enumerate(zip(chosen, federations, strict=True)):
            result = federation.run(folder / f"{number:03d}")
            write_report(folder / f"{number:03d}")
            ledgers.append(result.ledger)
            rows.append({**dict(key.split("=", 1) for key in keys), **_result(result, as_json)})
            shown.step(" ".join(keys))
    table("Sweep", rows, as_json)
    for line in _together(ledgers, max(one.audit.delta for one in federations)):
        say(f"privfl: {line}")
    say(f"privfl: the runs are in {folder}")


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
    said = []
    for spent in spend(over_runs(ledgers, delta), delta, pld=False):
        charges = [c for c in over_runs(ledgers, delta).charges if c.unit == spent.unit]
        said.append(f"the sweep's {len(ledgers)} runs together: {sentence(spent, charges)}")
    return said


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


def _fresh(name: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for extra in ("", *(f"-{i}" for i in range(2, 100))):
        folder = Path("runs") / f"{name}-{stamp}{extra}"
        if not folder.exists():
            return folder
    raise ConfigError("runs/ holds a hundred runs of this second: give --out.")


def _about(federation: Federation) -> str:
    facts = federation.scenario.facts
    return (
        f"{facts['model']}; {str(facts['data']).rstrip('.')}; {facts['clients']} clients, split by"
        f" {facts['split by']}; the server reads {facts['the server reads']}"
    )


def _result(result: Run, as_json: bool) -> dict[str, Any]:
    """A row; people read an epsilon that is never less than it is, as in the sentences below."""
    summary = result.summary
    row = {
        "accuracy": summary["accuracy"],
        "loss": summary["loss"],
        "rounds": summary["rounds"],
        "clients": summary["clients"],
        "parameters": summary["parameters"],
        "fidelity": summary["guarantees"]["channel"]["fidelity"],
        "MB sent": None if summary["bytes_sent"] is None else summary["bytes_sent"] / 1e6,
        "seconds": summary["seconds"],
    }
    for line in summary["privacy"]:
        secret = "" if line["as_drawn"] is None else ", with secret coins"
        row[f"epsilon ({line['unit']} level{secret})"] = _bound(line["epsilon"], as_json)
        if secret:
            row[f"epsilon ({line['unit']} level, seed known)"] = _bound(line["as_drawn"], as_json)
    incidents = sum(len(record.incidents) for record in result.history)
    return {**row, "incidents": incidents, "folder": str(result.folder)}


def _bound(epsilon: Any, as_json: bool) -> Any:
    return above(epsilon) if isinstance(epsilon, float) and not as_json else epsilon
