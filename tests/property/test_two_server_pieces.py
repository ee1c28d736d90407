"""The pieces under the two servers, against slow arithmetic on Python's integers: exact products,
words, checks, choices, streams.
"""

from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.aggregators import Krum
from privfl.aggregators.krum import krum_scores as plain_scores
from privfl.core import Bounded, RoundPlan
from privfl.crypto.mpc import UsedUp, digits
from privfl.crypto.mpc.preprocessing import (
    Demand,
    correct,
    first_preprocessing,
    second_preprocessing,
)
from privfl.crypto.mpc.words import expand, pack, pack_into, signed, unpack
from privfl.crypto.primitives import backend
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server import TwoServer
from privfl.hybrid.two_server.parameters import DEALT
from privfl.hybrid.two_server.registers import DOTS, TESTS
from privfl.hybrid.two_server.rows import MaskedRows, SeedRows, Survey, cuts, row_sum
from privfl.hybrid.two_server.rules.cosine import over
from privfl.hybrid.two_server.rules.krum import krum_scores
from privfl.hybrid.two_server.sealing import dealt_letter, open_dealt, unseal_dealt
from privfl.hybrid.two_server.soundness import passes

WORDS = st.integers(0, 2**64 - 1)
EXTREMES = st.sampled_from(
    [0, 1, 2**63, 2**64 - 1, 0x7F7F7F7F7F7F7F7F, 0x8080808080808080, 2**39, 2**40 - 1]
)


def matrix(draw, m, k):
    return np.array(
        draw(st.lists(WORDS | EXTREMES, min_size=m * k, max_size=m * k)), dtype=np.uint64
    ).reshape(m, k)


@pytest.mark.parametrize("fast", [True, False])
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_products_of_digits_are_products_modulo_the_ring(fast, data):
    m, n, k = (data.draw(st.integers(1, 5)) for _ in range(3))
    count = data.draw(st.sampled_from([4, 5, 8]))
    left, right = matrix(data.draw, m, k), matrix(data.draw, n, k)
    with pytest.MonkeyPatch.context() as patch:
        if not fast:
            patch.setattr(digits, "_fast", lambda: False)
        found = digits.times(digits.split(left, count), digits.split(right, count))
        own = digits.gram(digits.split(left, count))
    q = 1 << (8 * count)
    exact = [
        [sum(int(a) * int(b) for a, b in zip(x, y, strict=True)) % q for y in right] for x in left
    ]
    assert [[int(v) % q for v in row] for row in found] == exact
    assert [[int(v) % q for v in row] for row in own] == [
        [sum(int(a) * int(b) for a, b in zip(x, y, strict=True)) % q for y in left] for x in left
    ]


@pytest.mark.parametrize("m", [1, 2, 5, 17])
@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_the_fast_product_is_right_for_every_short_inner_length(m, n):
    draw = torch.Generator().manual_seed(m * n)
    for k in (1, 2, 3, 4, 7, 16, 33, 65, 127):
        left, right = (
            torch.randint(-128, 128, (rows, k), dtype=torch.int8, generator=draw) for rows in (m, n)
        )
        assert torch.equal(digits.product(left, right).long(), left.long() @ right.long().t()), k


