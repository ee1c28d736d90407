"""Images out of encodings that mix a few of them and flip the sign of every pixel (InstaHide)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.attacks.inference import (
    Family,
    Inference,
    Lacking,
    Observed,
    auxiliary,
    observe,
    recipe,
)
from privfl.attacks.inversion.first_layer import first_layer
from privfl.attacks.inversion.signs import Prior
from privfl.attacks.inversion.sparse_factors import (
    BLURS,
    factor,
    independent,
    sparse_directions,
    zeros_of,
)
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.result import Reconstruction
from privfl.attacks.rows import readable
from privfl.core import ClientId, NotVisible, View

_AUXILIARY = 50
_EXACT = 1e-4
"""What mixing does not explain of encodings, over what it does, where signs are right."""
_SETTLES = 1e-3
"""So little of encodings may be left that a pixel's sign is one question for all images."""
_FITS = 0.05
"""Factors that leave more of encodings' sizes than this explain nothing."""
_SLACK = 0.02
"""So far may a share be below zero or above one."""
_MOST = 0.6
"""Of so many encodings shares must be shares."""
_ALIKE = 1e-4
"""Images that differ by less, over their size, are one image."""
_STARTS = 3
_STEPS = 12
_TRIES = 8
_RUNS = 2


@dataclass(frozen=True, slots=True)
class Unmixing(Inference):
    """A client's images out of what InstaHide makes of them, from its updates of many rounds (the
    finding of Carlini, Deng, Garg, Jha, Mahloujifar, Mahmoody, Song, Thakurta, Tramer et al. 2021,
    "Is private learning possible with instance encoding?", by another road).

    An encoding is s * (a x_1 + b x_2 + ...) with a random sign in every entry. First the encodings:
    each round's weight change of a linear first layer is D'E, so that `LinearLeakage`'s closed form
    tells the round's encodings E. Then the signs go: absolute values of all encodings are |A X|
    with sparse A, whose rows sum to one, and the images X. Were the signs known, A X would have the
    rank of the images' number, and the columns of A were the sparse directions in its column
    space, which the same search finds that tells samples apart by the zeros of a ReLU; no network
    that learns which encodings share an image is needed, and no label. Signs begin as the public
    range and the mean of auxiliary images say, and each factorisation says the next ones, until
    the rank is right. What is left is one sign for each pixel of all images together, which the
    range, the mean and the neighbouring pixels settle.

    It needs several encodings of each image: about twelve encodings an image were enough. Factors
    explain encodings as well in any other basis, so a fit claims nothing by itself: images are
    claimed where most rows of shares are shares, and where no image is a sum of others.

    Args:
        client: whose images (None: the first of the first round's).
        most: of factorisations.
        starts: of the search for encodings in one update.
        tries: of it.

    >>> Unmixing().takes_sum
    False
    """

    family: ClassVar[Family] = "inversion"
    client: ClientId | None = None
    most: int = 25
    starts: int = 64
    tries: int = 24

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Reconstruction:
        """Images from all views.

        Raises:
            NotVisible: a view shows no single update.
            Lacking: no seat mixes samples, there is no linear first layer, the number of the
                client's samples is not public, there are too few encodings, no range and mean of
                features are known, or what was found are no shares of so many images.
        """
        forward = recipe(views[0], knowledge)
        if [seat.alone for seat in forward.data_seats] != [False]:
            raise Lacking(
                "it takes one data seat that mixes samples, and the recipe names"
                f" {', '.join(type(seat).__name__ for seat in forward.data_seats) or 'none'}."
            )
        prior = Prior.of(
            auxiliary(knowledge, type(self).__name__, _AUXILIARY),
            *forward.span(torch.empty(0, dtype=torch.float64)),
        )
        seen = list(updates_of(views, knowledge, self.client))
        n = samples_of(seen[0], forward, knowledge)
        found = [self._encodings(one, forward, n, knowledge) for one in seen]
        encodings = torch.cat([one for one in found if one is not None] or [torch.empty(0, 1)])
        if len(encodings) < 3 * n:
            raise Lacking(
                f"{len(encodings)} encodings were told from {len(seen)} updates, and {n} images"
                f" take {3 * n} at least: look at more rounds, or at a wider first layer."
            )
        x, off, mixes, rank = unmixed(encodings, n, prior, self.most, knowledge.generator(41))
        _refuse_other_factors(n, off, mixes, rank)
        samples = x.float().reshape(n, *forward.shape)
        return Reconstruction(
            type(self).__name__,
            views[0].adversary,
            samples,
            torch.full((n,), -1),
            off,
            notes={
                "encodings": len(encodings),
                "rows that are shares": round(mixes, 2),
                "client": int(seen[0].client or 0),
            },
        )

    def _encodings(
        self, seen: Observed, forward: Forward, n: int, knowledge: Knowledge
    ) -> Float[Tensor, "b d"] | None:
        """What one update was trained on; None where the search did not find all of it."""
        weight, bias, rectified = first_layer(seen, forward)
        b = batch_of(forward, n)
        if b >= min(weight.shape) or (b > 1 and not rectified):
            raise Lacking(
                f"an update holds {b} encodings, which a first layer of {weight.shape[1]} x"
                f" {weight.shape[0]} does not tell apart."
            )
        if not bool(bias.abs().max() > 0):
            return None
        rng = knowledge.generator(40 + seen.view.plan.number)
        try:
            found = factor(weight.double(), bias.double(), b, None, rng, self.starts, self.tries)
        except Lacking:  # an update that shows too little
            return None
        return found.X if found.sure == b else None


