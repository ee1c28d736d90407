"""The key-recovery attack on CKKS (Li and Micciancio 2021): it takes the key from two bare
decryptions, and fails against our releases.

A bare decryption m = c0 + c1 s + (a multiple of q) is published as real slot values, which fix m(X)
+ m(1/X). Two of them are two linear equations in s(X) and s(1/X), so they give s.
"""

import numpy as np
import pytest
import tenseal.sealapi as seal

from privfl.core import RoundPlan
from privfl.crypto import CKKS
from privfl.crypto.he.lattice.frames import load, sizes
from privfl.crypto.he.lattice.keys import LatticeSecret, fresh
from privfl.crypto.he.lattice.parameters import Lattice
from privfl.crypto.he.lattice.residues import chunks_of
from privfl.crypto.he.lattice.seal import context, passage

LATTICE = Lattice("ckks", 4096, (54, 52), scale_bits=44)
N = LATTICE.degree


class Ring:
    """Z_p[X] / (X^N + 1) by a number-theoretic transform in plain integers."""

    def __init__(self, p):
        self.p = p
        generator = next(
            g for g in range(2, 1000) if pow(pow(g, (p - 1) // (2 * N), p), N, p) == p - 1
        )
        self.psi = pow(generator, (p - 1) // (2 * N), p)

    def transform(self, values):
        """Values at psi^(2j + 1), by the recursive Cooley and Tukey."""
        p, twist, twisted = self.p, 1, []
        for value in values:
            twisted.append(value * twist % p)
            twist = twist * self.psi % p
        return self._fft(twisted, self.psi * self.psi % p)

    def inverse(self, values):
        p = self.p
        back = self._fft(values, pow(self.psi, -2, p))
        twist, step, out = pow(N, -1, p), pow(self.psi, -1, p), []
        for value in back:
            out.append(value * twist % p)
            twist = twist * step % p
        return out

    def _fft(self, values, root):
        if len(values) == 1:
            return values
        p, square = self.p, root * root % self.p
        even, odd = self._fft(values[::2], square), self._fft(values[1::2], square)
        half, power = len(even), 1
        out = [0] * (2 * half)
        for i in range(half):
            turned = odd[i] * power % p
            out[i], out[i + half] = (even[i] + turned) % p, (even[i] - turned) % p
            power = power * root % p
        return out


def mirrored(f, p):
    """f(1/X): X^-k = -X^(N - k)."""
    return [f[0], *((p - f[N - k]) % p for k in range(1, N))]


def coefficients(ciphertext):
    made = context(LATTICE)
    plain = seal.Ciphertext()
    evaluator = seal.Evaluator(made)
    evaluator.transform_from_ntt(ciphertext, plain)
    words = plain.dyn_array()
    values = [words.at(i) for i in range(2 * N)]
    return values[:N], values[N:]


def encoded_twice(published, ciphertext):
    """The coefficients of m(X) + m(1/X): what encodes twice the published values, read off a
    ciphertext that it is added to.
    """
    made = context(LATTICE)
    plain, moved = seal.Plaintext(), seal.Ciphertext()
    seal.CKKSEncoder(made).encode((2 * published).tolist(), 2.0**LATTICE.scale_bits, plain)
    seal.Evaluator(made).add_plain(ciphertext, plain, moved)
    return coefficients(moved)[0]


def attack(releases):
    """The secret key's coefficients, mod p, from (ciphertext, published values) twice."""
    p = int(seal.CoeffModulus.Create(N, list(LATTICE.primes))[0].value())
    ring, equations = Ring(p), []
    for body, published in releases:
        with passage() as file:
            ciphertext = load(file, LATTICE, chunks_of(body, sizes(LATTICE), 1)[1][0])
        c0, c1 = coefficients(ciphertext)
        shifted = encoded_twice(published, ciphertext)
        both = [(s - a - a - b) % p for s, a, b in zip(shifted, c0, mirrored(c0, p), strict=True)]
        equations.append([ring.transform(f) for f in (c1, mirrored(c1, p), both)])
    (a1, b1, t1), (a2, b2, t2) = equations
    s = [
        (x * d - y * b) * pow(a * d - c * b, -1, p) % p
        for a, b, x, c, d, y in zip(a1, b1, t1, a2, b2, t2, strict=True)
    ]
    return [c - p if c > p // 2 else c for c in ring.inverse(s)]


@pytest.fixture(scope="module")
def aggregates():
    """Two encrypted sums of three clients under one key, and that key."""
    public, raw = fresh(LATTICE, 1)
    plan = RoundPlan(0, (0, 1, 2), d=N // 2 - 1, l2=1.0)
    rows = np.random.default_rng(4).uniform(-0.01, 0.01, (6, N // 2))
    sums = [
        public.add([public.encrypt(row, plan) for row in rows[i : i + 3]], plan) for i in (0, 3)
    ]
    return LatticeSecret(public, raw, "public", flooding_bits=40, releases=1000), plan, sums


def test_two_bare_decryptions_give_the_key_away(aggregates):
    secret, plan, sums = aggregates
    recovered = attack([(body, secret._decrypted(body, plan)) for body in sums])
    assert set(recovered) == {-1, 0, 1}


def test_two_flooded_releases_do_not(aggregates):
    secret, plan, sums = aggregates
    recovered = attack([(body, secret.decrypt(body, plan, 3)) for body in sums])
    small = sum(abs(c) <= 1 for c in recovered)
    assert small < 3


def test_the_channel_has_no_other_way_out_than_the_flooded_one():
    channel = CKKS()
    secret = channel.scheme.generate()[1]
    assert (secret.flooding_bits, secret.releases) == (40, 1000)
    again = channel.scheme.secret(secret.to_bytes())
    assert (again.flooding_bits, again.releases) == (40, 1000)
    plan = RoundPlan(0, (0, 1), d=50, l2=1.0)
    ciphertext = secret.public.encrypt(np.zeros(51), plan)
    later = RoundPlan(1, (0, 1), d=50, l2=1.0)
    first, second = secret.decrypt(ciphertext, plan, 2), secret.decrypt(ciphertext, later, 2)
    assert (first != second).all()
    assert (first == secret.decrypt(ciphertext, plan, 2)).all()
