"""Public keys that protect nobody get into no directory, whichever way they are entered."""

import pytest

from privfl.core import ConfigError
from privfl.crypto.primitives import Directory, Identity, Public, backend
from privfl.crypto.primitives.ladder import P
from privfl.crypto.primitives.weak_keys import forgeable, unusable

ONE = (1).to_bytes(32, "little")
EIGHT = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
SMALL = {
    "the neutral element": ONE,
    "it, in another encoding": (P + 1).to_bytes(32, "little"),
    "it, with the other sign": (1 + (1 << 255)).to_bytes(32, "little"),
    "order 2": (P - 1).to_bytes(32, "little"),
    "order 4": bytes(32),
    "order 8": EIGHT,
    "order 8, the other": ((P - int.from_bytes(EIGHT, "little")) % P).to_bytes(32, "little"),
}
GOOD = Identity.fresh("client/1").public


@pytest.mark.parametrize("key", SMALL.values(), ids=SMALL)
def test_for_a_signing_key_of_small_order_anybody_signs(key):
    """One signature (R neutral, S zero) is good for a part of all messages: why such a key is
    refused.
    """
    verify = backend("cryptography").verify
    assert any(verify(key, bytes([i]), ONE + bytes(32)) for i in range(100))
    assert not any(verify(GOOD.signing, bytes([i]), ONE + bytes(32)) for i in range(100))


@pytest.mark.parametrize("key", SMALL.values(), ids=SMALL)
def test_a_signing_key_of_small_order_enters_no_directory(key, tmp_path):
    path = tmp_path / "directory.json"
    entry = f'{{"client/1": {{"signing": ["{key.hex()}"], "sealing": []}}}}'
    path.write_text(f'{{"format": "privfl/directory/1", "parties": {entry}}}')
    ways = [
        lambda: Public(key, GOOD.box),
        lambda: Public.from_bytes(key + GOOD.box),
        lambda: Directory({"client/1": [key]}),
        lambda: Directory().enrol("client/1", signing=key),
        lambda: Directory.read(path),
    ]
    for enter in ways:
        with pytest.raises(ConfigError, match="anybody can sign"):
            enter()


@pytest.mark.parametrize("u", [0, 1, P - 1, P, P + 1, 1 << 255, (1 << 255) + 1])
def test_a_box_key_of_small_order_enters_no_directory(u):
    """One that did would stop every party that seals to it."""
    key = u.to_bytes(32, "little")
    with pytest.raises(ValueError, match=r".*"):
        backend().agreement(b"k" * 32)(key)
    for enter in (
        lambda: Public(GOOD.signing, key),
        lambda: Directory(None, {"client/1": [key]}),
        lambda: Directory().enrol("client/1", sealing=key),
    ):
        with pytest.raises(ConfigError, match="small order"):
            enter()


def test_keys_that_are_drawn_are_not_taken_for_weak_ones():
    for _ in range(50):
        public = Identity.fresh("client/1").public
        assert not forgeable(public.signing)
        assert not unusable(public.box)
