"""FedAvg on MNIST split by its writers, whose curve of accuracy the docs show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import flower_env
from benchmarks.harness import Row, gain, say
from privfl import Federation

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"


def writers(quick: bool) -> Iterator[Row]:
    """FedAvg on MNIST split by its 539 writers, with a small CNN: accuracy, and the curve in
    docs/figures.
    """
    federation = Federation.from_config(
        flower_env.ROOT / "examples" / "mnist_by_writer.yaml", ["audit.keep=none"]
    )
    run = federation.run(
        progress=lambda record, rounds: say(
            f"  round {record.round + 1} of {rounds}: {record.accuracy}"
        )
    )
    _plot([record.accuracy or 0.0 for record in run.history], FIGURES / "mnist_by_writer.png")
    yield gain("writers", "goal", "test accuracy", run.accuracy, 0.98, target=1)


def _plot(accuracies: Sequence[float], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        range(1, len(accuracies) + 1), [100 * a for a in accuracies], color="#2f6fb3", linewidth=2
    )
    axes.axhline(98, color="#d9772b", linewidth=1, linestyle="--")
    axes.set(
        xlabel="round",
        ylabel="test accuracy, %",
        ylim=(90, 100),
        title="MNIST by 539 writers, FedAvg, small CNN",
    )
    axes.grid(color="#e3e6ea")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
