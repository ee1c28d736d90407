"""Rules that average rows which they chose, each cut to a length."""

from __future__ import annotations

import math

from privfl.aggregators.base import InHull, Memoryless, majority
from privfl.core import require


class CutInHull(InHull, Memoryless):
    """A rule that chooses rows by a majority's likeness, blind to their lengths, and averages them
    cut to ``bound``: the median norm of all rows where it is None; inf cuts nothing.
    """

    __slots__ = ()
    bound: float | None

    def require_bound(self) -> None:
        """Refuse a bound that is none.

        Raises:
            ConfigError: it is not above 0.
        """
        if self.bound is not None:
            require.positive(bound=self.bound)

    @property
    def breaks(self) -> str:
        """Where no length is cut, far rows that look alike."""
        return "lengths are not cut" if self.bound == math.inf else ""

    def max_byzantine(self, n: int) -> int:
        """Fewer than half."""
        return majority(n)
