"""Trimmed means and medians by a selection network: the same bits as `columns.sorted_columns` and
torch's mean, by the compiled kernel (`core.native`) where one was built; None wherever it cannot
serve.

Batcher's merge exchange for n rows (Batcher 1968; Knuth, The Art of Computer Programming 3,
Algorithm 5.2.2M) is pruned to the comparators that the kept ranks depend on. A comparator works on
many coordinates at once, so there are no branches and no transposed copy.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from privfl.aggregators.columns import middle, sorted_columns
from privfl.core import Vector
from privfl.core.native import kernels

MOST = 512
"""Rows at most: comparators grow as n log^2 n, and the sort is as fast from about here on."""
_FIRST = 3
"""Phases that the kernel has built in: eight rows at a time, in registers."""
_TILE = 256
"""Bytes of a row in the kernel's tile."""
_LINE = 64
_Pairs = tuple[tuple[int, int], ...]
_NAMES = {torch.float32: "network_float32", torch.float64: "network_float64"}
_Kernel = Callable[..., int]
_Table = npt.NDArray[np.int32]


def trimmed_by_network(
    values: Float[Tensor, "n d"], f: int, library: ctypes.CDLL | None = None
) -> Vector | None:
    """The mean [d] of each coordinate without its f lowest and f highest values; None where there
    is no kernel, it has no such shape, or a value is not finite.
    """
    n, kernel = len(values), _kernel(values, library)
    if kernel is None or not 0 <= 2 * f < n:
        return None
    sums = _sums(n, f, values.dtype)
    if sums is None:
        return None
    return _run(kernel, values, _pairs(n, f, n - f), sums, n - 2 * f, (0, 0))


def median_by_network(
    values: Float[Tensor, "n d"], library: ctypes.CDLL | None = None
) -> Vector | None:
    """The median [d] of each coordinate, the midpoint of the two middle values for even n; None as
    `trimmed_by_network`.
    """
    n, kernel = len(values), _kernel(values, library)
    if kernel is None:
        return None
    low, high = (n - 1) // 2, n // 2
    return _run(kernel, values, _pairs(n, low, high + 1), _table(()), 1, (low, high))


