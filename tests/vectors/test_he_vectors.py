"""The homomorphic schemes give published answers; the wire format of version 1 stays what it is."""

import hashlib
import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import tenseal.sealapi as seal

from privfl.core import RoundPlan
from privfl.crypto import BFV, CKKS
from privfl.crypto.he.lattice.parameters import plain_modulus
from privfl.crypto.he.lattice.seal import encoders
from privfl.crypto.he.mprlwe.ring import LIMBS, N, carried, product, spectrum, times
from privfl.crypto.he.mprlwe.sampling import uniform_from
from privfl.crypto.he.paillier.keys import PaillierPublic, PaillierSecret
from privfl.crypto.he.paillier.threshold import PaillierShare, combine, lagrange, split
from privfl.crypto.he.wire import SignedMessage, Topic, pack
from privfl.crypto.primitives import Identity

VECTORS = json.loads((Path(__file__).parent / "homomorphic_encryption.json").read_text())
SCHOOL = VECTORS["damgard_jurik"]


def paillier(p, q, bits=16):
    return PaillierSecret(p, q, PaillierPublic(p * q, 0, bits))


@pytest.mark.parametrize(
    "vector", VECTORS["paillier"]["vectors"], ids=lambda v: str(v["plaintext"])
)
def test_paillier_encrypts_and_decrypts_as_python_paillier_publishes(vector):
    secret = paillier(VECTORS["paillier"]["p"], VECTORS["paillier"]["q"])
    n = secret.public.n
    assert n == VECTORS["paillier"]["n"]
    factor = secret.residue(vector["r"])
    assert int(factor) == pow(vector["r"], n, n * n)
    made = secret.public.blinded([vector["plaintext"]], [factor])[0]
    assert int.from_bytes(made, "little") == vector["ciphertext"]
    assert secret.plaintexts([vector["ciphertext"]]) == [vector["plaintext"]]


def test_lagrange_weights_give_the_textbooks_secret_from_any_three_of_its_shares():
    case = VECTORS["shamir"]
    scale = math.factorial(len(case["shares"]))
    for chosen in combinations(case["shares"], case["threshold"]):
        indices = [x for x, _ in chosen]
        assert sum(y * lagrange(x, indices, scale) for x, y in chosen) == case["secret"] * scale
        short = indices[:-1]
        assert sum(y * lagrange(x, short, scale) for x, y in chosen[:-1]) != case["secret"] * scale


class TestDamgardJurik:
    """Numbers small enough to check by hand."""

    secret = paillier(SCHOOL["p"], SCHOOL["q"], bits=2)
    plan = RoundPlan(0, (0,), d=1, l2=1.0)  # two plaintexts of one byte
    body = SCHOOL["ciphertext"].to_bytes(secret.public.width, "little") * 2

    @property
    def shares(self):
        return [
            PaillierShare(i, value, SCHOOL["holders"], self.secret.public)
            for i, value in enumerate(SCHOOL["shares"], start=1)
        ]

    def test_the_parts_are_the_worked_powers(self):
        for share, part in zip(self.shares, SCHOOL["parts"], strict=True):
            index, powers, _ = share.partial((self.body,), self.plan)
            assert index == bytes([share.index, SCHOOL["holders"]])
            assert powers == part.to_bytes(self.secret.public.width, "little") * 2

    def test_any_two_parts_give_the_plaintext(self):
        parts = [share.partial((self.body,), self.plan) for share in self.shares]
        for chosen in combinations(parts, SCHOOL["threshold"]):
            numbers = combine(self.secret.public, chosen, self.plan, 1, SCHOOL["threshold"])
            assert (
                numbers.tolist() == [SCHOOL["plaintext"] - 1] * 2
            )  # slots are shifted by the largest value, here 1
        assert self.secret.plaintexts([SCHOOL["ciphertext"]]) == [SCHOOL["plaintext"]]

    def test_shares_are_points_of_a_line_through_the_papers_secret(self):
        p, q = SCHOOL["p"], SCHOOL["q"]
        n, m = p * q, (p - 1) * (q - 1) // 4
        d = SCHOOL["d"]
        assert (d % m, d % n) == (0, 1)
        assert SCHOOL["shares"] == [(d + SCHOOL["coefficient"] * i) % (n * m) for i in (1, 2, 3)]
        first, second = (share.value for share in split(self.secret, 3, 2)[1][:2])
        assert (2 * first - second) % (n * m) == d


