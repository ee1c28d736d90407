"""How likely claims that saw nothing look as good: a rank among decoys where there are decoys
enough for one, and Student's prediction from the decoys' scores where no rank could be rare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

RARE = 0.025
"""Under so small a chance what was recognised is no luck, before any correction for looks."""
SPREAD = 10.0
"""Decoys are never taken to be less spread than so many dB, though pictures of one kind differ by 1
to 5: some may be near copies of what everybody would claim, and a handful of decoys miss them. A
claim is then luck unless it is some 20 to 30 dB above its decoys, as exact ones are.
"""


def recognised_luck(
    sharp: int, n: int, chance: int, m: int, own: float, decoys: Sequence[float]
) -> float:
    """How likely ``sharp`` of n samples are recognised where ``chance`` of m different decoys are:
    Fisher's exact test, which holds whatever the samples are. Where it could not be rare even if
    all samples and no decoy were recognised (one sample, under 40 decoys), and no decoy is, the
    ``own`` mean PSNR in dB is held against that of each set of ``decoys``, by `predicted_luck`. So
    it is of one sample that is recognised and no decoy: claims that it finds rare are among those
    of Fisher's test, but it tells an exact one from one just above 20 dB, and of several looks no
    rank among 40 to 400 decoys is rare enough.
    With under 15 decoys of pictures that are nearer to each other than some 30 dB that errs up to 7
    times in 100.

    >>> recognised_luck(1, 1, 0, 100, 21.0, [9.0] * 100)
    0.009900990099009901
    >>> recognised_luck(1, 1, 0, 100, 90.0, [9.0] * 100) < 1e-6
    True
    >>> recognised_luck(1, 1, 0, 5, 90.0, [9.0, 11.0, 8.0, 10.0, 12.0]) < 0.002
    True
    >>> recognised_luck(1, 1, 0, 5, 26.0, [9.0, 11.0, 8.0, 10.0, 12.0]) > 0.025
    True
    """
    from scipy.stats import fisher_exact

    if sharp == 0:
        return 1.0
    if 1 / math.comb(n + m, n) < RARE:
        table = [[sharp, n - sharp], [chance, m - chance]]
        rank = float(fisher_exact(table, alternative="greater")[1])
        return rank if n > 1 or chance else min(rank, predicted_luck(own, decoys, SPREAD))
    if chance:  # as good by chance, once at least
        return (1 + chance) / (1 + m)
    return predicted_luck(own, decoys, SPREAD)


def predicted_luck(own: float, others: Sequence[float], least: float) -> float:
    """How likely one more score is as great as ``own`` beside ``others`` of the same normal
    distribution (Student's prediction interval; Hahn, Meeker 1991, section 4.8), whose deviation is
    taken for no less than ``least``; 1 with fewer than two others, which have none. No rank says
    less than 1 in (others + 1): what this says below that rests on the shape of the distribution.

    >>> round(predicted_luck(20.0, [9.0, 10.0, 11.0], 1.0), 4)
    0.0065
    >>> predicted_luck(140.0, [9.0], 5.0)
    1.0
    """
    from scipy.stats import t

    if len(others) < 2:
        return 1.0
    scores = np.asarray(others, dtype=np.float64)
    spread = max(float(scores.std(ddof=1)), least) * math.sqrt(1 + 1 / len(scores))
    return float(t.sf((own - float(scores.mean())) / spread, len(scores) - 1))
