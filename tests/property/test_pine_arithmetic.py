"""Field64, its transforms and its proofs against Python's integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.core import ConfigError
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.sharing.pine import field64, ntt, wraparound
from privfl.crypto.sharing.pine.circuit import Circuit, OutOfRange
from privfl.crypto.sharing.pine.field64 import P, words
from privfl.crypto.sharing.pine.flp import Gadget, RootOfUnity, fewest

EDGES = [0, 1, 2, 2**32 - 1, 2**32, 2**32 + 1, P // 2, P // 2 + 1, 2**63, P - 2**32, P - 2, P - 1]
ELEMENT = st.one_of(st.sampled_from(EDGES), st.integers(0, P - 1))
PAIRS = st.lists(st.tuples(ELEMENT, ELEMENT), min_size=1, max_size=60)


def elements(values):
    return np.array(values, dtype=np.uint64)


def uniform(seed, *shape):
    return np.random.default_rng(seed).integers(0, P, shape, dtype=np.uint64)


@given(PAIRS)
def test_sums_differences_and_products_are_those_of_integers_modulo_p(pairs):
    a, b = (elements(side) for side in zip(*pairs, strict=True))
    assert field64.add(a, b).tolist() == [(x + y) % P for x, y in pairs]
    assert field64.subtract(a, b).tolist() == [(x - y) % P for x, y in pairs]
    assert field64.multiply(a, b).tolist() == [x * y % P for x, y in pairs]
    assert int(field64.total(a)) == sum(x for x, _ in pairs) % P


def test_edges_of_words_and_halves_multiply_right():
    a = elements([x for x in EDGES for _ in EDGES])
    b = elements(EDGES * len(EDGES))
    expected = [x * y % P for x in EDGES for y in EDGES]
    assert field64.multiply(a, b).tolist() == expected


def test_a_sum_of_many_largest_words_does_not_overflow():
    many = np.full((100_000, 2), P - 1, dtype=np.uint64)
    assert field64.total(many).tolist() == [P - 100_000] * 2


@given(st.lists(ELEMENT, min_size=1, max_size=20))
def test_inverses_powers_and_bytes(values):
    a = elements(values)
    assert field64.inverse(a).tolist() == [pow(x, P - 2, P) for x in values]
    assert field64.powers(values[0], 13).tolist() == [pow(values[0], i, P) for i in range(13)]
    assert field64.decode(memoryview(field64.encode(a)), len(a)).tolist() == values


@pytest.mark.parametrize("body", [b"", bytes(7), bytes(24), P.to_bytes(8, "little") * 2])
def test_bytes_that_are_no_field_elements_are_refused(body):
    with pytest.raises(Malformed):
        field64.decode(memoryview(body), 2)


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20))
def test_signed_integers_go_there_and_back(values):
    assert field64.centred(words(values)).tolist() == values


@pytest.mark.parametrize("n", [1, 2, 4, 16, 32])
def test_a_transform_gives_the_values_at_the_roots_of_unity(n):
    coefficients, w = uniform(n, n, 3), ntt.root(n)
    at = ntt.values(coefficients)
    for k in range(n):
        for j in range(3):
            slow = sum(int(c) * pow(w, i * k, P) for i, c in enumerate(coefficients[:, j])) % P
            assert int(at[k, j]) == slow
    assert np.array_equal(ntt.interpolated(at), coefficients)


@settings(max_examples=20)
@given(st.integers(1, 9), st.binary(min_size=1, max_size=40), st.integers(0, 2**32))
def test_products_with_coins_are_those_of_the_coins_one_by_one(d, stream, seed):
    each = -(-d // 4)
    checks = len(stream) // each
    stream, x = stream[: checks * each], [*EDGES, *uniform(seed, 9).tolist()][-d:]
    if not checks:
        return
    worth = (-1, 0, 0, 1)
    slow = [
        sum(worth[stream[i * each + j // 4] >> 2 * (j % 4) & 3] * x[j] for j in range(d)) % P
        for i in range(checks)
    ]
    assert wraparound.products(elements(x), stream, checks).tolist() == slow


def test_products_of_vectors_longer_than_a_block_are_exact():
    d = wraparound._COLUMNS + 5
    x, stream = uniform(1, d), np.random.default_rng(2).bytes(wraparound.coin_bytes(d, 2))
    worth = (-1, 0, 0, 1)
    each = -(-d // 4)
    slow = [
        sum(worth[stream[i * each + j // 4] >> 2 * (j % 4) & 3] * v for j, v in enumerate(row)) % P
        for i, row in enumerate([x.tolist()] * 2)
    ]
    assert wraparound.products(x, stream, 2).tolist() == slow


@pytest.mark.parametrize("gadget", [Gadget("squares", 5, 3), Gadget("products", 8, 4)])
def test_a_proof_says_what_the_gadget_gives_and_a_changed_one_fails(gadget):
    wires, first = uniform(1, gadget.calls, gadget.arity), uniform(2, gadget.arity)
    proof = gadget.prove(wires, first)
    assert len(proof) == gadget.proof
    assert np.array_equal(gadget.outputs(proof), gadget(wires))
    said = gadget.query(wires, proof, 12345, 0)
    assert len(said) == gadget.verifier
    assert gadget.holds(said)
    for place in range(len(proof)):
        lie = proof.copy()
        lie[place] ^= np.uint64(1)
        assert not gadget.holds(gadget.query(wires, lie, 12345, 0))


def test_shares_of_a_proof_say_in_sum_what_the_proof_says():
    gadget = Gadget("products", 3, 4)
    wires, proof = uniform(1, 3, 4), gadget.prove(uniform(1, 3, 4), uniform(2, 4))
    mask, noise = uniform(3, 3, 4), uniform(4, gadget.proof)
    one = gadget.query(field64.subtract(wires, mask), field64.subtract(proof, noise), 99, 0)
    other = gadget.query(mask, noise, 99, 0)
    whole = gadget.query(wires, proof, 99, 0)
    assert np.array_equal(field64.add(one, other), whole)


def test_a_point_that_would_open_an_input_is_refused():
    gadget = Gadget("squares", 3, 2)
    proof = gadget.prove(uniform(1, 3, 2), uniform(2, 2))
    with pytest.raises(RootOfUnity):
        gadget.query(uniform(1, 3, 2), proof, ntt.root(4), 0)


@pytest.mark.parametrize("bound", [2**32, 2**40])
def test_bounds_for_which_the_field_is_too_small_are_refused(bound):
    with pytest.raises(ConfigError, match="lower bits"):
        Circuit(10, bound)


def test_coins_that_fail_an_honest_vector_are_told_before_anything_is_sent():
    circuit = Circuit(4, 4, checks=2, successes=2, alpha=0.1)
    fixed = circuit.with_norm(words([2, 2, 2, 2]))
    with pytest.raises(OutOfRange):
        circuit.with_products(fixed, words([8, 0]), 0)
    assert len(circuit.with_products(fixed, words([1, 0]), 0)) == circuit.length


@pytest.mark.parametrize("inputs", [(1,), (7,), (1000,), (2300, 100)])
def test_the_chunk_is_the_one_with_the_shortest_proof(inputs):
    def cost(chunk):
        calls = sum(-(-n // chunk) for n in inputs)
        return Gadget("squares", calls, chunk).proof

    found = fewest(*inputs, kind="squares")
    assert cost(found) == min(cost(chunk) for chunk in range(1, max(inputs) + 1))
