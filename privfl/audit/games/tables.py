"""Records of tables in an audit: how many of their fields claims have right, and how many somebody
has who saw nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from privfl.attacks import Knowledge
from privfl.attacks.inversion.columns import categories
from privfl.audit import score
from privfl.audit.fields import fields_right, in_a_category, typical
from privfl.audit.games.luck import RARE, predicted_luck
from privfl.audit.intervals import by_cluster, clustered_mean, clustered_share

_DRAWS = 10
"""So often rows of one's own are claimed in place of what an attack claims."""


def field_rates(
    rows: Sequence[tuple[Tensor | None, Tensor]], home: Tensor, knows: Knowledge
) -> dict[str, score.Figure]:
    """The share of fields that are right, of claims [m, columns] (or none) about true records [n,
    columns], row by row of a view; ``home`` is each true record's cluster. Empty without own rows.

    Blind is the better of two guesses that saw nothing: everybody is the typical record (medians,
    and the commonest categories), or as many rows of one's own, matched as claims are. Where an
    attack claims too few records the typical one stands.
    """
    if knows.auxiliary is None:
        return {}
    own = knows.auxiliary.x.flatten(1)
    groups, deviation = categories(own), own.std(dim=0).clamp(min=1e-6)
    guess, rng = typical(own, groups), knows.generator(81)
    parts: dict[str, list[Tensor]] = {"found": [], "typical": [], "own rows": []}
    for claimed, true in rows:
        n, found = len(true), own[:0] if claimed is None else claimed.flatten(1)
        found = torch.cat([found, guess.expand(max(n - len(found), 0), -1)])
        drawn = [own[torch.randint(0, len(own), (n,), generator=rng)] for _ in range(_DRAWS)]
        for name, tried in (("found", [found]), ("typical", [guess.expand(n, -1)])):
            parts[name].append(_right(tried, true, groups, deviation))
        parts["own rows"].append(_right(drawn, true, groups, deviation))
    right, *blinds = (torch.cat(part) for part in parts.values())
    best = max(blinds, key=lambda part: float(part.mean()))
    mean, count = by_cluster(right.numpy(), home.numpy())
    gap, _ = by_cluster((right - best).numpy(), home.numpy())
    each = int((~in_a_category(own.shape[1], groups)).sum()) + len(groups)
    # fields of one record hang together: with several rows it shows how much, with one it does not
    units = len(right) * (each if len(mean) > 1 else 1)
    return {
        "fields": clustered_share(mean, count, units),
        "fields, blind": score.Figure(float(best.mean())),
        "gap to blind": clustered_mean(gap, count, units=units, within=(-1.0, 1.0)),
    }


def field_luck(
    claimed: Tensor | None, true: Tensor, decoys: Sequence[Tensor], knows: Knowledge
) -> float:
    """How likely claims [m, columns] have as many fields of true records [n, columns] right where
    they hang on them no more than on any of the ``decoys`` [n, columns]: a rank among these, which
    a client that is alone has where it has no interval. With so few decoys that no rank is rare,
    and where no decoy is as good, what their shares of right fields predict, spread no less than
    those of as many coins: it tells a whole record from one that is somewhat better than others.
    """
    if knows.auxiliary is None or claimed is None:
        return 1.0
    own = knows.auxiliary.x.flatten(1)
    groups, deviation = categories(own), own.std(dim=0).clamp(min=1e-6)
    found = claimed.flatten(1)
    guess = typical(own, groups).expand(max(len(true) - len(found), 0), -1)
    tried = [torch.cat([found, guess])]
    right, *others = (
        float(_right(tried, one, groups, deviation).mean()) for one in (true, *decoys)
    )
    rank = (1 + sum(other >= right for other in others)) / (1 + len(others))
    if any(other >= right for other in others):  # as good by chance, once at least
        return rank if 1 / (1 + len(others)) < RARE else 1.0
    fields = fields_right(true.flatten(1), true.flatten(1), groups, deviation)[0].shape[1]
    told = predicted_luck(right, others, 0.5 / fields**0.5)
    return min(rank, told) if 1 / (1 + len(others)) < RARE else told


def _right(
    tried: Sequence[Tensor], true: Tensor, groups: Sequence[slice], deviation: Tensor
) -> Tensor:
    """The share of each true record's fields that are right, averaged over claims."""
    shares = [
        fields_right(found, true.flatten(1), groups, deviation)[0].double().mean(dim=1)
        for found in tried
    ]
    return torch.stack(shares).mean(dim=0)
