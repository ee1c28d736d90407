"""The first screen of a run's page: what each party reads, what liars can do, what is claimed, what
was seen of defences, and what it cost.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal, NamedTuple

from privfl.audit.detection import detections
from privfl.core import DOES, FOLLOWS, POWERS
from privfl.dp import above
from privfl.engine.records import ACTED, ATTACK, RoundRecord

_CHANNEL = ("key set-up", "channel")
Mark = Literal["", "bad", "good"]


class CardLine(NamedTuple):
    """A question, its answer, and whether that is good, bad or neither."""

    asks: str
    says: str
    mark: Mark = ""


def card(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> str:
    """The card as HTML; of a run that has not ended what is known by then."""
    lines = [
        *_diverged(summary),
        *_who(summary),
        *_claims(summary.get("privacy")),
        *_rests(summary),
        *_shares(summary),
    ]
    lines += _defended(records)
    lines += _cost(records, summary)
    return f'<div class="card"><dl>{"".join(map(_row, lines))}</dl></div>'


def _row(line: CardLine) -> str:
    asks, says = html.escape(line.asks), html.escape(line.says)
    mark = f' class="{line.mark}"' if line.mark else ""
    return f"<div><dt>{asks}</dt><dd{mark}>{says}</dd></div>"


def _diverged(summary: Mapping[str, Any]) -> Iterator[CardLine]:
    """That the model is of no use, first of all."""
    if summary.get("diverged"):
        yield CardLine("The model", summary["diverged"], "bad")


def _who(summary: Mapping[str, Any]) -> Iterator[CardLine]:
    """Who reads what, and what comes of one lie, from the record of the run's channel."""
    record = summary.get("guarantees", {}).get("channel")
    if record is None:
        yield CardLine("Who reads what", "the run has not ended: its record is not written yet")
        return
    if record["fidelity"] == "ideal":
        told = "no cryptography ran: this is what a trusted party in the place of the channel gives"
        yield CardLine("Ideal", told, "bad")
    reads = str(summary["facts"].get("the server reads", "what its record says below"))
    every = "every update" in reads
    yield CardLine("The server reads", reads, "bad" if every else "")
    can = record["who can do what"]
    looks = [line["who"] for line in can if line["does"] == FOLLOWS]
    if not every:
        names = "; ".join(looks) or "nobody who follows the protocol"
        yield CardLine("Single updates are read by", names, "bad" if "server" in looks else "")
    lies = [line for line in can if line["does"] != FOLLOWS]
    together = [line for line in lies if " with " in line["who"]]
    clients = [line for line in lies if line["who"] == "a client"]
    single = [line for line in lies if line not in together and line not in clients]
    yield _worst("One lying server or helper", single, "nothing, by any lie that is known of it")
    lying = _worst("One lying client", clients, "nothing beyond its own bounded contribution")
    if summary["facts"].get("bound") == "none" and lying.mark != "bad":
        says = "moves the aggregate as far as the rule lets it: nothing bounds a contribution"
        lying = CardLine(lying.asks, says, "bad")
    yield lying
    if together:
        yield _worst("Several who lie together", together, "nothing more")
    if "over unsigned mail" in record:
        yield CardLine("Whoever carries the mail", record["over unsigned mail"], "bad")


def _worst(asks: str, lies: Sequence[Mapping[str, str]], none: str) -> CardLine:
    """The most that comes of one of these lies, and by whom."""
    for power in reversed(POWERS[1:]):
        who = list(dict.fromkeys(line["who"] for line in lies if line["can"] == DOES[power]))
        if who:
            named = "" if who == ["a client"] else f" ({'; '.join(who)})"
            return CardLine(
                asks, f"{DOES[power]}{named}", "bad" if power in ("shift", "read") else ""
            )
    return CardLine(asks, none, "good" if lies else "")


