"""One property of one part as a callable, and the error of a part that does not have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from privfl.core import DataMissing, PrivflError


class ConformanceError(PrivflError, AssertionError):
    """A part does not do what its seam asks, or not what it declares.

    ``subject`` is the part, ``broken`` the property that does not hold, ``found`` what was done to
    the part and what came of it, ``change`` the way out; the message says all four.

    >>> print(ConformanceError("Krum", "a row is a row", "row 3 is none", "make it one"))
    Krum: it does not hold that a row is a row: row 3 is none; make it one.
    """

    def __init__(self, subject: str, broken: str, found: str, change: str) -> None:
        super().__init__(f"{subject}: it does not hold that {broken}: {found}; {change}.")
        self.subject, self.broken, self.found, self.change = subject, broken, found, change


class Broken(Exception):
    """What a property raises inside of a `Check`: what was found, and what to change."""

    def __init__(self, found: str, change: str) -> None:
        super().__init__(found)
        self.found, self.change = found, change


def expect(holds: bool, found: str, change: str) -> None:
    """Raise `Broken` unless something holds."""
    if not holds:
        raise Broken(found, change)


@dataclass(frozen=True, slots=True)
class Check:
    """One property of one part. Call it: it returns where the property holds.

    Its ``str`` is a name for a test runner, as in ``pytest.mark.parametrize("check", checks,
    ids=str)``.

    Raises:
        ConformanceError: the property does not hold, or the part raised something that it must not.
        DataMissing: the part needs files that are not on this machine: nothing was checked.

    >>> def holds():
    ...     expect(1 + 1 == 2, "1 + 1 is not 2", "count again")
    >>> check = Check("arithmetic", "one and one are two", holds)
    >>> check()
    >>> str(check)
    'arithmetic: one and one are two'
    """

    subject: str
    says: str
    run: Callable[[], None]

    def __call__(self) -> None:
        """Look whether the property holds."""
        try:
            self.run()
        except (ConformanceError, DataMissing):
            raise
        except Broken as broken:
            raise ConformanceError(self.subject, self.says, broken.found, broken.change) from None
        except Exception as error:
            raise ConformanceError(
                self.subject,
                self.says,
                f"it raised {type(error).__name__}: {error}",
                "do not raise there",
            ) from error

    def __str__(self) -> str:
        return f"{self.subject}: {self.says}"


def run_all(checks: Iterable[Check]) -> None:
    """Run checks in order, up to the first that fails.

    Raises:
        ConformanceError: that of the first check that fails.
        DataMissing: as a `Check`.
    """
    for check in checks:
        check()


def named(subject: str, properties: Iterable[tuple[str, Callable[[], None]]]) -> Iterator[Check]:
    """Checks of one subject from sentences and functions."""
    for says, run in properties:
        yield Check(subject, says, run)
