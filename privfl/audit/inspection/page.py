"""An inspection as one self-contained page: the ranking, and the reversed triggers as pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.audit.inspection.inspection import FLAGGED, UNFLAGGED, Inspection
from privfl.audit.inspection.neural_cleanse import MAD_TO_DEVIATION, median_of
from privfl.audit.inspection.record import class_rows, unit_rows
from privfl.engine.files import write_atomically

_STYLE = """
:root{color-scheme:light dark;--back:#f6f7f9;--ink:#1b1f24;--soft:#59636e;--card:#fff;
--line:#e3e6ea;--bar:#2f6fb3;--bad:#c0392b}
@media(prefers-color-scheme:dark){:root{--back:#14171a;--ink:#e6e9ec;--soft:#9aa3ad;--card:#1d2126;
--line:#333a41;--bar:#6fa8dc;--bad:#e57368}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);
font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
main{max-width:980px;margin:0 auto;padding:20px 20px 64px}h1{font-size:23px;margin:0 0 2px}
h2{font-size:17px;margin:26px 0 8px}.soft{color:var(--soft);font-size:13px}
.said{background:var(--card);border:1px solid var(--line);border-left:6px solid var(--soft);
border-radius:10px;padding:10px 14px;margin:12px 0}.said.bad{border-left-color:var(--bad)}
.said p{margin:2px 0}.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);
border-radius:10px;margin:8px 0;overflow-wrap:normal}
table{border-collapse:collapse;width:100%;font-size:13px}
td,th{padding:5px 10px;border-top:1px solid var(--line);text-align:left;white-space:nowrap}
th{color:var(--soft);font-weight:500}tr.bad td{color:var(--bad);font-weight:600}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(210px,1fr));gap:10px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px}
figure.bad{border-color:var(--bad)}figure div{display:flex;gap:4px}
figure img{width:33%;image-rendering:pixelated;display:block}
figcaption{color:var(--soft);font-size:13px;margin-top:6px}
svg{display:block;width:100%;min-width:560px;height:auto}
svg text{fill:var(--ink);font-size:12px}svg .bar{fill:var(--bar)}
svg .bad{fill:var(--bad)}svg .mark{stroke:var(--soft);stroke-dasharray:4 3}
svg .limit{stroke:var(--bad);stroke-dasharray:4 3}
"""


def inspection_page(found: Inspection, name: str) -> str:
    """The page as HTML, for a run of this name."""
    bad = found.verdict == "flagged"
    means = FLAGGED if bad else UNFLAGGED
    about = (
        f"{found.images} images of {found.data} made the triggers, {found.held_out:,} others"
        f" measured them; pixels in the range {found.span}; {found.cleanse.steps} steps at most,"
        f" {found.seconds:.0f} s"
    )
    parts = [
        f"<h1>Does the model hide a backdoor? {html.escape(name)}</h1>",
        f'<div class="soft">{html.escape(about)}</div>',
        f'<section class="said{" bad" if bad else ""}"><p><b>{html.escape(found.verdict)}:</b>'
        f" {html.escape(found.why)}.</p><p>{html.escape(means)}</p></section>",
        "<h2>The smallest patch that takes images to a class (Neural Cleanse)</h2>",
        f'<p class="soft">{html.escape(_rule(found))}</p>',
        _bars(found),
        _table(class_rows(found)),
        "<h2>The patches</h2>",
        '<p class="soft">Mask, pattern under the mask, and a clean image with it.</p>',
        f'<div class="cards">{"".join(_card(found, row) for row in class_rows(found))}</div>',
        "<h2>One lifted unit (like ABS)</h2>",
        '<p class="soft">How much the strongest unit raises a class over all others, and the share'
        " of images that it takes there. It ranks candidates and flags nothing: no trigger is"
        " reversed from a unit, and clean models have a class on top as well.</p>",
        _table(unit_rows(found)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport"'
        ' content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(name)} · inspection · privfl</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>"
    )


def write_inspection_page(found: Inspection, folder: Path) -> Path:
    """Write ``inspect.html`` into a folder, which is made if it is not there; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "inspect.html"
    write_atomically(path, inspection_page(found, folder.name))
    return path


