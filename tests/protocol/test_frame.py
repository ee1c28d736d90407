"""The frame of ring protocols: no message is taken for one of another protocol, round or place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfl.core import RoundPlan
from privfl.crypto.frame import HEADER, FrameFormat
from privfl.crypto.primitives import fields
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.secagg import wire
from privfl.crypto.sharing import parameters as sharing
from privfl.hybrid.two_server import parameters as two_server

FORMATS = {"secagg": wire.FORMAT, "sharing": sharing.FORMAT, "two_server": two_server.FORMAT}
TAG = bytes(range(16))


def test_fields_are_aligned_behind_this_header():
    assert HEADER.size == fields.HEADER


@pytest.mark.parametrize("name", FORMATS)
def test_a_message_of_another_protocol_version_or_round_is_refused(name):
    ours = FORMATS[name]
    body = ours.write(1, 32, 5, TAG, b"a body")
    assert tuple(ours.read(body, TAG)) == (1, 32, 5, TAG, b"a body")
    for other in set(FORMATS.values()) - {ours}:
        with pytest.raises(Malformed, match="of this version"):
            other.read(body)
    with pytest.raises(Malformed, match="of this version"):
        FrameFormat(ours.magic[:3] + bytes([ours.magic[3] + 1]), ours.name).read(body)
    with pytest.raises(Malformed, match="another round"):
        ours.read(body, bytes(16))
    with pytest.raises(Malformed, match="no message"):
        ours.read(body[: HEADER.size - 1])


def test_a_client_that_claims_another_place_or_is_out_of_order_is_refused():
    plan = RoundPlan(0, (7, 8, 9), d=3, l2=1.0)
    now = sharing.parameters_of(sharing.SharingSettings(), plan)
    body = now.write(sharing.VECTOR, 1, b"share")
    assert now.sender("client/8", body, sharing.VECTOR) == (1, b"share")
    with pytest.raises(Malformed, match="another client's place"):
        now.sender("client/7", body, sharing.VECTOR)
    with pytest.raises(Malformed, match="not in the cohort"):
        now.sender("client/6", body, sharing.VECTOR)
    with pytest.raises(Malformed, match="out of order"):
        now.sender("client/8", body, sharing.SEEDS)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body):
    for ours in FORMATS.values():
        try:
            found = ours.read(body)
        except Malformed:
            continue
        assert ours.write(*found[:4], found.content) == body
