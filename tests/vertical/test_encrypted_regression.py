"""Regression under Paillier is regression; what each party reads of it, alone and together."""

import numpy as np
import pytest
import torch
from scipy import stats

from privfl.core import ConfigError, Faults, RoundFailed, SecretsStay
from privfl.crypto.he.libraries import gmpy2
from privfl.crypto.he.paillier.keys import generate
from privfl.crypto.he.wire import Refused, unpack
from privfl.vertical import Batch, auc
from privfl.vertical.encrypted import EncryptedGuest, EncryptedHost, EncryptedLearner, EncryptedStep
from privfl.vertical.encrypted_mail import SHARE_BITS, coded, sealed
from privfl.vertical.encrypted_training import (
    residuals_from,
    train_encrypted,
    train_in_the_clear,
)

BITS = 512
"""Of keys in tests: nothing here rests on their length."""
KEY = generate(BITS, 16, None, 1)
STEP = EncryptedStep(lr=0.5, decay=0.01)


def task(n=24):
    coins = np.random.default_rng(0)
    host = np.stack([coins.integers(0, 2, n), coins.normal(size=n), np.ones(n)], axis=1)
    guest = coins.normal(size=(n, 2))
    y = np.where(host[:, 0] + host[:, 1] + guest[:, 0] > 0.5, 1.0, -1.0)
    return host, guest, y


def batches(n=24, size=8, times=2):
    rows = torch.arange(n)
    parts = [part for _ in range(times) for part in rows.split(size)]
    return [Batch(b"s", i, part, training=True) for i, part in enumerate(parts)]


def run(**more):
    host, guest, y = task()
    return train_encrypted(host, guest, y, batches(), STEP, secret=KEY, least_bits=BITS, **more)


def test_it_is_regression_in_the_clear_to_the_last_fixed_bits():
    host, guest, y = task()
    found = run()
    both = train_in_the_clear(np.hstack([host, guest]), y, batches(), STEP)
    assert np.abs(np.hstack([found.host_weights, found.guest_weights]) - both).max() < 2e-3
    assert np.abs(both).max() > 0.1
    assert found.bytes_sent > 0


def bodies(found, receiver):
    return {
        (message.sender, number): message.body
        for number, outcome in enumerate(found.outcomes)
        for message in outcome.messages
        if message.receiver == receiver
    }


@pytest.fixture(scope="module")
def key():
    return KEY


def test_the_key_holder_opens_numbers_that_are_uniform(key):
    """The most that it reads: what it decrypts. Masks of the same gradient make it uniform mod n,
    and two maskings of one gradient have nothing in common.
    """
    host, _, _ = task()
    learner = EncryptedLearner(key.public, host, STEP)
    (batch, *_) = batches()
    residuals = sealed(key.public, coded(np.full(8, -0.5), SHARE_BITS))
    read = []
    for _ in range(60):
        body = unpack(learner.masked(batch, residuals))[4]
        width = key.public.width
        numbers = [
            gmpy2.mpz.from_bytes(bytes(body[i : i + width]), "little")
            for i in range(0, len(body), width)
        ]
        read += [int(m) / key.public.n for m in key.plaintexts(numbers)]
    assert stats.kstest(read, "uniform").pvalue > 1e-4
    assert len(set(read)) == len(read)