def _rule(found: Inspection) -> str:
    """When a class is flagged, whose rule that is, and whom the paper's flags."""
    alone = ", ".join(map(str, found.by_index_alone)) or "none"
    own = (
        "The index is the paper's condition, the median's share is this library's own: it was"
        " added after the index alone had flagged a clean model, and it can let a backdoor pass."
    )
    return (
        f"A class is flagged where its index is over {found.limit:g} and its mask under"
        f" {found.smaller:g} of the median. {own} Over {found.limit:g} by index alone: {alone}."
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return '<p class="soft">The time was up before it.</p>'
    head = "".join(f"<th>{html.escape(key)}</th>" for key in rows[0])
    body = "".join(
        f"<tr{' class=bad' if row.get('flagged') else ''}>"
        + "".join(f"<td>{html.escape(_cell(value))}</td>" for value in row.values())
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return "-" if value is None else str(value)


def _bars(found: Inspection) -> str:
    """Mask sizes as a drawing, with the median and the size below which a class is flagged."""
    sizes = torch.tensor([one.size for one in found.classes if one.index is not None])
    if not len(sizes):
        return ""
    middle = median_of(sizes)
    deviation = MAD_TO_DEVIATION * median_of((sizes - middle).abs())
    edge = min(middle - found.limit * deviation, found.smaller * middle)
    widest = max(one.size for one in found.classes)
    rows, scale = len(found.classes), 560 / max(widest, 1e-12)
    parts = [
        f'<div class="wide"><svg viewBox="0 0 720 {22 * rows + 34}" role="img"'
        ' aria-label="mask sizes by class">'
    ]
    for number, one in enumerate(found.classes):
        y, width = 8 + 22 * number, max(one.size * scale, 1)
        parts.append(
            f'<text x="8" y="{y + 12}">class {one.target}</text>'
            f'<rect class="{"bad" if one.flagged else "bar"}" x="80" y="{y}" width="{width:.1f}"'
            f' height="15" rx="2"/><text x="{86 + width:.1f}" y="{y + 12}">{one.size:.1f}</text>'
        )
    bottom = 22 * rows + 8
    for kind, at, words in (("mark", middle, "median"), ("limit", edge, "flagged below")):
        if at > 0:
            x = 80 + at * scale
            parts.append(
                f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="2" y2="{bottom}"/>'
                f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{words}</text>'
            )
    return "".join([*parts, "</svg></div>"])


def _card(found: Inspection, row: Mapping[str, Any]) -> str:
    target, triggers = int(row["class"]), found.triggers
    low, high = (torch.tensor(end).view(-1, 1, 1) for end in (found.low, found.high))
    mask = triggers.mask[target].cpu()
    pattern = (triggers.pattern[target].cpu() - low) / (high - low).clamp(min=1e-12)
    image = (found.example - low) / (high - low).clamp(min=1e-12)
    shown = (mask, mask * pattern, (1 - mask) * image + mask * pattern)
    words = ("mask", "pattern under the mask", "a clean image with it")
    pictures = "".join(
        f'<img alt="class {target}: {alt}" src="{_png(picture)}">'
        for alt, picture in zip(words, shown, strict=True)
    )
    index = "no trigger" if row["index"] is None else f"index {row['index']:.2f}"
    flagged = ", flagged" if row["flagged"] else ""
    return (
        f"<figure{' class=bad' if row['flagged'] else ''}><div>{pictures}</div><figcaption>class"
        f" {target}: {row['mask']:.1f} pixels, {index}{flagged}</figcaption></figure>"
    )


def _png(picture: Float[Tensor, "c h w"]) -> str:
    """An image with values in [0, 1], pixel by pixel; channels that are no colours as their
    mean.
    """
    from matplotlib.image import imsave

    colours = picture.clamp(0, 1)
    if len(colours) != 3:
        colours = colours.mean(dim=0, keepdim=True).expand(3, -1, -1)
    out = io.BytesIO()
    pixels = colours.permute(1, 2, 0).contiguous().numpy()
    imsave(out, pixels, format="png")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
