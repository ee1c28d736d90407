"""Comparison of a public number with one that only a dealer knows, without a message: distributed
comparison functions (Boyle, Chandran, Gilboa, Gupta, Ishai, Kumar and Rathee 2021, figure 1).

A key hides alpha of so many bits and words beta; two parties with one start each evaluate it at any
public x, and their words add up to beta where x < alpha, else to 0, modulo 2^64. The pseudorandom
generator is AES under one public key a round, used as a permutation pi in the way of Matyas, Meyer
and Oseas: G_j(s) = pi(s ^ j) ^ s ^ j. A party's start alone with all corrections tells nothing of
alpha and beta. A party that changes its words changes the sum; who must notice that puts the value
and its MACs into beta (`authentication`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privfl.core import Buffer, KeepsSecrets
from privfl.crypto.mpc.words import U64
from privfl.crypto.primitives.fields import Malformed

Permutation = Callable[[bytes], bytes]
U8 = npt.NDArray[np.uint8]
Child = tuple[U64, U64, U64]
"""A child's node [..., 2], its control bit [...] and its words [..., w]."""
_AT_ONCE = 4096
"""Comparisons that are made, or evaluated, together: what is computed of them stays in cache."""
_ONE = np.uint64(1)


def _side(w: int) -> int:
    """Blocks that a node makes for each of its children: the child's, and those of w words."""
    return 1 + -(-w // 2)


@dataclass(frozen=True, slots=True, repr=False)
class Corrections(KeepsSecrets):
    """What both parties get of m comparisons of so many levels: corrections of nodes [levels, m, 2]
    and of words [levels, m, w], two control bits each [levels, m], and the last words [m, w].
    """

    nodes: U64
    words: U64
    controls: U8
    last: U64

    def pieces(self) -> list[Buffer]:
        """All of it, as it travels, one piece after the other."""
        wide = (self.nodes, self.words, self.last)
        little = [np.ascontiguousarray(x, dtype="<u8") for x in wide]
        return [x.reshape(-1).view(np.uint8).data for x in (*little, self.controls)]

    def of(self, part: slice) -> Corrections:
        """Those of some comparisons, views of these."""
        return Corrections(
            self.nodes[:, part], self.words[:, part], self.controls[:, part], self.last[part]
        )

    @staticmethod
    def size(levels: int, m: int, w: int) -> int:
        """Bytes of so many."""
        return m * (levels * (16 + 8 * w + 1) + 8 * w)

    @classmethod
    def from_bytes(cls, raw: Buffer, levels: int, m: int, w: int) -> Corrections:
        """What `to_bytes` made.

        Raises:
            Malformed: it is of another size.
        """
        if len(raw) != cls.size(levels, m, w):
            raise Malformed(f"{len(raw)} bytes of comparisons where another number was asked for")
        view, found = memoryview(raw), []
        for shape in ((levels, m, 2), (levels, m, w), (m, w)):
            count = int(np.prod(shape))
            found.append(np.frombuffer(view[: 8 * count], dtype="<u8").reshape(shape))
            view = view[8 * count :]
        nodes, words, last = found
        return cls(nodes, words, np.frombuffer(view, np.uint8).reshape(levels, m), last)


def _grown(permute: Permutation, nodes: U64, which: U64) -> U64:
    """The blocks G_j(s) [k, ..., 2] of nodes [..., 2] for the numbers j [k, ...]."""
    asked = np.empty((len(which), *nodes.shape), dtype=np.uint64)
    asked[...] = nodes
    asked[..., 0] ^= which.reshape(len(which), *which.shape[1:], *(1,) * (nodes.ndim - which.ndim))
    made: U64 = np.frombuffer(permute(asked.tobytes()), dtype="<u8").astype(np.uint64, copy=False)
    return np.bitwise_xor(made.reshape(asked.shape), asked)


def _parted(blocks: U64, w: int) -> Child:
    """A child's node and control bit, and its words, from its blocks [1 + w / 2, ..., 2]."""
    node, control = blocks[0].copy(), blocks[0][..., 0] & _ONE
    node[..., 0] ^= control
    return node, control, np.concatenate(list(blocks[1:]), axis=-1)[..., :w]


def _converted(nodes: U64, permute: Permutation, w: int) -> U64:
    """The words of a last node."""
    side = _side(w)
    blocks = _grown(permute, nodes, np.arange(2 * side, 3 * side - 1, dtype=np.uint64))
    return np.concatenate(list(blocks), axis=-1)[..., :w]


def _by(bits: U64) -> U64:
    """All ones where a bit is 1."""
    return np.uint64(0) - bits


def _kept(left: U64, right: U64, turn: U64) -> tuple[U64, U64]:
    """The right one where ``turn`` is all ones, else the left one; then the other."""
    apart = (left ^ right) & turn
    return left ^ apart, right ^ apart


def _negated(words: U64, turn: U64) -> U64:
    """The negative words where ``turn`` is all ones."""
    return (words ^ turn) - turn


def generate(alpha: U64, beta: U64, starts: U64, levels: int, permute: Permutation) -> Corrections:
    """The dealer's act: alpha [m] of so many bits, beta [m, w], w up to 4, and both parties' starts
    [2, m, 2], uniform.
    """
    m, w = beta.shape
    found = Corrections(
        np.empty((levels, m, 2), dtype=np.uint64),
        np.empty((levels, m, w), dtype=np.uint64),
        np.empty((levels, m), dtype=np.uint8),
        np.empty((m, w), dtype=np.uint64),
    )
    for at in range(0, m, _AT_ONCE):
        part = slice(at, at + _AT_ONCE)
        _generate(alpha[part], beta[part], starts[:, part], permute, found.of(part))
    return found


def _generate(alpha: U64, beta: U64, starts: U64, permute: Permutation, found: Corrections) -> None:
    """Fill the corrections of some comparisons."""
    m, w = beta.shape
    levels = len(found.nodes)
    nodes: U64 = starts.astype(np.uint64).copy()
    controls: U64 = np.zeros((2, m), dtype=np.uint64)
    controls[1] = 1
    total: U64 = np.zeros((m, w), dtype=np.uint64)
    half = _side(w)
    numbers = np.arange(2 * half, dtype=np.uint64)
    for level in range(levels):
        bit = (alpha >> np.uint64(levels - 1 - level)) & _ONE
        right = _by(bit)
        blocks = _grown(permute, nodes, numbers)
        sides = [_parted(blocks[:half], w), _parted(blocks[half:], w)]
        keep, lose = _kept(sides[0][0], sides[1][0], right[:, None])
        kept_words, lost_words = _kept(sides[0][2], sides[1][2], right[:, None])
        kept_controls, _ = _kept(sides[0][1], sides[1][1], right)
        turn = _by(controls[1])[:, None]
        node = lose[0] ^ lose[1]
        words = _negated(lost_words[1] - lost_words[0] - total + (beta & right[:, None]), turn)
        total += kept_words[0] - kept_words[1] + _negated(words, turn)
        left_bit = sides[0][1][0] ^ sides[0][1][1] ^ bit ^ _ONE
        right_bit = sides[1][1][0] ^ sides[1][1][1] ^ bit
        kept_bit, _ = _kept(left_bit, right_bit, right)
        nodes = keep ^ (_by(controls)[..., None] & node)
        controls = kept_controls ^ (controls & kept_bit)
        found.nodes[level], found.words[level] = node, words
        found.controls[level] = (left_bit | right_bit << _ONE).astype(np.uint8)
    ends = _converted(nodes, permute, w)
    found.last[...] = _negated(ends[1] - ends[0] - total, _by(controls[1])[:, None])


def evaluate(party: int, starts: U64, keys: Corrections, x: U64, permute: Permutation) -> U64:
    """One party's words [p, m, w] at public points x [p, m], from its starts [m, 2]; party 0 or 1.

    >>> from privfl.crypto.primitives import backend
    >>> permute, one = backend().permutation(bytes(16)), np.array([5], dtype=np.uint64)
    >>> starts = np.arange(4, dtype=np.uint64).reshape(2, 1, 2)
    >>> keys = generate(one, one[:, None] + one[:, None], starts, 4, permute)
    >>> x = np.array([[3], [5], [9]], dtype=np.uint64)
    >>> words = [evaluate(b, starts[b], keys, x, permute) for b in (0, 1)]
    >>> (words[0] + words[1]).reshape(-1).tolist()
    [10, 0, 0]
    """
    words: U64 = np.empty((*x.shape, keys.words.shape[2]), dtype=np.uint64)
    for at in range(0, x.shape[1], _AT_ONCE):
        part = slice(at, at + _AT_ONCE)
        words[:, part] = _evaluate(party, starts[part], keys.of(part), x[:, part], permute)
    return words


def _evaluate(party: int, starts: U64, keys: Corrections, x: U64, permute: Permutation) -> U64:
    """The words of some comparisons."""
    levels, _, w = keys.words.shape
    nodes: U64 = np.broadcast_to(starts, (*x.shape, 2)).astype(np.uint64)
    controls: U64 = np.full(x.shape, party, dtype=np.uint64)
    total: U64 = np.zeros((*x.shape, w), dtype=np.uint64)
    half = _side(w)
    side = np.arange(half, dtype=np.uint64).reshape(half, *(1,) * x.ndim)
    for level in range(levels):
        bit = (x >> np.uint64(levels - 1 - level)) & _ONE
        node, control, words = _parted(_grown(permute, nodes, side + bit * np.uint64(half)), w)
        total += words + controls[..., None] * keys.words[level]
        nodes = node ^ controls[..., None] * keys.nodes[level]
        controls = control ^ controls * ((keys.controls[level] >> bit) & _ONE)
    total += _converted(nodes, permute, w) + controls[..., None] * keys.last
    return np.uint64(0) - total if party else total