def agrees_with_the_sort(library: ctypes.CDLL) -> bool:
    """Whether a library gives the sort's bits for rows of many shapes, with ties and zeros of both
    signs among their values.
    """
    rng = torch.Generator().manual_seed(22)
    for n, dtype in product((1, 2, 3, 8, 9, 10, 31, 64, 101), (torch.float32, torch.float64)):
        values = torch.empty(n, 131, dtype=dtype).normal_(generator=rng)
        values[:, :40].round_()
        values[:, 40:50].mul_(1e-44)
        for f in {0, (n - 1) // 3, (n - 1) // 2}:
            kept = [c[:, f : n - f].mean(dim=1) for _, c in sorted_columns(values)]
            found = trimmed_by_network(values, f, library)
            if found is not None and not same_bits(found, torch.cat(kept)):
                return False
        found = median_by_network(values, library)
        if found is None or not same_bits(
            found, torch.cat([middle(c) for _, c in sorted_columns(values)])
        ):
            return False
    return True


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two vectors are the same, the signs of zeros included.

    >>> same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    False
    """
    return one.numpy().tobytes() == other.numpy().tobytes()


def merge_exchange(n: int) -> tuple[int, _Pairs]:
    """Batcher's network for n rows without its first three phases, and how far apart the rows are
    that those phases put in order by eights.

    >>> merge_exchange(10)[0], merge_exchange(10)[1][:3]
    (2, ((0, 1), (2, 3), (4, 5)))
    """
    bits = max(_FIRST, (n - 1).bit_length())
    pairs: list[tuple[int, int]] = []
    for phase in range(_FIRST, bits):
        p = 1 << bits - 1 - phase
        q, r, apart = 1 << bits - 1, 0, p
        while True:
            pairs += [(i, i + apart) for i in range(n - apart) if i & p == r]
            if q == p:
                break
            q, r, apart = q >> 1, p, q - p
    return 1 << bits - _FIRST, tuple(pairs)


def pruned(pairs: _Pairs, ranks: Iterable[int]) -> _Pairs:
    """The comparators that what ends in these places depends on.

    >>> pruned(((0, 1), (2, 3), (0, 2)), [0, 2]) == pruned(((0, 1), (2, 3), (0, 2)), [0])
    True
    >>> pruned(((0, 1), (2, 3)), [3])
    ((2, 3),)
    """
    needed, kept = set(ranks), []
    for low, high in reversed(pairs):
        if low in needed or high in needed:
            kept.append((low, high))
            needed |= {low, high}
    return tuple(reversed(kept))


def _kernel(values: Float[Tensor, "n d"], library: ctypes.CDLL | None) -> _Kernel | None:
    """The kernel for rows of this kind; None where there is none."""
    name = _NAMES.get(values.dtype)
    if name is None or values.device.type != "cpu" or not 0 < len(values) <= MOST:
        return None
    if values.shape[1] == 0 or values.stride(1) != 1:
        return None
    found = library or kernels()
    kernel: _Kernel | None = None if found is None else getattr(found, name)
    return kernel


def _run(
    kernel: _Kernel,
    values: Float[Tensor, "n d"],
    network: tuple[int, _Table],
    sums: _Table,
    kept: int,
    middles: tuple[int, int],
) -> Vector | None:
    values, (n, d) = values.detach(), values.shape
    step, pairs = network
    room = np.empty((n + 3) * _TILE + _LINE, dtype=np.uint8)
    tile = -(-room.ctypes.data // _LINE) * _LINE
    out: Vector = torch.empty(d, dtype=values.dtype)
    failed = kernel(
        values.data_ptr(),
        *(values.stride(0), n, d, step),
        *(pairs.ctypes.data, len(pairs), sums.ctypes.data, len(sums), kept),
        *middles,
        tile,
        out.data_ptr(),
    )
    return None if failed else out


def _table(pairs: Sequence[tuple[int, int]]) -> _Table:
    table = np.array(pairs, dtype=np.int32).reshape(-1, 2)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=64)
def _pairs(n: int, first: int, last: int) -> tuple[int, _Table]:
    step, pairs = merge_exchange(n)
    return step, _table(pruned(pairs, range(first, last)))


@lru_cache(maxsize=64)
def _sums(n: int, f: int, dtype: torch.dtype) -> _Table | None:
    """The additions (to, from) of the tile's rows f..n - f into row n, in torch's order; None where
    that is not found.

    In which order torch adds hangs on its version and on the processor, so it is asked: of the
    orders that its kernels are known to have, the one that gives the bits of random columns' mean.
    """
    m = n - 2 * f
    rng = torch.Generator().manual_seed(m)
    columns = torch.empty(64, n, dtype=dtype).normal_(generator=rng)
    columns *= torch.empty(64, n, dtype=dtype).exponential_(generator=rng)
    wanted = columns[:, f : n - f].mean(dim=1)
    for lanes in (8, 4, 16, 2):
        order = _torchs_order(range(f, n - f), lanes, n)
        tile = [*columns.T.clone(), torch.zeros(64, dtype=dtype)]
        for to, come in order:
            tile[to] += tile[come]
        if same_bits(tile[n] / m, wanted):
            return _table(order)
    return None


def _torchs_order(kept: Sequence[int], lanes: int, total: int) -> list[tuple[int, int]]:
    """How torch's CPU kernel adds up a run of values in registers of so many lanes: four partial
    sums a lane, then what does not fill a register, then the lanes one by one.
    """
    order: list[tuple[int, int]] = []
    if len(kept) < lanes:
        start = _four_at_a_time(kept, order)
        return [*order, (total, start)]
    full = len(kept) // lanes
    starts = [
        _four_at_a_time([kept[i * lanes + lane] for i in range(full)], order)
        for lane in range(lanes)
    ]
    rest = [(total, one) for one in kept[full * lanes :]]
    return [*order, *rest, *((total, one) for one in starts)]


def _four_at_a_time(kept: Sequence[int], order: list[tuple[int, int]]) -> int:
    """Add these rows up in four strands and the strands into the first, which is returned."""
    whole = len(kept) // 4 * 4
    strands = kept[:4] if whole else kept[:1]
    order += [(strands[i % 4], one) for i, one in enumerate(kept[:whole]) if i >= 4]
    order += [(strands[0], one) for one in kept[whole:] if one != strands[0]]
    order += [(strands[0], one) for one in strands[1:]]
    return strands[0]
