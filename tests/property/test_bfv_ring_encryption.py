"""BFV encryption by our own ring arithmetic is SEAL's: the same whole numbers from the same
randomness, the same noise, sums with SEAL's own ciphertexts, and nothing used twice.
"""

import math

import numpy as np
import pytest
import tenseal.sealapi as seal

from privfl.core import RoundPlan
from privfl.crypto import BFV
from privfl.crypto.he.lattice import frames, ring_encryption
from privfl.crypto.he.lattice.keys import by_seal
from privfl.crypto.he.lattice.parameters import plain_modulus
from privfl.crypto.he.lattice.residues import body_of, chunks_of
from privfl.crypto.he.lattice.seal import context, encoders, passage
from privfl.crypto.he.lattice.slots import PlaintextSlots, coefficients, root, times
from privfl.crypto.he.mprlwe.ring import N
from privfl.crypto.he.wire import HostileKey, Refused

TOP = 32767
LATTICE = BFV().scheme.lattice
FIRST, LAST = frames.residues(LATTICE, key=True).primes
PLAIN = plain_modulus(LATTICE.degree, LATTICE.plain_bits)


def plan_for(n, d):
    return RoundPlan(0, tuple(range(n)), d, l2=1.0)


@pytest.fixture(scope="module")
def keys():
    return BFV().scheme.generate()


@pytest.fixture(scope="module")
def shared():
    return BFV(keys="shared", encryption="symmetric").scheme.generate()


def numbers(count, seed=0):
    return np.random.default_rng(seed).integers(-TOP, TOP + 1, count)


def product(left, right, modulus):
    """Of two polynomials of whole numbers modulo X^N + 1, by one product of long integers: every
    coefficient has 128 bits of room.
    """
    shift = 1 << 120  # makes every coefficient of the product positive
    whole = joined(left) * joined(right) + joined([shift] * (2 * N))
    raw = whole.to_bytes(16 * 2 * N, "little")
    found = [int.from_bytes(raw[i : i + 16], "little") - shift for i in range(0, len(raw), 16)]
    return [(low - high) % modulus for low, high in zip(found[:N], found[N:], strict=True)]


def joined(values):
    def of(sign):
        parts = (max(sign * int(x), 0).to_bytes(16, "little") for x in values)
        return int.from_bytes(b"".join(parts), "little")

    return of(1) - of(-1)


def natural(values):
    """Out of the order 0, N/2, 1, ... in which the ring lies in memory."""
    return np.concatenate([values[..., 0::2], values[..., 1::2]], axis=-1)


def key_polynomial(words):
    """A polynomial of a public key modulo both primes, as integers modulo their product."""
    first, last = coefficients(words[0], FIRST), coefficients(words[1], LAST)
    up = pow(LAST, -1, FIRST)
    return [
        int(b) + LAST * ((int(a) - int(b)) * up % FIRST) for a, b in zip(first, last, strict=True)
    ]


def drawn(seed=3):
    generator = np.random.default_rng(seed)
    ternary = generator.integers(-1, 2, (1, N)).astype(np.int8)
    return ternary, generator.integers(-21, 22, (2, N)).astype(np.int8)