def updates_of(
    views: tuple[View, ...], knowledge: Knowledge, client: ClientId | None
) -> Iterator[Observed]:
    """One client's updates, of the rounds in which it took part.

    Raises:
        NotVisible: a view shows no single updates, or none of this client.
    """
    shown = 0
    for view in views:
        rows = readable(view)
        if rows.ids is None:
            raise NotVisible(
                f"{view.adversary} reads rows of round {view.plan.number} without knowing whose"
                " they are."
            )
        if not rows.ids:
            continue
        client = rows.ids[0] if client is None else client
        if client in rows.ids:
            shown += 1
            yield observe(view, knowledge, "client", client)
    if not shown:
        raise NotVisible(f"{views[0].adversary} reads no update of client {client}.")


def samples_of(seen: Observed, forward: Forward, knowledge: Knowledge) -> int:
    """How many samples a client holds, as its weight says.

    Raises:
        Lacking: it is not public.
    """
    if seen.samples is None:
        raise Lacking(
            "how many samples the client holds is not public: give Knowledge(samples=...)."
        )
    return seen.samples


def batch_of(forward: Forward, n: int) -> int:
    """How many samples the one step of an update was taken on.

    Raises:
        Lacking: it has several steps.
    """
    b = min(forward.batch_size, n)
    if forward.steps_on(n) > 1 and (b < n or n > 1):
        raise Lacking(
            f"an update has {forward.steps_on(n)} local steps, and the samples of one are told"
            " from its weights only where there is one."
        )
    return b


def unmixed(
    encodings: Float[Tensor, "m d"],
    n: int,
    prior: Prior,
    most: int,
    rng: torch.Generator,
) -> tuple[Float[Tensor, "n d"], float, float, int]:
    """The n images of which each encoding mixes a few, what of the encodings' sizes they do not
    explain, over all of them, in how many encodings the shares are shares, and the mixes' rank.
    """
    sizes = encodings.double().abs()
    found, least, mixes = torch.zeros(n, sizes.shape[1], dtype=torch.float64), float("inf"), 0.0
    rank = 0
    if not bool(sizes.any()):
        return found, least, mixes, rank
    for _ in range(_RUNS):
        images, shares, left = _by_turns(sizes, n, prior, most, rng)
        if left < least:
            found, least, mixes = images, left, _are_shares(shares)
            rank = int(torch.linalg.matrix_rank(shares @ images, rtol=_ALIKE))
        if least < _EXACT:
            break
    return prior.settled(found) if least < _SETTLES else found, least, mixes, rank


def _are_shares(found: Float[Tensor, "m n"]) -> float:
    """In how many rows no share is below zero or above one."""
    return float(((found > -_SLACK) & (found < 1 + _SLACK)).all(dim=1).double().mean())


