"""The arithmetic of encrypted similarity over random shapes: scores, squares and sums are the
integers' own, bit for bit.
"""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.aggregators import CosineFilter, FLTrust
from privfl.core import Context, RoundPlan, Rows
from privfl.crypto.he.lattice.keys import fresh
from privfl.crypto.he.lattice.seal import passage
from privfl.hybrid import EncryptedCosine
from privfl.hybrid.encrypted_cosine.forms import secret_polynomial
from privfl.hybrid.encrypted_cosine.packing import packing
from privfl.hybrid.encrypted_cosine.parameters import unit_vector
from privfl.hybrid.encrypted_cosine.products import (
    encrypted,
    opened,
    products,
    signs,
    uniform,
    values,
    weighted_sum,
)
from privfl.hybrid.encrypted_cosine.queries import Answering, from_bytes, question, to_bytes
from privfl.hybrid.encrypted_cosine.weighing import CosineScores, Trust, cosines, integer_weights

SETTINGS = {name: EncryptedCosine(norms=name).setting for name in ("projections", "exact")}
KEYS = {name: fresh(setting.lattice, 1) for name, setting in SETTINGS.items()}


def answering(name):
    lattice = SETTINGS[name].lattice
    with passage() as file:
        return Answering(lattice, secret_polynomial(file, lattice, KEYS[name][1]))


ANSWERING = {name: answering(name) for name in SETTINGS}


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["projections", "exact"]),
    st.integers(1, 9000),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
def test_what_is_computed_on_ciphertexts_is_what_integers_give(name, d, n, seed):
    setting, (public, secret), rng = SETTINGS[name], KEYS[name], np.random.default_rng(seed)
    lattice, t = setting.lattice, setting.t
    vectors = rng.integers(-setting.unit, setting.unit + 1, (n, d))
    references = np.concatenate(
        [
            rng.integers(-setting.unit, setting.unit + 1, (1, d)),
            signs(seed.to_bytes(32, "little"), 0, 2, d),
        ]
    )
    chunks = {i: encrypted(public, vectors[i]) for i in range(n)}

    def directions(number):
        return references[:, number * lattice.degree : (number + 1) * lattice.degree]

    computed = products(lattice, chunks, directions, square=name == "exact")
    assert not computed.refused
    factor = packing(lattice).factor
    for i in range(n):
        for j, product in enumerate(computed.dots[i]):
            mask = int(rng.integers(0, t))
            asked = (
                0 * references[j, :1]
                if product is None
                else ask(name, question(lattice, product, mask, setting.flood_bits)) - mask
            )
            assert int(asked[0]) * factor % t == int(vectors[i] @ references[j]) % t
        if name == "exact":
            asked = ask(name, question(lattice, computed.squares[i], 5, setting.flood_bits)) - 5
            assert int(asked[0]) * factor % t == int(vectors[i] @ vectors[i]) % t
    weights = {i: int(w) for i, w in enumerate(rng.integers(1, 1000, n))}
    number = len(chunks[0])
    masks = uniform(bytes(32), "test", number * lattice.degree, t).reshape(number, lattice.degree)
    summed = weighted_sum(public, chunks, weights, masks, setting.flood_bits)
    found = values(lattice, (opened(lattice, secret, summed) - masks) % t)[:d]
    assert (found == sum(weights[i] * vectors[i] for i in range(n)) % t).all()


def ask(name, words):
    """Through the wire and the key holder."""
    lattice = SETTINGS[name].lattice
    return ANSWERING[name].answers(
        from_bytes(lattice, memoryview(to_bytes(lattice, words[None])), len(words))
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 200),
    st.integers(1, 40),
    st.booleans(),
    st.floats(-1, 0.9),
    st.integers(0, 2**32),
)
def test_weights_from_scores_are_the_plaintext_rules(d, n, fixed, threshold, seed):
    """What the server computes from exact scores against the rules of `privfl.aggregators` on the
    same integer rows.
    """
    setting, rng = SETTINGS["projections"], np.random.default_rng(seed)
    reference = rng.normal(size=d)
    rows = np.stack([unit_vector(rng.normal(size=d) + reference, setting.unit) for _ in range(n)])
    integer = unit_vector(reference, setting.unit)
    scores = CosineScores(
        tuple(range(n)),
        rows @ integer,
        np.zeros((n, 1), dtype=np.int64),
        squares=(rows**2).sum(axis=1),
    )
    similar = cosines(scores, integer)
    root = torch.from_numpy(integer / setting.unit).float()
    context = Context(RoundPlan(0, tuple(range(n)), d, l2=1.0), torch.zeros(d), torch.Generator())
    plain = torch.from_numpy(rows / setting.unit).float()
    for rule in (
        FLTrust(root=lambda context: root, fixed=fixed),
        CosineFilter(threshold, reference=lambda rows, context: root),
    ):
        trust = Trust.of(rule)
        trusted = trust(similar)
        if isinstance(rule, CosineFilter) and np.abs(similar - threshold).min() < 1e-6:
            continue
        integers, per = integer_weights(trusted, setting, fixed=trust.fixed)
        divisor = per * n if trust.fixed else integers.sum()
        found = (integers @ rows) / (divisor * setting.unit) if divisor else np.zeros(d)
        expected = rule.step(Rows.of(plain), None, context)[0].double().numpy()
        error = (
            np.sqrt(n) / (2 * setting.weights) + 1e-4
        )  # each weight is rounded to a whole number
        assert np.linalg.norm(found - expected) <= error * max(1.0, float(np.linalg.norm(expected)))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5000), st.floats(1e-20, 1e20), st.integers(0, 2**32))
def test_client_vectors_have_the_common_length_at_any_scale(d, scale, seed):
    found = unit_vector(np.random.default_rng(seed).normal(size=d) * scale, 1 << 14)
    assert abs(np.linalg.norm(found) - (1 << 14)) <= 1 + np.sqrt(d) / 4


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3000), st.integers(17, 31), st.integers(0, 2**32))
def test_masks_are_residues_and_follow_from_their_seed(n, bits, seed):
    t = (1 << bits) - 1 - seed % 1000
    first, again = (uniform(seed.to_bytes(32, "little"), "mask", n, t) for _ in range(2))
    assert len(first) == n
    assert (first == again).all()
    assert first.min() >= 0
    assert first.max() < t
    assert n < 20 or (first != uniform(seed.to_bytes(32, "little"), "other", n, t)).any()


def test_signs_are_half_zeros_and_balanced():
    drawn = signs(bytes(32), 3, 16, 4096)
    counts = [(drawn == value).mean() for value in (-1, 0, 1)]
    assert np.abs(np.array(counts) - [0.25, 0.5, 0.25]).max() < 0.01
    assert not (drawn == signs(bytes(32), 4, 16, 4096)).all()
