"""Gates for continuous integration: is a figure over a limit, is an audit worse than an older one,
and could it have seen it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from privfl.audit.assets import METRICS
from privfl.audit.effort import Effort
from privfl.audit.record import RecordedFigure, Row, rows_of
from privfl.core import ConfigError, unknown

Light: TypeAlias = Literal["green", "red", "inconclusive"]
EXIT: Mapping[Light, int] = {"green": 0, "red": 1, "inconclusive": 3}
"""A command's exit code. 2 is a config or an argument that cannot be."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A figure of an asset, and how much of it is allowed."""

    asset: str
    metric: str
    most: float

    @classmethod
    def parse(cls, text: str) -> Limit:
        """Read ``asset.metric=limit``.

        Raises:
            ConfigError: an unknown asset or figure, or a limit that is no number, or one that the
                figure passes always or never.

        >>> Limit.parse("membership.tpr_at_.01=.05")
        Limit(asset='membership', metric='tpr_at_.01', most=0.05)
        >>> Limit.parse("membership.tpr_at_.1=.05")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        privfl.core.errors.ConfigError: --fail-over membership.tpr_at_.1=.05: unknown figure ...
        """
        key, equals, number = text.rpartition("=")
        asset, dot, metric = key.partition(".")
        if not equals or not dot:
            raise ConfigError(
                f"--fail-over takes ASSET.FIGURE=LIMIT, as in membership.tpr_at_.01=.05, and got"
                f" '{text}'."
            )
        known: dict[str, tuple[str, ...]] = {"liars": ("read",)}
        known.update(METRICS.items())
        if asset not in known:
            raise ConfigError(f"--fail-over {text}: {unknown('asset', asset, known)}")
        if metric not in known[asset]:
            raise ConfigError(f"--fail-over {text}: {unknown('figure', metric, known[asset])}")
        try:
            most = float(number)
        except ValueError:
            most = math.nan
        if not math.isfinite(most):
            raise ConfigError(f"--fail-over {key}: '{number}' is no number.")
        share = metric not in ("psnr", "read")
        if (metric != "psnr" and most < 0) or (share and most >= 1):
            raise ConfigError(
                f"--fail-over {key}: no figure is ever on the other side of {number}, so the gate"
                f" would say nothing; give {'a share from 0 to below 1' if share else 'a count'}."
            )
        return cls(asset, metric, most)

    def __str__(self) -> str:
        return f"{self.asset}.{self.metric} over {self.most:g}"


@dataclass(frozen=True, slots=True)
class Gate:
    """What a gate says: its light, what it asked, and why."""

    light: Light
    asked: str
    why: str

    def row(self) -> dict[str, Any]:
        """One row of a table."""
        return {"gate": self.asked, "light": self.light, "why": self.why}


def light_of(gates: Sequence[Gate]) -> Light:
    """The light of all gates together: red where one is, then inconclusive where one is."""
    lights = {gate.light for gate in gates}
    return "red" if "red" in lights else "inconclusive" if "inconclusive" in lights else "green"


def over(held: Mapping[str, Any], limit: Limit) -> Gate:
    """Whether any finding of a record is over a limit.

    Red: the lower end of some finding's interval is over the limit. Green: of every adversary under
    every layer the figure was measured, no attack on the asset broke off, and the upper end of
    every interval is at the limit or under it. Whoever had a view for any asset counts, and so does
    every layer. Everything else is inconclusive: the audit could not
    have told the limit from more. An attack that is proved not to apply asks for nothing, but
    whoever has a view must have been measured by another one. ``liars.read`` counts the lies after
    which a client's update was read.
    """
    if limit.asset == "liars":
        return _lied(held, limit)
    about = [row for row in rows_of(held) if row.asset == limit.asset]
    seen = [(row, row.figures[limit.metric]) for row in about if limit.metric in row.figures]
    above = [(row, told) for row, told in seen if told.low > limit.most]
    if above:
        row, told = max(above, key=lambda one: one[1].low)
        return Gate("red", str(limit), f"{_said(told.value, told.low, told.high)}, {row}")
    open_ = [row for row in about if row.verdict != "not applicable" or row.looks]
    if not seen and about and not open_:
        who = ", ".join(sorted({row.adversary for row in about}))
        return Gate("inconclusive", str(limit), f"nobody looked: {who} had no view in any layer")
    if not seen:
        return Gate("inconclusive", str(limit), f"no attack measured {limit.metric}")
    for row in open_:
        if row.undone:
            return Gate("inconclusive", str(limit), f"{row}: {row.undone}")
    parties = {(row.layer, row.adversary) for row, _ in seen}
    looking = {(row.layer, row.adversary) for row in rows_of(held) if row.looks}
    for layer, who in [*((row.layer, row.adversary) for row in open_), *sorted(looking)]:
        if (layer, who) not in parties:
            return Gate(
                "inconclusive",
                str(limit),
                f"{limit.metric} was not measured of {who} under {layer} (too few samples, or no"
                " attack had an answer)",
            )
    silent = {layer["name"] for layer in held["layers"]} - {row.layer for row in about}
    if silent:
        return Gate(
            "inconclusive",
            str(limit),
            f"{limit.asset} was not asked under {', '.join(sorted(silent))}",
        )
    row, told = max(seen, key=lambda one: _high(one[1].high))
    words = f"{_said(told.value, told.low, told.high)}, {row}"
    if not told.high <= limit.most:
        return Gate("inconclusive", str(limit), f"the interval reaches over the limit: {words}")
    return Gate("green", str(limit), f"at most {words}")


