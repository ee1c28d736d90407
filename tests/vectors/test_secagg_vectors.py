"""The primitives give the published bytes from either library; the wire format of version 4 stays
what it is.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.core import Bounded, ConfigError, RoundPlan, client_party, drive
from privfl.crypto import SecAgg
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.primitives import (
    backend,
    expand,
    extract,
    fields,
    keystream_words,
    mask,
    open_box,
    seal_box,
)
from privfl.crypto.primitives import pyca as pyca_module
from privfl.crypto.primitives import pycryptodome as pycryptodome_module
from privfl.crypto.primitives.ladder import x25519
from privfl.crypto.primitives.weak_keys import unusable
from privfl.crypto.secagg import boxes, keys, wire
from privfl.crypto.secagg.stage import Kind
from privfl.crypto.sharing import shamir

HERE = Path(__file__).parent
VECTORS = json.loads((HERE / "crypto_primitives.json").read_text())
GOLDEN = json.loads((HERE / "secagg_wire_v5.json").read_text())
LIBRARIES = ["cryptography", "pycryptodome"]
h = bytes.fromhex


class OwnLadder:
    """X25519 as pycryptodome before 3.22 gets it."""

    def agreement(self, secret):
        return lambda public: x25519(secret, public)

    def x25519_public(self, secret):
        return x25519(secret, (9).to_bytes(32, "little"))


AGREE = {**{name: backend(name) for name in LIBRARIES}, "ladder": OwnLadder()}


@pytest.mark.parametrize("library", AGREE.values(), ids=AGREE.keys())
def test_x25519_gives_the_results_of_rfc_7748(library):
    for case in VECTORS["x25519"]["single"]:
        assert library.agreement(h(case["scalar"]))(h(case["point"])).hex() == case["result"]
    k = u = (9).to_bytes(32, "little")
    for i in range(1, 1001 if library is AGREE["cryptography"] else 2):
        k, u = library.agreement(k)(u), k
        if str(i) in VECTORS["x25519"]["iterated"]:
            assert k.hex() == VECTORS["x25519"]["iterated"][str(i)]
    a = VECTORS["x25519"]["agreement"]
    for one, other in (("alice", "bob"), ("bob", "alice")):
        assert library.x25519_public(h(a[f"{one}_secret"])).hex() == a[f"{one}_public"]
        assert (
            library.agreement(h(a[f"{one}_secret"]))(h(a[f"{other}_public"])).hex() == a["shared"]
        )


@pytest.mark.parametrize("library", AGREE.values(), ids=AGREE.keys())
def test_points_of_small_order_agree_on_nothing(library):
    secret = bytes(range(32))
    for point in (0, 1, 2**255 - 19, 2**255 - 20, 2**255 - 18, 2**255 + 1):
        assert unusable(point.to_bytes(32, "little"))
        with pytest.raises(ValueError, match=r".*"):
            library.agreement(secret)(point.to_bytes(32, "little"))
    assert not unusable(library.x25519_public(secret))


@pytest.mark.parametrize("name", LIBRARIES)
def test_ed25519_gives_the_signatures_of_rfc_8032(name):
    library = backend(name)
    for case in VECTORS["ed25519"]["vectors"]:
        assert library.ed25519_public(h(case["secret"])).hex() == case["public"]
        assert library.sign(h(case["secret"]), h(case["message"])).hex() == case["signature"]
        assert library.verify(h(case["public"]), h(case["message"]), h(case["signature"]))
        assert not library.verify(
            h(case["public"]), h(case["message"]) + b"x", h(case["signature"])
        )
        assert not library.verify(h(case["public"]), h(case["message"]), bytes(64))
        assert not library.verify(bytes(31), h(case["message"]), h(case["signature"]))


def test_hkdf_gives_the_keys_of_rfc_5869():
    for case in VECTORS["hkdf_sha256"]["vectors"]:
        assert extract(h(case["salt"]), h(case["ikm"])).hex() == case["prk"]
        assert expand(h(case["prk"]), h(case["info"]), case["length"]).hex() == case["okm"]
    with pytest.raises(ValueError, match="at most"):
        expand(bytes(32), b"", 255 * 32 + 1)


def stream(library, key, counter, n):
    out = np.zeros(n + 16, np.uint8)
    library.keystream(key, counter).fill(out, n)
    return out[:n].tobytes()


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", LIBRARIES)
def test_aes_ctr_and_gcm_give_the_published_bytes(name):
    library, ctr, gcm = backend(name), VECTORS["aes128_ctr"], VECTORS["aes128_gcm"]
    assert (
        xor(stream(library, h(ctr["key"]), h(ctr["counter"]), 64), h(ctr["plain"])).hex()
        == ctr["cipher"]
    )
    sealed = library.seal(h(gcm["key"]), h(gcm["nonce"]), h(gcm["plain"]), h(gcm["bound"]))
    assert sealed.hex() == gcm["cipher"] + gcm["tag"]
    assert library.unseal(h(gcm["key"]), h(gcm["nonce"]), sealed, h(gcm["bound"])) == h(
        gcm["plain"]
    )
    assert library.unseal(h(gcm["key"]), h(gcm["nonce"]), sealed, b"") is None
    assert library.unseal(h(gcm["key"]), h(gcm["nonce"]), sealed[:7], h(gcm["bound"])) is None
    mask_stream = stream(library, h(gcm["key"]), h(gcm["nonce"]) + (2).to_bytes(4, "big"), 60)
    assert xor(mask_stream, h(gcm["plain"])).hex() == gcm["cipher"]


@pytest.mark.parametrize("faster", [True, False])
def test_the_keystream_is_the_same_by_either_of_openssls_ways(monkeypatch, faster):
    monkeypatch.setattr(pyca_module, "_gcm_is_faster", lambda: faster)
    words = keystream_words(bytes(range(32)), 70_001, np.uint32, backend("cryptography"))
    assert (
        words == keystream_words(bytes(range(32)), 70_001, np.uint32, backend("pycryptodome"))
    ).all()


@settings(max_examples=25, deadline=None)
@given(
    st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.binary(max_size=40)
)
def test_both_libraries_give_the_same_bytes(a, b, message):
    one, two = (backend(name) for name in LIBRARIES)
    public = one.x25519_public(b)
    assert public == two.x25519_public(b) == OwnLadder().x25519_public(b)
    assert one.agreement(a)(public) == two.agreement(a)(public) == OwnLadder().agreement(a)(public)
    for library in (one, two):
        own, agree = library.pair(a)
        assert own == library.x25519_public(a)
        assert agree(public) == library.agreement(a)(public)
        out = memoryview(bytearray(len(message) + 16))
        library.seal_into(a, b[:12], [message[:7], b"", message[7:]], b, out)
        assert bytes(out) == library.seal(a, b[:12], message, b)
        assert library.sealed(a, b[:12], out, b)
        assert not library.sealed(a, b[:12], out, b + b"1")
        assert not library.sealed(a, b[:12], out[:-1], b)
        assert not library.sealed(a, b[:12], out[:9], b)
        for place in (0, len(message) + 15):
            changed = bytearray(out)
            changed[place] ^= 1
            assert not library.sealed(a, b[:12], memoryview(changed), b)
        out[: len(message)] = message  # sealed where it lies
        library.seal_into(a, b[:12], [out[: len(message)]], b, out)
        assert bytes(out) == library.seal(a, b[:12], message, b)
    assert one.sign(a, message) == two.sign(a, message)
    assert one.seal(a, b[:12], message, b) == two.seal(a, b[:12], message, b)
    assert open_box(b, seal_box(public, message, b"scene", one), b"scene", two) == message
    assert open_box(b, seal_box(public, message, b"scene", one), b"other", two) is None
    for dtype in (np.uint16, np.uint32, np.uint64):
        x, y = np.arange(33, dtype=dtype), np.arange(33, dtype=dtype)
        mask(x, [(a, 1), (b, -1)], one)
        mask(y, [(a, 1), (b, -1)], two)
        assert (x == y).all()


def test_clients_on_different_libraries_run_one_round(monkeypatch):
    channels = [
        SecAgg(mode="active", graph="complete", corrupt=0.0, backend=name) for name in LIBRARIES
    ]
    plan = RoundPlan(0, (1, 2, 3, 4), d=5, l2=1.0)
    everybody = Enrolled.fresh(channels[1], plan.cohort)
    members = {
        i: channels[i % 2].client(i, everybody.keys[client_party(i)], everybody.directory)
        for i in plan.cohort
    }
    monkeypatch.setattr(
        pycryptodome_module, "_native", lambda secret: None
    )  # one of them as before 3.22
    parties = {
        client_party(i): m.enter(plan, Bounded(i, torch.full((5,), 0.1), 1.0))
        for i, m in members.items()
    }
    outcome = drive(everybody.server.enter(plan), parties)
    assert torch.allclose(outcome.opened.what.value, torch.full((5,), 0.4), atol=1e-3)


def test_a_backend_that_is_not_installed_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "privfl.crypto.primitives.pyca", None)
    backend.cache_clear()
    try:
        assert backend().name == "pycryptodome"
        with pytest.raises(ConfigError, match="pip install cryptography"):
            backend("cryptography")
    finally:
        backend.cache_clear()


# ---- golden bytes of the wire format, made once by this code and kept


def golden():
    """Every kind of field, from fixed inputs."""
    tag, plan = (
        bytes(range(16)),
        RoundPlan(7, (3, 1, 2), d=5, l2=0.5, max_weight=2.0, part="delta", session=b"s1"),
    )
    channel = SecAgg(mode="active", graph="complete", threshold=0.7, corrupt=0.0)
    return {
        "message": wire.write(Kind.MASKED, 24, 2, tag, b"body"),
        "facts": fields.facts(plan),
        "table": fields.table({5: b"ab", 1: b"cd"}),
        "bits": fields.bit_set({0, 3, 9}, 11),
        "most": fields.most(range(1, 99), 99) + fields.most({0, 3, 9}, 11),
        "ring16": bytes(fields.pack(np.array([1, 65535, 7], np.uint16), 16)),
        "ring24": bytes(fields.pack(np.array([1, 0xABCDEF, 7, 8, 9], np.uint32), 24)),
        "ring32": bytes(fields.pack(np.array([1, 0xFFFFFFFF], np.uint32), 32)),
        "tag": channel.parameters(plan).tag,
        "boxes": boxes.write(
            channel.parameters(plan), {2: bytes(keys.AGREED), 0: bytes(range(keys.MOVED))}
        ),
        "advertisement": keys.advertisement(tag, 42, bytes(64)),
        "pair root": keys.pair_root(bytes(32), bytes(32), tag, {1: bytes(32), 0: b"k" * 32}),
        "word": keys.said(bytes(32), "masked", 5, b"statement"),
        "commitment": keys.commitment(tag, 3, bytes(32)),
        "agreed shares": b"".join(map(shamir.to_bytes, keys.agreed_shares(bytes(32), 1, 2))),
        "share key": keys.share_key(bytes(32), tag, 1, 2),
        "pair seed": keys.pair_seed(bytes(32), tag, 2, 1),
        "self seed": keys.self_seed(bytes(32), tag),
        "keystream": keystream_words(bytes(range(32)), 8, np.uint32, backend()).tobytes(),
    }


@pytest.mark.parametrize("name", list(GOLDEN["vectors"]))
def test_the_wire_format_of_version_5_does_not_change(name):
    assert golden()[name].hex() == GOLDEN["vectors"][name]


def test_every_golden_field_is_kept():
    assert set(golden()) == set(GOLDEN["vectors"])


def test_what_is_packed_comes_back():
    rng = np.random.default_rng(0)
    for ring in (16, 24, 32):
        for n in (1, 2, 3, 4, 5, 1001):
            words = rng.integers(0, 2**ring, n, dtype=np.uint64).astype(
                np.uint16 if ring == 16 else np.uint32
            )
            packed = memoryview(bytes(fields.pack(words, ring)))
            assert len(packed) == n * ring // 8
            assert (fields.unpack(packed, ring, n) == words).all()
            with pytest.raises(fields.Malformed):
                fields.unpack(packed[:-1], ring, n)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=90))
def test_any_bytes_are_read_or_refused(body):
    for read in (
        lambda view: wire.read(view),
        lambda view: fields.read_table(view, 3, 20),
        lambda view: fields.read_bit_set(view, 13),
        lambda view: fields.read_most(view, 13),
        lambda view: fields.read_facts(view),
    ):
        try:
            read(memoryview(body))
        except fields.Malformed as refusal:
            assert str(refusal)  # noqa: PT017 (no other error may come, and it says why)
