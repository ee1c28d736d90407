"""What came of a server that sends clients other models than the round's own: whom a channel whose
plans name their model refuses, and what is read of the others.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from privfl.audit.intervals import Figure
from privfl.core import ClientId

_HEADS = ("layer", "the server sends", "refused", "active", "passive, same rounds", "what came")
_READ = (
    "Played through the real parties: a server that pushes up the loss of the samples it asks about"
    " before clients train (gradient ascent), beside one that only looks in as many rounds. Areas"
    " under the ROC curve, members against held-out samples of the same client."
)


@dataclass(frozen=True, slots=True)
class OwnModels:
    """What came of models that a server sent in place of the round's own under one layer.

    ``sends`` says to whom which, ``clients`` how many clients were sent one; those ``refused`` were
    in no row and no sum that was opened, and are in the honest run of the same coins; those who
    were missing ``anyway`` are so in that run too, or failed in training. ``why`` is the first
    reason that the run gave. ``active`` is the area under the ROC curve of membership, ``passive``
    that of looking alone in as many rounds; None where there was nothing to score. ``undone``: why
    it did not come to an end.
    """

    layer: str
    sends: str
    clients: int
    refused: tuple[ClientId, ...] = ()
    why: str = ""
    active: Figure | None = None
    passive: Figure | None = None
    undone: str = ""
    anyway: tuple[ClientId, ...] = ()

    @property
    def words(self) -> str:
        """What came of it, as a sentence."""
        if self.undone:
            return f"did not come to an end: {self.undone}"
        why = f" ({self.why})" if self.why else ""
        out = f"{len(self.refused)} of {self.clients} clients are in nothing that was opened"
        missing = f"{len(self.anyway)} of {self.clients} clients are missing whatever they are sent"
        also = f"; {missing}" if self.anyway else ""
        if self.stopped:
            return f"stopped: {out}{why}{also}"
        if self.refused:
            return f"not stopped, though {out}{why}{also}"
        if self.anyway and self.active is None:
            return f"nobody refused it, and nothing could be scored: {missing}{why}"
        return f"not stopped{also}"

    @property
    def stopped(self) -> bool:
        """Whether clients were refused for what they were sent, and nothing could be scored of any
        other one.
        """
        return bool(self.refused) and self.active is None and not self.undone

    def row(self) -> dict[str, Any]:
        """One row of a table."""
        return {
            "layer": self.layer,
            "the server sends": self.sends,
            "refused": f"{len(self.refused)} of {self.clients}",
            "active": "" if self.active is None else str(self.active),
            "passive, same rounds": "" if self.passive is None else str(self.passive),
            "what came": self.words,
        }


def models_line(told: Sequence[OwnModels]) -> str:
    """A line under a layer's card; nothing where no such server was played."""
    if not told:
        return ""
    said = "; ".join(
        f"{one.sends}: {one.words}" + (f" (AUC {one.active})" if one.active is not None else "")
        for one in told
    )
    return (
        '<div class="line"><div class="asset">other models</div><div><span class="badge">'
        f"{'stopped' if all(one.stopped for one in told) else 'sent'}</span></div>"
        f'<div class="spans">A server that sends models of its own. {html.escape(said)}.</div>'
        "</div>"
    )


def models_section(told: Sequence[OwnModels]) -> str:
    """A table of all layers; nothing where no such server was played."""
    if not told:
        return ""
    head = "".join(f"<th>{name}</th>" for name in _HEADS)
    body = ""
    for one in told:
        row = one.row()
        cells = "".join(
            f'<td data-h="{name}">{html.escape(str(row[name]))}</td>' for name in _HEADS
        )
        body += f"<tr>{cells}</tr>"
    return (
        f'<h2>Models of the server\'s own</h2><p class="soft">{_READ}</p><div class="wide"><table'
        f' class="rows"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )
