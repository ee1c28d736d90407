"""The audit as one self-contained page: tables, log-log ROC curves, reconstructions beside the
originals.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from privfl.audit.findings import AuditReport, Finding
from privfl.audit.lying_page import lies_section
from privfl.audit.score import Figure

INK, SOFT, GRID = "#1b1f24", "#6a737d", "#e3e6ea"
COLOURS = ("#2f6fb3", "#d9772b", "#3d9361", "#8a63b8", "#c04f5e", "#c9a227", "#5b8a8a", "#9aa3ad")
_SHOWN = 8
_STYLE = """
:root{color-scheme:light}
body{margin:0;background:#f6f7f9;color:#1b1f24;
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1100px;margin:0 auto;padding:32px 20px 64px}h1{font-size:26px;margin:0 0 4px}
h2{font-size:17px;margin:36px 0 10px}
.soft{color:#6a737d}
figure{margin:0 0 18px;background:#fff;border:1px solid #e3e6ea;border-radius:10px;padding:14px}
img{max-width:100%;height:auto;display:block}figcaption{color:#6a737d;font-size:13px;margin-top:6px}
.wide{overflow-x:auto;background:#fff;border:1px solid #e3e6ea;border-radius:10px;margin:0 0 12px}
table{border-collapse:collapse;width:100%;font-size:13px}
tr:last-child td,tr:last-child th{border-bottom:0}.long{min-width:220px}
td,th{padding:5px 10px;border-bottom:1px solid #eef0f2;text-align:left;vertical-align:top}
th{color:#6a737d;font-weight:500}
.na{color:#6a737d}.hot{background:#fdebe7}
"""

_READ = (
    "Figures stand with their 95 % intervals in brackets, where there is one. The control is the"
    " same score against a truth that was dealt out at random; the baseline is what somebody gets"
    " who saw nothing. A row is coloured where the figure is above its baseline, and the interval"
    " does not hold the baseline: there the adversary got something."
)


def write_page(report: AuditReport, folder: Path) -> Path:
    """Write ``audit.html`` into a folder, which is made if it is not there; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    page, draft = folder / "audit.html", folder / f".audit.{os.getpid()}.draft"
    draft.write_text(_page(report), encoding="utf-8")
    draft.replace(page)
    return page


def _page(report: AuditReport) -> str:
    say = html.escape
    parts = ["<h1>What an adversary really gets</h1>"]
    about = "; ".join(f"{what}: {words}" for what, words in report.about.items())
    parts.append(f'<div class="soft">{say(about)}; {report.seconds:.0f} s</div>')
    layers = "".join(
        f"<tr><th>{say(name)}</th><td>{100 * facts['accuracy']:.1f}"
        f" %</td><td>{say(_epsilon(facts['claimed epsilon']))}</td>"
        f"<td>{say(str(facts['the server reads']))}</td><td>{say(str(facts['fidelity']))}</td></tr>"
        for name, facts in report.layers.items()
    )
    parts.append(
        '<h2>Layers</h2><div class="wide"><table><tr><th>layer</th><th>test accuracy</th>'
        "<th>claimed epsilon</th><th>the server reads</th><th>fidelity</th></tr>"
    )
    parts.append(f"{layers}</table></div>")
    if report.findings:
        parts.append(f"<p>{_READ}</p>")
    for family in dict.fromkeys(finding.family for finding in report.findings):
        rows = _rows([finding for finding in report.findings if finding.family == family])
        head = "".join(
            f"<th>{name}</th>"
            for name in (
                "layer",
                "adversary",
                "attack",
                "figure",
                "measured in",
                "control",
                "baseline",
                "more",
            )
        )
        framed = f'<div class="wide"><table><tr>{head}</tr>{rows}</table></div>'
        parts.append(f"<h2>{say(family.capitalize())}</h2>{framed}")
    parts.append(lies_section(report.lies))
    if report.curves:
        parts.append("<h2>Membership, on logarithmic axes</h2>")
        parts += [
            _picture(_roc(report, layer), f"Layer {layer}; dashed: chance.")
            for layer in report.layers
        ]
    if report.galleries:
        parts.append("<h2>Reconstructions beside the originals</h2>")
        for (layer, adversary, attack), shown in report.galleries.items():
            if shown.true.ndim == 4:
                caption = (
                    f"{attack} by {adversary} under {layer}: above what was found, below the"
                    f" original; mean {shown.psnr.mean():.1f} dB."
                )
                parts.append(_picture(_gallery(shown), caption))
    parts.append("<h2>What the adversaries know</h2><ul>")
    parts += [
        f"<li>{say(line)}</li>"
        for line in dict.fromkeys(f"{f.attack}: {f.knows}" for f in report.findings)
    ]
    parts.append("</ul>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport"'
        ' content="width=device-width,initial-scale=1">'
        "<title>audit ·"
        f" privfl</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>"
    )


def _epsilon(claimed: Any) -> str:
    return (
        "no claim"
        if not claimed
        else ", ".join(f"{unit} {value:.3g}" for unit, value in claimed.items())
    )


def _rows(findings: Sequence[Finding]) -> str:
    """One row a finding; attacks that do not apply for one and the same reason share one."""
    rows = []
    for (layer, adversary, reason), alike in groupby(
        findings, key=lambda one: (one.layer, one.adversary, one.reason)
    ):
        same = list(alike)
        rows += [_row(finding, finding.value) for finding in same if finding.value is not None]
        if not reason:
            continue
        attacks = "<br>".join(html.escape(finding.attack) for finding in same)
        head = f"<td>{html.escape(layer)}</td><td>{html.escape(adversary)}</td><td>{attacks}</td>"
        said = f"not applicable: {html.escape(reason)}"
        rows.append(f'<tr class="na">{head}<td colspan="5" class="long">{said}</td></tr>')
    return "".join(rows)


def _row(finding: Finding, value: Figure) -> str:
    say = html.escape
    named = (finding.layer, finding.adversary, finding.attack)
    head = "".join(f"<td>{say(one)}</td>" for one in named)
    leaks = (
        finding.baseline is not None
        and value.value > finding.baseline.value
        and not value.low <= finding.baseline.value
    )
    control, baseline = (
        "" if figure is None else str(figure) for figure in (finding.control, finding.baseline)
    )
    cells = "".join(
        f"<td>{say(text)}</td>" for text in (str(value), finding.metric, control, baseline)
    )
    cells += f'<td class="long">{say(finding.more)}</td>'
    return f"<tr{' class=hot' if leaks else ''}>{head}{cells}</tr>"


def _roc(report: AuditReport, layer: str) -> bytes:
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


def _gallery(shown: Any) -> bytes:
    n = min(_SHOWN, len(shown.true))
    canvas = _canvas(1.1 * n + 0.1, 2.5)
    best = shown.psnr.argsort(descending=True)[:n]
    for column, i in enumerate(best.tolist()):
        for row, images in enumerate((shown.found, shown.true)):
            axes = canvas.add_subplot(2, n, row * n + column + 1)
            picture = images[i].clamp(0, 1).permute(1, 2, 0).squeeze(-1).numpy()
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
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


def _picture(png: bytes, caption: str) -> str:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return (
        f'<figure><img alt="{html.escape(caption)}"'
        f' src="{source}"><figcaption>{html.escape(caption)}</figcaption></figure>'
    )