def test_fresh_factors_are_what_hides_the_guests_share_from_its_host(key):
    """The host knows the ciphertexts of its own shares: the quotient is what was added."""
    _, guest, y = task()
    (batch, *_) = batches()

    class Careless(EncryptedGuest):
        def residual(self, batch, shares):
            own = self.x[batch.rows.numpy()] @ self.w / 4 - self._y[batch.rows.numpy()] / 2
            n = self.public.n
            plain = [1 + (m % n) * n for m in coded(own, SHARE_BITS)]
            return [a * b % self.public.n2 for a, b in zip(shares, plain, strict=True)]

    shares = sealed(key.public, coded(np.zeros(8), SHARE_BITS))

    def read(kind):
        made = kind(key.public, guest, y, STEP).residual(batch, shares)
        n, n2 = key.public.n, key.public.n2
        quotients = [int(r * gmpy2.invert(s, n2) % n2) for r, s in zip(made, shares, strict=True)]
        if any(q % n != 1 for q in quotients):
            return None
        return [-1.0 if 0 < (q - 1) // n < n // 2 else 1.0 for q in quotients]

    assert read(Careless) == y[:8].tolist(), "the attack works where factors are not fresh"
    assert read(EncryptedGuest) is None


def test_a_host_solves_for_the_labels_of_small_batches_and_only_of_those():
    coins = np.random.default_rng(1)
    x = coins.normal(size=(400, 12))
    y = np.where(coins.normal(size=400) > 0, 1.0, -1.0)
    told = {}
    for size in (8, 12, 200):
        found = [
            residuals_from(x[i : i + size], x[i : i + size].T @ (-y[i : i + size] / 2) / size)
            for i in range(0, 400 - size + 1, size)
        ]
        scores = torch.from_numpy(-np.concatenate(found))
        told[size] = auc(scores, torch.from_numpy(y[: len(scores)] == 1))
    assert told[8] == told[12] == 1.0
    assert 0.5 < told[200] < 0.75


def test_the_key_holder_with_the_host_reads_every_label(key):
    """Which is why no two of the three may act together."""
    _, guest, y = task()
    (batch, *_) = batches()
    shares = sealed(key.public, coded(np.zeros(8), SHARE_BITS))
    residuals = EncryptedGuest(key.public, guest, y, STEP).residual(batch, shares)
    plain = key.plaintexts(residuals)
    assert [-1.0 if m < key.public.n // 2 else 1.0 for m in plain] == y[:8].tolist()


def test_a_host_that_lies_reads_the_labels_of_a_whole_batch_alone(key):
    """Packed residuals in one ciphertext where a sum is due: the key holder opens what it is sent,
    under the host's mask. It is why all three have to follow the protocol.
    """
    _, guest, y = task()
    (batch, *_) = batches()
    shares = sealed(key.public, coded(np.zeros(8), SHARE_BITS))
    residuals = EncryptedGuest(key.public, guest, y, STEP).residual(batch, shares)
    n, n2, mask = key.public.n, key.public.n2, 12345678901234567890
    (packed,) = sealed(key.public, [mask])
    for place, residual in enumerate(residuals):
        packed = packed * gmpy2.powmod(residual, 1 << (32 * place), n2) % n2
    (opened,) = key.plaintexts([packed])
    rest, read = int((opened - mask) % n), []
    rest -= n if rest > n // 2 else 0
    for _ in residuals:
        low = (rest + (1 << 31)) % (1 << 32) - (1 << 31)
        read.append(1.0 if low < 0 else -1.0)
        rest = (rest - low) >> 32
    assert read == y[:8].tolist()


def test_a_host_solves_for_labels_over_epochs_whatever_the_size_of_a_batch():
    """Ten columns, batches of 40: no batch tells its labels, and twelve deals of the rows do."""
    coins = np.random.default_rng(2)
    x, y = coins.normal(size=(120, 10)), np.where(coins.normal(size=120) > 0, 1.0, -1.0)

    def told(epochs):
        rows, sums = [], []
        for _ in range(epochs):
            for batch in coins.permutation(120).reshape(3, 40):
                equations = np.zeros((10, 120))
                equations[:, batch] = x[batch].T
                rows.append(equations)
                sums.append(x[batch].T @ (-y[batch] / 2))
        solved = np.linalg.lstsq(np.vstack(rows), np.concatenate(sums), rcond=None)[0]
        return auc(torch.from_numpy(-solved), torch.from_numpy(y == 1))

    assert told(1) < 0.9
    assert told(12) == 1.0


def test_no_ciphertext_is_sent_twice():
    found = run(keep_bodies=True)
    seen = [b for who in ("guest", "host/0", "key_holder") for b in bodies(found, who).values()]
    assert len(set(seen)) == len(seen) == 6 * 6


HOSTILE = {
    "cut short": lambda body: bytes(body)[:7],
    "a number less": lambda body: bytes(body)[:-1],
    "zeros": lambda body: bytes(body)[:-128] + bytes(128),
    "too large": lambda body: bytes(body)[:-128] + b"\xff" * 128,
    "noise": lambda body: b"\x05" * len(body),
    "nothing": lambda body: b"",
}


MEANT = ("key_holder", "zeros")
"""A plaintext of zero is one that a key holder may send."""
PAIRS = [(who, case) for who in ("host/0", "guest", "key_holder") for case in HOSTILE]


@pytest.mark.parametrize(("sender", "case"), [pair for pair in PAIRS if pair != MEANT])
def test_hostile_bytes_end_the_batch_with_a_sentence(sender, case):
    with pytest.raises(RoundFailed, match=f"no message from {sender}"):
        run(faults=Faults(malformed={sender: HOSTILE[case]}))


@pytest.mark.parametrize("sender", ["host/0", "guest", "key_holder"])
def test_who_falls_silent_is_waited_for_and_said(sender):
    with pytest.raises(RoundFailed, match="fell silent"):
        run(faults=Faults(silent_from={sender: 0}))


def test_a_doubled_message_steps_once():
    again = run(faults=Faults(duplicated=["guest", "host/0", "key_holder"]))
    assert np.allclose(again.host_weights, run().host_weights, atol=1e-9)


def test_short_keys_other_labels_and_large_values_are_refused(key):
    host, guest, y = task()
    with pytest.raises(Refused, match="at least 2048"):
        train_encrypted(host, guest, y, batches(), STEP, secret=KEY)
    with pytest.raises(ConfigError, match="labels are -1 and 1"):
        EncryptedGuest(key.public, guest, (y + 1) / 2, STEP)
    with pytest.raises(ConfigError, match="align them"):
        train_encrypted(host[:3], guest, y, batches(), STEP)
    with pytest.raises(ConfigError, match="finite and below"):
        coded(np.array([np.nan]), 8)
    with pytest.raises(ConfigError, match="finite and below"):
        coded(np.array([1e9]), 8)


def test_what_holds_labels_and_masks_does_not_serialise(key):
    import pickle

    host, _, _ = task()
    with pytest.raises(SecretsStay):
        pickle.dumps(EncryptedHost(key.public, host, STEP))
