"""What a report says of defences that judge clients: whom they accused, and whether rightly."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from privfl.audit.detection import ClientHistory, Detection, clients_of, detections
from privfl.audit.score import Figure
from privfl.engine.records import RoundRecord
from privfl.report.tables import table

_ABOUT = (
    "Held against the clients through which an attacker acted in the round, which no defence is"
    " told. Rates count rows over all rounds, with Wilson intervals of 95 %; an AUC compares rows"
    " of one round, and its interval resamples rounds. NA: nobody lied, nobody was dropped, or the"
    " seat selects a fixed number of rows and so accuses nobody; then the liars among the rows that"
    " it selected are what counts. A row of a group is a liar's where one of the group lied."
)
_HEAD = (
    "seat",
    "liars dropped (TPR)",
    "honest dropped (FPR)",
    "FPR without liars",
    "liars among dropped (precision)",
    "AUC of suspicion",
    "liars among kept",
)


def detected(records: Sequence[RoundRecord], honest: Sequence[RoundRecord] = ()) -> list[str]:
    """Tables of what each seat found, and of each client under it; nothing where no seat judged.
    ``honest`` are the rounds of the same run without its attackers, where it was played.
    """
    found = detections(records)
    if not found:
        return []
    null = {(one.seat, one.part): one for one in detections(honest)}
    rows = "".join(_row("td", _cells(one, null)) for one in found)
    parts = [
        "<h2>Whom the defences accused</h2>",
        f'<p class="soft">{html.escape(_ABOUT)}</p>',
        table(_row("th", _HEAD) + rows),
    ]
    for one in found:
        if one.part == "delta":
            parts += [f"<h2>Clients under {html.escape(one.seat)}</h2>", _clients(one)]
    return parts


def _cells(one: Detection, null: Mapping[tuple[str, str], Detection]) -> list[str]:
    name = one.seat if one.part == "delta" else f"{one.seat} ({one.part})"
    told = [*(["selects a fixed number"] if not one.accuses else [])]
    told += ["is told how many lie"] if one.told_f else []
    beside = null.get((one.seat, one.part), one)
    figures = (one.tpr, one.fpr, beside.null_fpr, one.precision, one.auc, one.among_kept)
    return [f"{name} ({', '.join(told)})" if told else name, *map(_figure, figures)]


def _figure(figure: Figure | None) -> str:
    return "NA" if figure is None else str(figure)


def _clients(detection: Detection) -> str:
    """All of them: who was seen, dropped and suspected how often is never cut."""
    head = ("client", "rounds seen", "dropped", "lied", "mean rank by suspicion (1: the worst)")
    return table(_row("th", head) + "".join(_client(one) for one in clients_of(detection)))


def _client(one: ClientHistory) -> str:
    rank = "NA" if one.rank is None else f"{one.rank:.2f}"
    return _row("td", (one.client, one.seen, one.dropped, one.lied, rank))


def _row(kind: str, cells: Sequence[object]) -> str:
    return (
        "<tr>" + "".join(f"<{kind}>{html.escape(str(cell))}</{kind}>" for cell in cells) + "</tr>"
    )
