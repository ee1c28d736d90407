"""The audit as data: ``audit.json`` in the schema ``privfl.audit/1``."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from unicodedata import category

from privfl.audit.assets import asset_of, blind, figures
from privfl.audit.card import Line, card
from privfl.audit.claimed import Claimed
from privfl.audit.findings import AuditReport, Finding
from privfl.audit.own_models import OwnModels
from privfl.audit.score import Figure
from privfl.audit.threats import ThreatModel
from privfl.core import ConfigError
from privfl.engine.files import write_atomically

_NO_RECORD = "this is no record in the schema privfl.audit/1"
_ROUNDED = 1e-6
SCHEMA = "privfl.audit/1"
"""The schema's name and version. Keys are added within a version, and never taken away or given
another meaning.
"""


@dataclass(frozen=True, slots=True)
class RecordedFigure:
    """One figure of an audit as its record has it: value and ends of the 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """One finding as a record has it: who attacked what with what, the figures by name, whether it
    leaks, why it did not come to an end, and whether the adversary has a view at all (``looks``).
    """

    layer: str
    adversary: str
    asset: str
    attack: str
    verdict: str
    figures: Mapping[str, RecordedFigure]
    undone: str
    looks: bool

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells it from the others of a record."""
        return self.layer, self.adversary, self.asset, self.attack

    def __str__(self) -> str:
        return f"{self.attack} by {self.adversary} under {self.layer}"


def record(report: AuditReport) -> dict[str, Any]:
    """The whole report as plain values that JSON has words for; what is not known is null."""
    return {
        "schema": SCHEMA,
        "effort": report.effort,
        "seconds": report.seconds,
        "about": {"config": None, **report.about},
        "versions": _versions(),
        "layers": [
            {
                "name": name,
                "config": None,
                **{key: _plain(value) for key, value in facts.items() if key != "claims"},
                "claims": [_claimed(claim) for claim in facts.get("claims", ())],
            }
            for name, facts in report.layers.items()
        ],
        "card": [_line(line) for line in card(report)],
        "findings": [_finding(report, one) for one in report.findings],
        "lies": [{**one.row(), "letter": "G", "read": list(one.read)} for one in report.lies],
        "models": [_sent(one) for one in report.models],
    }


def write_record(report: AuditReport, folder: Path) -> Path:
    """Write ``audit.json`` into a folder, which is made if it is not there; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "audit.json"
    write_atomically(path, json.dumps(record(report), indent=1, allow_nan=False))
    return path


def rows_of(held: Mapping[str, Any]) -> tuple[Row, ...]:
    """The findings of a record.

    Raises:
        ConfigError: the record lacks what the schema promises.
    """
    try:
        return tuple(
            Row(
                _text(one, "layer"),
                _text(one, "adversary"),
                _text(one, "asset"),
                _text(one, "attack"),
                _text(one, "verdict"),
                {
                    _printed("figure", name): RecordedFigure(
                        *(_end(told[end]) for end in ("value", "low", "high"))
                    )
                    for name, told in one["figures"].items()
                },
                _text(one, "undone"),
                one["threat"] is not None,
            )
            for one in held["findings"]
        )
    except KeyError as fault:
        raise ConfigError(f"{_NO_RECORD}: its findings lack {fault}.") from None
    except (TypeError, ValueError, AttributeError, OverflowError) as fault:
        raise ConfigError(f"{_NO_RECORD}: in its findings, {fault}.") from None