def _refuse_other_factors(n: int, off: float, mixes: float, rank: int) -> None:
    """Refuse factors that are not shares and images.

    Raises:
        Lacking: they are not.
    """
    if not off < _FITS:
        raise Lacking(f"mixes of images explain the encodings only up to {off:.2g} of their size.")
    if mixes < _MOST:
        raise Lacking(
            f"encodings were explained, but in {1 - mixes:.0%} of them by shares below zero or"
            " above one, as mixes of images explain them too: look at more rounds."
        )
    if rank < n:
        raise Lacking(
            f"encodings are explained by {rank} images, and the client holds {n}: some"
            " are alike or sums of others, and which is which cannot be told."
        )


def _by_turns(
    sizes: Float[Tensor, "m d"], n: int, prior: Prior, most: int, rng: torch.Generator
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m n"], float]:
    """Signs from factors and factors from signs, by turns, and the best images on the way, with
    their shares and what they leave.
    """
    sign, sure = prior.first(sizes)
    least, found = float("inf"), torch.zeros(n, sizes.shape[1], dtype=torch.float64)
    best = torch.zeros(len(sizes), n, dtype=torch.float64)
    for _ in range(most):
        shares, images, off = _factors(sign * sizes, n, rng)
        images = _retrieved(shares, sizes, images, sign, sure, prior, rng)
        left = float(((shares @ images).abs() - sizes).norm() / sizes.norm())
        if left < least:
            least, found, best = left, images, shares
        after = torch.where(sure, sign, torch.where(shares @ images >= 0, 1.0, -1.0).double())
        if off < _EXACT or torch.equal(after, sign):
            break
        sign = after
    return found, best, least


def _factors(
    mixes: Float[Tensor, "m d"], n: int, rng: torch.Generator
) -> tuple[Float[Tensor, "m n"], Float[Tensor, "n d"], float]:
    """Sparse shares with rows that sum to one, and images, whose product is nearest to mixes; and
    how much of the mixes is of higher rank, over what is not.
    """
    U, S, Vh = torch.linalg.svd(mixes, full_matrices=False)
    L, R = U[:, :n], S[:n, None] * Vh[:n]
    rest = S[n] if len(S) > n else S[-1] * 1e-9
    blur = float((L.square() @ (rest / S[:n]).square()).mean().sqrt()) + 1e-8
    pool = torch.empty(0, n, dtype=L.dtype)
    Q = torch.eye(n, dtype=L.dtype)
    for _ in range(_TRIES):
        pool = torch.cat([pool, sparse_directions(L, 128, blur, rng)])
        zeros = zeros_of(pool, L, BLURS * blur)
        order = zeros.argsort(descending=True)[: 64 * n]
        pool, zeros = pool[order], zeros[order]
        Q, told = independent(pool, zeros, n, at_least=0.7 * float(zeros[0]))
        if told == n:
            break
    ones = torch.ones(len(L), 1, dtype=L.dtype)
    scale = torch.linalg.lstsq(L @ Q, ones).solution.squeeze(1)
    scale = torch.where(scale.abs() < 1e-12, scale.new_tensor(1.0), scale)
    return L @ Q * scale, torch.linalg.lstsq(Q * scale, R).solution, float(rest / S[n - 1])


def _retrieved(
    shares: Float[Tensor, "m n"],
    sizes: Float[Tensor, "m d"],
    images: Float[Tensor, "n d"],
    sign: Float[Tensor, "m d"],
    sure: Tensor,
    prior: Prior,
    rng: torch.Generator,
) -> Float[Tensor, "n d"]:
    """Images that explain the sizes of mixes with known shares: pixel by pixel, signs and values by
    turns from several starts (Gerchberg and Saxton's alternation), and the best kept.
    """
    solve = torch.linalg.pinv(shares)
    deviation = prior.variance.sqrt()

    def left(x: Tensor) -> Tensor:
        mixed = shares @ x
        wrong = (sure * sign * mixed).clamp(max=0)
        return (mixed.abs() - sizes).square().sum(dim=0) + wrong.square().sum(dim=0)

    best, least = images.clone(), left(images)
    for start in range(_STARTS):
        x = images if start == 0 else -images
        if start > 1:
            drawn = torch.randn(images.shape, generator=rng, dtype=images.dtype)
            x = images + 0.5 * deviation * drawn
        for _ in range(_STEPS):
            signs = torch.where(sure, sign, torch.where(shares @ x >= 0, 1.0, -1.0).double())
            x = (solve @ (signs * sizes)).clamp(prior.low, prior.high)
        now = left(x)
        better = now < 0.9 * least
        best[:, better], least = x[:, better], torch.where(better, now, least)
    return best
