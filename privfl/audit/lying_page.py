"""What came of liars, as a section of the audit's page."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from privfl.audit.lying import LieFinding

_READ = (
    "Each lie was told once through the real parties, in a round of the run's own updates. A row is"
    " coloured where the liars then had a client's update, or got more than the channel's record"
    " says that they may."
)
_HEADS = ("layer", "liars", "lie", "may, by the record", "did", "what came of it")


def lies_section(findings: Sequence[LieFinding]) -> str:
    """A table of the lies that a channel declares, and one row for all lies in single frames of one
    server; nothing where no lie was told.
    """
    if not findings:
        return ""
    head = "".join(f"<th>{name}</th>" for name in _HEADS)
    rows = [_row(one) for one in findings if not one.framed]
    framed = [one for one in findings if one.framed]
    for (layer, liars), alike in groupby(framed, key=lambda one: (one.layer, one.liars)):
        rows.append(_together(layer, liars, list(alike)))
    return (
        f'<h2>Liars</h2><p class="soft">{_READ}</p><div class="wide"><table class="rows"><thead>'
        f"<tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(one: LieFinding) -> str:
    read = ", ".join(f"client/{client}" for client in one.read)
    came = f"reads the update of {read}" if read else one.why
    return _cells(one.alarming or bool(read), *_words(one), came)


def _words(one: LieFinding) -> tuple[str, ...]:
    return (one.layer, one.liars, one.does, one.says or "no promise", one.met)


def _together(layer: str, liars: str, alike: list[LieFinding]) -> str:
    """One row for all lies of one server in single frames."""
    counts = Counter(one.met for one in alike)
    told = ", ".join(f"{count} {met}" for met, count in counts.most_common())
    bad = [one for one in alike if one.alarming or one.read]
    came = [f"{one.does}: {one.met}" for one in bad]
    came += [f"ends the round by what is shared: {one.does}" for one in alike if one.telling]
    does = f"{len(alike)} lies in single frames: words moved, opened last, or one against another"
    may = alike[0].says or "no promise"
    return _cells(bool(bad), layer, liars, does, may, told, "; ".join(came))


def _cells(hot: bool, *texts: str) -> str:
    cells = "".join(
        f'<td data-h="{name}">{html.escape(text)}</td>'
        for name, text in zip(_HEADS, texts, strict=True)
    )
    return f"<tr{' class=hot' if hot else ''}>{cells}</tr>"
