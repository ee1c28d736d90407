"""A client of a lattice channel picks the second half of its own ciphertext, c1, and so has the
sum that is opened hold a multiple of the secret key.
"""

import numpy as np
import pytest
import tenseal.sealapi as seal
import torch

from privfl.core import Bounded, RoundPlan, client_party, drive, drive_all
from privfl.crypto import BFV, CKKS, MultiPartyRLWE
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.he.boxes import letter
from privfl.crypto.he.client import posted
from privfl.crypto.he.decryption_policy import opened_answer
from privfl.crypto.he.lattice import frames
from privfl.crypto.he.lattice.keys import LatticeSecret
from privfl.crypto.he.lattice.parameters import plain_modulus
from privfl.crypto.he.lattice.residues import body_of, chunks_of
from privfl.crypto.he.lattice.seal import context, encoders, passage
from privfl.crypto.he.wire import SignedMessage, unpack_numbers

CLIENTS, LIAR, TOP, HALF = 5, 4, (1 << 15) - 1, 0.5


def residues_of(lattice, polynomial):
    """The residues [primes, N] of a polynomial [N] of integers."""
    primes = frames.residues(lattice).primes
    return np.array([[int(v) % p for v in polynomial] for p in primes], dtype=np.uint64)


def in_ntt(lattice, polynomial):
    """The same in the transform in which CKKS keeps ciphertexts, and both schemes keys."""
    words = residues_of(lattice, polynomial)
    with passage() as file:
        item = frames.ciphertext(file, lattice, np.stack([words, words]), ntt=False)
        seal.Evaluator(context(lattice)).transform_to_ntt_inplace(item)
        return frames.words_of(file, lattice, item)[0]


def spoilt(ring, plan, update, added):
    """The honest ciphertext of an update, with these polynomials added to the c1 of its chunks."""
    lattice, code = ring.scheme.lattice, frames.residues(ring.scheme.lattice)
    honest = ring.key().encrypt(ring.scheme.encode(update, plan), plan)
    _, chunks = chunks_of(honest, frames.sizes(lattice), len(added))
    out, moduli = [], np.array(code.primes, dtype=np.uint64)[:, None]
    for chunk, polynomial in zip(chunks, added, strict=True):
        words = frames.opened(lattice, chunk)
        made = in_ntt if lattice.scheme == "ckks" else residues_of
        words[1] = (words[1] + made(lattice, polynomial)) % moduli
        out.append(code.packed(words))
    return (body_of("whole", out),)


def played(channel, d, added):
    """A round in which the liar adds these polynomials; what the server was told, the members, what
    everybody sent, and everybody's rows.
    """
    members = dict(Enrolled.fresh(channel, range(CLIENTS)).members)
    drive_all({who: member.set_up() for who, member in members.items()})
    rows = torch.randn(CLIENTS, d, generator=torch.Generator().manual_seed(1))
    rows = 0.9 * rows / rows.norm(dim=1, keepdim=True)
    plan = RoundPlan(1, tuple(range(CLIENTS)), d, l2=1.0, session=b"s")
    updates = [Bounded(i, rows[i], 1.0, HALF if i == LIAR else 1.0) for i in plan.cohort]
    parties = {
        client_party(i): members[client_party(i)].enter(plan, updates[i]) for i in plan.cohort
    }
    ring = members[client_party(LIAR)].ring
    body = posted(ring, plan, spoilt(ring, plan, updates[LIAR], added))

    class Sends:
        def step(self, mail):
            return {} if mail else {"server": body}

    parties[client_party(LIAR)] = Sends()
    parties |= {who: members[who].enter(plan) for who in channel.helpers}
    return drive(members["server"].enter(plan), parties, keep_bodies=True), members, plan, rows


