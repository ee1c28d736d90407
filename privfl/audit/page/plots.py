"""Pictures of an audit's page: log-log ROC curves, reconstructions beside the originals."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import numpy as np

from privfl.audit.findings import AuditReport
from privfl.audit.score import Pictures

INK, SOFT, GRID = "#1b1f24", "#6a737d", "#e3e6ea"
COLOURS = ("#2f6fb3", "#d9772b", "#3d9361", "#8a63b8", "#c04f5e", "#c9a227", "#5b8a8a", "#9aa3ad")
_SHOWN, _IN_STRIP = 8, 4


def roc(report: AuditReport, layer: str) -> bytes:
    """The ROC curves of one layer, each once, as a PNG."""
    canvas = _canvas(6.4, 4.4)
    axes = canvas.add_subplot(111)
    curves = [(key, told) for key, told in report.curves.items() if key[0] == layer]
    seen: set[bytes] = set()
    for key, told in curves:
        mark = told.true_positives.numpy().tobytes()
        if mark in seen:  # another adversary with the same eyes
            continue
        seen.add(mark)
        axes.plot(
            told.false_positives.clamp(min=1e-4),
            told.true_positives.clamp(min=1e-4),
            label=f"{key[2]}, {key[1]}",
            color=COLOURS[(len(seen) - 1) % len(COLOURS)],
            linewidth=1.8,
        )
    grid = np.logspace(-4, 0, 50)
    axes.plot(grid, grid, color=SOFT, linestyle="--", linewidth=1)
    axes.set(xscale="log", yscale="log", xlim=(1e-3, 1), ylim=(1e-3, 1.05))
    axes.set_xlabel("false positives", color=SOFT, fontsize=9)
    axes.set_ylabel("true positives", color=SOFT, fontsize=9)
    axes.grid(color=GRID, linewidth=0.8)
    if curves:
        axes.legend(frameon=False, fontsize=7, loc="lower right")
    return _png(canvas)


def gallery(shown: Pictures) -> bytes:
    """The best reconstructions above their originals, as a PNG."""
    return _pairs(shown, _SHOWN)


def strip(shown: Pictures) -> str:
    """A few of the best as a small picture beside a headline."""
    return _img(_pairs(shown, _IN_STRIP), "what was found, above the originals")


def _pairs(shown: Pictures, most: int) -> bytes:
    n = min(most, len(shown.true))
    canvas = _canvas(1.1 * n + 0.1, 2.5)
    best = shown.psnr.argsort(descending=True)[:n]
    for column, i in enumerate(best.tolist()):
        for row, images in enumerate((shown.found, shown.true)):
            axes = canvas.add_subplot(2, n, row * n + column + 1)
            image = images[i].clamp(0, 1).permute(1, 2, 0).squeeze(-1).numpy()
            axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(f"{float(shown.psnr[i]):.0f} dB", fontsize=8, color=INK)
    return _png(canvas)


def _canvas(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(canvas)
    return canvas


def _png(canvas: Any) -> bytes:
    out = io.BytesIO()
    canvas.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def picture(png: bytes, caption: str) -> str:
    """A PNG inside the page, with its caption."""
    return f"<figure>{_img(png, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _img(png: bytes, words: str) -> str:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<img alt="{html.escape(words)}" src="{source}">'