def _lied(held: Mapping[str, Any], limit: Limit) -> Gate:
    told = held["lies"]
    read = [one for one in told if one["read"]]
    if len(read) > limit.most:
        one = read[0]
        return Gate("red", str(limit), f"{one['liars']} under {one['layer']}: {one['lie']}")
    silent = {layer["name"] for layer in held["layers"]} - {one["layer"] for one in told}
    if silent:
        return Gate(
            "inconclusive", str(limit), f"no lie was told under {', '.join(sorted(silent))}"
        )
    return Gate("green", str(limit), f"{len(read)} of {len(told)} lies read an update")


def against(held: Mapping[str, Any], old: Mapping[str, Any]) -> tuple[Gate, ...]:
    """Whether an audit is worse than an older one, a gate for each finding of the older one that
    got worse or cannot be compared, and a green one where nothing did.

    Red: the interval of a figure lies above the older interval, or a lie reads an update that read
    none. Inconclusive: a finding that was measured has vanished or has no figure any more, an
    attack broke off, something leaks now that was not found to, and the intervals overlap, or an
    interval that reaches above the older one is more than twice as wide, so that worse would not
    have been seen; a lie reads an update that the older audit did not tell, or that one tried
    harder, told more lies, or measured nothing.
    """
    now = _numbered(rows_of(held))
    before = _numbered(rows_of(old))
    gates = [gate for key, row in before.items() for gate in _compared(row, now.get(key))]
    gates += [
        Gate("inconclusive", f"new: {row}", "leaks, and the older audit did not ask")
        for key, row in now.items()
        if key not in before and row.verdict == "leaks"
    ]
    gates += [*_less(held, old), *_lies_compared(held, old)]
    if not any(row.figures for row in before.values()):
        gates.append(Gate("inconclusive", "the older audit", "it measured nothing"))
    return tuple(gates) or (
        Gate("green", "the older audit", f"none of its {len(before)} findings got worse"),
    )


def _numbered(rows: Sequence[Row]) -> dict[tuple[tuple[str, ...], int], Row]:
    """Rows by their keys and, where an attack was played with several settings, by their order."""
    seen: Counter[tuple[str, ...]] = Counter()
    numbered: dict[tuple[tuple[str, ...], int], Row] = {}
    for row in rows:
        numbered[row.key, seen[row.key]] = row
        seen[row.key] += 1
    return numbered


def _less(held: Mapping[str, Any], old: Mapping[str, Any]) -> list[Gate]:
    """Whether the older audit tried harder: what it found, less effort may miss."""
    order = get_args(Effort)
    now, before = held["effort"], old["effort"]
    if now in order and before in order and order.index(now) >= order.index(before):
        return []
    return [Gate("inconclusive", "effort", f"{now}, and the older audit had {before}")]


def _lies_compared(held: Mapping[str, Any], old: Mapping[str, Any]) -> list[Gate]:
    """The lies that read an update and read none before, and those that are told no more."""
    now = {(one["layer"], one["liars"], one["lie"]): one["read"] for one in held["lies"]}
    before = {(one["layer"], one["liars"], one["lie"]): one["read"] for one in old["lies"]}
    gates = [
        Gate("red", f"{liars} under {layer}", f"{lie}: reads an update, and did not before")
        if (layer, liars, lie) in before
        else Gate(
            "inconclusive",
            f"{liars} under {layer}",
            f"{lie}: reads an update, and the older audit did not tell this lie",
        )
        for (layer, liars, lie), read in now.items()
        if read and not before.get((layer, liars, lie))
    ]
    gone = [key for key in before if key not in now]
    if gone:
        layer, liars, lie = gone[0]
        why = f"{len(gone)} lies of the older audit were not told, as: {lie}"
        gates.append(Gate("inconclusive", f"{liars} under {layer}", why))
    return gates


def _compared(old: Row, new: Row | None) -> list[Gate]:
    if not old.figures:
        if new is not None and new.verdict == "leaks":
            return [Gate("red", str(old), "leaks, and had no figure before")]
        return []
    if new is None:
        return [Gate("inconclusive", str(old), "it was measured, and is not in this audit")]
    if new.undone:
        return [Gate("inconclusive", str(old), new.undone)]
    gates = []
    for name, was in old.figures.items():
        asked = f"{old.asset}.{name}, {old}"
        told = new.figures.get(name)
        if told is None:
            gates.append(Gate("inconclusive", asked, "it was measured, and has no figure now"))
            continue
        words = (
            f"{_said(told.value, told.low, told.high)} after {_said(was.value, was.low, was.high)}"
        )
        if told.low > was.high:
            gates.append(Gate("red", asked, words))
        elif not _would_show(was, told):
            gates.append(Gate("inconclusive", asked, f"too wide to be held beside: {words}"))
    if not gates and new.verdict == "leaks" and old.verdict != "leaks":
        gates.append(
            Gate("inconclusive", str(old), "leaks now, looked at alone; intervals overlap")
        )
    return gates


def _would_show(was: RecordedFigure, told: RecordedFigure) -> bool:
    """Whether an interval that overlaps the older one says that nothing got worse: it reaches no
    higher, or it is not much wider. No interval says nothing.
    """
    return told.high <= was.high or told.high - told.low <= 2 * (was.high - was.low)


def _high(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _said(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
