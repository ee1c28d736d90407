"""How much a round of fixed rows takes of the dealer, what each server draws from its seed, and the
masks that follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from privfl.core import KeepsSecrets
from privfl.crypto.mpc.authentication import KEYS, WORDS
from privfl.crypto.mpc.preprocessing import derived_words
from privfl.crypto.mpc.wide import numbers
from privfl.crypto.mpc.words import U64, draw, stream
from privfl.crypto.primitives import derive
from privfl.hybrid.two_server.fixed_stock import RuleStock
from privfl.hybrid.two_server.parameters import TwoServerParameters
from privfl.hybrid.two_server.rows import cuts


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a round of n rows takes: ``products`` with public vectors a row, ``compared`` values
    a row, ``scores`` a row that are opened; ``pairs`` of rows whose products are opened (all, or
    none; the fixed rows are then the last of the public vectors); ``decided``: the last compared
    value is the product with the direction; ``tagged``: the second server's sum is tagged;
    ``hidden``: weights of the sum stay shared; ``stock``: what the rule takes beyond its rows.
    """

    n: int
    products: int
    compared: int
    scores: int
    pairs: int
    decided: bool
    tagged: bool
    hidden: bool
    stock: RuleStock

    @property
    def comparisons(self) -> int:
        """Of all rows."""
        return self.compared * self.n


@dataclass(repr=False)
class Own(KeepsSecrets):
    """What one server draws from its seed."""

    seed: bytes
    now: TwoServerParameters
    extent: Extent

    def words(self, purpose: str, *shape: int) -> U64:
        """Uniform words of one purpose."""
        length = int(np.prod(shape))
        return derived_words(self.seed, purpose, length, self.now.library).reshape(shape)

    @property
    def keys(self) -> U64:
        """Shares of what authenticates."""
        return self.words("mac keys", KEYS)

    @property
    def wide_key(self) -> int:
        """A share of what authenticates words of which all 64 bits count."""
        return int(numbers(self.words("wide key", 1, 2))[0])

    @property
    def row_keys(self) -> U64:
        """The keys of the other server's rows."""
        return self.words("row keys", KEYS, self.extent.n)

    @property
    def announced(self) -> U64:
        """The masks of what it announces."""
        return self.words("announced", self.extent.products, self.extent.n + KEYS)

    @property
    def starts(self) -> U64:
        """Where its comparisons start."""
        return self.words("starts", self.extent.comparisons, 2)

    @property
    def pads(self) -> bytes:
        """The seed of its pads."""
        return derive(self.seed, b"two-server", "pads")

    def above(self) -> U64:
        """Its shares of what hides the carries of scores."""
        return self.words("above", self.extent.scores, self.extent.n)

    def score_macs(self) -> U64:
        """The first server's shares of their products with the keys."""
        return self.words("score macs", self.extent.scores, self.extent.n, KEYS)

    @property
    def hidden(self) -> tuple[int, int]:
        """How many weights stay shared, in a sum of how many words."""
        return (self.extent.n, self.now.length) if self.extent.hidden else (0, 0)

    def weights(self) -> U64:
        """Its part of the weights that the dealer knows."""
        return self.words("weights", self.hidden[0])

    def weight_macs(self) -> U64:
        """The first server's shares of their products with the keys."""
        return self.words("weight macs", self.hidden[0], KEYS)

    def vector(self) -> U64:
        """The first server's share of the masks' sum under them."""
        return self.words("vector", self.hidden[1])

    @property
    def side(self) -> int:
        """How many rows are multiplied with how many."""
        return self.extent.n if self.extent.pairs else 0

    def pairs(self) -> U64:
        """The first server's shares of all products of masks."""
        return self.words("pairs", self.side, self.side)

    def pairs_above(self) -> U64:
        """Its shares of what hides the carries of products of rows."""
        return self.words("pairs above", self.side, self.side)

    def pair_macs(self) -> U64:
        """The first server's shares of the masks of these products, times the keys."""
        return self.words("pair macs", self.side, self.side, KEYS)

    def constants(self) -> U64:
        """The first server's shares of what is added to comparisons."""
        return self.words("constants", self.extent.comparisons, WORDS)

    def inner(self) -> U64:
        """The first server's shares of the masks' inner products."""
        return self.words("inner", self.extent.n)


def pad_blocks(now: TwoServerParameters, seed: bytes, n: int) -> Iterator[U64]:
    """The pads [K, width], block by block of n rows."""
    source = stream(seed, now.library)
    for start, stop in cuts(now, n):
        if start < now.plan.d:
            yield draw(source, KEYS * (stop - start)).reshape(KEYS, stop - start)


def masks_of_scores(announced: U64, last: U64, above: U64, ring: int) -> U64:
    """One server's shares [scores, n] of the masks of what is opened of each row: of its product
    with the direction, which is announced last, where there are two; of its squared norm. What is
    ``above`` [scores, n] hides the carries.
    """
    scores, n = above.shape
    masks = np.stack([announced[-1, :n], last[-1]])[2 - scores :]
    hidden: U64 = masks + (above << np.uint64(ring))
    return hidden


def masks_of_pairs(announced: U64, pairs: U64, above: U64, ring: int) -> U64:
    """One server's shares [n, n] of the masks of all products of rows; none where none are opened.

    With fixed rows E, x = E + A and what is announced, <E_i, x_j> less a mask m_ij: <x_i, x_j> is
    that of ij and of ji, less <E_i, E_j>, and m_ij + m_ji + <A_i, A_j>.
    """
    n = len(pairs)
    own = announced[len(announced) - n :, :n]
    masks: U64 = own + own.T + pairs + (above << np.uint64(ring))
    return masks


def masks_of_compared(own: Own, last: U64) -> U64:
    """One server's shares of the masks of what is compared: projections, norm, weight, and the
    product with the direction where the rule decides by it [*, n].
    """
    told = own.announced[:, : last.shape[1]]
    decided = told[len(told) - own.extent.decided :]
    return np.concatenate([told[: own.now.rows], last[::-1], decided])
