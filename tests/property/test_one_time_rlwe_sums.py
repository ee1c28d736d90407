"""One-time-pad RLWE: random sums through the real parties, and its arithmetic beside big integers.
`python -m benchmarks.he --only one_time_sums` plays 300 of these rounds, of up to 1300 clients.
"""

import itertools

import numpy as np
import pytest

from benchmarks.he.one_time import GROUPS, random_sum
from privfl.core import RoundPlan
from privfl.crypto import OneTimeRLWE
from privfl.crypto.he.mprlwe.ring import LIMBS, N
from privfl.crypto.he.onetime.pad import (
    PublicPolynomials,
    add,
    empty,
    encrypted,
    integers,
    subtract,
    unmasked,
)

Q = 1 << 96
WIDE = 160
"""Bits of a coefficient in one big integer: 96 of a, 16 of a sum of keys, 12 of N, and room."""
DEGREES = np.arange(N).reshape(2, N // 2).T.reshape(-1)
"""The degree of every word in memory."""


@pytest.mark.parametrize("seed", range(1, len(GROUPS) + 1))
def test_a_random_sum_is_exact(seed):
    assert random_sum(seed, most=40) == ""


def whole(limbs):
    """Limbs [3, N] in memory as integers by degree."""
    values = [sum(int(limbs[limb, i]) << 32 * limb for limb in range(LIMBS)) for i in range(N)]
    out = [0] * N
    for degree, value in zip(DEGREES, values, strict=True):
        out[degree] = value
    return out


def times(polynomial, small):
    """The negacyclic product by one multiplication of big integers (Kronecker substitution)."""
    out = [0] * N
    for sign in (1, -1):
        part = [max(sign * int(x), 0) for x in small]
        left, right = (
            int.from_bytes(b"".join(x.to_bytes(WIDE // 8, "little") for x in values), "little")
            for values in (polynomial, part)
        )
        product = (left * right).to_bytes(2 * N * WIDE // 8, "little")
        for i in range(2 * N):
            value = int.from_bytes(product[i * WIDE // 8 : (i + 1) * WIDE // 8], "little")
            out[i % N] += sign * value * (1 if i < N else -1)
    return [value % Q for value in out]


def in_memory(by_degree):
    return [by_degree[degree] for degree in DEGREES]


KEYS = {
    "all longest": lambda rng, most: np.full(N, most),
    "all signs": lambda rng, most: most * (1 - 2 * rng.integers(0, 2, N)),
    "random": lambda rng, most: rng.integers(-most, most + 1, N),
}


def parts_of(numbers, layout):
    """What every coefficient holds but for errors [blocks, N], by the definition: exact integers
    mod 2^96.
    """
    digits = np.zeros((layout.slots, layout.blocks, N), dtype=object)
    digits.reshape(-1)[: len(numbers)] = numbers[: digits.size]
    out = sum((digits[slot] + layout.top) * layout.radix**slot for slot in range(layout.slots))
    out *= layout.step
    bits = (layout.radix - 1).bit_length()
    for i, number in enumerate(numbers[digits.size :]):
        block, place = divmod(i, N)
        moved_up = int(number) + layout.top
        out[block, place] += moved_up << 96 - layout.half_bits
        out[block + layout.blocks // 2, place] += moved_up << 96 - bits
    return out % Q


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("secrets", "most"), [("binomial", 24), ("gaussian", 57)])
@pytest.mark.parametrize(("n", "polynomials"), [(20, 3), (100, 7)])
def test_a_contribution_is_a_times_s_and_a_small_error_and_its_digits(
    key, secrets, most, n, polynomials
):
    rng = np.random.default_rng(0)
    channel = OneTimeRLWE(secrets=secrets)
    plan = RoundPlan(1, tuple(range(n)), d=polynomials * N - 1, l2=1.0, session=b"x")
    layout, topic = channel.layout(plan), channel.topic(plan)
    assert layout.halves == (n == 100)
    numbers = rng.integers(-layout.top, layout.top + 1, polynomials * N)
    numbers[-100:] = layout.top * (1 - 2 * rng.integers(0, 2, 100))
    short = KEYS[key](rng, most).astype(np.int8)
    body = b"".join(encrypted(numbers, short, secrets, topic, layout))
    assert len(body) == layout.size
    limbs = np.frombuffer(body, dtype="<u4").reshape(layout.blocks, LIMBS, N).astype(object)
    public = PublicPolynomials(topic).take(layout.blocks)
    by_degree = np.empty(N, dtype=np.int64)
    by_degree[DEGREES] = short
    plain, seen = parts_of(numbers.astype(object), layout), set()
    for block in range(layout.blocks):
        product = in_memory(times(whole(public[:, block]), by_degree))
        value = sum(limbs[block, limb] << 32 * limb for limb in range(LIMBS))
        for i in range(N):
            error = (value[i] - product[i] - plain[block, i]) % Q
            seen.add(error - Q if error > Q // 2 else error)
    assert max(map(abs, seen)) <= most
    assert len(seen) > 15


@pytest.mark.parametrize("key", KEYS)
def test_a_sum_of_the_longest_keys_and_errors_of_the_largest_cohort_opens(key):
    rng = np.random.default_rng(1)
    n = 1365
    channel = OneTimeRLWE()
    plan = RoundPlan(1, tuple(range(n)), d=N - 1, l2=1.0, session=b"x")
    layout, topic = channel.layout(plan), channel.topic(plan)
    total_key = KEYS[key](rng, 24 * n)
    by_degree = np.empty(N, dtype=np.int64)
    by_degree[DEGREES] = total_key
    product = in_memory(times(whole(PublicPolynomials(topic).take(1)[:, 0]), by_degree))
    for errors in (np.full(N, 24 * n), np.full(N, -24 * n), rng.integers(-24 * n, 24 * n + 1, N)):
        digits = rng.integers(0, layout.radix, (layout.slots, N))
        digits[:, 0], digits[:, 1] = 0, layout.radix - 1
        total = empty(layout)
        for i in range(N):
            plain = sum(int(digits[slot, i]) * layout.radix**slot for slot in range(layout.slots))
            value = (product[i] + int(errors[i]) + layout.step * plain) % Q
            for limb in range(LIMBS):
                total[0, limb, i] = value >> 32 * limb & 0xFFFFFFFF
        opened = unmasked(total, total_key, topic, layout)
        assert (opened.reshape(layout.slots, N) == digits).all()
        wrong = total_key.copy()
        wrong[rng.integers(N)] += 1 if key != "all longest" else -1
        assert unmasked(total, wrong, topic, layout) is None


@pytest.mark.parametrize(("bits", "n"), [*itertools.product((2, 8, 16, 20), (2, 33, 300, 1365))])
def test_no_more_digits_lie_in_a_coefficient_than_it_has_room_for(bits, n):
    layout = OneTimeRLWE(bits=bits).layout(RoundPlan(0, tuple(range(n)), d=10, l2=1.0))
    assert layout.radix > 2 * n * layout.top
    assert layout.step > 2 * 2 * 24 * n, "an error and a hostile one are told apart"
    assert layout.step * layout.radix**layout.slots <= Q
    assert layout.step * layout.radix ** (layout.slots + 1) > Q
    assert layout.step * layout.radix**layout.slots << layout.half_bits <= Q
    if layout.half_bits:
        assert 2 * n * layout.top < 1 << layout.sum_bits, "no sum of halves goes beyond its bits"
        assert layout.half_bits < layout.sum_bits <= 2 * layout.half_bits


@pytest.mark.parametrize("polynomials", range(1, 16))
def test_sums_with_halves_are_exact_at_any_length_and_at_the_extremes(polynomials):
    """Where low and high bits lie is not the same for every length."""
    rng, d = np.random.default_rng(polynomials), polynomials * N - 1 - 13 * (polynomials % 2)
    channel = OneTimeRLWE()
    plan = RoundPlan(1, tuple(range(100)), d=d, l2=1.0)
    layout, topic = channel.layout(plan), channel.topic(plan)
    assert layout.half_bits == 12
    assert layout.capacity > d >= layout.capacity - 4 * N
    rows = rng.integers(-layout.top, layout.top + 1, (3, d + 1))
    rows[:, ::2] = layout.top
    rows[:, 1::4] = -layout.top
    total, one, keys = empty(layout), empty(layout), rng.integers(-24, 25, (3, N))
    bodies = [
        b"".join(encrypted(row, key.astype(np.int8), "binomial", topic, layout))
        for row, key in zip(rows, keys, strict=True)
    ]
    add(one, bodies[0])
    for body in bodies:
        add(total, body)
    digits = unmasked(total, keys.sum(axis=0), topic, layout)
    assert (integers(digits, 3, d + 1, layout) == rows.sum(axis=0)).all()
    everybody = unmasked(one * np.uint64(100), 100 * keys[0], topic, layout)
    assert (integers(everybody, 100, d + 1, layout) == 100 * rows[0]).all()
    total[0, 2, 0] += np.uint64(1 << 31)
    assert unmasked(total, keys.sum(axis=0), topic, layout) is None


def test_what_is_taken_out_of_a_sum_again_was_never_in_it():
    channel = OneTimeRLWE()
    plan = RoundPlan(1, (0, 1, 2), d=100, l2=1.0)
    layout, topic = channel.layout(plan), channel.topic(plan)
    rng, total = np.random.default_rng(2), empty(layout)
    rows = rng.integers(-layout.top, layout.top + 1, (3, 101))
    keys = rng.integers(-24, 25, (3, N)).astype(np.int8)
    bodies = [
        b"".join(encrypted(row, key, "binomial", topic, layout))
        for row, key in zip(rows, keys, strict=True)
    ]
    for body in bodies:
        add(total, body)
    subtract(total, bodies[1])
    digits = unmasked(total, keys[0].astype(np.int64) + keys[2], topic, layout)
    assert (integers(digits, 2, 101, layout) == rows[0] + rows[2]).all()


@pytest.mark.parametrize("polynomials", [7, 9])
def test_what_opens_to_the_server_follows_from_the_sum_and_not_from_who_added_what(polynomials):
    """Two clients whose updates cancel, and two that send zeros: what is left of the running sum
    when the keys are taken out differs by errors alone, also where two coefficients share a value.
    A client's low bits and its high ones would tell how often they carry, and so, around zero, how
    many clients have a positive value.
    """
    rng, d = np.random.default_rng(polynomials), polynomials * N - 1
    channel = OneTimeRLWE()
    plan = RoundPlan(1, tuple(range(100)), d=d, l2=1.0)
    layout, topic = channel.layout(plan), channel.topic(plan)
    assert layout.half_bits
    moves = rng.integers(-300, 301, d + 1)
    moves[::3] = rng.integers(-layout.top, layout.top + 1, len(moves[::3]))
    keys = rng.integers(-24, 25, (2, N)).astype(np.int8)
    left = []
    for rows in ((moves, -moves), (0 * moves, 0 * moves)):
        total = empty(layout)
        for row, key in zip(rows, keys, strict=True):
            add(total, b"".join(encrypted(row, key, "binomial", topic, layout)))
        pads = empty(layout)
        for key in keys:
            add(pads, b"".join(encrypted(0 * moves, key, "binomial", topic, layout)))
        values = sum(
            (total[:, limb].astype(object) - pads[:, limb].astype(object)) << 32 * limb
            for limb in range(LIMBS)
        )
        left.append(values % Q)
    apart = (left[0] - left[1] + Q // 2) % Q - Q // 2
    assert abs(apart).max() <= 2 * 4 * 24
