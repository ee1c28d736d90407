"""Encrypted similarity attacked: each known break of such protocols is carried out on a weakened
variant and fails on the real one.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import tenseal.sealapi as seal
import torch

from privfl.aggregators import CosineFilter, FLTrust
from privfl.core import (
    Abort,
    Bounded,
    ConfigError,
    Context,
    Faults,
    RoundPlan,
    client_party,
    drive,
    drive_all,
)
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.he.lattice.frames import ciphertext, closed, load, residues, secret_key
from privfl.crypto.he.lattice.keys import LatticePublic, fresh
from privfl.crypto.he.lattice.seal import context, passage
from privfl.crypto.he.wire import SignedMessage, pack, unpack
from privfl.crypto.primitives import Identity
from privfl.hybrid import EncryptedCosine
from privfl.hybrid.encrypted_cosine import holder as holder_module
from privfl.hybrid.encrypted_cosine.forms import (
    coefficients,
    plaintext,
    secret_polynomial,
)
from privfl.hybrid.encrypted_cosine.mail import (
    CIPHERTEXT,
    QUESTIONS,
    SUM,
    Note,
    numbers_from_bytes,
    unbox,
)
from privfl.hybrid.encrypted_cosine.packing import packing
from privfl.hybrid.encrypted_cosine.parameters import unit_vector
from privfl.hybrid.encrypted_cosine.products import (
    encrypted,
    opened,
    products,
    signs,
    values,
    weighted_sum,
)
from privfl.hybrid.encrypted_cosine.queries import Answering, from_bytes
from privfl.hybrid.encrypted_cosine.weighing import CosineScores, cosines, too_long

N, D = 6, 3000
G0 = torch.randn(D, generator=torch.Generator().manual_seed(1))
FLTRUST = FLTrust(root=lambda context: G0)
FILTER = CosineFilter(threshold=-1.0, reference=lambda rows, context: G0)
SETTING = EncryptedCosine(norms="projections").setting
LATTICE = SETTING.lattice
DEGREE = LATTICE.degree


class Scene:
    """Six clients, a server and a key holder after their set-up, with each party's moves in the
    test's hand.
    """

    def __init__(self, channel):
        self.channel, self.number = channel, 0
        self.all = Enrolled.fresh(channel, range(N))
        self.members = dict(self.all.members)
        drive_all({who: member.set_up() for who, member in self.members.items()})
        noise = torch.randn(N, D, generator=torch.Generator().manual_seed(3))
        self.rows = (G0 / G0.norm() + noise / math.sqrt(D)) / 2

    def ring(self, who):
        return self.members[who].ring

    def fresh(self):
        self.number += 1
        self.members["server"].inform(Context(self.plan(), torch.zeros(D), torch.Generator()))
        return self.plan()

    def plan(self):
        return RoundPlan(self.number, tuple(range(N)), D, l2=2.0, session=b"attack")

    def message(self, client, plan, chunks=None):
        """A client's message; with chunks of its own, a lying client's."""
        if chunks is None:
            party = self.members[client_party(client)].enter(
                plan, Bounded(client, self.rows[client], 2.0)
            )
            return party.step({})["server"]
        ring = self.ring(client_party(client))
        return SignedMessage.signed(
            ring.identity, CIPHERTEXT, ring.topic(plan), ring.who, (pack(chunks),)
        ).to_bytes()

    def play(self, lies=None, faults=Faults(), byzantine=None):
        """A round in which some clients send these messages instead of their own; messages as
        functions of the plan.
        """
        plan = self.fresh()
        parties = {
            client_party(i): (
                self.members[client_party(i)].enter(plan, Bounded(i, self.rows[i], 2.0))
            )
            for i in range(N)
        }
        parties["key_holder"] = self.members["key_holder"].enter(plan)
        for client, lie in (lies or {}).items():
            parties[client_party(client)] = Says(lie(plan))
        server = self.members["server"].enter(plan)
        return drive(server, parties, replace(faults, byzantine=byzantine or {}), keep_bodies=True)

    def lie(self, client, integers):
        """A message with these integers in the ciphertexts."""
        return lambda plan: self.message(
            client, plan, encrypted(self.ring("server").key(), integers)
        )

    def questions(self, plan, clients=range(N)):
        """What an honest server asks, and the key holder that it asks."""
        server = self.members["server"].enter(plan)
        server.step({})
        out = server.step({client_party(i): self.message(i, plan) for i in clients})
        holder = self.members["key_holder"].enter(plan)
        holder.step({})
        return server, holder, out["key_holder"]


class Says:
    """A party that says one thing to the server."""

    def __init__(self, body):
        self.body = body

    def step(self, mail):
        return {} if mail else {"server": self.body}


@pytest.fixture(scope="module")
def scene():
    return Scene(EncryptedCosine(rule=FILTER, norms="projections"))


@pytest.fixture(scope="module")
def exact():
    return Scene(EncryptedCosine(rule=FILTER, norms="exact"))


# 1: the product itself


def test_an_unmasked_product_shows_the_key_holder_the_whole_vector():
    public, secret = fresh(LATTICE, 1)
    vector, reference = (
        unit_vector(x.double().numpy(), SETTING.unit) for x in (torch.randn(D), G0)
    )
    computed = products(
        LATTICE, {0: encrypted(public, vector)}, lambda number: reference[None], square=False
    )
    with passage() as file:
        decryptor = seal.Decryptor(context(LATTICE), secret_key(file, LATTICE, secret))
        plain, batch = seal.Plaintext(), seal.BatchEncoder(context(LATTICE))
        decryptor.decrypt(
            computed.dots[0][0], plain
        )  # all coefficients, unmasked: a product in a ring where division is easy
        above = [int(x) for x in batch.decode_int64(plain)]
        below = [int(x) for x in batch.decode_int64(packing(LATTICE).reference(file, reference))]
        quotient = [
            a * pow(b, -1, SETTING.t) % SETTING.t for a, b in zip(above, below, strict=True)
        ]
        batch.encode(quotient, plain)
        found = SETTING.centred(coefficients(plain, DEGREE))[:D]
    assert (found == vector).all()


def test_the_key_holder_is_handed_one_coefficient_and_decrypts_noise_around_a_mask(scene):
    plan = scene.fresh()
    server, _, body = scene.questions(plan)
    _, dots, squares = SignedMessage.read(body).whole()
    asked = from_bytes(
        LATTICE, memoryview(dots), 1 + DEGREE
    )  # c0[0] and c1: the other coefficients of c0 stay with the server
    assert len(asked) == N * SETTING.directions + 2
    assert not len(squares)
    answers = scene.ring("key_holder").secret.answering.answers(asked)
    true = {(c, i, mask) for c, i, mask in server.asked}
    assert len({mask for _, _, mask in true}) == len(asked)  # a mask serves once
    scores = SETTING.centred(
        (answers - np.array([mask for _, _, mask in server.asked])) % SETTING.t
    )
    assert np.abs(scores).max() < 4 * SETTING.unit**2  # what the server makes of them are scores


def test_what_the_key_holder_decrypts_is_uniform_whatever_the_updates_are(scene):
    counts = []
    for scale in (1.0, 1e-6):
        kept, scene.rows = scene.rows, scene.rows * scale if scale == 1.0 else -scene.rows
        found = []
        for _ in range(3):
            _, _, body = scene.questions(scene.fresh())
            asked = from_bytes(LATTICE, memoryview(SignedMessage.read(body).whole()[1]), 1 + DEGREE)
            found.append(scene.ring("key_holder").secret.answering.answers(asked))
        scene.rows = kept
        counts.append(np.bincount(np.concatenate(found) * 8 // SETTING.t, minlength=8))
    for count in counts:
        expected = count.sum() / 8
        assert (
            (count - expected) ** 2 / expected
        ).sum() < 33  # chi^2 with 7 degrees of freedom: 2.6e-5


# 2: the noise


def noise_of(total, secret, key):
    """The noise [N] that a key holder finds around one opened chunk: c0 + c1 s less what decrypts,
    modulo the first prime.
    """
    prime = residues(LATTICE).primes[0]
    with passage() as file:
        sealed = load(file, LATTICE, total)
        plain = seal.Plaintext()
        seal.Decryptor(context(LATTICE), secret_key(file, LATTICE, key)).decrypt(sealed, plain)
        seal.Evaluator(context(LATTICE)).sub_plain_inplace(sealed, plain)
        array = sealed.dyn_array()
        half = len(residues(LATTICE).primes) * DEGREE
        c0, c1 = (
            np.array([array[i] for i in range(start, start + DEGREE)], dtype=np.int64)
            for start in (0, half)
        )
    out = c0.astype(object)
    for shift, limb in ((0, c1 & 0xFFFFFF), (24, c1 >> 24)):
        full = np.rint(
            np.fft.irfft(
                np.fft.rfft(limb, 2 * DEGREE) * np.fft.rfft(secret, 2 * DEGREE), 2 * DEGREE
            )
        ).astype(np.int64)
        out = out + ((full[:DEGREE] - full[DEGREE:]).astype(object) << shift)
    return np.array([(x + prime // 2) % prime - prime // 2 for x in out], dtype=np.float64)


@pytest.mark.parametrize("flooded", [False, True])
def test_noise_betrays_the_vector_unless_it_is_drowned(flooded):
    """SEAL rounds q u / t; the fraction is part of the noise, and a key holder with a candidate for
    u recognises it.
    """
    public, key = fresh(LATTICE, 1)
    with passage() as file:
        secret = secret_polynomial(file, LATTICE, key)
    q, t = math.prod(residues(LATTICE).primes), SETTING.t
    vector = np.random.default_rng(0).integers(-50, 51, DEGREE)
    fraction = np.array([((-q * int(u)) % t) / t for u in vector])
    fraction = np.where(fraction > 0.5, fraction - 1, fraction)
    total, rng = np.zeros(DEGREE), np.random.default_rng(1)
    for _ in range(20 if flooded else 80):
        chunk = encrypted(public, vector)
        mask = rng.integers(0, t, (1, DEGREE))
        (summed,) = weighted_sum(
            public, {0: chunk}, {0: 1}, mask, SETTING.flood_bits if flooded else 0
        )
        total += noise_of(summed, secret, key)
    z = float(total @ fraction / (np.std(total) * np.linalg.norm(fraction)))
    if flooded:
        assert abs(z) < 5
        assert np.std(total) > 2.0**40
    else:
        assert z > 3.5  # 7.6 is expected


def test_the_widest_noise_still_decrypts_exactly():
    for channel in (
        EncryptedCosine(),
        EncryptedCosine(norms="projections"),
        EncryptedCosine(plain_bits=20),
        EncryptedCosine(plain_bits=31),
    ):
        setting = channel.setting
        public, key = fresh(setting.lattice, 1)
        rng = np.random.default_rng(2)
        vectors = {i: rng.integers(-setting.unit, setting.unit, 100) for i in range(3)}
        mask = rng.integers(0, setting.t, (1, setting.lattice.degree))
        summed = weighted_sum(
            public,
            {i: encrypted(public, v) for i, v in vectors.items()},
            {0: 1, 1: 2, 2: 5},
            mask,
            setting.flood_bits,
        )
        found = values(setting.lattice, (opened(setting.lattice, key, summed) - mask) % setting.t)
        assert (setting.centred(found[:100]) == vectors[0] + 2 * vectors[1] + 5 * vectors[2]).all()


# 3: lengths modulo t


def root_of_minus_one(t):
    return next(r for r in (pow(g, (t - 1) // 4, t) for g in range(2, 50)) if r * r % t == t - 1)


def crafted(kind, t, unit):
    """Vectors that are far too long, and whose exact squared norm modulo t is nevertheless
    unit^2.
    """
    rng = np.random.default_rng(4)
    u = unit_vector(G0.double().numpy(), unit)
    i = root_of_minus_one(t)
    if kind == "two coordinates":  # a^2 + (ia)^2 = 0
        u[0], u[1] = 0, 0
        u = unit_vector(u.astype(float), unit)
        u[0] += 123_456_789
        u[1] += 123_456_789 * i % t
    elif kind == "everywhere":
        half = rng.integers(0, t, D // 2 - 1)
        u[:] = 0
        u[2 : D // 2 + 1], u[D // 2 + 1 :] = half, half * i % t
        u[0] = unit
    elif kind == "ten times as long":
        u *= 10
    elif kind == "half of t twice":
        u[0] = u[1] = t // 2
    return u


@pytest.mark.parametrize(
    "kind", ["two coordinates", "everywhere", "ten times as long", "half of t twice"]
)
@pytest.mark.parametrize("mode", ["scene", "exact"])
def test_a_vector_that_is_too_long_is_caught_by_name_even_where_its_norm_wraps_around(
    request, mode, kind
):
    scene = request.getfixturevalue(mode)
    setting = scene.channel.setting
    vector = crafted(kind, setting.t, setting.unit)
    if kind in ("two coordinates", "everywhere"):
        assert (
            abs(math.sqrt(sum(int(x) ** 2 for x in vector) % setting.t) - setting.unit) < 30
        )  # an exact norm modulo t is content
    outcome = scene.play({2: scene.lie(2, vector)})
    assert set(outcome.opened.excluded) == {"client/2"}
    assert "failed the norm check" in outcome.opened.excluded["client/2"]
    assert outcome.opened.survivors == (0, 1, 3, 4, 5)


def test_the_signs_are_drawn_after_the_upload_and_anew_each_round(scene):
    seeds = []
    for _ in range(2):
        plan = scene.fresh()
        server = scene.members["server"].enter(plan)
        server.step({})
        assert (
            not server.seed
        )  # nothing to make a vector for, even for whoever reads the server's memory
        server.step({client_party(i): scene.message(i, plan) for i in range(N)})
        seeds.append(server.seed)
    assert len(set(seeds)) == 2


def test_exact_norms_catch_what_is_only_a_little_too_long(exact):
    vector = np.rint(unit_vector(G0.double().numpy(), exact.channel.setting.unit) * 1.2).astype(
        np.int64
    )
    outcome = exact.play({0: exact.lie(0, vector)})
    assert "its length is 1.2" in outcome.opened.excluded["client/0"]


def of_similarity(similar, length, *, plus=0.0):
    """A vector of this cosine to the reference and this length, in units; ``plus``: the share of
    the length that a constant vector has.
    """
    rng, unit = np.random.default_rng(8), SETTING.unit
    along = G0.double().numpy() - float(G0.double().mean())
    along /= np.linalg.norm(along)
    across = rng.normal(size=D)
    across -= across.mean()
    across -= along * (along @ across)
    across /= np.linalg.norm(across)
    centred = similar * along + math.sqrt(1 - similar**2) * across
    made = math.sqrt(1 - plus**2) * centred + plus * np.ones(D) / math.sqrt(D)
    return np.rint(made * length * unit).astype(np.int64)


def shown_similarity(channel, vector, rounds):
    """What the server makes of it: a number a round; nothing of a round that refused it."""
    scene, found = Scene(channel), []
    for _ in range(rounds):
        opened = scene.play({0: scene.lie(0, vector)}).opened
        if "client/0" not in opened.excluded:
            place = opened.disclosed["client"].tolist().index(0)
            found.append(float(opened.disclosed["cosine"][place]))
    return found


@pytest.mark.parametrize("similarity", ["cosine", "pearson"])
def test_a_longer_vector_is_refused_where_norms_are_exact(similarity):
    channel = EncryptedCosine(rule=FILTER, similarity=similarity)
    assert shown_similarity(channel, of_similarity(0.5, 1.5), 2) == []
    assert shown_similarity(channel, of_similarity(0.5, 1.0), 1) == pytest.approx([0.5], abs=1e-3)


@pytest.mark.parametrize("similarity", ["cosine", "pearson"])
def test_a_longer_vector_gains_no_trust_where_lengths_are_estimated(similarity):
    """A true cosine of .5 at length 1.5 scored .75."""
    channel = EncryptedCosine(rule=FILTER, norms="projections", similarity=similarity)
    found = shown_similarity(channel, of_similarity(0.5, 1.5), 12)
    assert 0.35 < float(np.mean(found)) < 0.67


@pytest.mark.parametrize("norms", ["projections", "exact"])
def test_a_vector_that_is_nearly_constant_gains_no_correlation(norms):
    """Its mean was taken out of the length that was due: one of correlation .02 scored 1."""
    channel = EncryptedCosine(rule=FILTER, similarity="pearson", norms=norms)
    for length in (1.0, 1.4):
        vector = of_similarity(0.02, length, plus=0.99)
        found = shown_similarity(channel, vector, 3)
        assert all(abs(similar) < 0.1 for similar in found)
        assert found or (length, norms) != (1.0, "exact")


def test_scores_of_a_vector_at_any_length_are_one_similarity():
    rng, along = np.random.default_rng(2), unit_vector(G0.double().numpy(), SETTING.unit)
    one = CosineScores((0,), rng.integers(1, 1 << 27, 1), rng.integers(-9999, 9999, (1, 16)))
    for times in (1, 2, 7):
        longer = CosineScores((0,), one.dots * times, one.projections * times)
        assert cosines(longer, along) == pytest.approx(cosines(one, along), rel=1e-12)


def test_honest_clients_pass_the_norm_check_as_often_as_promised():
    """The test statistic over many honest vectors, spiky ones among them, in the clear."""
    rng, failed = np.random.default_rng(5), 0
    for trial in range(150):
        drawn = np.stack(
            [
                rng.standard_t(3, 400) if i % 2 else rng.normal(size=400) * (rng.random(400) < 0.02)
                for i in range(40)
            ]
        )
        vectors = np.stack([unit_vector(x, SETTING.unit) for x in drawn])
        along = signs(trial.to_bytes(32, "little"), 0, 16, 400)
        scores = CosineScores(tuple(range(40)), None, vectors @ along.T)
        failed += len(too_long(scores, SETTING, 400))
    assert failed <= 5  # 6000 vectors at 1e-4


# 4: the server as an oracle


def test_an_honest_servers_questions_are_answered_once(scene):
    plan = scene.fresh()
    _, holder, body = scene.questions(plan)
    before = scene.ring("key_holder").queries
    answer = holder.step({"server": body})
    assert set(answer) == {"server"}
    assert scene.ring("key_holder").queries == before + N * 17 + 2
    assert holder.step({"server": body}) == {}  # the post brought it twice
    with pytest.raises(Abort, match="had its questions answered already") as refusal:
        scene.members["key_holder"].enter(plan).step({"server": body})
    assert refusal.value.blamed == "server"
    _, _, other = scene.questions(plan, clients=range(5))
    with pytest.raises(Abort, match="had its questions answered already"):
        holder.step({"server": other})


def test_a_sum_is_opened_once_a_round(scene):
    plan = scene.fresh()
    server, holder, body = scene.questions(plan)
    request = server.step({"key_holder": holder.step({"server": body})["server"]})["key_holder"]
    assert set(holder.step({"server": request})) == {"server"}
    assert holder.step({"server": request}) == {}
    without_one, _ = forged_sum(scene, plan, dict.fromkeys(range(N - 1), 1), count=N - 1)
    with pytest.raises(Abort, match="had its sum answered already"):
        holder.step({"server": without_one})


def forged_sum(scene, plan, weights, count):
    """What a lying server asks: weights of its own choice, any count that it likes to name."""
    ring, setting = scene.ring("server"), scene.channel.setting
    note = Note(bytes(32), 1.0, count, plan.d)
    chunks = {i: unpacked(scene.message(i, plan)) for i in weights}
    total = weighted_sum(ring.key(), chunks, weights, note.masks(setting), setting.flood_bits)
    parts = (note.sealed(ring, ring.topic(plan)), count.to_bytes(4, "little"), pack(total))
    return (
        SignedMessage.signed(ring.identity, SUM, ring.topic(plan), "server", parts).to_bytes(),
        note,
    )


def unpacked(body):
    return unpack(SignedMessage.read(body).whole()[0])


def test_a_sum_of_one_is_refused_where_the_server_says_so(scene):
    plan = scene.fresh()
    _, holder, body = scene.questions(plan)
    holder.step({"server": body})
    request, _ = forged_sum(scene, plan, {0: 1}, count=1)
    with pytest.raises(Abort, match="a sum of 1 clients, where 2 to 6 may be summed"):
        holder.step({"server": request})


def test_a_sum_before_the_questions_is_refused(scene):
    plan = scene.fresh()
    request, _ = forged_sum(scene, plan, {0: 1, 1: 1}, count=2)
    holder = scene.members["key_holder"].enter(plan)
    with pytest.raises(Abort, match="may be summed"):
        holder.step({"server": request})


def test_a_server_that_lies_about_its_weights_reads_one_client_as_the_record_says(scene):
    plan = scene.fresh()
    _, holder, body = scene.questions(plan)
    holder.step({"server": body})
    request, note = forged_sum(scene, plan, {3: 1}, count=N)
    answer = SignedMessage.read(holder.step({"server": request})["server"])
    polynomials = numbers_from_bytes(
        unbox(scene.ring("server"), answer)[1], DEGREE, SETTING.t
    ).reshape(1, DEGREE)
    assert (
        note.unmasked(SETTING, polynomials)
        == unit_vector(scene.rows[3].double().numpy(), SETTING.unit)
    ).all()
    assert "cannot see what a question" in EncryptedCosine.__doc__.replace("\n    ", " ")
    said = [lie.can for lie in scene.channel.guarantee.lies if "server" in lie.who.describe()]
    assert "read" in said


def test_questions_about_too_few_or_forged_or_old_clients_are_refused(scene):
    old = scene.fresh()
    stale = SignedMessage.read(scene.message(0, old))
    plan = scene.fresh()
    _, _, body = scene.questions(plan)
    ring = scene.ring("server")
    honest = [SignedMessage.read(scene.message(i, plan)) for i in range(N)]
    mallory = Identity.fresh("client/77")
    forged = SignedMessage.signed(mallory, CIPHERTEXT, ring.topic(plan), "client/1", (b"x",))
    stranger = SignedMessage.signed(mallory, CIPHERTEXT, ring.topic(plan), "client/77", (b"x",))
    _, dots, squares = SignedMessage.read(body).whole()
    for messages, reason in (
        (honest[:1], "about 1 clients, and fewer than 2 stay closed"),
        ([honest[0], honest[0]], "named twice"),
        ([honest[0], forged], "signature"),
        ([honest[0], stranger], "not in the cohort"),
        ([stale, honest[1]], "for round"),
        (honest[:3], "questions about 3 clients, and a round has 53"),
    ):
        heads = pack([message.without([0]).to_bytes() for message in messages])
        request = SignedMessage.signed(
            ring.identity, QUESTIONS, ring.topic(plan), "server", (heads, dots, squares)
        ).to_bytes()
        with pytest.raises(Abort, match=reason) as refusal:
            scene.members["key_holder"].enter(plan).step({"server": request})
        assert refusal.value.blamed == "server"


def test_questions_of_another_round_or_by_somebody_else_are_refused(scene):
    _, _, old = scene.questions(scene.fresh())
    plan = scene.fresh()
    with pytest.raises(Abort, match="for round"):
        scene.members["key_holder"].enter(plan).step({"server": old})
    mallory = SignedMessage.signed(
        Identity.fresh("client/77"),
        QUESTIONS,
        scene.ring("server").topic(plan),
        "server",
        (b"", b"", b""),
    ).to_bytes()
    with pytest.raises(Abort, match="signature"):
        scene.members["key_holder"].enter(plan).step({"server": mallory})
    assert scene.members["key_holder"].enter(plan).step({"client/0": old}) == {}


def test_a_reference_with_one_coordinate_is_refused_because_it_reads_that_coordinate(scene):
    single = torch.zeros(D)
    single[7] = 3.0
    server = Enrolled.fresh(EncryptedCosine(rule=FLTrust(root=lambda context: single)), ()).server
    server.inform(Context(scene.plan(), torch.zeros(D), torch.Generator()))
    with pytest.raises(ConfigError, match="reads that coordinate of every client"):
        server.enter(scene.plan())


# lying clients beside their vectors


def test_messages_under_another_key_of_another_round_or_for_another_client_are_excluded(scene):
    other = Scene(EncryptedCosine(rule=FILTER, norms="projections"))
    other.number = scene.number + 1
    old = scene.message(1, scene.plan())
    outcome = scene.play(
        {
            0: lambda plan: other.message(0, plan),
            1: lambda plan: old,
            2: lambda plan: scene.message(3, plan),
            3: lambda plan: scene.message(3, plan),
        }
    )
    excluded = outcome.opened.excluded
    assert set(excluded) == {"client/0", "client/1", "client/2"}
    assert "foreign key" in excluded["client/0"]
    assert "for round" in excluded["client/1"]
    assert outcome.opened.survivors == (3, 4, 5)


def test_signed_nonsense_is_excluded_by_name(scene):
    public = scene.ring("server").key()
    good = encrypted(public, unit_vector(G0.double().numpy(), SETTING.unit))
    with passage() as file:
        nothing = closed(
            file, LATTICE, ciphertext(file, LATTICE, np.zeros((2, 2, DEGREE), dtype=np.uint64))
        )
    foreign = encrypted(fresh(EncryptedCosine(norms="exact").setting.lattice, 1)[0], np.arange(10))
    outcome = scene.play(
        {
            0: lambda plan: scene.message(0, plan, [b"no ciphertext at all"]),
            1: lambda plan: scene.message(1, plan, [*good, *good]),
            2: lambda plan: scene.message(2, plan, [nothing]),
            3: lambda plan: scene.message(3, plan, foreign),
        }
    )
    excluded = outcome.opened.excluded
    assert set(excluded) == {"client/0", "client/1", "client/2", "client/3"}
    assert "2 ciphertexts where 1 were due" in excluded["client/1"]
    assert "hides nothing" in excluded["client/2"]


def test_nobody_encrypts_under_a_key_of_zeros_and_its_holder_is_blamed(scene):
    """Its ciphertexts are the vectors themselves, and servers refuse them in the client's name."""
    plan, ring = scene.fresh(), scene.ring("client/0")
    flat = LatticePublic(LATTICE, bytes(len(ring.key().public)))
    party = scene.members["client/0"].enter(plan, Bounded(0, scene.rows[0], 2.0))
    party.ring = replace(ring, public=flat)
    with pytest.raises(Abort, match="hides nothing") as caught:
        party.step({})
    assert caught.value.blamed == "key_holder"


