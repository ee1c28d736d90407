"""The plots of a run: learning, privacy, clients, cost, labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from privfl.engine.records import RoundRecord
from privfl.report import detection_plots
from privfl.report.canvas import BLUE, GREEN, ORANGE, SOFT, axes_of, figure_of
from privfl.report.charted import Charted

STAGES = (
    BLUE,
    ORANGE,
    GREEN,
    "#8a63b8",
    "#c04f5e",
    "#c9a227",
    "#5b8a8a",
    "#9aa3ad",
    "#7a5230",
    "#e39ac0",
)


def _learning(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> Charted | None:
    seen = [r for r in records if r.accuracy is not None]
    if not seen:
        return None
    figure = figure_of(9, 3.2)
    rounds = [r.round + 1 for r in seen]
    samples = "validation" if "validation" in summary else "test"
    left = axes_of(figure, f"{samples.capitalize()} accuracy", "round", "%", (1, 2, 1))
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
        xytext=(0, 7),
        textcoords="offset points",
        ha="right",
        color=BLUE,
        fontsize=9,
    )
    right = axes_of(figure, "Loss", "round", "cross-entropy", (1, 2, 2))
    right.plot(rounds, [r.loss for r in seen], color=BLUE, linewidth=2, label=samples)
    trained = [(r.round + 1, np.asarray(r.train_losses)) for r in records if r.train_losses]
    if trained:
        xs = [x for x, _ in trained]
        right.plot(
            xs,
            [_quantile(losses, 0.5) for _, losses in trained],
            color=ORANGE,
            linewidth=2,
            label="clients, median",
        )
        low, high = ([_quantile(losses, q) for _, losses in trained] for q in (0.1, 0.9))
        right.fill_between(
            xs, low, high, color=ORANGE, alpha=0.18, linewidth=0, label="clients, 10..90 %"
        )
    right.legend(frameon=False, fontsize=8)
    rows = [
        {"round": r.round + 1, "accuracy": r.accuracy, "loss": r.loss, **_spread_of(r.train_losses)}
        for r in records
    ]
    return Charted(figure, rows)


def _spread_of(losses: Sequence[float]) -> dict[str, float]:
    if not losses:
        return {}
    names = ("clients' loss, 10 %", "clients' loss, median", "clients' loss, 90 %")
    found = (_quantile(np.asarray(losses), q) for q in (0.1, 0.5, 0.9))
    return dict(zip(names, found, strict=True))


def _quantile(losses: npt.NDArray[np.float64], q: float) -> float:
    """Of the losses [n] that are finite; NaN where none is."""
    known = losses[np.isfinite(losses)]
    return float(np.quantile(known, q)) if len(known) else float("nan")


def _measures(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> Charted | None:
    names = list(dict.fromkeys(name for r in records for name in r.measures))
    if not names:
        return None
    figure = figure_of(9, 2.8)
    axes = axes_of(figure, "Attacks and further metrics", "round", "")
    for i, name in enumerate(names[: len(STAGES)]):
        axes.plot(
            [r.round + 1 for r in records],
            [r.measures.get(name, np.nan) for r in records],
            color=STAGES[i],
            linewidth=2,
            marker="o" if len(records) < 30 else None,
            markersize=3,
            label=name,
        )
    axes.legend(frameon=False, fontsize=8)
    return Charted(figure, [{"round": r.round + 1, **r.measures} for r in records])


def _spread(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> Charted | None:
    accuracies = summary.get("client_accuracy") or []
    if not accuracies:
        return None
    values = 100 * np.sort(np.asarray(accuracies, dtype=float))
    figure = figure_of(9, 2.8)
    axes = axes_of(
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
    return Charted(
        figure, [{"place": i, "accuracy, %": float(v)} for i, v in enumerate(values, start=1)]
    )


def _cost(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> Charted | None:
    stages = list(dict.fromkeys(stage for r in records for stage in r.seconds))
    figure = figure_of(9, 3.2)
    left = axes_of(figure, "Time by stage", "round", "seconds", (1, 2, 1))
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
    sent = [r.bytes_sent / 1e6 for r in records if r.bytes_sent is not None]
    if len(sent) == len(rounds):  # an ideal functionality sends nothing that a protocol would
        right = axes_of(figure, "Bytes sent by everybody", "round", "MB", (1, 2, 2))
        right.bar(rounds, sent, color=GREEN, width=0.85 if len(rounds) < 60 else 1.0)
    timed = [{f"seconds, {stage}": spent for stage, spent in r.seconds.items()} for r in records]
    rows = [
        {"round": r.round + 1, "bytes sent": r.bytes_sent, **spent}
        for r, spent in zip(records, timed, strict=True)
    ]
    return Charted(figure, rows)


def _privacy(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> Charted | None:
    subjects = list(dict.fromkeys(subject for r in records for subject in r.epsilon))
    if not subjects:
        return None
    figure = figure_of(9, 2.8)
    axes = axes_of(figure, "Privacy spent", "round", "epsilon")
    for subject, colour in zip(subjects[:6], STAGES, strict=False):
        axes.plot(
            [r.round + 1 for r in records],
            [r.epsilon.get(subject, np.nan) for r in records],
            color=colour,
            linewidth=2,
            label=subject,
        )
    axes.legend(frameon=False, fontsize=8)
    return Charted(figure, [{"round": r.round + 1, **r.epsilon} for r in records])


def _labels(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> Charted | None:
    from matplotlib.ticker import MaxNLocator

    counts = summary.get("label_counts") or []
    if not counts:
        return None
    table = np.asarray(counts, dtype=float)
    shown = table[:120]
    figure = figure_of(9, min(1.6 + 0.13 * len(shown), 8))
    title = "Who holds which labels" + (
        f" (the first {len(shown)} of {len(table)} clients)" if len(table) > len(shown) else ""
    )
    axes = axes_of(figure, title, "label", "client")
    axes.grid(visible=False)
    picture = axes.imshow(shown, aspect="auto", cmap="Blues", interpolation="nearest")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    bar = figure.colorbar(picture, ax=axes, pad=0.01)
    bar.set_label("samples", color=SOFT, fontsize=9)
    bar.ax.tick_params(colors=SOFT, labelsize=8)
    bar.outline.set_visible(False)
    rows = [
        {"client": client, **{f"label {label}": int(n) for label, n in enumerate(row)}}
        for client, row in enumerate(table)
    ]
    return Charted(figure, rows)


Draw = Callable[[Sequence[RoundRecord], Mapping[str, Any]], Charted | None]
PLOTS: tuple[tuple[str, str, Draw], ...] = (
    (
        "learning",
        (
            "Accuracy and loss over the rounds. The band is the spread of the clients' own training"
            " losses."
        ),
        _learning,
    ),
    (
        "measures",
        "How well attacks that measure themselves succeeded, and metrics that were asked for.",
        _measures,
    ),
    ("privacy", "What the ledger has charged so far, by RDP: an upper bound.", _privacy),
    ("clients", "A model that is good on average can be poor for some.", _spread),
    ("cost", "Where the time went, and what travelled.", _cost),
    (
        "detection",
        (
            "What each defence made of each client. Darker: more suspicious in that round; a cross:"
            " dropped; a ring: an attacker acted through it."
        ),
        detection_plots.clients_by_rounds,
    ),
    (
        "detection_rates",
        "How many liars and honest clients each defence dropped, and how suspicion tells them.",
        detection_plots.rates,
    ),
    ("detection_scores", "What the defences judged by.", detection_plots.score_histograms),
    ("labels", "How differently the clients see the world: samples per client and label.", _labels),
)
