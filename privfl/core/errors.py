"""What can go wrong, by name: every error of the package is a `PrivflError` and says what, where,
and the way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class PrivflError(Exception):
    """The root of all errors that privfl raises on purpose. It travels between processes whole,
    whatever its constructor asks for.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _as_it_was, (type(self), self.args, vars(self))


def _as_it_was(
    kind: type[PrivflError], args: tuple[Any, ...], state: dict[str, Any]
) -> PrivflError:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(state)
    return error


class ConfigError(PrivflError, ValueError):
    """A setting that cannot be: an unknown key or name, an impossible pair, a value out of
    range.
    """


class BadUpdate(PrivflError, ValueError):
    """An update of the wrong shape, with a norm over its bound, or not finite."""


class PlanRefused(PrivflError, ValueError):
    """A round's plan that a client has no part in, and why."""


class TooManyByzantine(PrivflError, ValueError):
    """A rule was asked to tolerate more Byzantine clients than its proof allows for that number of
    rows.
    """


class DataMissing(PrivflError, FileNotFoundError):
    """A data set that is not on this machine."""


class DataCorrupt(PrivflError, ValueError):
    """A file that is not what its name says: a wrong checksum, a wrong header, a wrong number of
    records.
    """


class CannotWrite(PrivflError, OSError):
    """A file that the operating system does not let us write: a full disk, a folder that may only
    be read.
    """


class ProcessDied(PrivflError, RuntimeError):
    """A process that did a part of the work was killed, for want of memory perhaps."""


class UnsupportedModel(PrivflError, ValueError):
    """A module that cannot be trained federatedly or privately as it is, and why."""


class NotVisible(PrivflError, LookupError):
    """A view was asked for something that its adversary does not see."""


class SecretsStay(PrivflError, TypeError):
    """Somebody tried to serialise an object that holds secrets by another way than
    `core.seal_state`.
    """


class BudgetSpent(PrivflError, RuntimeError):
    """A round that would spend more privacy than its budget has left: nothing of it was sent."""


class RoundFailed(PrivflError, RuntimeError):
    """A round that opened nothing: who was lost, at which exchange, and who is blamed."""


class NobodyLeft(PrivflError, RuntimeError):
    """A round of an asynchronous run for which nobody is left who may deliver."""


class ParticipationBroken(PrivflError, ValueError):
    """A client that takes part sooner or more often than the noise of a run was made for."""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """One sentence for an unknown name, with the nearest known one.

    >>> unknown("aggregator", "krumm", ["krum", "mean"])
    "unknown aggregator 'krumm'; did you mean 'krum'? Known: krum, mean."
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    return f"unknown {kind} '{name}'{hint} Known: {', '.join(names)}."
