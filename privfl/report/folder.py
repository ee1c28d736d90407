"""A run folder as it lies on disk, and its report in it."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from privfl.core import PICTURES, ConfigError, mapping_in
from privfl.engine import PUBLIC, holds_run, refuse_lost_config
from privfl.engine.files import write_atomically
from privfl.engine.folder import CONFIG, JOURNAL
from privfl.engine.records import RoundRecord
from privfl.report.honest import honest_rounds
from privfl.report.kept import as_written, damaged, list_in, object_in, rounds_in
from privfl.report.page import page_of
from privfl.report.plots import PLOTS
from privfl.report.public import public_page


def config_in(folder: Path) -> Path:
    """The config of a run folder.

    Raises:
        ConfigError: the folder holds no run, or one that no config describes.
    """
    path = folder / CONFIG
    refuse_lost_config(folder)
    if not path.is_file() and holds_run(folder):
        raise ConfigError(
            f"the run in '{folder}' was put together in Python, and no config describes it: go on"
            " with it there, by run(..., resume=True) on the same parts."
        )
    if not path.is_file():
        raise ConfigError(
            f"'{folder}' holds no run: it has no config.yaml. A run folder is what 'privfl run"
            " CONFIG.yaml --out FOLDER' leaves; what 'privfl gossip' and 'privfl vertical' leave is"
            " read by no other command."
        )
    return path


def read_run(folder: Path) -> tuple[dict[str, Any], list[RoundRecord], dict[str, Any]]:
    """A run folder's config, rounds and summary (empty where the run has not ended).

    Raises:
        ConfigError: the folder holds no run, or a file of it is damaged.
    """
    path = config_in(folder)
    config = mapping_in(path)
    if not config:
        raise damaged(path, "it holds no key, and a run writes all of them")
    return config, *read_records(folder)


def read_records(folder: Path) -> tuple[list[RoundRecord], dict[str, Any]]:
    """A run folder's rounds and summary (empty where the run has not ended).

    Raises:
        ConfigError: the folder holds no run, or a file of it is damaged.
    """
    if not holds_run(folder):
        config_in(folder)
    records = rounds_in(folder / "rounds.jsonl")
    done, audited = folder / "summary.json", folder / "dp_audit.json"
    summary = object_in(done) if done.exists() else {}
    if done.exists() and "accuracy" not in summary:
        raise damaged(done, "it lacks 'accuracy', and every run that ended has one")
    if audited.exists():
        summary["dp audit"] = list_in(audited)
    return records, summary


def write_report(folder: Path) -> Path:
    """Draw the plots of a run folder into it, with their numbers, and ``report.html`` around them;
    in a ``public/`` another one, of what lies there alone.

    Raises:
        ConfigError: the folder holds no run, or no round of it is finished.
    """
    with as_written(folder):
        return _written(folder)


def _written(folder: Path) -> Path:
    config, records, summary = read_run(folder)
    if not records:
        raise ConfigError(f"the run in '{folder}' has not finished a round yet.")
    pictures = [f"<p>No figures: {html.escape(why)}</p>" for why in (PICTURES.missing,) if why]
    for name, caption, draw in () if pictures else PLOTS:
        drawn = draw(records, summary)
        if drawn is not None:
            svg = drawn.svg(name)
            write_atomically(folder / f"{name}.svg", svg)
            write_atomically(folder / f"{name}.csv", drawn.csv())
            pictures.append(drawn.framed(name, caption, svg))
    page = folder / "report.html"
    claimed = bool(summary.get("privacy")) or (folder / JOURNAL).exists()
    write_atomically(
        page,
        page_of(
            folder.name,
            config,
            records,
            summary,
            pictures,
            claimed=claimed,
            honest=honest_rounds(folder),
        ),
    )
    if (folder / PUBLIC / "statement.json").exists():
        write_public_report(folder)
    return page


def refuse_in_public(folder: Path, what: str) -> None:
    """Refuse to write what no claim covers beside what may be published.

    Raises:
        ConfigError: the folder is a run's ``public/``.
    """
    if (folder / "statement.json").exists():
        raise ConfigError(
            f"'{folder}' is what may be published of a run, and its statement covers nothing that"
            f" is added: give another folder for {what} (--out FOLDER)."
        )


def write_public_report(folder: Path) -> Path:
    """Write the report of a run's ``public/``, of what lies there alone.

    Raises:
        ConfigError: the run has published nothing.
    """
    statement, page = folder / PUBLIC / "statement.json", folder / PUBLIC / "report.html"
    if not statement.exists():
        raise ConfigError(f"the run in '{folder}' has published nothing.")
    with as_written(folder / PUBLIC):
        recipe = (folder / PUBLIC / "config.yaml").read_text(encoding="utf-8")
        write_atomically(page, public_page(object_in(statement), recipe))
    return page
