"""``privfl audit``: what each adversary really gets, under each layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from privfl.cli.screen import bar, say, table
from privfl.config import load
from privfl.core import Adversary, ConfigError
from privfl.federation import Federation

Json = Annotated[bool, typer.Option("--json", help="One JSON array on stdout.")]
MOST_SHOWN = 200


def audit(
    source: Annotated[Path, typer.Argument(metavar="RUN|CONFIG.yaml", help="A run folder, or a config (see examples/audit.yaml).")],
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a key of the config; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="A new folder for the page; audit-NAME beside the source unless said.")] = None,
    as_json: Json = False,
) -> None:
    """Attack a run through every adversary's view, under each of its layers; prints the table and writes a page.

    The run is trained again with some of every client's data held out, because membership needs samples that are no members.
    """
    from privfl.audit import audit as attack
    from privfl.audit import write_page

    path = source / "config.yaml" if source.is_dir() else source
    config = load(path, settings or ())
    for adversary in config.audit.adversaries:
        Adversary.parse(adversary)
    layers = config.audit.layers or {"as configured": {}}
    base = {key: value for key, value in config.model_dump().items() if key != "audit"}
    keep = {"audit": {"keep": "all", "delta": config.audit.delta}}
    federations = {name: Federation.from_config({**base, **changes, **keep}) for name, changes in layers.items()}
    folder = out or source.parent / f"audit-{source.stem}"
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"'{folder}' is not empty: give --out a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    with bar("audit", MOST_SHOWN) as shown:
        report = attack(
            federations, adversaries=config.audit.adversaries, held_out=config.audit.held_out, seed=config.seed, progress=shown.step
        )
    table("What each adversary gets", report.rows, as_json)
    say(f"privfl: the page is {write_page(report, folder)}")