@pytest.mark.parametrize("ring", [32, 40, 64])
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_words_packed_in_parts_are_the_packed_words(ring, data):
    words = matrix(data.draw, 1, data.draw(st.integers(1, 9)))[0]
    out, cut = np.zeros(ring // 8 * len(words), np.uint8), data.draw(st.integers(0, len(words)))
    pack_into(out, ring, cut, words[cut:])
    pack_into(out, ring, 0, words[:cut])
    assert out.tobytes() == pack(words, ring)


@pytest.mark.parametrize("library", ["cryptography", "pycryptodome"])
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_what_the_dealer_sealed_is_read_in_any_parts(library, data):
    now = TwoServer(backend=library).round(RoundPlan(0, (0, 1, 2), 40, l2=1.0))
    key, pieces = bytes(range(32)), data.draw(st.lists(st.binary(max_size=40), max_size=6))
    _, sealed = now.read(dealt_letter(now, key, pieces), DEALT)
    words, plain = open_dealt(now, key, sealed), b"".join(pieces)
    assert words.read(len(words)) == plain
    skipped = data.draw(st.integers(0, len(plain)))
    size = data.draw(st.integers(0, len(plain)))
    assert words.after(skipped).read(size) == plain[skipped : skipped + size]
    assert plain == unseal_dealt(now, key, sealed)
    changed = bytearray(sealed)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1
    with pytest.raises(Malformed):
        open_dealt(now, key, memoryview(changed))
    with pytest.raises(Malformed):
        open_dealt(now, key[::-1], sealed)


def test_long_rows_of_the_largest_digits_do_not_overflow_32_bits():
    x = np.full((2, 200_001), 0x8080808080808080, dtype=np.uint64)
    found = digits.times(digits.split(x, 8), digits.split(x, 8))
    assert int(found[0, 1]) == 200_001 * 0x8080808080808080**2 % 2**64


@given(st.lists(WORDS | EXTREMES, min_size=1, max_size=40), st.sampled_from([32, 40, 64]))
@settings(deadline=None)
def test_words_come_back_from_the_wire_modulo_their_ring(words, ring):
    x = np.array(words, dtype=np.uint64)
    body = pack(x, ring)
    assert len(body) == len(words) * ring // 8
    assert unpack(body, ring, len(words)).tolist() == [w % 2**ring for w in words]
    assert signed(x, ring).tolist() == [
        (w + 2 ** (ring - 1)) % 2**ring - 2 ** (ring - 1) for w in words
    ]
    with pytest.raises(Malformed):
        unpack(body[:-1], ring, len(words))


@given(st.integers(4, 12), st.integers(0, 3), st.integers(0, 10**6))
@settings(deadline=None)
def test_krum_scores_in_integers_are_the_plain_ones(n, f, seed):
    rows = np.random.default_rng(seed).integers(-1000, 1000, (n, 3))
    apart = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    assert (
        krum_scores(apart, f).tolist()
        == plain_scores(torch.from_numpy(apart).double(), f).long().tolist()
    )


@given(st.integers(-(2**40), 2**40), st.integers(0, 2**60), st.fractions(-1, 1))
@settings(deadline=None)
def test_a_cosine_is_compared_exactly(dot, square, threshold):
    exact = threshold < 0 if square == 0 else None
    if exact is None:  # dot > threshold sqrt(square), by cases of sign, on exact squares
        right = threshold * threshold * square
        if dot > 0:
            exact = threshold < 0 or dot * dot > right
        else:
            exact = threshold < 0 and dot * dot < right
        exact = exact or (dot == 0 and threshold < 0)
    assert over(dot, square, Fraction(threshold)) == exact


@given(st.integers(1, 40), st.integers(0, 20), st.integers(0, 20), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_dealt_randomness_adds_up_and_serves_once(signs, bits, triples, inner):
    demand = Demand(signs=signs, bits=bits, triples=triples, inner=inner)
    library, whole, none = (
        backend(),
        np.arange(inner, dtype=np.uint64),
        np.zeros(0, dtype=np.uint64),
    )
    first = first_preprocessing(b"1" * 32, demand, library)
    dealt = memoryview(correct(first, b"2" * 32, demand, library, whole, none))
    second = second_preprocessing(b"2" * 32, dealt, demand, library)
    one, two = first.comparison(signs), second.comparison(signs)
    assert (((one.a ^ two.a) & (one.b ^ two.b)) == (one.c ^ two.c)).all()
    r0, r1 = first.dabits(bits), second.dabits(bits)
    assert ((r0.numbers + r1.numbers) == (r0.bits ^ r1.bits)).all()
    x, y = first.triple(triples), second.triple(triples)
    assert ((x.a + y.a) * (x.b + y.b) == x.c + y.c).all()
    assert (first.inner + second.inner == whole).all()
    with pytest.raises(UsedUp):
        first.comparison(1)
    with pytest.raises(Malformed):
        second_preprocessing(b"2" * 32, dealt[:-1], demand, library)


@pytest.mark.parametrize("rule", ["mean", "krum"])
@pytest.mark.parametrize(("n", "d"), [(2, 1), (3, 255), (5, 8193), (300, 700)])
def test_both_servers_surveys_add_up_over_blocks_of_any_shape(rule, n, d):
    follow = partial(TwoServer, security="semi_honest")
    channel = follow(Krum(f=0, m=2), reveal="scores") if rule == "krum" else follow()
    now = channel.round(RoundPlan(0, tuple(range(n)), d, l2=1.0))
    draw = np.random.default_rng(1)
    x = draw.integers(-1000, 1000, (n, now.length)).astype(np.int64)
    seeds = [bytes(draw.bytes(32)) for _ in range(n)]
    masked = x.view(np.uint64) - np.stack([expand(seed, now.length, backend()) for seed in seeds])
    bodies = MaskedRows([np.frombuffer(pack(row, now.ring), dtype=np.uint8) for row in masked])
    direction = draw.integers(-(2**17), 2**17, d)
    halves = [Survey(now, n, b"c" * 32, direction) for _ in range(2)]
    for survey, rows in zip(halves, (bodies, SeedRows(seeds)), strict=True):
        for start, stop, block in rows.blocks(now):
            survey.take(start, stop, block)
    one, two = (survey.shares() for survey in halves)
    dots = signed(one[DOTS] + two[DOTS], now.ring)
    assert dots.tolist() == (x[:, :d] @ direction).tolist()
    coins = Survey(now, 1, b"c" * 32, None)
    parts = np.concatenate(
        [
            coins._left(start, min(start + now.width(n), d)).numpy()
            for start, _ in cuts(now, n)
            if start < d
        ],
        axis=1,
    )
    assert set(np.unique(parts)) <= {-1, 0, 1}
    assert (
        signed(one[TESTS] + two[TESTS], now.ring).tolist()
        == (parts.astype(np.int64) @ x[:, :d].T).tolist()
    )
    weights = draw.integers(0, 50, n).astype(np.uint64)
    total = row_sum(now, bodies, weights) + row_sum(now, SeedRows(seeds), weights)
    assert signed(total, now.ring).tolist() == (weights.astype(np.int64) @ x).tolist()


def test_coins_are_balanced_and_differ_with_every_seed():
    now = TwoServer(security="semi_honest").round(RoundPlan(0, (0, 1), 4096, l2=1.0))
    one, other = (Survey(now, 1, bytes([i]) * 32, None)._left(0, 4096).numpy() for i in (1, 2))
    shares = [(one == value).mean() for value in (-1, 0, 1)]
    assert np.allclose(shares, [0.25, 0.5, 0.25], atol=0.01)
    assert abs((one == other).mean() - 0.375) < 0.01


@given(st.integers(6, 20), st.sampled_from([32, 40, 64]), st.integers(1, 10**7))
def test_a_longer_norm_a_smaller_ring_or_more_values_never_make_a_projection_stronger(log, ring, d):
    here = passes(1 << log, ring, d)
    assert 0.5 <= here <= 1
    assert passes(1 << (log + 1), ring, d) >= here - 1e-12
    assert passes(1 << log, 64, d) <= here + 1e-12


@given(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=20), st.sampled_from([8, 16, 24]))
@settings(max_examples=30, deadline=None)
def test_no_honest_row_is_longer_than_what_is_accepted(values, bits):
    vector = torch.tensor(values)
    length = float(vector.double().norm())
    if length < 1e-6:
        return
    update = Bounded(0, (vector.double() / length).float() * (1 - 1e-6), l2=1.0)
    channel = TwoServer(bits=bits, security="semi_honest")
    now = channel.round(RoundPlan(0, (0, 1), len(values), l2=1.0))
    integers = channel.code.encode(update, now.plan)[:-1].astype(object)
    assert sum(int(v) ** 2 for v in integers) <= now.longest**2
