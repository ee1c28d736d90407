"""MoNNA: the rows nearest an own one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from privfl.aggregators.base import InHull, RowRule, mask, mean_of
from privfl.aggregators.verdict import Verdict
from privfl.core import BadUpdate, ClientId, ConfigError, Examples, Rows, TooManyByzantine, require
from privfl.core.geometry import squared_norms


@dataclass(frozen=True, slots=True)
class MoNNA(InHull, RowRule):
    """Nearest-neighbour averaging around a pivot (Farhadkhani et al. 2023): average the n - f rows
    nearest client ``pivot``'s own.

    In the paper every node aggregates around its own update, which it trusts: tolerates f < n/2 as
    long as the pivot is honest. The pivot is named by client id. Row weights are not used.

    >>> round(float(MoNNA(f=1, pivot=0)(Rows.of([[0.0], [0.5], [0.2], [7.0]])) * 30), 3)
    7.0
    """

    told_f: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    examples: ClassVar[Examples] = {"": {"f": 3, "pivot": 0}}
    needs_ids: ClassVar[bool] = True

    f: int = 1
    pivot: ClientId = 0

    def __post_init__(self) -> None:
        require.at_least(0, f=self.f)

    def max_byzantine(self, n: int) -> int:
        """f, where n > 2f."""
        require.honest_majority(rule="MoNNA", n=n, f=self.f, at_least=2 * self.f + 1)
        return self.f

    def admit(self, clients: Collection[ClientId]) -> None:
        """Refuse a pivot that is no client.

        Raises:
            ConfigError: the pivot is not among these clients.
        """
        if self.pivot not in clients:
            raise ConfigError(
                f"MoNNA trusts client {self.pivot}, and there is none: name another pivot."
            )

    def _decide(self, rows: Rows, lost: int) -> Verdict[Tensor]:
        if rows.ids is None:
            raise BadUpdate(
                "MoNNA finds its pivot by client id, and these rows are anonymous: use a channel"
                " that names them."
            )
        if self.pivot not in rows.ids:
            raise TooManyByzantine(
                f"MoNNA trusts client {self.pivot}, whose update is not there or not finite: name"
                " another pivot."
            )
        away = squared_norms(rows.values, rows.values[rows.ids.index(self.pivot)]).sqrt()
        chosen = away.argsort(stable=True)[: rows.n - max(self.f - lost, 0)].cpu()
        return Verdict(
            mean_of(rows.values, chosen),
            kept=mask(rows.n, chosen),
            suspicion=away.cpu(),
            scores={"distance": away},
        )