def _claims(lines: Sequence[Mapping[str, Any]] | None) -> Iterator[CardLine]:
    """Epsilon with its unit, neighbours, delta and adversary, and what is left to a test."""
    if lines is None:
        return
    if not lines:
        says = "none: nothing bounds what the models tell of anybody's data"
        yield CardLine("Differential privacy", says, "bad")
    for line in lines:
        asks = f"Privacy of one {line['unit']}"
        if not isinstance(line["epsilon"], float):
            why = line["refused"] or "the noise bounds nothing"
            yield CardLine(asks, f"no claim: {why}", "bad")
            continue
        # the adversary, in the claim's own words; figures are in the claim below
        against = str(line["claim"]).split(": (")[0]
        says = (
            f"epsilon {above(line['epsilon'])} at delta {line['delta']:g}, neighbours by"
            f" {line['relation']}. {against}."
        )
        if line["risk"] is not None:
            found = math.ceil(1000 * line["risk"]["tpr_at_01"]) / 10
            says += (
                f" Their test of membership finds {found:g} % at most, wrong about 1 % of those not"
                " there."
            )
        if line["as_drawn"] is not None:
            says += f" Against who knows the seed: epsilon {_figure(line['as_drawn'])}."
        yield CardLine(asks, says)


def _rests(summary: Mapping[str, Any]) -> Iterator[CardLine]:
    """Who reads what the noise should hide, and who takes the noise away by a lie."""
    record = summary.get("guarantees", {}).get("mechanism")
    if record is None or not summary.get("privacy"):
        return
    told = [
        f"{line['who']} {line['does']}"
        for line in record["who can do what"]
        if line["does"] != FOLLOWS and line["can"] != DOES["nothing"]
    ]
    if told:
        yield CardLine("No epsilon holds, if", "; ".join(told))


def _shares(summary: Mapping[str, Any]) -> Iterator[CardLine]:
    """What comes of clients that lie about their shares of the noise, and how many must not."""
    record = summary.get("guarantees", {}).get("noise in shares")
    if record is None:
        return
    told = [
        f"{line['who']} {line['does']}: {line['can']}"
        for line in record["who can do what"]
        if line["does"] != FOLLOWS
    ]
    needs = "; ".join(record["assumes"])
    yield CardLine("Noise in shares", f"{'; '.join(told)}. Its epsilon assumes {needs}")


def _figure(value: Any) -> str:
    return above(value) if isinstance(value, float) else str(value)


def _defended(records: Sequence[RoundRecord]) -> Iterator[CardLine]:
    """Whether anybody lied, whom the defences dropped, and what attacks measured of themselves."""
    if not any(record.survivors for record in records):
        says = "nothing: no client's update was used in any round"
        yield CardLine("Learned from clients", says, "bad")
    liars = {liar for record in records for liar in record.liars}
    measured = [record.measures for record in records if record.measures]
    last = measured[-1] if measured else {}
    acted = {
        who.removeprefix(ATTACK)
        for record in records
        for who, what in record.fired.items()
        if who.startswith(ATTACK) and what.startswith(ACTED)
    }
    if acted and not liars:
        says = f"by {', '.join(sorted(acted))}; no client sent an update that was a lie"
        yield CardLine("Attacked", says)
    elif not liars:
        yield CardLine("Robustness", "nobody lied in this run: it says nothing of lying clients")
    else:
        yield CardLine("Attacked through", f"{len(liars)} client{'s' * (len(liars) > 1)}")
    for one in detections(records):
        if one.part != "delta" or not liars:
            continue
        if one.tpr is None or one.fpr is None:
            among = "not known" if one.among_kept is None else str(one.among_kept)
            says = f"selects, accuses nobody; liars among what it kept: {among}"
        else:
            says = f"dropped {one.tpr} of the liars' rows and {one.fpr} of the honest ones"
        yield CardLine(f"Defence: {one.seat}", says)
    if last:
        told = "; ".join(f"{name} {value:.3g}" for name, value in last.items())
        yield CardLine("Measured at the end", told)


def _cost(records: Sequence[RoundRecord], summary: Mapping[str, Any]) -> Iterator[CardLine]:
    """What the layers cost beside sending plain updates, and beside training."""
    said = []
    d, sent = summary.get("parameters"), [record.bytes_sent for record in records]
    plain: list[int] = [4 * (d or 0) * record.survivors for record in records]
    if all(count is not None for count in sent) and any(plain):
        times = sum(count or 0 for count in sent) / sum(plain)
        said.append(f"{times:.3g} times the bytes of plain updates (4 a value)")
    measured = all(count is not None for count in sent)  # an ideal functionality's are not
    whole = fmean(sum(record.seconds.values()) for record in records)
    spent = fmean(sum(record.seconds.get(stage, 0.0) for stage in _CHANNEL) for record in records)
    if whole > 0 and measured:
        said.append(f"the channel takes {spent / whole:.0%} of {whole:.3g} s a round")
    if said:
        yield CardLine("Cost", "; ".join(said))
