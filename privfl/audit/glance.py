"""The report card as plain text that fits on one screen: what ``print(report)`` shows."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from privfl.audit.card import WORDS, Line, Verdict, card, worst
from privfl.audit.findings import AuditReport

_WIDTH = 100
_MOST = 36
"""Lines of all layers together; with more, a layer has one line for all that leaks under it."""


def glance(report: AuditReport) -> str:
    """At most some 45 lines of 100 columns: under each layer what leaks, with the first figure that
    is above what is blind, and what does not; then the worst leak, and where the rest is.

    >>> print(glance(AuditReport((), {"plain": {}}, effort="low")))
    An audit of 1 layer, effort low, 0 s: no leak was found, with this effort.
    plain
      not asked: samples, membership, properties, labels, text, presence, representatives
    All of it: card(report), report.rows, record(report), write_page(report, folder).
    """
    lines = card(report)
    leaks = [line for line in lines if line.verdict == "leaks"]
    top, read = worst(lines), sum(bool(one.read) for one in report.lies)
    found = f"{len(leaks)} of {len(lines)} lines leak" if leaks else ""
    found = found or ("no attack that only looks found a leak" if read else "no leak was found")
    layers = len(report.layers)
    said = [
        f"An audit of {layers} layer{'s' * (layers != 1)}, effort {report.effort},"
        f" {report.seconds:.0f} s: {found}{'' if leaks else ', with this effort'}."
    ]
    under = {name: [line for line in lines if line.layer == name] for name in report.layers}
    parts = [(name, list(_layer(own))) for name, own in under.items()]
    if sum(1 + len(own) for _, own in parts) > _MOST:
        parts = [(name, [_short(own)]) for name, own in under.items()]
    for name, own in parts[: _MOST // 2]:
        said += [_cut(name), *own]
    if len(parts) > _MOST // 2:
        said.append(f"(and {len(parts) - _MOST // 2} more layers)")
    if top is not None:
        said += _wrapped(f"Worst: {top.asset} under {top.layer}, by {top.who}", 2)
        said += _wrapped(f"  {top.attack}: {top.evidence}, of {top.counted}", 2)
        said += _wrapped(f"  change: {top.change}", 3)
    if report.lies:
        said.append(f"Liars: {read} of {len(report.lies)} lies read a client's update.")
    said.append("All of it: card(report), report.rows, record(report), write_page(report, folder).")
    return "\n".join(said)


def _layer(lines: Sequence[Line]) -> Iterator[str]:
    for line in lines:
        if line.verdict == "leaks":
            yield _cut(f"  {line.asset} {line.brief}")
    others: tuple[Verdict, ...] = ("not found", "not applicable", "not asked")
    for verdict in others:
        named = [line.asset for line in lines if line.verdict == verdict]
        if named:
            yield f"  {WORDS[verdict]}: {', '.join(named)}"
    undone = dict.fromkeys(line.asset for line in lines if line.doubts)
    if undone:
        yield f"  not brought to an end: attacks on {', '.join(undone)}"


def _short(lines: Sequence[Line]) -> str:
    leaks = [line.asset for line in lines if line.verdict == "leaks"]
    undone = " (some attacks were not brought to an end)" * any(line.doubts for line in lines)
    return f"  leaks: {', '.join(leaks) or 'nothing found, with this effort'}{undone}"


def _wrapped(words: str, most: int) -> list[str]:
    return textwrap.wrap(
        words, _WIDTH, subsequent_indent="    ", max_lines=most, placeholder=" ..."
    )


def _cut(words: str) -> str:
    return words if len(words) <= _WIDTH else f"{words[: _WIDTH - 4]} ..."