def read_record(path: Path) -> dict[str, Any]:
    """A record that an audit wrote.

    Raises:
        ConfigError: no such file, no JSON, another schema, or one that lacks what it promises.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the audit '{path}': {error.strerror or error}.") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"'{path}' is no JSON: give the audit.json of another audit.") from None
    schema = held.get("schema") if isinstance(held, dict) else None
    if schema != SCHEMA:
        raise ConfigError(
            f"'{path}' has the schema '{schema}', and '{SCHEMA}' is read: audit again with this"
            " version."
        )
    for key in ("findings", "layers", "lies", "effort"):
        if key not in held:
            raise ConfigError(f"'{path}' is no record in the schema {SCHEMA}: it lacks '{key}'.")
    if not isinstance(held["effort"], str):
        raise ConfigError(f"{_NO_RECORD}: effort is a text, and not {held['effort']!r}.")
    try:
        _printed("effort", held["effort"])
    except TypeError as fault:
        raise ConfigError(f"{_NO_RECORD}: {fault}.") from None
    for row in rows_of(held):
        _check_figures(row)
    _check_lies(held["lies"])
    return dict(held)


def _check_figures(row: Row) -> None:
    """Refuse figures beside their own intervals, which would make an audit look better or worse
    than it was.
    """
    for name, told in row.figures.items():
        below, above = told.low - told.value > _ROUNDED, told.value - told.high > _ROUNDED
        if below or above or told.low > told.high:  # ends that are not known are none of these
            raise ConfigError(
                f"{_NO_RECORD}: {name} of {row} is {told.value:g} in [{told.low:g},"
                f" {told.high:g}], and a value lies in its interval: audit again."
            )


def _check_lies(lies: object) -> None:
    """Refuse lies that could not be held against others once an audit has been played."""
    try:
        if not isinstance(lies, list):
            raise TypeError(f"lies are a list, and not {lies!r}")
        for one in lies:
            for key in ("layer", "liars", "lie"):
                _text(one, key)
            if not isinstance(one["read"], list):
                raise TypeError(f"read is a list, and not {one['read']!r}")
    except (KeyError, TypeError) as fault:
        raise ConfigError(f"{_NO_RECORD}: in its lies, {fault}.") from None


def _text(one: Mapping[str, Any], key: str) -> str:
    told = one[key]
    if not isinstance(told, str):
        raise TypeError(f"{key} is a text, and not {told!r}")
    return _printed(key, told)


def _printed(key: str, told: str) -> str:
    """The same, where a terminal can show it: half a character cannot be printed, and a control
    character tells the terminal what to do.
    """
    if any(category(sign) in ("Cs", "Cc") and sign not in "\n\t" for sign in told):
        raise TypeError(f"{key} {told!a} holds what is no character to print")
    return told


def _end(value: object) -> float:
    """A figure's value or end; only what is not known has no number."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"a figure is a finite number or null, and not {value!r}")
    return float(value)


def _finding(report: AuditReport, one: Finding) -> dict[str, Any]:
    threat = report.threat_of(one)
    return {
        "layer": one.layer,
        "adversary": one.adversary,
        "threat": None if threat is None else _threat(threat),
        "asset": asset_of(one),
        "family": one.family,
        "attack": one.attack,
        "verdict": one.verdict,
        "metric": one.metric,
        "figures": {name: _figure(told) for name, told in figures(one).items()},
        "blind": {name: _number(blind(one, name)) for name in figures(one)},
        "baselines": {name: _number(told.value) for name, told in one.baselines.items()},
        "control": None if one.control is None else _figure(one.control),
        "units": one.units,
        "unit": one.unit,
        "luck": one.luck,
        "clusters": one.clusters,
        "theorem": one.theorem,
        "reason": one.reason,
        "undone": one.undone,
        "knows": one.knows,
        "effort": one.effort,
        "seconds": one.seconds,
        "more": one.more,
    }


def _sent(one: OwnModels) -> dict[str, Any]:
    return {
        "layer": one.layer,
        "sends": one.sends,
        "clients": one.clients,
        "refused": list(one.refused),
        "missing anyway": list(one.anyway),
        "why": one.why,
        "active": None if one.active is None else _figure(one.active),
        "passive": None if one.passive is None else _figure(one.passive),
        "undone": one.undone,
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "layer": line.layer,
        "asset": line.asset,
        "verdict": line.verdict,
        "adversaries": list(line.adversaries),
        "threat": None if line.threat is None else _threat(line.threat),
        "attack": line.attack,
        "figures": {name: _figure(told) for name, told in line.figures.items()},
        "blind": {name: _number(value) for name, value in line.blind.items()},
        "caps": dict(line.caps),
        "claim": line.claim,
        "units": line.units,
        "unit": line.unit,
        "luck": line.luck,
        "looks": line.looks,
        "proof": line.proof,
        "doubts": list(line.doubts),
        "change": line.change,
        "elsewhere": line.elsewhere,
        "unseen": list(line.unseen),
    }


def _threat(who: ThreatModel) -> dict[str, Any]:
    return {
        "letter": who.letter,
        "sees": who.sees,
        "disclosed": list(who.disclosed),
        "own": who.own,
        "acts": who.acts,
        "knows": who.knows,
    }


def _claimed(claim: Claimed) -> dict[str, Any]:
    return {
        "unit": claim.unit,
        "epsilon": claim.epsilon,
        "delta": claim.delta,
        "relation": claim.relation,
        "against": claim.against,
        "colluders": claim.colluders,
    }


def _figure(told: Figure) -> dict[str, float | None]:
    return {"value": _number(told.value), "low": _number(told.low), "high": _number(told.high)}


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return value


def _versions() -> dict[str, str]:
    known = {"python": platform.python_version()}
    for name in ("privfl", "torch", "numpy"):
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            known[name] = "not installed as a package"
    return known
