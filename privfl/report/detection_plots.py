"""Pictures of what defences made of clients: clients by rounds, rates over rounds, ROC, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from privfl.audit.detection import Detection, clients_of, detections, roc
from privfl.engine.records import RoundRecord
from privfl.report.canvas import BLUE, GRID, ORANGE, SOFT, axes_of, figure_of
from privfl.report.charted import Charted

_NAMED = 400
"""Clients up to which every one has its name on the picture."""
_HIGH = 60.0
_CROSS = "#22262b"  # on cells that are light in every theme


def clients_by_rounds(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> Charted | None:
    """Each client's rank by suspicion in each round, a cross where it was dropped, a ring where it
    lied; None where no defence judged.
    """
    found = _of_the_model(records)
    if not found:
        return None
    clients = sorted({history.client for one in found for history in clients_of(one)})
    last = max(record.round for record in records) + 1
    height = min(max(2.2, 0.6 + 0.14 * len(clients)), _HIGH)
    figure = figure_of(9, height * len(found))
    for number, one in enumerate(found, 1):
        title, place = f"{one.seat}: clients by rounds", (len(found), 1, number)
        axes = axes_of(figure, title, "round", "client", place)
        _heat(figure, axes, one, clients, last)
    return Charted(figure, [row for one in found for row in _told(one)])


def _told(one: Detection) -> list[dict[str, Any]]:
    """Every client's judgement in every round."""
    rows = []
    for judged in one.rounds:
        ranks, kept = judged.ranks, judged.judgement.kept
        for row, ids in enumerate(judged.judgement.ids):
            told = {
                "round": judged.round + 1,
                "seat": one.seat,
                "rank by suspicion": "" if ranks is None else float(ranks[row]),
                "dropped": "" if kept is None else int(not kept[row]),
                "lied": int(judged.lied[row]),
            }
            rows += [{**told, "client": client} for client in ids]
    return rows


