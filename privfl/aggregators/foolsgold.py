"""FoolsGold (Fung, Yoon, Beschastnikh 2018, 2020): clients that always push the same way are one
person's sybils.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.base import MemoryRule, combine, majority
from privfl.aggregators.clipping import shortening
from privfl.aggregators.verdict import Verdict
from privfl.core import BadUpdate, ClientId, Context, Rows, require
from privfl.core.geometry import gram, squared_norms

_ALIKE = 1e-9
"""1 minus a cosine under which two histories are the same: float32 copies of one row at several
lengths differ by 1e-14 a round. Without it the largest alpha, be it rounding, would become 1.
"""


@dataclass(frozen=True, slots=True)
class UpdateHistory:
    """The sum of each client's past rows: ids, and the sums [clients, d] in that order."""

    ids: tuple[ClientId, ...] = ()
    sums: Float[Tensor, "clients d"] | None = None


def foolsgold_weights(cosines: Float[Tensor, "n n"], kappa: float) -> Float[Tensor, " n"]:
    """Algorithm 1's learning rates from the pairwise cosines of the histories (the diagonal is not
    looked at).
    """
    similar = cosines.clone().fill_diagonal_(0)
    peak = similar.max(dim=1).values
    pardon = torch.where(
        peak[None, :] > peak[:, None],
        peak[:, None] / peak[None, :].clamp(min=1e-300),
        torch.ones(()).to(peak),
    )
    alpha = (1 - (similar * pardon).max(dim=1).values).clamp(0, 1)
    alpha[alpha <= _ALIKE] = 0
    if not float(alpha.max()) > 0:
        return torch.zeros_like(alpha)
    alpha = alpha / alpha.max()
    alpha[alpha == 1] = 0.99
    return (kappa * (torch.log(alpha / (1 - alpha)) + 0.5)).clamp(0, 1)


@dataclass(frozen=True, slots=True)
class FoolsGold(MemoryRule[UpdateHistory]):
    """Weigh every row down by how much its client's history resembles another's (Fung et al. 2020,
    Algorithm 1).

    cs_ij: cosines of the summed past rows. v_i = max_j cs_ij; pardoning: where v_j > v_i, cs_ij is
    multiplied by v_i / v_j. alpha_i = 1 - max_j cs_ij, divided by the largest, then kappa
    (ln(alpha / (1 - alpha)) + 1/2) cut to [0, 1]. The result is the average with these weights.
    ``average=False`` is the paper's sum of alpha_i x_i, where x_i are gradients of one step and the
    learning rate is chosen for their sum; of n updates of federated averaging it is up to n times
    too long.

    Tolerates any number of sybils as long as honest clients differ among themselves, and no
    attacker that acts alone: it is trusted, and more than honest clients that are alike. So that it
    moves the model no farther than an honest client would, rows are cut to ``bound`` before they
    are summed and averaged (the authors' code cuts them to 1): to the median norm of all rows where
    it is None; inf cuts nothing. Where all histories are the same, nobody is trusted and the model
    stays. Needs client ids; keeps one [d] sum a client. Row weights are not used. No sensitivity is
    proved: one client moves everybody's weight.

    >>> context = Context(None, torch.zeros(2), torch.Generator())
    >>> rows = Rows.of([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [-1.0, 0.0]])
    >>> FoolsGold().step(rows, UpdateHistory(), context)[0]
    tensor([0.5000, 0.5000])
    """

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    symmetries: ClassVar[str] = "PSR"
    needs_ids: ClassVar[bool] = True

    kappa: float = 1.0
    average: bool = True
    bound: float | None = None

    def __post_init__(self) -> None:
        require.positive(kappa=self.kappa)
        if self.bound is not None:
            require.positive(bound=self.bound)

    def init(self) -> UpdateHistory:
        """Nobody has sent anything."""
        return UpdateHistory()

    def max_byzantine(self, n: int) -> int:
        """Fewer than half: rows that are not finite say nothing about sybils."""
        return majority(n)

    def _decide(
        self, rows: Rows, lost: int, state: UpdateHistory, context: Context
    ) -> tuple[Verdict[Tensor], UpdateHistory]:
        if rows.ids is None:
            raise BadUpdate(
                "FoolsGold sums up every client's history, and these rows are anonymous: use a"
                " channel that names them."
            )
        norms = squared_norms(rows.values).sqrt().cpu()
        scale, _ = shortening(norms, self.bound)
        known = {client: i for i, client in enumerate(state.ids)}
        places = [known.setdefault(client, len(known)) for client in rows.ids]
        sums = rows.values.new_zeros(len(known), rows.d)
        if state.sums is not None:
            sums[: len(state.ids)] = state.sums
        cut = rows.values * scale.to(rows.values)[:, None]
        sums.index_add_(0, torch.tensor(places, device=sums.device), cut)
        inner = gram(sums[places], exact=True).cpu()  # alpha is 1 minus a cosine near 1
        far = inner.diagonal().clamp(min=0).sqrt()
        lengths = far[:, None] * far
        cosines = torch.where(
            lengths > 0, inner / lengths.clamp(min=1e-300), torch.zeros(()).to(inner)
        ).clamp(-1, 1)
        alpha = foolsgold_weights(cosines, self.kappa)
        total = max(float(alpha.sum()), 1e-300) if self.average else 1.0
        verdict = Verdict(
            combine(cut, alpha / total),
            kept=alpha > 0,
            scale=scale * alpha,
            suspicion=1 - alpha,
            scores={"trust": alpha, "norm": norms},
        )
        return verdict, UpdateHistory(tuple(known), sums)
