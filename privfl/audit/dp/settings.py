"""How thorough an audit is."""

from __future__ import annotations

from dataclasses import dataclass

from privfl.audit.dp.evidence import LEVEL
from privfl.core import require


@dataclass(frozen=True, slots=True)
class Settings:
    """``level`` is the chance that an honest run raises any alarm. ``pairs`` of neighbours are
    tried, with ``climb`` more from the worst. ``values`` of noise are looked at, in at most
    ``most_rounds`` rounds or steps: the default sees noise x .97. So many ``inclusions`` in cohorts
    or batches are watched: the default sees a rate of .53 for .5. ``canaries`` bound epsilon from
    below with this ``confidence``, beside the tests; 0 leaves that out.

    Raises:
        ConfigError: a number out of range.

    >>> Settings().level
    1e-06
    """

    level: float = LEVEL
    pairs: int = 120
    climb: int = 15
    values: int = 40_000
    most_rounds: int = 400
    inclusions: int = 20_000
    canaries: int = 2000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        require.positive(level=self.level)
        require.within(0.5, 1 - 1e-9, confidence=self.confidence)
        require.at_least(1, pairs=self.pairs, values=self.values, inclusions=self.inclusions)
        require.at_least(1, most_rounds=self.most_rounds)
        require.at_least(0, climb=self.climb)
        if self.canaries:
            require.at_least(8, canaries=self.canaries)
