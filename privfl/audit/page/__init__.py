"""The audit as one self-contained page: the report card, details, log-log ROC curves,
reconstructions beside the originals.
"""

from __future__ import annotations

import html
from pathlib import Path

from privfl.audit.card import card, worst
from privfl.audit.findings import AuditReport
from privfl.audit.lying_page import lies_section
from privfl.audit.own_models import models_section
from privfl.audit.page.plots import gallery, picture, roc, strip
from privfl.audit.page.style import STYLE
from privfl.audit.page.tables import READ, details
from privfl.audit.page.top import chips, headline, layer_card
from privfl.audit.score import Pictures
from privfl.core import PICTURES
from privfl.engine.files import write_atomically
from privfl.version import __version__

__all__ = ["write_page"]


def write_page(report: AuditReport, folder: Path) -> Path:
    """Write ``audit.html`` into a folder, which is made if it is not there; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "audit.html"
    write_atomically(page, _page(report))
    return page


def _page(report: AuditReport) -> str:
    lines = card(report)
    top = worst(lines)
    shown = None
    if top is not None:
        shown = next(
            (
                report.galleries[top.layer, who, top.attack]
                for who in top.adversaries
                if (top.layer, who, top.attack) in report.galleries
            ),
            None,
        )
    about = "; ".join(
        f"{what}: {words}" for what, words in report.about.items() if what != "config"
    )
    of = html.escape(report.about.get("config", ""))
    parts = [
        "<h1>What an adversary really gets</h1>",
        f"<div><b>{of}</b></div>" if of else "",
        f'<div class="soft">{html.escape(about)}; layers: {html.escape(", ".join(report.layers))};'
        f" effort: {report.effort}; {report.seconds:.0f} s; privfl {__version__}</div>",
        headline(lines, _strip(shown), report.about.get("probe", ""), report.lies),
        chips(report, lines),
    ]
    parts += [
        layer_card(report, number, layer, lines) for number, layer in enumerate(report.layers)
    ]
    parts.append(lies_section(report.lies))
    parts.append(models_section(report.models))
    if report.findings:
        parts.append(f"<h2>Details</h2><p class=soft>{READ}</p>{details(report)}")
    parts += _pictures(report)
    parts.append("<h2>What the adversaries know</h2><ul class=soft>")
    told: dict[str, list[str]] = {}
    for finding in report.findings:
        told.setdefault(finding.knows, []).append(finding.attack)
    parts += [
        f"<li>{html.escape(knows)}: {html.escape(', '.join(dict.fromkeys(attacks)))}</li>"
        for knows, attacks in told.items()
    ]
    parts.append("</ul>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport"'
        ' content="width=device-width,initial-scale=1">'
        f"<title>audit{f' of {of}' if of else ''} · privfl</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>"
    )


def _strip(shown: Pictures | None) -> str:
    """A few reconstructions, where they are images and there is something to draw them with."""
    if shown is None or shown.true.ndim != 4 or PICTURES.missing:
        return ""
    return strip(shown)


def _pictures(report: AuditReport) -> list[str]:
    if PICTURES.missing:
        return [f"<p class=soft>No figures: {html.escape(PICTURES.missing)}</p>"]
    parts = []
    curves = [layer for layer in report.layers if any(key[0] == layer for key in report.curves)]
    if curves:
        parts.append("<h2>Membership, on logarithmic axes</h2>")
        parts += [
            picture(roc(report, layer), f"Layer {layer}; dashed: chance.") for layer in curves
        ]
    images = {key: shown for key, shown in report.galleries.items() if shown.true.ndim == 4}
    if images:
        parts.append("<h2>Reconstructions beside the originals</h2>")
        seen: set[tuple[str, str, bytes]] = set()
        for (layer, adversary, attack), shown in images.items():
            eyes = layer, attack, shown.psnr.numpy().tobytes()
            if eyes in seen:  # another adversary with the same eyes
                continue
            seen.add(eyes)
            caption = (
                f"{attack} by {adversary} under {layer}: above what was found, below the"
                f" original; mean {shown.psnr.mean():.1f} dB, best first."
            )
            parts.append(picture(gallery(shown), caption))
    return parts
