"""The pictures of `benchmarks.robustness`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import say

FIGURES = Path(__file__).parents[2] / "docs" / "figures"


def save(figure: Any, name: str) -> None:
    """Into docs/figures."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / name, dpi=90)
    say(f"robustness: wrote docs/figures/{name}")


def readable_on(value: float) -> str:
    """The colour of a letter on the heat map's colour of an accuracy (1 is all)."""
    return "white" if value < 0.25 or value > 0.9 else "black"


def ticks(axis: Any, at: Sequence[float]) -> None:
    """On a logarithmic axis the values that were played, as they are written, and no others."""
    axis.set(xscale="log")
    axis.set_xticks(list(at), [f"{value:g}" for value in at])
    axis.minorticks_off()


def draw_shots(
    shown: Mapping[str, Sequence[str]],
    backdoor: Mapping[str, Sequence[float]],
    main_task: Mapping[str, Sequence[float]],
) -> None:
    """Trigger and main task after the shot, group by group, with the spread over seeds."""
    import matplotlib.pyplot as plt

    sizes = [len(names) for names in shown.values()]
    figure, axes = plt.subplots(
        len(shown),
        1,
        figsize=(9.5, 9.5),
        sharex=True,
        layout="constrained",
        height_ratios=[n + 0.6 for n in sizes],
    )
    for axis, (group, names) in zip(axes, shown.items(), strict=True):
        at = torch.arange(len(names)).double()
        for offset, label, values in ((-0.2, "backdoor", backdoor), (0.2, "main task", main_task)):
            means = [statistics.mean(values[name]) for name in names]
            below = [mean - min(values[name]) for name, mean in zip(names, means, strict=True)]
            above = [max(values[name]) - mean for name, mean in zip(names, means, strict=True)]
            bars = axis.barh(
                at + offset, means, 0.38, xerr=[below, above], label=label, error_kw={"capsize": 2}
            )
            axis.bar_label(bars, [f"{100 * mean:.1f} %" for mean in means], padding=4, fontsize=8)
        axis.set(yticks=at, yticklabels=names, xlim=(0, 1.12), xticks=[0.2 * i for i in range(6)])
        axis.set_title(group, loc="left", fontsize=10)
        axis.invert_yaxis()
    axes[-1].set_xlabel(
        f"accuracy after the round (MNIST; means of {len(next(iter(backdoor.values())))} seeds,"
        " lines: least and most)"
    )
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    save(figure, "single-shot.png")


def draw_grid(
    heat: torch.Tensor,
    spread: torch.Tensor,
    attacks: Sequence[str],
    rules: Sequence[str],
    attackers: str,
    seeds: int,
) -> None:
    """Accuracies [attacks, rules] and their spread over seeds as a heat map."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(12.5, 11), layout="constrained")
    shown = axis.imshow(100 * heat, cmap="RdYlGn", vmin=10, vmax=100, aspect="auto")
    for i, (row, wide) in enumerate(zip(heat.tolist(), spread.tolist(), strict=True)):
        for j, (value, between) in enumerate(zip(row, wide, strict=True)):
            axis.text(
                j,
                i - 0.12,
                f"{100 * value:.0f}",
                ha="center",
                va="center",
                fontsize=10,
                color=readable_on(value),
            )
            axis.text(
                j,
                i + 0.27,
                f"±{50 * between:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color=readable_on(value),
            )
    axis.set_xticks(range(len(rules)), rules, rotation=35, ha="right")
    axis.set_yticks(range(len(attacks)), attacks)
    axis.axhline(0.5, color="black", linewidth=1.5)
    axis.set_title(
        f"Digits, {attackers} clients attack, Dirichlet 0.5: test accuracy in %, mean of {seeds}"
        " seeds ± half their range"
    )
    figure.colorbar(shown, ax=axis, shrink=0.5, label="test accuracy, %")
    save(figure, "attack-grid.png")


def draw_worst(
    worst: Mapping[str, torch.Tensor], liars: Sequence[int], alphas: Sequence[float], seeds: int
) -> None:
    """For each rule the accuracy [liars, alphas] under its worst attack, as heat maps."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(worst), figsize=(3 * len(worst) + 1, 3.6), sharey=True, layout="constrained"
    )
    for axis, (rule, heat) in zip(axes, worst.items(), strict=True):
        shown = axis.imshow(100 * heat, cmap="RdYlGn", vmin=10, vmax=100, aspect="auto")
        for i, row in enumerate(heat.tolist()):
            for j, value in enumerate(row):
                axis.text(
                    j,
                    i,
                    f"{100 * value:.0f}",
                    ha="center",
                    va="center",
                    color=readable_on(value),
                )
        axis.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        axis.set_yticks(range(len(liars)), liars)
        axis.set(title=rule, xlabel="Dirichlet alpha")
    axes[0].set_ylabel("liars of 20")
    figure.colorbar(shown, ax=axes, label=f"accuracy, %, mean of {seeds} seeds")
    save(figure, "worst-case.png")


