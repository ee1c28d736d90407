"""Noise on a share of a vector's entries: only those that were sent carry any, and which they are
must tell nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from privfl.audit.dp.evidence import Test
from privfl.audit.dp.tape import Taped
from privfl.core import Mechanism, WithMemory
from privfl.dp import SelectiveLaplace


def sent(one: Taped, mechanism: Mechanism | WithMemory | None) -> Tensor:
    """The positions [k] of a release that carry noise: all, but where a mechanism sends a few."""
    if isinstance(mechanism, SelectiveLaplace):
        return one.after.nonzero().flatten()
    return torch.arange(len(one.after))


def selection_test(
    releases: Sequence[Taped], mechanism: Mechanism | WithMemory | None
) -> list[Test]:
    """Whether the largest entry of each vector [d] is sent more or less often than any other is;
    nothing where all entries are.
    """
    from scipy.stats import binom

    if not isinstance(mechanism, SelectiveLaplace):
        return []
    told = [one for one in releases if one.before.any()]
    if not told:
        return []
    d = len(told[0].before)
    share = mechanism.sent(d) / d
    count = sum(bool(one.after[one.before.abs().argmax()]) for one in told)
    high = float(binom.sf(count - 1, len(told), share))
    low = float(binom.cdf(count, len(told), share))
    seen = f"the largest entry was sent {count} of {len(told)} times, any is at chance {share:.3g}"
    return [Test("entries sent", "", seen, min(1.0, 2 * min(high, low)))]
