"""What an audit has to say: refutations, tests with p-values under the claim, and together at which
level they alarm (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

LEVEL = 1e-6
"""The chance that the tests of an honest run raise any alarm."""

Least: TypeAlias = Callable[[float], str]
"""In words the least lie that a test sees with chance .95, at a level."""


@dataclass(frozen=True)
class Test:
    """One test of a claim. ``p`` is the chance of what was seen, or worse, where the claim holds: 0
    for what refutes it without doubt, None for what was searched and not found, which has no such
    chance. ``least`` names the least lie that would have been seen.
    """

    __test__ = False  # for pytest, which would collect it

    name: str
    about: str
    seen: str
    p: float | None = None
    least: Least | None = None


@dataclass(frozen=True, slots=True)
class TestResult:
    """A test beside all others: whether it alarms, and the least lie that it would have seen."""

    __test__ = False  # for pytest, which would collect it

    name: str
    about: str
    seen: str
    p: float | None
    alarm: bool
    least: str

    def row(self) -> dict[str, Any]:
        """One row of a table."""
        return {
            "test": self.name,
            "about": self.about,
            "seen": self.seen,
            "p": self.p,
            "alarm": self.alarm,
            "least lie seen": self.least,
        }


def holm(tests: Sequence[Test], level: float = LEVEL) -> tuple[TestResult, ...]:
    """All tests at one level: the chance that an honest run has any alarm is at most ``level``,
    whatever the tests have to do with each other (Holm 1979).

    >>> holm([Test("a", "", "", 1e-9), Test("b", "", "", 0.3)])[0].alarm
    True
    """
    ordered = sorted((t.p, i) for i, t in enumerate(tests) if t.p is not None)
    alarming: set[int] = set()
    for rank, (p, i) in enumerate(ordered):
        if p > level / (len(ordered) - rank):
            break
        alarming.add(i)
    share = level / max(len(ordered), 1)
    return tuple(
        TestResult(
            t.name,
            t.about,
            t.seen,
            t.p,
            i in alarming,
            "" if t.least is None else t.least(share),
        )
        for i, t in enumerate(tests)
    )


def verdict_of(findings: Sequence[TestResult]) -> Literal["ALARM", "not refuted"]:
    """ALARM where any test alarms. Nothing else refutes a claim, and nothing proves one."""
    return "ALARM" if any(finding.alarm for finding in findings) else "not refuted"