def test_a_zero_encrypted_by_the_public_key_is_the_formula_in_whole_numbers(keys):
    public, _ = keys
    ternary, errors = drawn()
    spectra = ring_encryption._public_spectra(LATTICE, public.public)
    pair = ring_encryption.public_pair(LATTICE, spectra, ternary, errors)
    words = frames.residues(LATTICE, key=True).unpacked(public.public, 2)
    whole = FIRST * LAST
    for polynomial, error, mine in zip(words, errors, pair, strict=True):
        exact = product(key_polynomial(polynomial), natural(ternary[0]).tolist(), whole)
        due = [
            (value + int(e) + LAST // 2) % whole // LAST % FIRST
            for value, e in zip(exact, natural(error), strict=True)
        ]
        assert [int(x) % FIRST for x in natural(mine[0])] == due


def test_the_most_extreme_randomness_stays_exact(keys):
    """u = 1 everywhere and errors at their ends: sums are as long as they can be."""
    public, _ = keys
    spectra = ring_encryption._public_spectra(LATTICE, public.public)
    ones, ends = np.ones((1, N), dtype=np.int8), np.full((2, N), 21, dtype=np.int8)
    first, _ = ring_encryption.public_pair(LATTICE, spectra, ones, ends)
    words = frames.residues(LATTICE, key=True).unpacked(public.public, 2)
    whole = FIRST * LAST
    exact = product(key_polynomial(words[0]), [1] * N, whole)
    due = [(value + 21 + LAST // 2) % whole // LAST % FIRST for value in exact]
    assert [int(x) % FIRST for x in natural(first[0])] == due


def test_slots_become_the_plaintext_that_seal_encodes_and_are_scaled_as_it_scales():
    values = numbers(N, seed=5)
    values[:4] = [PLAIN // 2, -(PLAIN // 2), 0, -1]
    encode, _ = encoders(LATTICE)
    plain = seal.Plaintext()
    encode(values, plain)
    mine = PlaintextSlots.of(PLAIN).coefficients(values)[0]
    theirs = [plain[i] for i in range(plain.coeff_count())]
    assert [int(x) % PLAIN for x in mine[: len(theirs)]] == theirs
    assert not mine[len(theirs) :].any()
    scaled = natural(ring_encryption.message(LATTICE, values)[0])
    due = [(FIRST * m + (PLAIN + 1) // 2) // PLAIN % FIRST for m in theirs]
    assert [int(x) % FIRST for x in scaled[: len(due)]] == due


@pytest.mark.parametrize("prime", [FIRST, LAST, (1 << 50) - 27])
def test_products_modulo_a_long_prime_are_exact(prime):
    generator = np.random.default_rng(1)
    left, right = generator.integers(0, prime, (2, 4096), dtype=np.uint64)
    left[:3], right[:3] = [prime - 1, prime - 1, 0], [prime - 1, 1, prime - 1]
    due = [int(a) * int(b) % prime for a, b in zip(left, right, strict=True)]
    assert times(left, right, prime).tolist() == due


def test_a_keys_transform_is_undone_as_its_definition_says():
    """Values of a small polynomial at the odd powers of the root, in the order of reversed bits."""
    prime, degree = FIRST, 8
    base, polynomial = root(prime, 2 * degree), [5, prime - 1, 0, 7, 1, 2, 3, 4]
    order = [int(f"{i:03b}"[::-1], 2) for i in range(degree)]
    values = [
        sum(c * pow(base, (2 * i + 1) * power, prime) for power, c in enumerate(polynomial)) % prime
        for i in order
    ]
    assert coefficients(np.array(values, dtype=np.uint64), prime).tolist() == polynomial


def test_seal_itself_makes_these_whole_numbers_of_the_same_randomness(keys):
    """Under a key whose first polynomial is q' alone, SEAL's ciphertext shows the u that it drew:
    all else follows, as no error of 21 moves a quotient by q' of 40 bits, but one in 10^10.
    """
    public, _ = keys
    code = frames.residues(LATTICE, key=True)
    words = code.unpacked(public.public, 2)
    words[0, 0], words[0, 1] = LAST % FIRST, 0
    telling, values = code.packed(words), numbers(2 * N, seed=9)
    spectra, none = ring_encryption._public_spectra(LATTICE, telling), np.zeros((2, N), np.int8)
    for i, chunk in enumerate(by_seal(LATTICE, "public", telling, values)):
        c0, c1 = frames.opened(LATTICE, chunk)[:, 0].astype(np.int64)
        scaled = natural(ring_encryption.message(LATTICE, values[i * N : (i + 1) * N])[0])
        u = (c0 - scaled.astype(np.int64)) % FIRST
        u[u > FIRST // 2] -= FIRST
        assert np.unique(u).tolist() == [-1, 0, 1]
        ternary = u.astype(np.int8).reshape(1, 2, N // 2).swapaxes(1, 2).reshape(1, N)
        first, second = ring_encryption.public_pair(LATTICE, spectra, ternary, none)
        assert not ((natural(first[0]) + scaled - c0) % FIRST).any()
        assert ((natural(second[0]) - c1) % FIRST != 0).sum() == 0


@pytest.mark.parametrize("how", ["public", "symmetric"])
def test_ours_and_seals_ciphertexts_add_up_exactly_and_are_as_long(keys, shared, how):
    public, secret = keys if how == "public" else shared
    plan, rows = plan_for(20, 6000), [numbers(6001, seed) for seed in range(20)]
    key = public.public if how == "public" else secret.secret
    mine = [secret.encrypt(row, plan) for row in rows[:10]]
    theirs = [(body_of("whole", by_seal(LATTICE, how, key, row)),) for row in rows[10:]]
    assert {len(parts[0]) for parts in mine} == {len(parts[0]) for parts in theirs}
    total = public.add(mine + theirs, plan)
    assert np.array_equal(secret.decrypt(total, plan, 20), sum(rows))
    same = public.add([secret.encrypt(row, plan) for row in rows], plan)
    assert np.array_equal(secret.decrypt(same, plan, 20), sum(rows))


@pytest.mark.parametrize("how", ["public", "symmetric"])
def test_the_noise_budget_is_seals(keys, shared, how):
    public, secret = keys if how == "public" else shared
    key = public.public if how == "public" else secret.secret
    values, made = numbers(8 * N), context(LATTICE)
    with passage() as file:
        opener = seal.Decryptor(made, frames.secret_key(file, LATTICE, secret.secret))
        budgets = {
            who: [
                opener.invariant_noise_budget(frames.load(file, LATTICE, chunk)) for chunk in chunks
            ]
            for who, chunks in {
                "ours": chunks_in(secret.encrypt(values, plan_for(1, len(values) - 1)), 8),
                "seal's": by_seal(LATTICE, how, key, values),
            }.items()
        }
    assert len(budgets["ours"]) == len(budgets["seal's"]) == 8
    assert abs(np.mean(budgets["ours"]) - np.mean(budgets["seal's"])) <= 1
    assert min(budgets["ours"]) >= min(budgets["seal's"]) - 1


def chunks_in(parts, count):
    return chunks_of(parts, frames.sizes(LATTICE), count)[1]


def residuals(secret, chunks, values):
    """What is left of c0 + c1 s when the scaled message is taken away, centred: the noise."""
    code = frames.residues(LATTICE)
    key = coefficients(frames.secret_words(LATTICE, secret.secret)[0, 0], FIRST)
    ternary = [int(x) - (FIRST if x > 1 else 0) for x in key]
    assert set(ternary) == {-1, 0, 1}
    left = []
    for i, chunk in enumerate(chunks):
        c0, c1 = code.unpacked(chunk, 2)[:, 0]
        message = natural(ring_encryption.message(LATTICE, values[i * N : (i + 1) * N])[0])
        turned = product(c1.tolist(), ternary, FIRST)
        for a, b, m in zip(c0, turned, message, strict=True):
            value = (int(a) + b - int(m)) % FIRST
            left.append(value - FIRST if value > FIRST // 2 else value)
    return np.array(left)


def test_symmetric_noise_is_centred_binomial_of_21_and_21_bits(shared):
    _, secret = shared
    values, count = numbers(8 * N, seed=2), 8 * N
    chunks = chunks_in(secret.encrypt(values, plan_for(1, count - 1)), 8)
    noise = residuals(secret, chunks, values)
    due = {x: math.comb(42, x + 21) / 2.0**42 * count for x in range(-21, 22)}
    met = {x: int((noise == x).sum()) for x in due}
    assert sum(met.values()) == count
    cells = [x for x in due if due[x] >= 20]
    square = sum((met[x] - due[x]) ** 2 / due[x] for x in cells)
    assert square < len(cells) + 6 * math.sqrt(2 * len(cells))


def test_public_noise_is_as_wide_as_seals_and_both_polynomials_are_uniform(keys):
    public, secret = keys
    values, count = numbers(8 * N, seed=2), 8 * N
    mine = chunks_in(public.encrypt(values, plan_for(1, count - 1)), 8)
    theirs = by_seal(LATTICE, "public", public.public, values)
    ours, seals = (residuals(secret, chunks, values) for chunks in (mine, theirs))
    assert abs(ours.std() / seals.std() - 1) < 0.05
    assert abs(ours.std() / LATTICE.deviation - 1) < 0.1
    assert abs(ours.mean()) < 6 * ours.std() / math.sqrt(count)
    words = np.stack([frames.opened(LATTICE, chunk) for chunk in mine])[:, :, 0]
    for polynomial in (0, 1):
        cells = np.bincount((words[:, polynomial].ravel() * 64 // FIRST).astype(int), minlength=64)
        square = ((cells - count / 64) ** 2 / (count / 64)).sum()
        assert len(cells) == 64
        assert square < 63 + 6 * math.sqrt(126)


@pytest.mark.parametrize("how", ["public", "symmetric"])
def test_no_two_ciphertexts_share_their_randomness(keys, shared, how):
    _, secret = keys if how == "public" else shared
    values = np.zeros(3 * N, dtype=np.int64)
    chunks = [
        bytes(chunk)
        for _ in range(2)
        for chunk in chunks_in(secret.encrypt(values, plan_for(1, len(values) - 1)), 3)
    ]
    halves = [chunk[i : i + 5000] for chunk in chunks for i in (0, len(chunk) // 2)]
    assert len(set(halves)) == 12
    masks = np.stack([frames.opened(LATTICE, chunk)[1, 0] for chunk in chunks]).astype(np.float64)
    alike = np.corrcoef(masks)[np.triu_indices(6, k=1)]
    assert np.abs(alike).max() < 6 / math.sqrt(N)


def test_the_arithmetic_takes_the_default_set_and_leaves_longer_primes_to_seal():
    assert ring_encryption.fits(LATTICE)
    long = BFV(bits=24, max_clients=1000)
    assert not ring_encryption.fits(long.scheme.lattice)
    public, secret = long.scheme.generate()
    plan, row = plan_for(2, 99), numbers(100) * 200
    total = public.add([public.encrypt(row, plan)] * 2, plan)
    assert np.array_equal(secret.decrypt(total, plan, 2), 2 * row)


@pytest.mark.parametrize("value", [PLAIN // 2 + 1, -(PLAIN // 2) - 1, 2**62])
def test_a_number_without_room_is_refused(keys, shared, value):
    for _, secret in (keys, shared):
        with pytest.raises(Refused, match="magnitude"):
            secret.encrypt(np.array([0, value]), plan_for(1, 1))


def test_a_secret_key_that_is_not_ternary_is_refused(shared):
    """Products with it would not be exact, and who sent them would be blamed for it."""
    _, secret = shared
    code = frames.residues(LATTICE, key=True)
    words = code.unpacked(secret.secret, 1)
    words[0, 0, 17] = (words[0, 0, 17] + 1) % FIRST  # every coefficient moves
    with pytest.raises(HostileKey, match="not all -1, 0 or 1"):
        ring_encryption.by_secret_key(LATTICE, code.packed(words), np.array([1]))


def test_a_public_key_with_a_residue_past_its_prime_is_refused():
    size = 2 * frames.residues(LATTICE, key=True).size
    with pytest.raises(Refused, match="not below its prime"):
        ring_encryption.by_public_key(LATTICE, b"\xff" * size, np.array([1]))
    with pytest.raises(Refused, match="were due"):
        ring_encryption.by_public_key(LATTICE, b"\1" * (size - 1), np.array([1]))
