"""Gates for continuous integration: is a figure over a limit, is an audit worse than an older one,
and could it have seen it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from privfl.audit.assets import METRICS
from privfl.audit.record import Row, rows_of
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
            ConfigError: an unknown asset or figure, or a limit that is no number.

        >>> Limit.parse("membership.tpr_at_.01=.05")
        Limit(asset='membership', metric='tpr_at_.01', most=0.05)
        >>> Limit.parse("membership.tpr_at_.1=.05")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        privfl.core.errors.ConfigError: unknown figure 'tpr_at_.1'; did you mean 'tpr_at_.01'? ...
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
            raise ConfigError(unknown("asset", asset, known))
        if metric not in known[asset]:
            raise ConfigError(unknown("figure", metric, known[asset]))
        try:
            most = float(number)
        except ValueError:
            most = math.nan
        if not math.isfinite(most):
            raise ConfigError(f"--fail-over {key}: '{number}' is no number.")
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
    every interval is at the limit or under it. Everything else is inconclusive: the audit could not
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
        return Gate("green", str(limit), "not applicable to any adversary")
    if not seen:
        return Gate("inconclusive", str(limit), f"no attack measured {limit.metric}")
    for row in open_:
        if row.undone:
            return Gate("inconclusive", str(limit), f"{row}: {row.undone}")
    parties = {(row.layer, row.adversary) for row, _ in seen}
    for row in open_:
        if (row.layer, row.adversary) not in parties:
            return Gate(
                "inconclusive",
                str(limit),
                f"{limit.metric} was not measured of {row.adversary} under {row.layer} (too few"
                " samples, or no attack had an answer)",
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

    Red: the interval of a figure lies above the older interval. Inconclusive: a finding that was
    measured has vanished or has no figure any more, an attack broke off, or something leaks now
    that was not found to, and the intervals overlap.
    """
    now = {row.key: row for row in rows_of(held)}
    before = rows_of(old)
    gates = [gate for row in before for gate in _compared(row, now.get(row.key))]
    names = {row.key for row in before}
    gates += [
        Gate("inconclusive", f"new: {row}", "leaks, and the older audit did not ask")
        for row in now.values()
        if row.key not in names and row.verdict == "leaks"
    ]
    return tuple(gates) or (
        Gate("green", "the older audit", f"none of its {len(before)} findings got worse"),
    )


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
        elif told.low > was.high:
            gates.append(
                Gate(
                    "red",
                    asked,
                    f"{_said(told.value, told.low, told.high)} after"
                    f" {_said(was.value, was.low, was.high)}",
                )
            )
    if not gates and new.verdict == "leaks" and old.verdict != "leaks":
        gates.append(Gate("inconclusive", str(old), "leaks now, and the intervals overlap"))
    return gates


def _high(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _said(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