def test_two_clients_whose_ciphertexts_cancel_do_not_stop_the_round(scene):
    public = scene.ring("server").key()
    (chunk,) = encrypted(public, unit_vector(G0.double().numpy(), SETTING.unit))
    with passage() as file:
        sealed = load(file, LATTICE, chunk)
        seal.Evaluator(context(LATTICE)).negate_inplace(sealed)
        opposite = closed(file, LATTICE, sealed)
    outcome = scene.play(
        {
            0: lambda plan: scene.message(0, plan, [chunk]),
            1: lambda plan: scene.message(1, plan, [opposite]),
        }
    )
    assert outcome.opened.survivors == tuple(range(N))


def test_a_client_that_encrypts_fractions_does_not_stop_the_round(scene):
    """Half a step of noise on every coefficient: weighted, it moves sums and scores differently by
    their rounding.
    """
    public = scene.ring("server").key()
    (chunk,) = encrypted(public, unit_vector(G0.double().numpy(), SETTING.unit))
    half = math.prod(residues(LATTICE).primes) // (2 * SETTING.t)
    with passage() as file:
        words = np.zeros((2, 2, DEGREE), dtype=np.uint64)
        words[0] = np.array([[half % p] for p in residues(LATTICE).primes], dtype=np.uint64)
        sealed = load(file, LATTICE, chunk)
        seal.Evaluator(context(LATTICE)).add_inplace(sealed, ciphertext(file, LATTICE, words))
        body = closed(file, LATTICE, sealed)
    outcome = scene.play({0: lambda plan: scene.message(0, plan, [body])})
    assert outcome.opened.survivors == tuple(range(N))
    plain = torch.stack([row / row.norm() for row in [G0, *scene.rows[1:]]]).mean(dim=0) * 2.0
    assert (outcome.opened.what.mean() - plain).norm() < 2e-3 * plain.norm()