def _heat(figure: Any, axes: Any, one: Detection, clients: Sequence[int], last: int) -> None:
    at = {client: row for row, client in enumerate(clients)}
    shades = np.full((len(clients), last), np.nan)
    dropped: list[tuple[int, int]] = []
    lied: list[tuple[int, int]] = []
    for judged in one.rounds:
        ranks, kept = judged.ranks, judged.judgement.kept
        for row, ids in enumerate(judged.judgement.ids):
            for client in ids:
                shades[at[client], judged.round] = 0.0 if ranks is None else ranks[row]
                spot = (judged.round + 1, at[client])
                dropped += [spot] if kept is not None and not kept[row] else []
                lied += [spot] if judged.lied[row] else []
    axes.grid(visible=False)
    edges = (0.5, last + 0.5, len(clients) - 0.5, -0.5)
    shown = axes.imshow(
        shades, aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest", extent=edges
    )
    size = float(np.clip(2600 / max(len(clients) * last, 1), 2, 30))
    if dropped:
        xs, ys = zip(*dropped, strict=True)
        axes.scatter(xs, ys, s=size, marker="x", linewidths=0.8, color=_CROSS, label="dropped")
    if lied:
        xs, ys = zip(*lied, strict=True)
        axes.scatter(xs, ys, s=2 * size, facecolors="none", edgecolors=ORANGE, label="lied")
    if dropped or lied:
        axes.legend(frameon=False, fontsize=7, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    step = -(-len(clients) // _NAMED)
    axes.set_yticks(range(0, len(clients), step), [str(c) for c in clients[::step]], fontsize=6)
    bar = figure.colorbar(shown, ax=axes, pad=0.01)
    bar.set_label("rank by suspicion", color=SOFT, fontsize=8)
    bar.ax.tick_params(colors=SOFT, labelsize=7)


def rates(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> Charted | None:
    """True and false positive rates over the rounds, and the ROC of suspicion; None where there is
    neither.
    """
    found = [one for one in _of_the_model(records) if one.accuses or one.auc is not None]
    if not found:
        return None
    figure = figure_of(9, 3.0 * len(found))
    for number, one in enumerate(found):
        _over_rounds(figure, one, (len(found), 2, 2 * number + 1))
        _curve(figure, one, (len(found), 2, 2 * number + 2))
    rows = [
        {
            "seat": one.seat,
            "round": judged.round + 1,
            "TPR": "" if judged.counts.tpr is None else judged.counts.tpr.value,
            "FPR": "" if judged.counts.fpr is None else judged.counts.fpr.value,
        }
        for one in found
        for judged in one.rounds
    ]
    return Charted(figure, rows)


def _over_rounds(figure: Any, one: Detection, place: tuple[int, int, int]) -> None:
    axes = axes_of(figure, f"{one.seat}: dropped", "round", "share", place)
    axes.set_ylim(-0.03, 1.03)
    liars = [(j.round + 1, j.counts.tpr) for j in one.rounds]
    honest = [(j.round + 1, j.counts.fpr) for j in one.rounds]
    for name, colour, series in (("liars (TPR)", ORANGE, liars), ("honest (FPR)", BLUE, honest)):
        known = [(x, share.value) for x, share in series if share is not None]
        if known and one.accuses:
            xs, ys = zip(*known, strict=True)
            axes.plot(xs, ys, color=colour, marker="o", markersize=3, label=name)
            axes.legend(frameon=False, fontsize=8)


def _curve(figure: Any, one: Detection, place: tuple[int, int, int]) -> None:
    said = "nobody lied" if one.auc is None else f"AUC {one.auc}"
    axes = axes_of(figure, f"ROC of suspicion: {said}", "honest above", "liars above", place)
    axes.plot([0, 1], [0, 1], color=GRID)
    curve = roc(one)
    if curve is not None:
        axes.plot(*curve, color=ORANGE, linewidth=2)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xticks([0, 0.5, 1])


def score_histograms(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> Charted | None:
    """Suspicion and scores of liars and of honest clients; None where nothing was scored."""
    drawn = [
        (one.seat, name, values, lied)
        for one in _of_the_model(records)
        for name, values, lied in _numbers(one)
    ]
    if not drawn:
        return None
    lines = -(-len(drawn) // 3)
    figure = figure_of(9, 2.4 * lines)
    for number, (seat, name, values, lied) in enumerate(drawn, 1):
        axes = axes_of(figure, seat, name, "rows", (lines, 3, number))
        edges = np.histogram_bin_edges(values, bins=24)
        axes.hist(values[~lied], bins=edges, color=BLUE, alpha=0.7, label="honest")
        if lied.any():
            axes.hist(values[lied], bins=edges, color=ORANGE, alpha=0.7, label="lied")
        axes.legend(frameon=False, fontsize=7)
        axes.xaxis.get_major_locator().set_params(integer=False, nbins=4)
    rows = [
        {"seat": seat, "score": name, "value": float(value), "lied": int(lie)}
        for seat, name, values, lied in drawn
        for value, lie in zip(values, lied, strict=True)
    ]
    return Charted(figure, rows)


def _numbers(one: Detection) -> list[tuple[str, Any, Any]]:
    """Suspicion and scores over all rounds, of rows that have them."""
    names = dict.fromkeys(name for judged in one.rounds for name in judged.judgement.scores)
    found = []
    for name in ("suspicion", *names):
        values: list[float] = []
        lied: list[bool] = []
        for judged in one.rounds:
            said = judged.judgement
            numbers = said.suspicion if name == "suspicion" else said.scores.get(name)
            if numbers is not None:
                values += numbers
                lied += judged.lied
        finite = np.isfinite(values)
        if finite.any():
            found.append((name, np.asarray(values)[finite], np.asarray(lied)[finite]))
    return found


def _of_the_model(records: Sequence[RoundRecord]) -> list[Detection]:
    return [one for one in detections(records) if one.part == "delta"]
