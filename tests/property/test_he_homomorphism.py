"""Sums under encryption are the sums of the plaintexts: at the extremes, for one client, up to the
last bit of headroom and not past it.
"""

import numpy as np
import phe
import pytest
import tenseal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.core import Bounded, ConfigError, RoundPlan, StateKey, seal_state, unseal_state
from privfl.crypto import BFV, CKKS, FixedPoint, MultiPartyRLWE, Paillier
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.he.lattice import flooding
from privfl.crypto.he.lattice.parameters import plain_modulus
from privfl.crypto.he.mprlwe.keys import (
    JointPublic,
    TernaryPart,
    add_c0,
    noise,
    partial,
    pieces,
    plain_bits,
    room,
)
from privfl.crypto.he.mprlwe.ring import BLOCK, LIMBS, N, product, spectrum, summed, times, top
from privfl.crypto.he.mprlwe.sampling import ERROR, Stream, uniform_from
from privfl.crypto.he.paillier import (
    PaillierPublic,
    PaillierSecret,
    ciphertext_to_phe,
    from_phe,
    from_primes,
    public_to_phe,
)
from privfl.crypto.he.paillier.blinding import FixedBase, powers
from privfl.crypto.he.paillier.packing import Slots
from privfl.crypto.he.paillier.threshold import combine, split
from privfl.crypto.he.wire import Refused

TOP = 32767
vectors = st.lists(
    st.lists(
        st.one_of(st.sampled_from([-TOP, -1, 0, 1, TOP]), st.integers(-TOP, TOP)),
        min_size=9,
        max_size=9,
    ),
    min_size=1,
    max_size=5,
)


def plan_for(n, d=8, number=0):
    return RoundPlan(number, tuple(range(n)), d, l2=1.0)


class JointSecret:
    """All the pieces in one hand, so that the scheme can be tested without its protocol."""

    def __init__(self, count=3, smudge_bits=67):
        seed = bytes(range(32))
        self.pieces = [TernaryPart() for _ in range(count)]
        self.public = JointPublic(seed, summed([piece.public(seed) for piece in self.pieces]), 16)
        self.smudge_bits = smudge_bits

    def parts(self, ciphertext, plan):
        return [
            partial([piece], ciphertext[1], self.public.blocks(plan), self.smudge_bits)
            for piece in self.pieces
        ]

    def decrypt(self, ciphertext, plan, count):
        return self.public.opened(bytes(ciphertext[0]), self.parts(ciphertext, plan), plan)


@pytest.fixture(scope="module")
def keys():
    paillier = Paillier(key_bits=512, insecure_for_tests=True)
    joint = JointSecret()
    return {
        "paillier": paillier.scheme.generate(),
        "bfv": BFV().scheme.generate(),
        "mp-rlwe": (joint.public, joint),
    }


@pytest.mark.parametrize("name", ["paillier", "bfv", "mp-rlwe"])
@settings(max_examples=15, deadline=None)
@given(rows=vectors)
def test_sums_under_encryption_are_exact(keys, name, rows):
    public, secret = keys[name]
    plan = plan_for(len(rows))
    total = public.add([public.encrypt(np.array(row), plan) for row in rows], plan)
    assert secret.decrypt(total, plan, len(rows)).tolist() == np.sum(rows, axis=0).tolist()


@pytest.mark.parametrize(("name", "most"), [("paillier", 256), ("bfv", 255), ("mp-rlwe", 128)])
def test_the_largest_cohort_of_extreme_values_still_sums_right(keys, name, most):
    public, secret = keys[name]
    plan = plan_for(most)
    extreme = np.array([TOP, -TOP] * 4 + [TOP])
    ciphertext = public.encrypt(extreme, plan)
    total = public.add([ciphertext] * most, plan)
    assert secret.decrypt(total, plan, most).tolist() == (most * extreme).tolist()