# a lying key holder


class Lies:
    """The key holder with its answers changed."""

    def __init__(self, party, change):
        self.party, secret = party, party.ring.secret
        self.ring_secret = secret
        lying = Changed(LATTICE, np.zeros(DEGREE, dtype=np.int64))
        lying.once, lying.twice, lying.change = (
            secret.answering.once,
            secret.answering.twice,
            change,
        )
        party.ring.secret = type(secret)(secret.seal, lying)

    def step(self, mail):
        try:
            return self.party.step(mail)
        finally:
            if "server" in mail:
                self.party.ring.secret = self.ring_secret


class Changed(Answering):
    def answers(self, asked):
        return self.change(super().answers(asked)) if len(asked) else super().answers(asked)


def test_a_key_holder_that_lies_about_all_scores_meets_a_question_of_known_answer(scene):
    outcome = scene.play(
        byzantine={"key_holder": lambda party: Lies(party, lambda found: (found + 1) % SETTING.t)}
    )
    assert outcome.opened is None
    assert outcome.aborts["server"].blamed == "key_holder"
    assert "known answer" in str(outcome.aborts["server"])


def test_a_key_holder_that_lies_about_one_score_is_caught_by_the_sum_or_a_probe(scene):
    def change(found):
        found = found.copy()
        found[5] = (found[5] + 1000) % SETTING.t
        return found

    outcome = scene.play(byzantine={"key_holder": lambda party: Lies(party, change)})
    assert outcome.opened is None
    assert outcome.aborts["server"].blamed == "key_holder"


