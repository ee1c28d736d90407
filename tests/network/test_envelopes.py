"""Envelopes are whole, signed and of their sender, or they end in one error."""

import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privfl.core import Broadcast
from privfl.crypto.primitives import Directory, Identity
from privfl.flower.heads import Answer, RoundHead, Terms, model_bodies, read_model
from privfl.flower.mail import MAX_HEAD, BadEnvelope, Envelope, read, unpacked_vector

KEYS = {who: Identity.fresh(who) for who in ("server", "client/0")}
KNOWN = Directory.of({who: key.public for who, key in KEYS.items()})
SENT = Envelope("mail", "server", "client/0", bytes(16), 3, {"a": 1}, {"to/x": b"abc", "y": b""})
RAW = SENT.write(KEYS["server"])


def test_what_is_written_is_read():
    found = read(RAW, "client/0", KNOWN)
    assert (found.kind, found.head, found.number) == ("mail", {"a": 1}, 3)
    assert {name: bytes(body) for name, body in found.bodies.items()} == dict(SENT.bodies)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(RAW) - 1), st.integers(1, 255), st.integers(0, 40))
def test_a_changed_cut_or_longer_envelope_is_refused(at, change, cut):
    changed = bytearray(RAW)
    changed[at] ^= change
    for raw in (bytes(changed), RAW[: len(RAW) - 1 - cut], RAW + bytes(1 + cut)):
        with pytest.raises(BadEnvelope):
            read(raw, "client/0", KNOWN)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_what_somebody_signs_is_an_envelope_or_is_refused(content):
    raw = b"PFE\x01\x02" + content
    signed = raw + KEYS["server"].sign(raw)
    with pytest.raises(BadEnvelope):
        read(signed, "client/0", KNOWN)


def test_lengths_are_checked_before_anything_is_made_of_them():
    head = struct.Struct("<4sB16sQHHIH")
    for sizes in ((6, 8, 1 << 31, 0), (6, 8, 2, 65535), (65535, 8, 2, 0)):
        raw = head.pack(b"PFE\x01", 2, bytes(16), 0, *sizes) + bytes(64)
        with pytest.raises(BadEnvelope, match=r"more than one may hold|cut off"):
            read(raw, "client/0", KNOWN)
    with pytest.raises(BadEnvelope, match="are the most"):
        Envelope("mail", "server", "x", bytes(16), 0, {"a": "b" * MAX_HEAD}).write(KEYS["server"])


def test_an_envelope_to_another_or_by_a_stranger_is_refused():
    with pytest.raises(BadEnvelope, match="reached client/1"):
        read(RAW, "client/1", KNOWN)
    with pytest.raises(BadEnvelope, match="not signed by it"):
        read(SENT.write(Identity.fresh("server")), "client/0", KNOWN)


def test_vectors_travel_bit_for_bit_and_as_numbers_only():
    base = Broadcast(3, torch.randn(5), {"control": torch.randn(5, dtype=torch.float64)})
    head, bodies = model_bodies(base)
    found = read_model(3, head, bodies)
    assert found.digest == base.digest
    for kind in ("|O", "<i8", "object", None, ["<f4"]):
        with pytest.raises(BadEnvelope):
            unpacked_vector(kind, bytes(8))
    with pytest.raises(BadEnvelope, match="no vector"):
        unpacked_vector("<f4", bytes(7))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = ["run", "number", "cohort", "session", "models", "l2", "arrived", "claims"]
ANSWER = ["aborts", "refused", "notes", "samples"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_heads_that_make_no_sense_are_refused(data):
    order = RoundHead(bytes(16), 1, (0, 1), bytes(16), ("0" * 64,), 0.5, (0, ("c",)), True)
    assert RoundHead.read(order.head()) == order
    broken = order.head() | {data.draw(st.sampled_from(FIELDS)): data.draw(JUNK)}
    answer = Answer().head() | {data.draw(st.sampled_from(ANSWER)): data.draw(JUNK)}
    for kind, head in ((RoundHead.read, broken), (lambda h: Answer.read(h, "x"), answer)):
        try:
            kind(head)
        except BadEnvelope:
            continue
    with pytest.raises(BadEnvelope):
        Terms.read({"config": data.draw(JUNK.filter(lambda v: not isinstance(v, dict)))})