@pytest.mark.parametrize(
    ("channel", "most"),
    [
        (BFV(), 255),
        (BFV(bits=8, max_clients=1000), 1644),
        (MultiPartyRLWE(), 128),
        (MultiPartyRLWE(smudge_bits=61, releases=2), 252),
        (MultiPartyRLWE(bits=12), 774),
    ],
)
def test_one_client_past_the_headroom_is_refused_before_the_round(channel, most):
    assert all(_fits(channel, n) for n in (1, 2, 3, most // 2, most - 1, most))
    first = next(n for n in range(most, 5000) if not _fits(channel, n))
    assert first - most < 50
    with pytest.raises(ConfigError, match="can overflow"):
        Enrolled.fresh(channel, ()).server.enter(plan_for(first))


def _fits(channel, n):
    try:
        channel.scheme.headroom(plan_for(n))
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    "channel",
    [Paillier(key_bits=512, insecure_for_tests=True), BFV(), MultiPartyRLWE()],
    ids=["paillier", "bfv", "mp"],
)
def test_what_a_channel_opens_is_the_quantised_sum_bit_for_bit(channel):
    from privfl.core import client_party, drive, drive_all

    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(3, 40, generator=generator)
    rows = 0.99 * rows / rows.norm(dim=1, keepdim=True)
    plan, code = plan_for(3, d=40), FixedPoint(16)
    bounded = [Bounded(i, rows[i], 1.0) for i in range(3)]
    members = Enrolled.fresh(channel, range(3)).members
    drive_all({who: member.set_up() for who, member in members.items()})
    parties = {client_party(i): members[client_party(i)].enter(plan, bounded[i]) for i in range(3)}
    parties |= {who: members[who].enter(plan) for who in channel.helpers}
    opened = drive(members["server"].enter(plan), parties).opened.what
    ideal = code.decode(sum(code.encode(update, plan) for update in bounded), plan, 3)
    assert torch.equal(opened.value, ideal.value)
    assert opened.weight == ideal.weight


class TestPaillier:
    @settings(max_examples=50, deadline=None)
    @given(top=st.integers(1, (1 << 30) - 1), clients=st.integers(1, 70_000), data=st.data())
    def test_slots_hold_every_sum_and_are_as_narrow_as_they_can_be(self, top, clients, data):
        slots = Slots.of(top, clients, plaintext_bits=511)
        signs = data.draw(
            st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=3 * slots.count)
        )
        values = np.array(signs, dtype=np.int64) * top
        packed = slots.pack(values)
        assert len(packed) == slots.plaintexts(len(values))
        summed_up = [clients * m for m in packed]
        assert slots.unpack(summed_up, len(values), clients).tolist() == (clients * values).tolist()
        assert 2 * top * clients < 256**slots.width
        assert slots.width == 1 or 2 * top * clients >= 256 ** (slots.width - 1)

    def test_a_table_power_is_the_power(self):
        table = FixedBase(12345, 10**20 + 7, bits=80)
        for exponent in (0, 1, 255, 256, 2**80 - 1, 3**50):
            assert table.power(exponent.to_bytes(10, "little")) == pow(
                12345, exponent, (10**20 + 7) ** 2
            )

    def test_threads_change_nothing(self):
        bases = [3, 5, 7, 11, 13]
        assert [int(x) for x in powers(bases, 10**30, 10**20 + 39, threads=2)] == [
            pow(b, 10**30, 10**20 + 39) for b in bases
        ]

    def test_phe_keys_load_and_one_slot_ciphertexts_decrypt_there(self):
        theirs, private = phe.generate_paillier_keypair(n_length=512)
        secret = from_phe(private)
        plan = plan_for(1)
        ciphertext = secret.encrypt(np.array([5, -7, TOP, -TOP, 0, 1, 2, 3, 4]), plan)
        packed = secret.public.read(ciphertext, plan)
        plaintext = private.raw_decrypt(int(packed[0]))
        assert secret.public.slots(plan).unpack([plaintext], 9, 1).tolist() == [
            5,
            -7,
            TOP,
            -TOP,
            0,
            1,
            2,
            3,
            4,
        ]
        one = int.from_bytes(
            secret.public.blinded([1234], secret.public.fresh_blinding(1))[0], "little"
        )
        assert private.decrypt(ciphertext_to_phe(secret.public, one)) == 1234
        assert public_to_phe(secret.public) == theirs

    def test_a_phe_sum_decrypts_here(self):
        public, secret = Paillier(key_bits=512, insecure_for_tests=True).scheme.generate()
        theirs = public_to_phe(public)
        ciphertext = (theirs.encrypt(30) + theirs.encrypt(12)).ciphertext()
        assert secret.plaintexts([ciphertext]) == [42]

    @pytest.mark.parametrize("fast", [True, False], ids=["h_s^r", "r^n"])
    def test_keys_that_allow_fast_blinding_use_it_and_the_others_do_not(self, fast):
        wanted = 3 if fast else 1
        primes = []
        while len(primes) < 2:
            candidate = int(__import__("Crypto.Util.number", fromlist=["getPrime"]).getPrime(256))
            if candidate % 4 == wanted and candidate not in primes:
                primes.append(candidate)
        secret = from_primes(*primes, bits=16)
        assert bool(secret.public.hs) in ({True, False} if fast else {False})
        plan = plan_for(2)
        mine, public = secret.encrypt(np.arange(9), plan), secret.public.encrypt(np.arange(9), plan)
        total = secret.public.add([mine, public], plan)
        assert secret.decrypt(total, plan, 2).tolist() == (2 * np.arange(9)).tolist()
        assert (
            PaillierSecret.from_bytes(secret.to_bytes(), least_bits=256).public.hs
            == secret.public.hs
        )

    def test_h_s_is_an_nth_residue_of_minus_a_square(self):
        secret = Paillier(key_bits=512, insecure_for_tests=True).scheme.generate()[1]
        n, hs, p, q = secret.public.n, secret.public.hs, secret.p, secret.q
        assert pow(hs, (p - 1) * (q - 1), n * n) == 1
        assert pow(hs, n, n * n) != hs
        h = pow(hs, pow(n, -1, (p - 1) * (q - 1)), n)
        for prime in (p, q):
            assert pow(-h, (prime - 1) // 2, prime) == 1

    def test_a_pooled_blinding_factor_is_used_once_and_does_not_survive_sleep(self):
        public, _ = Paillier(key_bits=512, insecure_for_tests=True).scheme.generate()
        plan = plan_for(1)
        public.prefill(plan)
        assert len(public.pool) == 1
        key = StateKey()
        assert len(unseal_state(seal_state(public, key), key, PaillierPublic).pool) == 0
        zero = np.zeros(9, dtype=np.int64)
        first, second = public.encrypt(zero, plan), public.encrypt(zero, plan)
        assert first != second
        assert len(public.pool) == 0

    def test_short_exponents_are_opt_in_and_the_key_says_so(self):
        ordinary = Paillier(key_bits=512, insecure_for_tests=True).scheme.generate()[0]
        assert ordinary.exponent_bits == 256
        short = Paillier(
            key_bits=512, exponent_bits=128, insecure_for_tests=True
        ).scheme.generate()[0]
        assert PaillierPublic.from_bytes(short.to_bytes(), least_bits=256).exponent_bits == 128

    @pytest.mark.parametrize(("holders", "threshold"), [(2, 2), (3, 2), (5, 3)])
    def test_any_t_shares_decrypt_and_fewer_decrypt_to_noise(self, holders, threshold):
        from itertools import combinations

        scheme = Paillier(
            keys="threshold",
            holders=holders,
            threshold=threshold,
            key_bits=512,
            insecure_for_tests=True,
        ).scheme
        plan = plan_for(2)
        public, shares = split(scheme.generate()[1], holders, threshold)
        total = public.add([public.encrypt(np.arange(9), plan)] * 2, plan)
        parts = [share.partial(total, plan) for share in shares]
        for chosen in combinations(parts, threshold):
            assert (
                combine(public, chosen, plan, 2, threshold).tolist() == (2 * np.arange(9)).tolist()
            )
        assert combine(public, parts[: threshold - 1], plan, 2, threshold) is None
        with pytest.raises(Refused):
            combine(public, parts[: threshold - 1], plan, 2, threshold - 1)

    def test_a_share_says_nothing_of_the_secret_because_every_secret_fits_it(self):
        scheme = Paillier(keys="threshold", key_bits=512, insecure_for_tests=True).scheme
        secret = scheme.generate()[1]
        values = {share.value for _ in range(4) for share in split(secret, 2, 2)[1]}
        assert len(values) == 8

    def test_a_foreign_key_decrypts_to_what_is_no_sum(self):
        (mine, _), (_, other) = (
            Paillier(key_bits=512, insecure_for_tests=True).scheme.generate() for _ in range(2)
        )
        plan = plan_for(1)
        with pytest.raises(Refused):
            other.decrypt(mine.encrypt(np.arange(9), plan), plan, 1)

    @pytest.mark.parametrize("junk", [b"", b"\0" * 128, b"\xff" * 128, b"\x01" * 127])
    def test_numbers_outside_of_the_group_are_refused(self, keys, junk):
        with pytest.raises(Refused):
            keys["paillier"][0].check((junk,), plan_for(1))


class TestBFV:
    def test_sums_agree_with_tenseal(self, keys):
        public, secret = keys["bfv"]
        plan = plan_for(3, d=5000)
        generator = np.random.default_rng(1)
        rows = generator.integers(-TOP, TOP + 1, (3, 5001))
        ours = secret.decrypt(
            public.add([public.encrypt(row, plan) for row in rows], plan), plan, 3
        )
        peer = tenseal.context(
            tenseal.SCHEME_TYPE.BFV, 4096, 16760833, coeff_mod_bit_sizes=[40, 40]
        )
        theirs = []
        for start in (0, 4096):
            total = tenseal.bfv_vector(peer, rows[0, start : start + 4096].tolist())
            for row in rows[1:]:
                total += tenseal.bfv_vector(peer, row[start : start + 4096].tolist())
            theirs += total.decrypt()
        assert ours.tolist() == theirs == rows.sum(axis=0).tolist()

    @pytest.mark.parametrize("encryption", ["symmetric", "seeded"])
    def test_symmetric_ciphertexts_add_like_the_others_and_seeds_halve_them(self, encryption):
        public, secret = BFV(keys="shared", encryption=encryption).scheme.generate()
        plan = plan_for(2, d=9000)
        row = np.arange(-4500, 4501)
        mine = secret.encrypt(row, plan)
        total = public.add([mine, public.encrypt(row, plan)], plan)
        assert secret.decrypt(total, plan, 2).tolist() == (2 * row).tolist()
        assert len(mine[0]) < (0.52 if encryption == "seeded" else 1.01) * len(
            public.encrypt(row, plan)[0]
        )

    @pytest.mark.parametrize(
        ("degree", "bits"), [(4096, 17), (4096, 18), (4096, 24), (8192, 41), (8192, 60)]
    )
    def test_the_plaintext_modulus_is_the_one_that_seal_picks(self, degree, bits):
        from tenseal import sealapi

        assert plain_modulus(degree, bits) == sealapi.PlainModulus.Batching(degree, bits).value()

    def test_parameters_grow_with_precision_and_clients(self):
        assert BFV().scheme.lattice.primes == (40, 40)
        assert BFV(bits=24, max_clients=1000).scheme.lattice.primes == (54, 54)
        assert BFV(bits=31, max_clients=1 << 10).scheme.lattice.degree == 8192

    @pytest.mark.parametrize("junk", [b"", b"\0" * 50, b"junk" * 5000])
    def test_junk_is_refused(self, keys, junk):
        from privfl.crypto.he.wire import pack

        public = keys["bfv"][0]
        for body in (junk, pack([junk]), pack([junk, junk])):
            for use in (
                lambda b: public.add([(b,)], plan_for(2)),
                lambda b: public.check((b,), plan_for(2)),
            ):
                with pytest.raises(Refused):
                    use(body)


class TestCKKS:
    def test_sums_agree_with_tenseal_within_the_stated_noise(self):
        channel = CKKS()
        public, secret = channel.scheme.generate()
        plan = plan_for(3, d=5000)
        rows = np.random.default_rng(1).uniform(-1, 1, (3, 5001))
        ours = secret.decrypt(
            public.add([public.encrypt(row, plan) for row in rows], plan), plan, 3
        )
        peer = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40, 60])
        peer.global_scale = 2.0**40
        vectors = [tenseal.ckks_vector(peer, row[:4096]) for row in rows]
        theirs = np.array((vectors[0] + vectors[1] + vectors[2]).decrypt())
        assert np.abs(ours[:4096] - theirs).max() < 6 * channel.error(plan) + 1e-6
        assert np.abs(ours - rows.sum(axis=0)).max() < 6 * channel.error(plan)

    def test_the_release_carries_the_noise_that_it_states(self):
        channel = CKKS()
        public, secret = channel.scheme.generate()
        plan = plan_for(2, d=8191)
        ciphertext = public.encrypt(np.zeros(8192), plan)
        noise = np.concatenate(
            [secret.decrypt(ciphertext, plan_for(2, d=8191, number=i), 2) for i in range(4)]
        )
        stated = flooding.deviation(channel.scheme.lattice, plan, 2, 40, 1000)
        spread = noise.std() / stated
        assert 0.97 < spread < 1.03
        assert not 0.97 < spread * 2 / 3 < 1.03
        assert not 0.97 < spread * 3 / 2 < 1.03

    def test_unflooded_error_of_the_short_set_is_as_small_as_claimed(self):
        from privfl.crypto.he.lattice.keys import LatticeSecret, fresh
        from privfl.crypto.he.lattice.parameters import ckks

        lattice = ckks(clients=255)[0]
        assert lattice.primes == (54, 52)
        public, raw = fresh(lattice, 1)
        secret, plan = LatticeSecret(public, raw, "public"), plan_for(100, d=2047)
        row = np.random.default_rng(2).uniform(-1, 1, 2048)
        total = public.add([public.encrypt(row, plan)] * 100, plan)
        assert np.abs(secret._decrypted(total, plan) - 100 * row).max() < 1e-7

    def test_too_little_flooding_is_refused(self):
        with pytest.raises(ConfigError, match="flooding_bits"):
            CKKS(flooding_bits=20)
        with pytest.raises(ConfigError, match="bfv, which is exact"):
            CKKS(bits=30)
        with pytest.raises(ConfigError, match="max_clients"):
            Enrolled.fresh(CKKS(), ()).server.enter(plan_for(256))


