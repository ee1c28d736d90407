"""Geometry of rows that many rules and attacks share: Gram matrices, distances and norms, block by
block and without the rows' copy.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core.device import exact_products

BLOCK = 4096
"""Columns at a time: 50 rows of them fit in a second-level cache."""
_FAR = 16.0
_PLAIN = 0.2
_ALIKE = 1e-5
_PEEK = 16
_BLURRED = 0.05
_TINY, _HUGE = 1e-30, 1e37
"""Sums of squares outside of these may have overflowed or vanished in float32."""


def gram(
    values: Float[Tensor, "n d"], centre: Float[Tensor, " d"] | None = None, *, exact: bool = False
) -> Float[Tensor, "n n"]:
    """Inner products [n, n] of the rows minus ``centre`` (zero where it is None), summed over
    blocks in float64.

    Products inside a block are in the rows' own precision, whatever less the process allows
    (`exact_products`), or in float64 where ``exact`` is set.

    >>> gram(torch.tensor([[3.0, 4.0], [1.0, 0.0]]))[0]
    tensor([25.,  3.], dtype=torch.float64)
    """
    n, d = values.shape
    dtype = torch.float64 if exact or values.dtype == torch.float64 else torch.float32
    total = torch.zeros(n, n, dtype=torch.float64, device=values.device)
    room = torch.empty(n, min(BLOCK, d), dtype=dtype, device=values.device)
    for start in range(0, d, BLOCK):
        part = values[:, start : start + BLOCK]
        if centre is not None:
            middle = centre[start : start + BLOCK].to(values.device, dtype)
            part = torch.sub(part.to(dtype), middle, out=room[:, : part.shape[1]])
        total += _with_themselves(part.to(dtype))
    return (total + total.T) / 2


def inner_products(values: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """`gram` of the rows, with float64 products where others would overflow or vanish."""
    inner = gram(values)
    lengths = inner.diagonal()
    if bool(((lengths > _TINY) & (lengths < _HUGE)).all()):
        return inner
    return gram(values, exact=True)


def centred_gram(
    values: Float[Tensor, "n d"], inner: Float[Tensor, "n n"] | None = None
) -> Float[Tensor, "n n"]:
    """Inner products [n, n] in float64 about some point: right to the rows' precision even for rows
    that lie close together.

    Forms a^T K b with coefficients that sum to zero do not depend on the point. It is zero where no
    two rows are much closer than they are long; otherwise the mean; where a few far rows drag that
    out of the crowd, a row of the crowd; in float64 products where two rows are so close, or rows
    so long or so short, that float32 would blur, overflow or lose them. Copies of a row, as
    colluding Byzantine clients send them, are found out and blur nothing. O(n^2 d) flops, O(n^2 +
    n block) extra memory, one pass over the rows (up to four in the bad cases), and one fewer where
    `gram` of them, about zero, is handed in as ``inner``, whatever the precision of its products.
    """
    inner = gram(values) if inner is None else inner
    if not bool((inner.diagonal() < _HUGE).all()):
        apart = _apart(gram(values, values[0], exact=True))
        return gram(values, values[int(apart.median(dim=1).values.argmin())], exact=True)
    owner = _owners(values, inner)
    inner = inner[owner][:, owner]
    if not _blurred(inner, _apart(inner), owner, _PLAIN):
        return inner
    inner = gram(values, values.mean(dim=0))[owner][:, owner]
    apart = _apart(inner)
    reach = apart.median(dim=1).values  # how far a row must look to meet half of the others
    amid = int(reach.argmin())
    far = bool(apart.max() > _FAR * reach.min())
    if far:
        inner = gram(values, values[amid])[owner][:, owner]
        apart = _apart(inner)
    if values.dtype != torch.float64 and _blurred(inner, apart, owner, _BLURRED):
        inner = gram(values, values[amid], exact=True)[owner][:, owner]
    return inner


def squared_distances(values: Float[Tensor, "n d"], *, alone: bool = False) -> Float[Tensor, "n n"]:
    """Pairwise squared L2 distances [n, n] in float64, right even where the rows lie close together
    and far from zero.

    ``torch.cdist`` on rows of norm 100 that differ by 0.1 is off by a tenth; this is not. With
    ``alone`` each distance is a function of its own two rows alone, bit for bit, so that no third
    row can turn a tie between two others: nothing is centred, and the pairs whose difference would
    be lost in products of the rows' precision, copies excepted, have products in float64. Where
    there is no such pair, that is one pass over the rows, else two.

    >>> squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))[0, 1]
    tensor(25., dtype=torch.float64)
    """
    return _alone(values) if alone else _apart(centred_gram(values))


def squared_norms(
    values: Float[Tensor, "n d"], centre: Float[Tensor, " d"] | None = None
) -> Float[Tensor, " n"]:
    """Squared L2 distance [n] of each row from ``centre`` (from zero where it is None), in float64;
    finite where the row is.

    >>> squared_norms(torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    tensor([25.,  1.], dtype=torch.float64)
    """
    total = _squares(
        values, centre, torch.float64 if values.dtype == torch.float64 else torch.float32
    )
    if not bool(
        ((total > _TINY) & (total < _HUGE)).all()
    ):  # squares that overflow or vanish in float32
        total = _squares(values, centre, torch.float64)
    return total


def _squares(values: Tensor, centre: Tensor | None, dtype: torch.dtype) -> Tensor:
    n, d = values.shape
    total = torch.zeros(n, dtype=torch.float64, device=values.device)
    room = torch.empty(n, min(BLOCK, d), dtype=dtype, device=values.device)
    for start in range(0, d, BLOCK):
        part = values[:, start : start + BLOCK].to(dtype)
        if centre is not None:
            middle = centre[start : start + BLOCK].to(values.device, dtype)
            part = torch.sub(part, middle, out=room[:, : part.shape[1]])
        total += torch.linalg.vector_norm(part, dim=1).to(torch.float64) ** 2
    return total


def _with_themselves(part: Tensor) -> Tensor:
    """Inner products of a block's rows. numpy's matrix product sees that both sides are the same,
    and computes half of them.
    """
    if part.device.type != "cpu":
        with exact_products():
            return part @ part.T
    block = part.detach().numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        return torch.from_numpy(block @ block.T)


def _alone(values: Tensor) -> Tensor:
    """Distances that hang on nothing but their own two rows."""
    if values.dtype == torch.float64:
        return _apart(gram(values))
    inner = gram(values)
    owner, lengths = _owners(values, inner), inner.diagonal()
    copies = owner[:, None] == owner
    apart, sums = _apart(inner).masked_fill_(copies, 0.0), lengths[:, None] + lengths
    told = copies | ((apart > _PLAIN * sums) & (sums > _TINY) & (sums < _HUGE))
    if bool(told.all()):
        return apart
    return torch.where(told, apart, _apart(gram(values, exact=True)))


def _apart(inner: Tensor) -> Tensor:
    lengths = inner.diagonal()
    apart = (lengths[:, None] + lengths - 2 * inner).nan_to_num_(nan=torch.inf, posinf=torch.inf)
    return apart.clamp_(min=0).fill_diagonal_(0)


def _owners(values: Tensor, inner: Tensor) -> Tensor:
    """For each row the first row that is an exact copy of it, itself where there is none before."""
    lengths = inner.diagonal()
    alike = (_apart(inner) <= _ALIKE * (lengths[:, None] + lengths)).tril(-1)
    starts = values[:, :_PEEK]
    alike &= (
        torch.cdist(starts, starts, p=0) == 0
    )  # most rows differ early: no need to read them to the end
    owner = torch.arange(len(values), device=values.device)
    for i in alike.any(dim=1).nonzero().flatten().tolist():
        for j in alike[i].nonzero().flatten().tolist():
            if owner[j] == j and torch.equal(values[i], values[j]):
                owner[i] = j
                break
    return owner


def _blurred(inner: Tensor, apart: Tensor, owner: Tensor, least: float) -> bool:
    """Whether two rows that are no copies are so much closer than they are long, or so short, that
    products of their precision lost the difference.
    """
    lengths = inner.diagonal()
    sums = lengths[:, None] + lengths
    lost = (apart < least * sums) | (sums < _TINY)
    return bool((lost & (owner[:, None] != owner)).any())
