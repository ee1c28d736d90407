"""The published vectors of PINE over Field64: every byte that leaves a client or a server."""

import hashlib
import json
from pathlib import Path

import pytest
from Crypto.Hash import TurboSHAKE128

from privfl.crypto.sharing.pine.circuit import Circuit
from privfl.crypto.sharing.pine.field64 import encode, words
from privfl.crypto.sharing.pine.vdaf import HELPER, LEADER, Pine
from privfl.crypto.sharing.pine.xof import HMAC_SHA256_AES128, Xof

VECTORS = json.loads((Path(__file__).parent / "pine64.json").read_text())["vectors"]


class TurboShake:
    """XofTurboShake128 of draft-irtf-cfrg-vdaf-11."""

    def __init__(self, seed, dst, *binder):
        self.sponge = TurboSHAKE128.new(domain=1)
        for part in (bytes([len(dst)]), dst, seed, *binder):
            self.sponge.update(part)

    def next(self, n):
        return self.sponge.read(n)


def pine_of(vector):
    circuit = Circuit(
        vector["dimension"],
        vector["l2_norm_bound"],
        checks=vector["num_wr_checks"],
        successes=vector["num_wr_successes"],
        alpha=vector["alpha"],
        chunk=vector["chunk_length"],
        norm_chunk=vector["chunk_length_norm_equality"],
    )
    if "Hmac" in vector["name"]:
        return Pine(circuit, 0xFFFF1004, vector["proofs"], HMAC_SHA256_AES128)
    return Pine(circuit, 0xFFFFFFFF, vector["proofs"], Xof(TurboShake, 16))


def counting(n):
    return bytes(range(n))


def digest(body):
    return hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_every_byte_is_that_of_the_published_vector(vector):
    pine = pine_of(vector)
    key, nonce = counting(pine.xof.seed_size), counting(16)
    for place, expected in enumerate(vector["reports"]):
        x = [0] * vector["dimension"]
        x[place] = 2 ** vector["num_frac_bits"]
        report = pine.shard(words(x), nonce, counting(pine.rand))
        assert digest(report.public) == expected["public_share"]
        assert [digest(report.leader), digest(report.helper)] == expected["input_shares"]
        halves = [
            pine.prepare(LEADER, key, nonce, report.public, report.leader),
            pine.prepare(HELPER, key, nonce, report.public, report.helper),
        ]
        assert [digest(half.said) for half in halves] == expected["prep_shares"]
        assert [digest(half.seeds) for half in halves] == [expected["prep_message"]] * 2
        assert [digest(encode(half.contribution)) for half in halves] == expected["out_shares"]
        assert pine.holds(*((half.said, half.seeds) for half in halves))


def test_the_twelve_vectors_of_field64_are_all_here():
    assert len(VECTORS) == 12
