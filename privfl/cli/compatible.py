"""The table of rules and channels, for people: a mark for each pair, and what the marks mean."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence

from privfl.catalog import MARKS

_EACH = 20
"""Channels beside each other; more go into a table of their own."""


def page(pairs: Sequence[Mapping[str, str]]) -> str:
    """Which rule works over which channel, in lines of at most 100 columns, from the rows of
    `catalog.compatibility`.

    >>> row = {"rule": "mean", "channel": "plain", "mark": "+", "from": ""}
    >>> print(page([row]).splitlines()[5])
    mean  +
    """
    channels = list(dict.fromkeys(pair["channel"] for pair in pairs))
    letters = dict(zip(channels, _letters(), strict=False))
    marks = {(pair["rule"], pair["channel"]): pair["mark"] for pair in pairs}
    rules = list(dict.fromkeys(rule for rule, _ in marks))
    width = max(len(rule) for rule in rules)
    lines = ["Rules over channels", "", *(f"{letters[name]}  {name}" for name in channels), ""]
    for start in range(0, len(channels), _EACH):
        shown = channels[start : start + _EACH]
        lines.append(f"{'':{width}}  {' '.join(letters[name] for name in shown)}")
        lines += [
            f"{rule:{width}}  {' '.join(f'{marks[rule, c]:>{len(letters[c])}}' for c in shown)}"
            for rule in rules
        ]
        lines.append("")
    used = set(marks.values())
    lines += [f"{mark}  {means}" for mark, means in MARKS.items() if mark in used]
    brought = dict.fromkeys(part for pair in pairs for part in pair["from"].split(", ") if part)
    lines += ["", *brought] if brought else []
    lines += ["", "Each pair in words: privfl list --compat --json. Who reads and who may lie:"]
    lines.append("privfl list guarantees.")
    lines.append("Rules, channels and noise act on updates: privfl vertical takes none of them.")
    return "\n".join(lines)


def _letters() -> Iterator[str]:
    """A, B, ..., Z, AA, AB, ..."""
    yield from string.ascii_uppercase
    for first in string.ascii_uppercase:
        yield from (first + second for second in string.ascii_uppercase)