@pytest.mark.parametrize("where", [0, 1234])
def test_a_key_holder_that_changes_one_coordinate_of_the_sum_is_caught(scene, monkeypatch, where):
    def lying(lattice, key, chunks):
        found = opened(lattice, key, chunks)
        found[0, where] = (found[0, where] + SETTING.t // 3) % SETTING.t
        return found

    monkeypatch.setattr(holder_module, "opened", lying)
    outcome = scene.play()
    assert outcome.opened is None
    assert outcome.aborts["server"].blamed == "key_holder"
    assert "does not agree with the scores" in str(outcome.aborts["server"])


def test_numbers_that_are_no_residues_or_too_few_are_refused(scene):
    for change in (lambda found: np.full(len(found), SETTING.t), lambda found: found[:-1]):
        outcome = scene.play(
            byzantine={"key_holder": lambda party, change=change: Lies(party, change)}
        )
        assert outcome.opened is None
        assert outcome.aborts["server"].blamed == "key_holder"


def test_plaintexts_pass_through_the_serial_form_unchanged():
    numbers = np.random.default_rng(0).integers(0, SETTING.t, DEGREE)
    with passage() as file:
        assert (coefficients(plaintext(file, LATTICE, numbers), DEGREE) == numbers).all()


def test_a_coalition_reads_past_a_client_that_signs_a_message_of_no_form():
    scene = Scene(EncryptedCosine(FLTRUST))

    def nothing(plan):
        ring = scene.ring("client/2")
        return SignedMessage.signed(
            ring.identity, CIPHERTEXT, ring.topic(plan), ring.who, ()
        ).to_bytes()

    outcome = scene.play(lies={2: nothing})
    both = ("server", "key_holder")
    members = {who: scene.members[who] for who in both}
    assert "client/2" in outcome.opened.excluded
    assert set(scene.channel.decode(outcome.received(both), members).ids) == {0, 1, 3, 4, 5}


def test_a_replayed_or_borrowed_message_is_nobodys_row():
    """Server and key holder together read a client's old vector as this round's, and one client's
    vector as another's.
    """
    scene = Scene(EncryptedCosine(FLTRUST))
    old = scene.message(1, scene.fresh())
    kept, scene.rows = scene.rows, -scene.rows
    outcome = scene.play({1: lambda plan: old, 2: lambda plan: scene.message(3, plan)})
    scene.rows = kept
    both = ("server", "key_holder")
    seen = scene.channel.decode(outcome.received(both), {who: scene.members[who] for who in both})
    assert set(seen.ids) == {0, 3, 4, 5}
    for client, row in zip(seen.ids, seen.values, strict=True):
        expected = -scene.rows[client] / scene.rows[client].norm() * 2.0
        assert (row - expected).abs().max() < 1e-3
    alone = scene.channel.decode(
        {"server": [{"client/1": old}], "key_holder": []}, {w: scene.members[w] for w in both}
    )
    assert alone.ids == (1,)  # it is the row of its own round
