"""Figures as they stand in a page: vectors in the page's own colours, with the numbers beside."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import matplotlib as mpl
from matplotlib.figure import Figure

from privfl.report.canvas import BLUE, GREEN, GRID, INK, ORANGE, SOFT
from privfl.report.tables import csv_of

_COLOURS = {
    INK: "--ink",
    SOFT: "--soft",
    GRID: "--grid",
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    "#000000": "--ink",
}
_LARGEST_VECTOR = 400_000
"""Characters of a vector figure beyond which its raster stands in the page."""
_LARGEST_TABLE = 200_000
"""Characters of a table beyond which the page links to the file beside it."""


@dataclass(frozen=True)
class Charted:
    """A figure and the numbers that it shows, a row each."""

    figure: Figure
    rows: Sequence[Mapping[str, Any]]

    def png(self) -> bytes:
        """The bytes of a PNG file, the same for the same figure."""
        out = io.BytesIO()
        self.figure.savefig(out, format="png", metadata={"Software": None})
        return out.getvalue()

    def csv(self) -> str:
        """The numbers as a file that other programs read."""
        return csv_of(self.rows)

    def svg(self, name: str) -> str:
        """The figure as SVG for a page, in the variables of its style; ``name`` keeps its ids apart
        from those of other figures.
        """
        out = io.StringIO()
        with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
            self.figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
        text = out.getvalue()
        text = text[text.index("<svg") :]
        for colour, variable in _COLOURS.items():
            text = text.replace(colour, f"var({variable})")
        text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", text)
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        return re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)

    def framed(self, name: str, caption: str) -> str:
        """The figure with its caption, its numbers to download, and a title for who cannot see."""
        picture = self.svg(name)
        if len(picture) > _LARGEST_VECTOR:
            source = f"data:image/png;base64,{base64.b64encode(self.png()).decode()}"
            picture = f'<img class="raster" alt="{html.escape(name)}" src="{source}">'
        else:
            picture = picture.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)
        table, file = self.csv(), f"{name}.csv"
        link = (
            file if len(table) > _LARGEST_TABLE else f"data:text/csv;charset=utf-8,{quote(table)}"
        )
        return (
            f"<figure>{picture}<figcaption>{html.escape(caption)}"
            f' <a class="data" download="{file}" href="{link}">The numbers (CSV)</a>'
            "</figcaption></figure>"
        )
