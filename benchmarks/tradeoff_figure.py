"""The figure of accuracy over epsilon, drawn from the latest run of each case."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.recipes import DELTA

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
POINTS = FIGURES / "tradeoff.json"
"""Accuracies by case, epsilon and seed of the latest run of each case: the figure is drawn from all
of them.
"""


_TITLES = {
    "mnist_wavelets": "MNIST, sample level, wavelets",
    "mnist": "MNIST, sample level, CNN",
    "fashion": "Fashion-MNIST, sample level, wavelets",
    "cifar10_10000": "CIFAR-10, 10,000 samples, wavelets",
    "cifar10": "CIFAR-10, 20,000 samples, wavelets",
    "by": "MNIST by writer, client level, softmax",
}
"""What the curves of cases with these beginnings are called; the first that fits."""
_COLOURS = ("#3d9361", "#2f6fb3", "#d9772b", "#8a5aa8", "#b3423f", "#50545a")


def keep(case: str, points: Mapping[float, list[float]]) -> None:
    """Remember a case's accuracies, and draw the figure of all cases again."""
    known = json.loads(POINTS.read_text()) if POINTS.exists() else {}
    known[case] = {f"{epsilon:g}": accuracies for epsilon, accuracies in points.items()}
    FIGURES.mkdir(parents=True, exist_ok=True)
    POINTS.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
    draw(known, FIGURES / "tradeoff.png")


def draw(known: Mapping[str, Mapping[str, list[float]]], path: Path) -> None:
    """Accuracy over epsilon, with the worst and best seed as bars."""
    from matplotlib.figure import Figure

    curves: dict[str, list[tuple[float, list[float]]]] = {}
    for case, points in known.items():
        title = next(title for start, title in _TITLES.items() if case.startswith(start))
        curves.setdefault(title, []).extend(
            (float(e), accuracies) for e, accuracies in points.items()
        )
    figure = Figure(figsize=(7, 3.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for (title, curve), colour in zip(sorted(curves.items()), _COLOURS, strict=False):
        curve.sort()
        _curve(axes, curve, colour, title)
    _finish(axes, "Privacy against utility: mean, worst and best seed")
    axes.set_xticks([1, 2, 3, 4, 5, 7, 8], ["1", "2", "3", "4", "5", "7", "8"])
    figure.savefig(path, metadata={"Software": None})


def draw_mechanisms(mechanisms: Mapping[str, Mapping[float, list[float]]]) -> None:
    """Client-level accuracy on MNIST by writer over epsilon: a curve for each mechanism where
    writers come in turns, and the latest run with everybody in every round.
    """
    from matplotlib.figure import Figure

    known = json.loads(POINTS.read_text()) if POINTS.exists() else {}
    everybody = {float(e): told for e, told in known.get("by_writer", {}).items()}
    curves = {
        **{f"{name}, an eighth in each round": curve for name, curve in mechanisms.items()},
        **({"independent, everybody in every round": everybody} if everybody else {}),
    }
    figure = Figure(figsize=(7, 3.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for (name, curve), colour in zip(curves.items(), _COLOURS, strict=False):
        _curve(axes, sorted(curve.items()), colour, name)
    _finish(axes, "MNIST by writer, client level, no amplification: mean, worst and best seed")
    axes.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / "correlated-writers.png", metadata={"Software": None})


def _curve(axes: Axes, curve: list[tuple[float, list[float]]], colour: str, name: str) -> None:
    """Mean accuracies in percent, with the worst and best seed as bars."""
    middle = [100 * statistics.mean(accuracies) for _, accuracies in curve]
    low = [m - 100 * min(accuracies) for m, (_, accuracies) in zip(middle, curve, strict=True)]
    high = [100 * max(accuracies) - m for m, (_, accuracies) in zip(middle, curve, strict=True)]
    axes.errorbar(
        [e for e, _ in curve],
        middle,
        yerr=[low, high],
        color=colour,
        marker="o",
        capsize=3,
        linewidth=1.8,
        label=name,
    )


def _finish(axes: Axes, title: str) -> None:
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set(xlabel=f"epsilon (delta {DELTA:g})", ylabel="test accuracy, %", title=title)
    axes.grid(color="#e3e6ea")
    axes.legend(frameon=False, fontsize=8)
