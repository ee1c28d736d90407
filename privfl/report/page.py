"""The page of a run: tiles, claims, facts, pictures, incidents, configuration."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from privfl.engine.records import RoundRecord
from privfl.report.card import card
from privfl.report.certificate import certified
from privfl.report.detection import detected
from privfl.report.privacy import claims, of_classes, spent
from privfl.report.style import STYLE
from privfl.report.tables import table

NOT_COVERED = (
    "Private: this run claims differential privacy, and no epsilon of it covers this page."
    " Accuracies, losses, counts, times and incidents are computed from data without noise, or show"
    " who took part. What may be published is in public/, with a report of its own, once the run"
    " has ended."
)


def page_of(
    name: str,
    config: Mapping[str, Any],
    records: Sequence[RoundRecord],
    summary: Mapping[str, Any],
    pictures: Sequence[str],
    *,
    claimed: bool = False,
    honest: Sequence[RoundRecord] = (),
) -> str:
    """One self-contained HTML page; ``pictures`` are framed figures. Where the run claims
    privacy (``claimed``) the page says first that the claim does not cover it. ``honest`` are the
    rounds of the same run without its attackers, where it was played.
    """
    say = html.escape
    seconds = sum(sum(r.seconds.values()) for r in records)
    best = [r for r in records if r.accuracy is not None]
    tiles = [
        (
            "validation accuracy" if _on_validation(config, summary) else "test accuracy",
            _accuracy(summary, best),
        ),
        ("rounds", f"{len(records)} of {config['rounds']}"),
        ("clients a round, mean", f"{np.mean([r.survivors for r in records]):.4g}"),
        ("sent a round, by all", _traffic(records)),
        ("time", f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"),
        *spent(summary.get("privacy"), records[-1].epsilon),
    ]
    parts = [
        f"<h1>{say(name)}</h1>",
        f'<div class="soft">{say(_title(config))}</div>',
        *([f'<div class="warn">{say(NOT_COVERED)}</div>'] if claimed else []),
        card(records, summary),
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{say(v)}</b><span>{say(k)}</span></div>' for k, v in tiles)
        + "</div>",
    ]
    parts += [f'<div class="warn">{say(line)}</div>' for line in summary.get("warnings", [])]
    parts += claims(summary.get("privacy"), summary.get("dp audit", []))
    parts += of_classes(summary.get("personal", []))
    facts = _short(summary.get("facts", {}), summary.get("guarantees", {}))
    if facts:
        rows = "".join(
            f"<tr><th>{say(str(k))}</th><td>{say(str(v))}</td></tr>" for k, v in facts.items()
        )
        parts.append(f"<h2>What ran, and who sees what</h2>{table(rows)}")
    parts += _guarantees(summary.get("guarantees", {}))
    parts += detected(records, honest)
    parts += certified(summary.get("certificate", {}))
    parts.append("<h2>Pictures</h2>")
    parts += pictures
    incidents = [(r.round + 1, what) for r in records for what in r.incidents]
    if incidents:
        shown = "".join(
            f"<tr><th>round {number}</th><td>{say(what)}</td></tr>"
            for number, what in incidents[:200]
        )
        more = (
            f'<p class="soft">and {len(incidents) - 200} more in rounds.jsonl</p>'
            if len(incidents) > 200
            else ""
        )
        parts.append(f"<h2>What went wrong</h2>{table(shown)}{more}")
    fired = [(r.round + 1, who, what) for r in records for who, what in r.fired.items()]
    if fired:
        shown = "".join(
            f"<tr><th>round {number}</th><td>{say(who)}: {say(what)}</td></tr>"
            for number, who, what in fired[-40:]
        )
        parts.append(f"<h2>What the defences did (last rounds)</h2>{table(shown)}")
    parts.append(
        f"<h2>Configuration</h2><pre>{say(yaml.safe_dump(dict(config), sort_keys=False))}</pre>"
    )
    return document(name, parts)


def document(title: str, parts: Sequence[str]) -> str:
    """A page that needs no other file, of these pieces of HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport"'
        ' content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)} ·"
        f" privfl</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>"
    )


def _traffic(records: Sequence[RoundRecord]) -> str:
    """The mean of what was sent; an ideal functionality's messages are no protocol's."""
    sent = [r.bytes_sent for r in records if r.bytes_sent is not None]
    return _size(float(np.mean(sent))) if len(sent) == len(records) else "ideal: not measured"


def _guarantees(said: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Who can do what, part by part: settings first, then who reads and who may lie."""
    parts: list[str] = []
    for part, record in said.items():
        cells = [
            ("fidelity", "IDEAL: no cryptography ran" if record["fidelity"] == "ideal" else "real"),
            *record["settings"].items(),
            ("leaks", "; ".join(record["leaks"]) or "nothing"),
            ("assumes", "; ".join(record["assumes"]) or "nothing"),
        ]
        settings = "".join(_row("th", "td", name, value) for name, value in cells)
        lines = "".join(
            _row("td", "td", line["who"], line["does"], line["can"])
            for line in record["who can do what"]
        )
        head = _row("th", "th", "who", "what it does", "what comes of it")
        parts.append(
            f"<h2>Who can do what: {html.escape(part)}{_cohort(record)}</h2>{table(settings)}"
            f"{table(head + lines)}"
        )
    return parts


def _cohort(record: Mapping[str, Any]) -> str:
    """For how many clients the numbers of a record hold; nothing where it says none."""
    return f", in a round of {record['cohort']:,}" if "cohort" in record else ""


def _short(facts: Mapping[str, Any], guarantees: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The facts, the channel's without the sentences that its guarantee's table says below."""
    short = dict(facts)
    for part, record in guarantees.items():
        if part in short:
            short[part] = str(short[part]).removesuffix(record.get("in sentences", "")).strip()
    return short


def _row(first: str, other: str, name: object, *values: object) -> str:
    cells = "".join(f"<{other}>{html.escape(str(value))}</{other}>" for value in values)
    return f"<tr><{first}>{html.escape(str(name))}</{first}>{cells}</tr>"


def _on_validation(config: Mapping[str, Any], summary: Mapping[str, Any]) -> bool:
    """Whether the only accuracies that there are yet are of validation samples."""
    return bool(config["data"].get("validation")) and "validation" not in summary


def _accuracy(summary: Mapping[str, Any], measured: Sequence[RoundRecord]) -> str:
    """On the test set; rounds of runs with validation data were measured on those."""
    if "validation" in summary:
        return f"{100 * summary['accuracy']:.2f} %"
    return f"{100 * (measured[-1].accuracy or 0):.2f} %" if measured else "not measured"


def _title(config: Mapping[str, Any]) -> str:
    words = [
        f"{config['model']['name']} on {config['data']['name']}",
        f"{config['aggregator']['name']} over {config['channel']['name']}",
    ]
    if config["mechanism"]["name"] != "none":
        words.append(f"{config['mechanism']['name']} noise")
    if config["attacks"]:
        words.append("attacked by " + ", ".join(attack["name"] for attack in config["attacks"]))
    return " · ".join([*words, f"seed {config['seed']}"])


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