class TestSeal:
    @pytest.mark.parametrize("case", VECTORS["seal"]["chains"], ids=lambda c: str(c["bits"]))
    def test_prime_chains_are_those_of_its_own_tests(self, case):
        assert [
            prime.value() for prime in seal.CoeffModulus.Create(case["degree"], case["bits"])
        ] == case["primes"]

    def test_our_plaintext_modulus_is_the_one_of_its_examples(self):
        case = VECTORS["seal"]["batching"]
        assert plain_modulus(case["degree"], case["bits"]) == case["prime"]

    def test_every_parameter_set_keeps_to_the_standard(self):
        most = {int(degree): bits for degree, bits in VECTORS["standard"]["most_bits"].items()}
        for channel in (
            BFV(),
            BFV(bits=24, max_clients=1000),
            BFV(bits=31, max_clients=1024),
            CKKS(),
            CKKS(bits=12, max_clients=20),
        ):
            lattice = channel.scheme.lattice
            assert sum(lattice.primes) <= most[lattice.degree]
            assert (
                seal.CoeffModulus.MaxBitCount(lattice.degree, seal.SEC_LEVEL_TYPE.TC128)
                == most[lattice.degree]
            )
        assert most[N] >= 32 * LIMBS

    def test_ckks_encodes_the_papers_example(self):
        """The encoder's number-theoretic transform of 160 + 91 X + 160 X^2 + 45 X^3: its values at
        the four primitive 8th roots.
        """
        case = VECTORS["ckks_encoding"]
        n = case["degree"]
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(n)
        parameters.set_coeff_modulus(seal.CoeffModulus.Create(n, [30, 30]))
        encoder = seal.CKKSEncoder(seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.NONE))
        plain, p = seal.Plaintext(), seal.CoeffModulus.Create(n, [30, 30])[0].value()
        encoder.encode([complex(*slot) for slot in case["slots"]], float(case["scale"]), plain)
        root = next(
            r
            for r in (pow(g, (p - 1) // (2 * n), p) for g in range(2, 100))
            if pow(r, n, p) == p - 1
        )
        values = [
            sum(c * pow(root, k * j, p) for j, c in enumerate(case["coefficients"])) % p
            for k in range(1, 2 * n, 2)
        ]
        assert sorted(plain.data(i) for i in range(n)) == sorted(values)

    def test_bfv_batches_a_constant_vector_to_a_constant(self):
        lattice = BFV().scheme.lattice
        encode, decode = encoders(lattice)
        plain = seal.Plaintext()
        encode(np.full(lattice.slots, 5), plain)
        assert plain.to_string() == "5"
        encode(np.full(lattice.slots, -1), plain)
        assert int(plain.to_string(), 16) == plain_modulus(lattice.degree, lattice.plain_bits) - 1
        assert (decode(plain) == -1).all()


def monomial(power, dtype):
    """X^power as it lies in memory: 0, N/2, 1, N/2 + 1, ..."""
    out = np.zeros(N, dtype=dtype)
    out[2 * (power % (N // 2)) + power // (N // 2)] = 1
    return out


@pytest.mark.parametrize(
    ("left", "right"), [(0, 0), (N - 1, 1), (N // 2, N // 2), (N - 1, N - 1), (1, N // 2 - 1)]
)
def test_powers_of_x_wrap_round_with_a_minus(left, right):
    done = product(spectrum(monomial(left, np.int8)), spectrum(monomial(right, np.int8)))
    sign = 1 if left + right < N else -1
    assert (done == sign * monomial((left + right) % N, np.int64)).all()
    words = carried(monomial(left, np.int64), np.zeros(N, np.int64), np.zeros(N, np.int64))[:, None]
    limbs = times(words, spectrum(monomial(right, np.int8)))[:, 0]
    expected = monomial((left + right) % N, np.uint32) * np.uint32(sign % (1 << 32))
    assert (limbs[0] == expected).all()
    assert (limbs[1] == (expected if sign < 0 else 0)).all()


class TestWireOfVersion1:
    golden = VECTORS["wire_v1"]

    def test_a_signed_message_is_these_bytes(self):
        identity = Identity("client/3", bytes(range(32)), bytes(32))
        plan = RoundPlan(
            7, (0, 3, 9), d=1000, l2=1.5, max_weight=2.0, part="control", session=b"session"
        )
        parts = (b"first part", b"")
        body = SignedMessage.signed(
            identity, b"ENCR", Topic.of(plan, bytes(range(16))), "client/3", parts
        ).to_bytes()
        assert body.hex() == self.golden["message"]
        SignedMessage.read(body).verify(
            identity.hello, b"ENCR", Topic.of(plan, bytes(range(16))), "client/3"
        )

    def test_a_list_of_messages_is_these_bytes(self):
        assert pack([b"one", b"", b"three"]).hex() == self.golden["list"]

    def test_a_seed_is_expanded_to_this_polynomial(self):
        assert (
            hashlib.sha256(uniform_from(bytes(32)).astype("<u4").tobytes()).hexdigest()
            == self.golden["uniform_sha256"]
        )
