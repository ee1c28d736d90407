"""Tables of a page."""

from __future__ import annotations


def table(rows: str) -> str:
    """Rows of HTML as a table that scrolls by itself where the screen is narrower.

    >>> table("<tr><td>1</td></tr>")
    '<div class="wide"><table><tr><td>1</td></tr></table></div>'
    """
    return f'<div class="wide"><table>{rows}</table></div>'
