"""Shamir's sharing: every t shares give the secret back, and fewer are uniform."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from privfl.core import ConfigError
from privfl.crypto import PackedShamir, Shamir
from privfl.crypto.sharing import packed, shamir


def slow_value_at_zero(shares, p):
    total = 0
    for a, y in shares.items():
        term = y
        for b in shares:
            if b != a:
                term = term * b * pow(b - a, -1, p) % p
        total = (total + term) % p
    return total


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(0, shamir.P - 1), st.integers(2, 7))
def test_every_t_subset_reconstructs(data, secret, n):
    t = data.draw(st.integers(1, n))
    points = data.draw(st.lists(st.integers(1, 20_000), min_size=n, max_size=n, unique=True))
    shares = shamir.split(secret, points, t)
    for some in itertools.combinations(points, t):
        chosen = {x: shares[x] for x in some}
        assert shamir.combine(chosen) == secret == slow_value_at_zero(chosen, shamir.P)
        assert all(shamir.value_at(chosen, x) == y for x, y in shares.items())


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(0, shamir.P - 1), st.integers(2, 7))
def test_shares_through_agreed_values_are_shares_with_these_among_them(data, secret, n):
    t = data.draw(st.integers(2, n))
    points = data.draw(st.lists(st.integers(1, 20_000), min_size=n, max_size=n, unique=True))
    agreed = {x: data.draw(st.integers(0, shamir.P - 1)) for x in points[: t - 1]}
    shares = agreed | shamir.through(secret, agreed, points[t - 1 :])
    for some in itertools.combinations(points, t):
        assert slow_value_at_zero({x: shares[x] for x in some}, shamir.P) == secret


@settings(deadline=None, max_examples=20)
@given(st.binary(max_size=31), st.integers(1, 6), st.integers(0, 3))
def test_bytes_of_any_length_come_back(secret, t, more):
    sharing = Shamir(t, t + more)
    assert sharing.reconstruct(dict(list(sharing.share(secret).items())[more:])) == secret


@pytest.mark.parametrize(("p", "t"), [(7, 2), (7, 3), (11, 2)])
def test_fewer_than_t_shares_are_exactly_uniform_over_a_small_field(monkeypatch, p, t):
    """Over all choices of the coefficients, every t - 1 shares take every value equally often,
    whatever the secret is.
    """
    monkeypatch.setattr(shamir, "P", p)
    for secret in range(p):
        seen = {some: Counter() for some in itertools.combinations(range(1, 5), t - 1)}
        for coefficients in itertools.product(range(p), repeat=t - 1):
            stream = iter(coefficients)
            monkeypatch.setattr(shamir.secrets, "randbelow", lambda _, stream=stream: next(stream))
            shares = shamir.split(secret, range(1, 5), t)
            for some, counter in seen.items():
                counter[tuple(shares[x] for x in some)] += 1
        assert all(
            set(counter.values()) == {1} and len(counter) == p ** (t - 1)
            for counter in seen.values()
        )


def test_wrong_or_too_few_shares_are_refused():
    sharing = Shamir(t=3, n=5)
    shares = sharing.share(b"key")
    with pytest.raises(ConfigError, match="2 shares where 3"):
        sharing.reconstruct({1: shares[1], 2: shares[2]})
    with pytest.raises(ConfigError, match="not lie on one polynomial"):
        sharing.reconstruct({**shares, 4: shares[4] ^ 1})
    with pytest.raises(ConfigError, match="32 bytes does not fit"):
        sharing.share(bytes(32))
    with pytest.raises(ConfigError):
        Shamir(t=4, n=3)
    with pytest.raises(ConfigError, match="distinct points"):
        shamir.weights_at_zero([1, 1])


@settings(deadline=None, max_examples=30)
@given(st.data(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3))
def test_packed_shares_add_and_come_back_from_any_large_enough_subset(data, t, pack, more):
    sharing = PackedShamir(t, t + pack + more, pack)
    x, y = (
        np.array(data.draw(st.lists(st.integers(0, packed.P - 1), min_size=5, max_size=5)))
        for _ in range(2)
    )
    shares = (sharing.share(x) + sharing.share(y)) % packed.P
    some = data.draw(st.permutations(range(sharing.n)))[: t + pack]
    assert (sharing.reconstruct({i: shares[i] for i in some}, 5) == (x + y) % packed.P).all()


def test_t_packed_shares_look_the_same_for_any_values():
    sharing = PackedShamir(t=2, n=6, pack=3)
    for values in (np.zeros(9000, dtype=np.int64), np.arange(9000)):
        for pair in sharing.share(values)[[4, 5]]:
            assert (
                stats.chisquare(
                    np.bincount((pair >> np.uint64(23)).astype(np.int64), minlength=256)
                ).pvalue
                > 1e-6
            )
    with pytest.raises(ConfigError, match="4 shares where 5"):
        sharing.reconstruct(dict(enumerate(sharing.share(np.arange(3))[:4])), 3)
    with pytest.raises(ConfigError, match="lower t or pack"):
        PackedShamir(t=3, n=5, pack=3)