def natural(coefficients):
    """Memory order to powers of X: pairs of (i, i + N/2) become 0..N-1."""
    pairs = np.asarray(coefficients).reshape(-1, 2)
    return [int(x) for x in (*pairs[:, 0], *pairs[:, 1])]


def negacyclic(left, right, modulus):
    """The product in Z[X] / (X^N + 1) by one product of big integers, each coefficient in 160
    bits.
    """
    n, width = len(left), 160
    big = sum((c % modulus) << (width * i) for i, c in enumerate(left)) * sum(
        (c + 1) << (width * i) for i, c in enumerate(right)
    )
    ones = sum((c % modulus) << (width * i) for i, c in enumerate(left)) * sum(
        1 << (width * i) for i in range(n)
    )
    mask = (1 << width) - 1
    a = [(big >> (width * i)) & mask for i in range(2 * n)]
    b = [(ones >> (width * i)) & mask for i in range(2 * n)]
    assert max(*a, *b) < 1 << (width - 1)
    return [(a[i] - a[i + n] - b[i] + b[i + n]) % modulus for i in range(n)]


class TestMultiPartyRLWE:
    @pytest.mark.parametrize("kind", ["random", "all ones", "key sums"])
    def test_products_are_exact_against_big_integers(self, kind):
        words = (
            uniform_from(b"seed")
            if kind != "all ones"
            else np.full((LIMBS, 1, N), 0xFFFFFFFF, dtype=np.uint32)
        )
        small = Stream().ternary(1)[0] if kind != "all ones" else np.ones(N, dtype=np.int8)
        if kind == "key sums":
            small = np.sum([Stream().ternary(1)[0].astype(np.int64) for _ in range(10)], axis=0)
        done = times(words, spectrum(small))
        ours = [
            sum(limb << (32 * j) for j, limb in enumerate(limbs))
            for limbs in zip(*(natural(done[j, 0]) for j in range(3)), strict=True)
        ]
        value = [
            sum(limb << (32 * j) for j, limb in enumerate(limbs))
            for limbs in zip(*(natural(words[j, 0]) for j in range(3)), strict=True)
        ]
        shifted = [c + 10 for c in natural(small)]
        plain = negacyclic(value, [c - 1 for c in shifted], 1 << 96)
        offset = negacyclic(value, [9] * N, 1 << 96)
        assert ours == [(p - o) % (1 << 96) for p, o in zip(plain, offset, strict=True)]

    def test_rounding_residues_stay_far_from_a_half(self):
        words = uniform_from(b"residue").astype(np.float64)
        small = np.sum([Stream().ternary(1)[0].astype(np.int64) for _ in range(10)], axis=0)
        folded = torch.fft.ifft(spectrum(words) * spectrum(small))
        twist = torch.exp(-1j * torch.pi / N * torch.arange(N // 2, dtype=torch.float64))
        values = torch.view_as_real(folded * twist)
        assert float((values - values.round()).abs().max()) < 0.1

    @pytest.mark.parametrize("k", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
    def test_blocks_of_any_number_sum_right(self, k):
        secret = JointSecret()
        plan = plan_for(2, d=k * N - 1)
        row = np.random.default_rng(k).integers(-TOP, TOP + 1, k * N)
        total = secret.public.add([secret.public.encrypt(row, plan)] * 2, plan)
        assert (secret.decrypt(total, plan, 2) == 2 * row).all()

    def test_missing_one_piece_decrypts_to_noise(self):
        secret = JointSecret()
        plan = plan_for(2, d=N - 1)
        row = np.full(N, 1000)
        total = secret.public.add([secret.public.encrypt(row, plan)] * 2, plan)
        parts = secret.parts(total, plan)
        assert (secret.public.opened(bytes(total[0]), parts, plan) == 2000).all()
        for left_out in range(3):
            noise = secret.public.opened(
                bytes(total[0]), parts[:left_out] + parts[left_out + 1 :], plan
            )
            half = 1 << (plain_bits(plan, TOP) - 1)
            assert abs(noise.mean()) < 6 * half / 3**0.5 / N**0.5
            assert 0.9 < noise.std() / (half / 3**0.5) < 1.1  # uniform over all plaintexts
            assert (noise == 2000).mean() < 0.01

    @pytest.mark.parametrize(("holders", "threshold"), [(3, 2), (3, 3), (4, 2), (5, 3), (5, 5)])
    def test_t_decryptors_hold_every_piece_and_any_fewer_lack_one(self, holders, threshold):
        from itertools import combinations

        layout = pieces(holders, threshold)
        for size in range(1, holders + 1):
            for coalition in combinations(range(holders), size):
                held = {i for i, who in enumerate(layout) if set(who) & set(coalition)}
                assert (len(held) == len(layout)) == (size >= threshold)

    def test_noise_of_the_largest_sum_is_within_the_bound_of_the_docs(self):
        secret = JointSecret(smudge_bits=40)
        n = 100
        plan = plan_for(n, d=N - 1)
        public, k = secret.public, 1
        ciphertexts = [public.encrypt(np.zeros(N, dtype=np.int64), plan) for _ in range(n)]
        c0, c1 = (
            add_c0([c[0] for c in ciphertexts]),
            public.add_c1([c[1] for c in ciphertexts], plan),
        )
        total = summed(
            [
                np.frombuffer(part, dtype=np.uint32).reshape(LIMBS, k, N)
                for part in secret.parts((c0, c1), plan)
            ]
        )
        value = (np.frombuffer(c0, dtype=np.uint32).reshape(k, N) + total[2]).view(np.int32).astype(
            np.float64
        ) * 2.0**64 + total[1] * 2.0**32
        bound = (1 << (95 - plain_bits(plan, TOP))) - room(plan, TOP, 3, 40)
        assert np.abs(value).max() < bound
        assert np.abs(value).max() > bound / 1000  # truncation is most of it, and it is there

    @given(st.integers(-(2**44), 2**44), st.integers(-(2**44), 2**44), st.integers(-(2**44), 2**44))
    def test_the_top_limb_is_the_rounded_number(self, low, middle, high):
        number = low + (middle << 32) + (high << 64)
        ours = int(top(*(np.array([x]) for x in (low, middle, high)))[0])
        exact = (number % (1 << 96)) / 2.0**64
        assert (
            min(abs(ours - exact), abs(ours - exact + 2.0**32), abs(ours - exact - 2.0**32))
            <= 0.5 + 1e-6
        )

    def test_secret_distributions_are_what_they_are_called(self):
        stream = Stream()
        trits = np.bincount(stream.ternary(64).reshape(-1) + 1, minlength=3)
        assert (
            (trits - trits.sum() / 3) ** 2 / (trits.sum() / 3)
        ).sum() < 30  # chi-squared, 2 degrees of freedom: 3e-7
        errors = stream.error(64)
        assert np.abs(errors).max() <= ERROR
        assert abs(errors.mean()) < 0.04
        assert abs(errors.std() - 12**0.5) < 0.03

    @pytest.mark.parametrize("bits", [40, 63, 64, 67, 76])
    def test_smudging_is_gaussian_over_all_integers_of_its_stated_width(self, bits):
        words = Stream().smudge(40, bits)
        high = words[2].view(np.int32).astype(np.float64) * 2.0**64
        value = (high + words[1] * 2.0**32 + words[0]).reshape(-1) / 2.0**bits
        assert abs(value.mean()) < 0.02
        assert abs(value.std() - 1) < 0.01
        for deviations, inside in ((0.5, 0.38292), (1, 0.68269), (2, 0.95450), (3, 0.99730)):
            assert (np.abs(value) < deviations).mean() == pytest.approx(inside, abs=0.008)
        for bit in (0, 1, 7, 27, 28, 29, 31):  # no bit of the low limb is more often set than not
            assert ((words[0] >> np.uint32(bit)) & 1).mean() == pytest.approx(0.5, abs=0.01)
        assert len(np.unique(words[0])) > 0.99 * words[0].size

    def test_nine_deviations_of_all_parts_are_within_the_room(self):
        plan = plan_for(100)
        for count, bits in ((1, 67), (3, 67), (3, 60), (10, 64)):
            without = (1 << (95 - plain_bits(plan, TOP))) - 100 * (1 << 63) - noise(100, count)
            taken = without - room(plan, TOP, count, bits)
            assert taken == pytest.approx(9 * count**0.5 * 2.0**bits, rel=1e-9)

    def test_no_two_encryptions_or_parts_are_alike(self):
        secret = JointSecret()
        plan = plan_for(2)
        first, second = (secret.public.encrypt(np.zeros(9, dtype=np.int64), plan) for _ in range(2))
        assert first[0] != second[0]
        assert first[1] != second[1]
        assert secret.parts(first, plan) != secret.parts(first, plan)

    def test_a_spectrum_product_is_the_schoolbook_one(self):
        left = np.zeros(N, dtype=np.int64)
        right = np.zeros(N, dtype=np.int64)
        left[3], right[N - 1] = 7, 5  # memory order: 3 is X^(N/2 + 1), N - 1 is X^(N - 1)
        done = natural(product(spectrum(left), spectrum(right)))
        assert done[N // 2] == -35  # X^(N/2 + 1) X^(N - 1) = X^(3N/2) = -X^(N/2)
        assert sum(map(abs, done)) == 35
