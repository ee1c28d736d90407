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

from privfl.core import PICTURES
from privfl.report.canvas import BLUE, GREEN, GRID, INK, ORANGE, SOFT, arrange
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

    figure: Any
    rows: Sequence[Mapping[str, Any]]

    def png(self) -> bytes:
        """The bytes of a PNG file, the same for the same figure."""
        out = io.BytesIO()
        arrange(self.figure)
        self.figure.savefig(out, format="png", metadata={"Software": None})
        return out.getvalue()

    def csv(self) -> str:
        """The numbers as a file that other programs read."""
        return csv_of(self.rows)

    def svg(self, name: str) -> str:
        """The figure as a file of vectors, the same for the same figure and name."""
        out = io.StringIO()
        arrange(self.figure)
        with PICTURES.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
            self.figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
        return out.getvalue()

    def framed(self, name: str, caption: str, svg: str | None = None) -> str:
        """The figure in a page, with its caption and its numbers to download; ``svg`` is what `svg`
        gave, where it was drawn before.
        """
        svg = svg or self.svg(name)
        picture = _in_page(svg, name)
        if len(svg) > _LARGEST_VECTOR:
            source = f"data:image/png;base64,{base64.b64encode(self.png()).decode()}"
            picture = f'<img class="raster" alt="{html.escape(name)}" src="{source}">'
        table, file = self.csv(), f"{name}.csv"
        small = len(table) <= _LARGEST_TABLE
        link = f"data:text/csv;charset=utf-8,{quote(table)}" if small else file
        return (
            f"<figure>{picture}<figcaption>{html.escape(caption)}"
            f' <a class="data" download="{file}" href="{link}">The numbers (CSV)</a>'
            "</figcaption></figure>"
        )


def _in_page(text: str, name: str) -> str:
    """In the variables of the page's style, with ids that no other figure has, as wide as there is
    room.
    """
    text = text[text.index("<svg") :]
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(name)}" ', 1)
