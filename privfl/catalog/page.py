"""What there is, as a page of Markdown: made from the catalogue, plug-ins included."""

from __future__ import annotations

from privfl.catalog.listing import describe
from privfl.catalog.tables import SEAMS


def page() -> str:
    """One table for each seam: every name, its keys, what it is, and who brings it.

    >>> "| krum |" in page()
    True
    """
    lines = ["# What there is", "", "Printed by `privfl list --page`, plug-ins included."]
    for seam in SEAMS:
        lines += ["", f"## {seam.replace('_', ' ').capitalize()}", ""]
        lines += ["| name | keys | what it is | from |", "| --- | --- | --- | --- |"]
        for row in describe(seam):
            cells = (row["name"], row.get("keys", ""), row["is"], row["from"])
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