def reads_everybody(coefficients, outcome, members, plan, rows):
    """Whether the key of these coefficients [N] opens every honest client's letter, for the server
    whom it was sent to.
    """
    ring = members["server"].ring
    lattice = ring.scheme.lattice
    words = in_ntt(lattice, coefficients)
    whole = np.concatenate([words, np.zeros((1, lattice.degree), dtype=np.uint64)])
    raw = frames.residues(lattice, key=True).packed(whole[None])  # the last prime opens nothing
    taken = LatticeSecret(ring.key(), raw, "public")
    for message in outcome.messages:
        if message.sender.startswith("client/") and message.sender != client_party(LIAR):
            sent = SignedMessage.read(letter(ring.identity, message.body, message.sender))
            numbers = taken._decrypted(sent.whole(), plan)[:-1]
            unit = 1 if lattice.scheme == "ckks" else TOP
            row = rows[int(message.sender[7:])].double().numpy()
            if np.abs(numbers / unit - row).max() > 1e-4:
                return False
    return True


def test_one_client_reads_the_key_of_ckks_off_the_published_sum():
    """Chunks of K and of K X^(N/2) show the real and the imaginary parts of the key's slots."""
    channel = CKKS()
    lattice = channel.scheme.lattice
    degree, factor = lattice.degree, 2**lattice.scale_bits >> 8
    added = [[0] * degree for _ in range(2)]
    added[0][0], added[1][degree // 2] = factor, factor
    outcome, members, plan, rows = played(channel, lattice.slots * 2 - 1, added)
    assert outcome.opened is not None, outcome.aborts
    assert outcome.opened.survivors == tuple(range(CLIENTS)), "the liar is taken for honest"
    published = outcome.opened.what.value.double().numpy()
    published = np.append(published, outcome.opened.what.weight - LIAR - HALF).reshape(2, -1) * 2**8
    powers = np.array([pow(3, j, 2 * degree) for j in range(lattice.slots)])
    values = published[0] + 1j * published[1] / np.real(1j ** (powers % 4) * 1j)
    at = np.zeros(degree, dtype=complex)
    at[(powers - 1) // 2] = values
    at[(2 * degree - powers - 1) // 2] = values.conj()
    turned = np.exp(-1j * np.pi * np.arange(degree) / degree)
    key = np.rint((turned * np.fft.fft(at) / degree).real).astype(int)
    assert set(key) == {-1, 0, 1}
    assert reads_everybody(key, outcome, members, plan, rows)


def test_one_client_and_the_server_read_the_key_of_bfv_off_the_decryptors_answer():
    """Chunks of larger and larger multiples show every slot of the key digit by digit."""
    channel = BFV()
    lattice = channel.scheme.lattice
    t, q = plain_modulus(lattice.degree, lattice.plain_bits), frames.residues(lattice).primes[0]
    factors = 1, 1 << 9, 1 << 18
    added = [[0] * lattice.degree for _ in factors]
    for polynomial, factor in zip(added, factors, strict=True):
        polynomial[0] = round(q * factor / t)
    outcome, members, plan, rows = played(channel, lattice.slots * len(factors) - 1, added)
    said = next(m.body for m in outcome.messages if m.sender == "decryptor/0")
    _, (body,) = opened_answer(SignedMessage.read(said), members["server"].ring)
    seen = unpack_numbers(body).copy()
    seen[-1] -= round((LIAR + HALF) * TOP)  # the weights
    seen = seen.reshape(len(factors), -1)
    slots = np.zeros(lattice.slots, dtype=np.int64)
    for factor, numbers in zip(factors, seen, strict=True):
        off = (numbers - factor * slots + t // 2) % t - t // 2
        slots += np.rint(off / factor).astype(np.int64)
    plain = seal.Plaintext()
    encoders(lattice)[0]((slots + t // 2) % t - t // 2, plain)
    key = np.array([int(plain[i]) for i in range(lattice.degree)])
    key = (key + t // 2) % t - t // 2
    assert set(key) == {-1, 0, 1}
    assert reads_everybody(key, outcome, members, plan, rows)


@pytest.mark.parametrize("channel", [BFV(), BFV(verify_sum=False), CKKS(), MultiPartyRLWE()])
def test_the_channels_whose_clients_pick_c1_say_so_aloud_and_name_the_one_that_has_none(channel):
    said = [channel.describe(), *channel.able.warnings]
    assert sum("One client that lies" in line and "one_time_rlwe" in line for line in said) == 2
    assert "clients that do not pick their own c1" in channel.guarantee.assumes
