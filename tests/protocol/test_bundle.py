"""Parts that travel together: frames of hostile bytes, and parts that do not touch each other."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from privfl.core import (
    Abort,
    Bundle,
    Faults,
    MalformedBundle,
    Opened,
    Total,
    drive_parts,
    pack_parts,
    unpack_parts,
)

NAMES = st.text(min_size=1, max_size=9)


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=4))
def test_what_was_packed_comes_out(bodies):
    assert {name: bytes(b) for name, b in unpack_parts(pack_parts(bodies)).items()} == bodies


@given(st.binary(max_size=80))
def test_hostile_bytes_are_refused_in_words(garbage):
    try:
        found = unpack_parts(garbage)
    except MalformedBundle:
        return
    assert pack_parts(found) == garbage


@given(st.dictionaries(NAMES, st.binary(max_size=9), min_size=1, max_size=3), st.data())
def test_a_frame_that_is_cut_or_longer_is_refused(bodies, data):
    frame = pack_parts(bodies)
    cut = data.draw(st.integers(0, len(frame) - 1))
    for other in (frame[:cut], frame + b"x"):
        with pytest.raises(MalformedBundle):
            unpack_parts(other)


class Says:
    def __init__(self, word):
        self.word, self.steps = word, 0

    def step(self, mail):
        self.steps += 1
        return {} if mail else {"server": self.word}


class Collects:
    def __init__(self, fails=False):
        self.heard, self.fails = {}, fails

    def step(self, mail):
        if mail and self.fails:
            raise Abort("too little", blamed="client/1")
        self.heard |= {who: bytes(body) for who, body in mail.items()}
        return {}

    @property
    def result(self):
        names = tuple(int(who[7:]) for who in self.heard)
        return Opened(Total(torch.zeros(1), 1.0, len(names)), names) if names else None


def test_a_part_without_mail_is_not_begun_again():
    silent = Says(b"")
    bundle = Bundle({"a": silent, "b": Says(b"early")})
    bundle.step({})
    assert bundle.step({"client/0": pack_parts({"b": b""})}) == {}
    assert silent.steps == 1


def test_an_abort_ends_its_part_alone_and_garbage_excludes_its_sender_from_all():
    openers = {"a": Collects(), "b": Collects(fails=True)}
    clients = {
        f"client/{i}": {part: Says(f"{part}{i}".encode()) for part in openers} for i in range(3)
    }
    carried = drive_parts(
        openers, clients, Faults(malformed={"client/2": lambda body: body[:-1]}), keep_bodies=True
    )
    assert openers["a"].heard == {"client/0": b"a0", "client/1": b"a1"}
    assert carried.opened["a"].survivors == (0, 1)
    assert carried.opened["b"] is None
    assert carried.aborts["b"]["server"].blamed == "client/1"
    assert not carried.aborts["a"]
    seen = carried.received(["server"], "b")["server"][0]
    assert {who: bytes(body) for who, body in seen.items()} == {
        "client/0": b"b0",
        "client/1": b"b1",
    }
    assert carried.bytes_sent() == sum(m.size for m in carried.messages)


def test_a_liars_crash_ends_its_part_and_an_honest_partys_is_shown():
    class Broken(Says):
        def step(self, mail):
            raise KeyError("oops")

    clients = {"client/0": {"a": Says(b"x"), "b": Says(b"y")}}
    faults = Faults(byzantine={"client/0": lambda honest: Broken(b"")})
    carried = drive_parts({"a": Collects(), "b": Collects()}, clients, faults)
    assert "own code failed" in str(carried.aborts["a"]["client/0"])
    with pytest.raises(KeyError):
        drive_parts(
            {"a": Collects(), "b": Collects()}, {"client/0": {"a": Broken(b""), "b": Says(b"")}}
        )