def draw_semantic(
    each: Sequence[Mapping[str, Sequence[tuple[float, ...]]]],
    gammas: Sequence[float],
    quiet: int,
    lasting: Mapping[str, tuple[str, str]],
) -> None:
    """The scale of a shot, and what quiet rounds leave of an early and a late one by what the
    server does, with the spread over seeds.
    """
    import matplotlib.pyplot as plt

    figure, (scale, decay) = plt.subplots(
        1, 2, figsize=(10, 3.8), sharey=True, layout="constrained"
    )

    def line(axis: Any, at: Sequence[float], values: torch.Tensor, label: str) -> None:
        (drawn,) = axis.plot(at, values.mean(dim=0), marker="o", label=label)
        low, high = values.amin(dim=0), values.amax(dim=0)
        axis.fill_between(at, low, high, color=drawn.get_color(), alpha=0.15)

    for which, task in enumerate(("backdoor", "main task")):
        values = [[100 * found[f"gamma {g:g}"][1][which] for g in gammas] for found in each]
        line(scale, gammas, torch.tensor(values), task)
    for server, names in lasting.items():
        for when, name in zip(("early", "late"), names, strict=True):
            values = [[100 * point[0] for point in found[name]] for found in each]
            line(decay, range(-1, quiet + 1), torch.tensor(values), f"{when} shot, {server}")
    scale.set(xlabel="gamma (100 replaces the model)", ylabel="accuracy, %")
    decay.set(xlabel="rounds after the shot (-1: before)")
    for axis in (scale, decay):
        axis.legend(fontsize=8)
    save(figure, "semantic.png")


def draw_longevity(after: Sequence[int], shots: Mapping[int, Sequence[Sequence[float]]]) -> None:
    """The backdoor [seeds, after] by honest rounds after each shot, with the spread over seeds."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    for shot, seeds in shots.items():
        values = 100 * torch.tensor(seeds)
        (drawn,) = axis.plot(after, values.mean(dim=0), marker="o", label=f"shot in round {shot}")
        low, high = values.amin(dim=0), values.amax(dim=0)
        axis.fill_between(after, low, high, color=drawn.get_color(), alpha=0.15)
    axis.set(xlabel="honest rounds after the shot", ylabel="backdoor, %", ylim=(-3, 103))
    axis.legend(fontsize=8)
    save(figure, "longevity.png")


def draw_evading(each: Sequence[Mapping[str, Mapping[str, float]]]) -> None:
    """Backdoor and main task by bound and attackers of 100; by angle; by attackers of 1,000 that
    Krum sees; by bound and attackers of 1,000. Means, and the spread over seeds.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")

    def at(name: str, what: str) -> list[float]:
        return [100 * found[name][what] for found in each]

    def line(axis: Any, xs: Sequence[float], names: Sequence[str], what: str, label: str) -> None:
        values = torch.tensor([at(name, what) for name in names])
        (drawn,) = axis.plot(xs, values.mean(dim=1), marker="o", label=label)
        axis.fill_between(
            xs, values.amin(dim=1), values.amax(dim=1), color=drawn.get_color(), alpha=0.15
        )

    by_setting: dict[str, list[str]] = {}
    for name in each[0]:
        by_setting.setdefault(name.partition(":")[0], []).append(name)
    for axis, number, xlabel in (
        (axes[0][0], "9", "S, median honest norms"),
        (axes[1][1], "12", "S, median honest norms"),
    ):
        teams: dict[str, list[str]] = {}
        for name in by_setting[number]:
            if "noise" not in name:
                team = name.partition(": ")[2].rpartition(", S")[0]
                teams.setdefault(team, []).append(name)
        for team, names in teams.items():
            bounds = [float(name.rpartition("S ")[2]) for name in names]
            for what in ("backdoor", "main"):
                line(axis, bounds, names, what, f"{what}, {team}")
        ticks(axis, bounds)
        axis.set(title=f"figure {number}: clipping", xlabel=xlabel)
    for how in ("train", "constrain"):
        names = [name for name in by_setting["10"] if ("constrain" in name) == (how != "train")]
        cosines = [statistics.mean(found[name]["cosine"] for found in each) for name in names]
        backdoors = [statistics.mean(at(name, "backdoor")) for name in names]
        axes[0][1].plot(cosines, backdoors, "o", label=f"{how}-and-scale")
    axes[0][1].set(title="figure 10: audit of angles", xlabel="cosine to the broadcast")
    shares = [float(name.split()[2].replace(",", "")) / 10 for name in by_setting["11"]]
    for what in ("backdoor", "main"):
        line(axes[1][0], shares, by_setting["11"], what, what)
    ticks(axes[1][0], shares)
    axes[1][0].set(title="figure 11: Krum", xlabel="attackers, %")
    for axis in axes.flat:
        axis.set(ylabel="backdoor, %" if axis is axes[0][1] else "accuracy, %", ylim=(-3, 103))
        axis.legend(fontsize=7)
    save(figure, "evading.png")
