"""The report of a run: plots a person would want, as PNG files and as one self-contained page."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from privfl.core import ConfigError
from privfl.engine.checkpoint import write_atomically
from privfl.engine.records import RoundRecord

INK, SOFT, GRID = "#1b1f24", "#6a737d", "#e3e6ea"
BLUE, ORANGE, GREEN = "#2f6fb3", "#d9772b", "#3d9361"
STAGES = (BLUE, ORANGE, GREEN, "#8a63b8", "#c04f5e", "#c9a227", "#5b8a8a", "#9aa3ad")


def read_run(folder: Path) -> tuple[dict[str, Any], list[RoundRecord], dict[str, Any]]:
    """A run folder's config, rounds and summary (empty where the run has not ended).

    Raises:
        ConfigError: the folder holds no run.
    """
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        lines = (folder / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        raise ConfigError(
            f"'{folder}' holds no run: it has no config.yaml and rounds.jsonl."
        ) from None
    records = [RoundRecord.from_json(json.loads(line)) for line in lines if line.endswith("}")]
    done, audited = folder / "summary.json", folder / "dp_audit.json"
    summary = json.loads(done.read_text(encoding="utf-8")) if done.exists() else {}
    if audited.exists():
        summary["dp audit"] = json.loads(audited.read_text(encoding="utf-8"))
    return config, records, summary


def write_report(folder: Path) -> Path:
    """Draw the plots of a run folder into it, and ``report.html`` around them.

    Raises:
        ConfigError: the folder holds no run, or no round of it is finished.
    """
    config, records, summary = read_run(folder)
    if not records:
        raise ConfigError(f"the run in '{folder}' has not finished a round yet.")
    pictures: list[tuple[str, str, bytes]] = []
    for name, caption, draw in PLOTS:
        figure = draw(records, summary)
        if figure is not None:
            png = _png(figure)
            write_atomically(folder / f"{name}.png", png)
            pictures.append((name, caption, png))
    page = folder / "report.html"
    write_atomically(page, _page(folder.name, config, records, summary, pictures))
    return page


def _axes(figure: Figure, title: str, x: str, y: str, place: Any = 111) -> Any:
    axes = figure.add_subplot(place)
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.set_xlabel(x, color=SOFT, fontsize=9)
    axes.set_ylabel(y, color=SOFT, fontsize=9)
    axes.tick_params(colors=SOFT, labelsize=8)
    axes.grid(color=GRID, linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    return axes


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _learning(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> Figure | None:
    seen = [r for r in records if r.accuracy is not None]
    if not seen:
        return None
    figure = _figure(9, 3.2)
    rounds = [r.round + 1 for r in seen]
    left = _axes(figure, "Test accuracy", "round", "%", 121)
    left.plot(
        rounds,
        [100 * (r.accuracy or 0.0) for r in seen],
        color=BLUE,
        linewidth=2,
        marker="o" if len(seen) < 30 else None,
        markersize=3,
    )
    last = 100 * (seen[-1].accuracy or 0.0)
    left.annotate(
        f"{last:.1f} %",
        (rounds[-1], last),
        xytext=(-4, -12),
        textcoords="offset points",
        ha="right",
        color=BLUE,
        fontsize=9,
    )
    right = _axes(figure, "Loss", "round", "cross-entropy", 122)
    right.plot(rounds, [r.loss for r in seen], color=BLUE, linewidth=2, label="test")
    trained = [(r.round + 1, np.asarray(r.train_losses)) for r in records if r.train_losses]
    if trained:
        xs = [x for x, _ in trained]
        right.plot(
            xs,
            [np.nanmedian(losses) for _, losses in trained],
            color=ORANGE,
            linewidth=2,
            label="clients, median",
        )
        low, high = (
            [float(np.nanquantile(losses, q)) for _, losses in trained] for q in (0.1, 0.9)
        )
        right.fill_between(
            xs, low, high, color=ORANGE, alpha=0.18, linewidth=0, label="clients, 10..90 %"
        )
    right.legend(frameon=False, fontsize=8)
    return figure


def _spread(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> Figure | None:
    accuracies = summary.get("client_accuracy") or []
    if not accuracies:
        return None
    values = 100 * np.sort(np.asarray(accuracies, dtype=float))
    figure = _figure(9, 2.8)
    axes = _axes(
        figure, "The final model on each client's own data", "clients, worst to best", "accuracy, %"
    )
    axes.bar(
        np.arange(1, len(values) + 1), values, width=0.85 if len(values) < 80 else 1.0, color=BLUE
    )
    axes.axhline(float(np.mean(values)), color=ORANGE, linewidth=1.5)
    axes.annotate(
        f"mean {np.mean(values):.1f} %",
        (0.01, float(np.mean(values))),
        xycoords=("axes fraction", "data"),
        xytext=(0, 4),
        textcoords="offset points",
        color=ORANGE,
        fontsize=9,
    )
    axes.set_ylim(0, 105)
    return figure


def _cost(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> Figure | None:
    stages = list(dict.fromkeys(stage for r in records for stage in r.seconds))
    figure = _figure(9, 3.2)
    left = _axes(figure, "Time by stage", "round", "seconds", 121)
    rounds = [r.round + 1 for r in records]
    series = [[r.seconds.get(stage, 0.0) for r in records] for stage in stages]
    totals = [sum(s) for s in series]
    order = sorted(range(len(stages)), key=lambda i: -totals[i])
    colours = [STAGES[i % len(STAGES)] for i in range(len(order))]
    if len(rounds) > 1:
        left.stackplot(
            rounds,
            [series[i] for i in order],
            labels=[stages[i] for i in order],
            colors=colours,
            linewidth=0,
        )
    else:
        bottom = 0.0
        for i, colour in zip(order, colours, strict=True):
            left.bar(rounds, series[i], bottom=bottom, label=stages[i], color=colour)
            bottom += series[i][0]
    left.legend(frameon=False, fontsize=7, ncols=2, loc="upper right")
    left.set_ylim(0, 1.35 * max(sum(r.seconds.values()) for r in records) or 1)
    right = _axes(figure, "Bytes sent by everybody", "round", "MB", 122)
    right.bar(
        rounds,
        [r.bytes_sent / 1e6 for r in records],
        color=GREEN,
        width=0.85 if len(rounds) < 60 else 1.0,
    )
    return figure


def _privacy(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> Figure | None:
    subjects = list(dict.fromkeys(subject for r in records for subject in r.epsilon))
    if not subjects:
        return None
    figure = _figure(9, 2.8)
    axes = _axes(figure, "Privacy spent", "round", "epsilon")
    for subject, colour in zip(subjects[:6], STAGES, strict=False):
        axes.plot(
            [r.round + 1 for r in records],
            [r.epsilon.get(subject, np.nan) for r in records],
            color=colour,
            linewidth=2,
            label=subject,
        )
    axes.legend(frameon=False, fontsize=8)
    return figure


def _labels(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> Figure | None:
    counts = summary.get("label_counts") or []
    if not counts:
        return None
    table = np.asarray(counts, dtype=float)
    shown = table[:120]
    figure = _figure(9, min(1.6 + 0.13 * len(shown), 8))
    title = "Who holds which labels" + (
        f" (the first {len(shown)} of {len(table)} clients)" if len(table) > len(shown) else ""
    )
    axes = _axes(figure, title, "label", "client")
    axes.grid(visible=False)
    picture = axes.imshow(shown, aspect="auto", cmap="Blues", interpolation="nearest")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    bar = figure.colorbar(picture, ax=axes, pad=0.01)
    bar.set_label("samples", color=SOFT, fontsize=9)
    bar.ax.tick_params(colors=SOFT, labelsize=8)
    bar.outline.set_visible(False)
    return figure


Draw = Callable[[Sequence[RoundRecord], Mapping[str, Any]], Figure | None]
PLOTS: tuple[tuple[str, str, Draw], ...] = (
    (
        "learning",
        (
            "Accuracy and loss over the rounds. The band is the spread of the clients' own training"
            " losses."
        ),
        _learning,
    ),
    ("privacy", "What the ledger has charged so far.", _privacy),
    ("clients", "A model that is good on average can be poor for some.", _spread),
    ("cost", "Where the time went, and what travelled.", _cost),
    ("labels", "How differently the clients see the world: samples per client and label.", _labels),
)

_STYLE = """
:root{color-scheme:light}
body{margin:0;background:#f6f7f9;color:#1b1f24;
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:980px;margin:0 auto;padding:32px 20px 64px}h1{font-size:26px;margin:0 0 4px}
h2{font-size:17px;margin:36px 0 10px}
.soft{color:#6a737d}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px;margin:22px 0}
.tile{background:#fff;border:1px solid #e3e6ea;border-radius:10px;padding:12px 16px}
.tile b{display:block;font-size:22px}
.tile span{color:#6a737d;font-size:13px}
figure{margin:0 0 18px;background:#fff;border:1px solid #e3e6ea;border-radius:10px;padding:14px}
img{width:100%;height:auto;display:block}figcaption{color:#6a737d;font-size:13px;margin-top:6px}
table{border-collapse:collapse;width:100%;background:#fff;border:1px solid #e3e6ea;
border-radius:10px;font-size:14px}
td,th{padding:6px 12px;border-bottom:1px solid #eef0f2;text-align:left;vertical-align:top}
th{color:#6a737d;font-weight:500}
pre{background:#fff;border:1px solid #e3e6ea;border-radius:10px;padding:14px;overflow:auto;
font-size:13px;margin:0}
ul{margin:0;padding-left:20px}
.warn{background:#fff6e5;border:1px solid #f0d9a8;border-radius:10px;padding:10px 16px}
"""


def _page(
    name: str,
    config: Mapping[str, Any],
    records: Sequence[RoundRecord],
    summary: Mapping[str, Any],
    pictures: Sequence[tuple[str, str, bytes]],
) -> str:
    say = html.escape
    seconds = sum(sum(r.seconds.values()) for r in records)
    best = [r for r in records if r.accuracy is not None]
    tiles = [
        ("test accuracy", f"{100 * (best[-1].accuracy or 0):.2f} %" if best else "not measured"),
        ("rounds", f"{len(records)} of {config['rounds']}"),
        ("clients a round", f"{np.mean([r.survivors for r in records]):.4g}"),
        ("bytes a round", _size(float(np.mean([r.bytes_sent for r in records])))),
        ("time", f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"),
        *(
            (f"epsilon, {subject}", f"{value:.3g}")
            for subject, value in sorted(records[-1].epsilon.items())[:2]
        ),
    ]
    parts = [
        f"<h1>{say(name)}</h1>",
        f'<div class="soft">{say(_title(config))}</div>',
        '<div class="tiles">'
        + "".join(f'<div class="tile"><b>{say(v)}</b><span>{say(k)}</span></div>' for k, v in tiles)
        + "</div>",
    ]
    parts += [f'<div class="warn">{say(line)}</div>' for line in summary.get("warnings", [])]
    parts += _claims(summary.get("privacy", []), summary.get("dp audit", []))
    facts = summary.get("facts", {})
    if facts:
        rows = "".join(
            f"<tr><th>{say(str(k))}</th><td>{say(str(v))}</td></tr>" for k, v in facts.items()
        )
        parts.append(f"<h2>What ran, and who sees what</h2><table>{rows}</table>")
    parts.append("<h2>Pictures</h2>")
    parts += [_picture(*picture) for picture in pictures]
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
        parts.append(f"<h2>What went wrong</h2><table>{shown}</table>{more}")
    fired = [(r.round + 1, who, what) for r in records for who, what in r.fired.items()]
    if fired:
        shown = "".join(
            f"<tr><th>round {number}</th><td>{say(who)}: {say(what)}</td></tr>"
            for number, who, what in fired[-40:]
        )
        parts.append(f"<h2>What the defences did (last rounds)</h2><table>{shown}</table>")
    parts.append(
        f"<h2>Configuration</h2><pre>{say(yaml.safe_dump(dict(config), sort_keys=False))}</pre>"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport"'
        ' content="width=device-width,initial-scale=1">'
        f"<title>{say(name)} ·"
        f" privfl</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>"
    )


def _claims(lines: Sequence[Mapping[str, Any]], audited: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each unit has spent, by both accountants, and what canaries showed of it."""
    if not lines:
        return []
    seen = {row["unit"]: row for row in audited}
    rows = []
    for line in lines:
        who = (
            line["subject"]
            if line["subjects"] == 1
            else f"{line['subject']}, the dearest of {line['subjects']}"
        )
        figures = [_epsilon(line[name]) for name in ("epsilon", "rdp", "pld")]
        beside = [*([line["refused"]] if line["refused"] else []), *line["notes"]]
        cells = (
            line["unit"],
            who,
            *figures,
            _shown(seen.get(line["unit"])),
            f"{line['delta']:g}",
            line["relation"],
            str(line["releases"]),
            " ".join(beside),
        )
        rows.append("".join(f"<td>{html.escape(text)}</td>" for text in cells))
    head = "".join(
        f"<th>{name}</th>"
        for name in (
            "unit",
            "who pays",
            "epsilon",
            "by RDP",
            "by PLD",
            "by canaries",
            "delta",
            "neighbours",
            "releases",
            "",
        )
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return [f"<h2>Privacy</h2><table><tr>{head}</tr>{body}</table>"]


def _shown(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "not audited (privfl audit RUN --dp)"
    if row["at least"] is None:
        return str(row["verdict"])
    beside = f"{row['releases']} releases, which claim {_epsilon(row['claimed epsilon'])}"
    return (
        f"{row['verdict']}: at least {row['at least']:.3f} after {beside} ({row['confidence']:.0%})"
    )


def _epsilon(value: float | str | None) -> str:
    return "no claim" if value is None else value if isinstance(value, str) else f"{value:.3f}"


def _picture(title: str, caption: str, png: bytes) -> str:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return (
        f'<figure><img alt="{html.escape(title)}"'
        f' src="{source}"><figcaption>{html.escape(caption)}</figcaption></figure>'
    )


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
