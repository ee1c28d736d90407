"""Figures and axes that all pictures of a report are drawn on."""

from __future__ import annotations

from typing import Any

INK, SOFT, GRID = "#1b1f24", "#6a737d", "#e3e6ea"
BLUE, ORANGE, GREEN = "#2f6fb3", "#d9772b", "#3d9361"


def axes_of(
    figure: Any, title: str, x: str, y: str, place: tuple[int, int, int] = (1, 1, 1)
) -> Any:
    """Axes at a place (rows, columns, number) of a figure."""
    from matplotlib.ticker import MaxNLocator

    axes = figure.add_subplot(*place)
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


def figure_of(width: float, height: float) -> Any:
    """An empty figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def arrange(figure: Any) -> None:
    """Give each part of a figure its place once and for all: matplotlib would measure all text in
    vectors, which takes several times as long, and draw the figure once more to do it.
    """
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)
