"""Boxes sealed to one receiver, each for one purpose, and letters, which are boxes bound to their
sender.
"""

from __future__ import annotations

from collections.abc import Iterable

from privfl.core import Buffer, PartyId, PartyKeys
from privfl.crypto.he.wire import Refused
from privfl.crypto.primitives import backend, seal_box
from privfl.crypto.primitives.sealed_box import BoxKey

_DOMAIN = b"privfl/he/box/1\x00"
_SEALED = b"PFS\x01"
_LETTER = b"letter of "


def seal(receiver: bytes, plain: Buffer, purpose: bytes) -> bytes:
    """Seal to the holder of an X25519 key (`crypto.primitives.seal_box`), for one purpose.

    Raises:
        Refused: that is nobody's key.

    >>> from privfl.crypto.primitives import Identity
    >>> me = Identity.fresh("client/1")
    >>> unsealed(me, seal(me.hello[32:], b"for me", b"greeting"), b"greeting")
    b'for me'
    """
    try:
        return seal_box(receiver, plain, _DOMAIN + purpose, backend())
    except ValueError:
        raise Refused("nobody can hold this public key") from None


def seal_into(receiver: bytes, plain: Iterable[Buffer], purpose: bytes, out: memoryview) -> None:
    """`seal` of a plaintext in pieces, which are asked for one after the other; written to ``out``,
    which is `OVERHEAD` bytes longer than all of them.

    Raises:
        Refused: that is nobody's key.
        ValueError: ``out`` has another length.
    """
    library = backend()
    try:
        key = BoxKey.fresh(receiver, library)
    except ValueError:
        raise Refused("nobody can hold this public key") from None
    out[:32] = key.public  # what making the pieces raises says nothing of the receiver's key
    key.seal_into(plain, _DOMAIN + purpose, library, out[32:])


def unsealed(keys: PartyKeys, box: Buffer, purpose: bytes) -> bytes:
    """What was sealed to this party.

    Raises:
        Refused: sealed to somebody else or for another purpose, or changed.
    """
    plain = keys.unseal(box, _DOMAIN + purpose)
    if plain is None:
        raise Refused("a sealed box does not open")
    return plain


def sealed_letter(receiver: bytes, plain: bytes, sender: PartyId) -> bytes:
    """A letter that its receiver alone can read: who taps the wire sees no ciphertext in it, and
    nobody can pass it off as another sender's.

    Raises:
        Refused: that is nobody's key.
    """
    return _SEALED + seal(receiver, plain, _LETTER + sender.encode("ascii"))


def is_sealed(body: Buffer) -> bool:
    """Whether this is a sealed letter."""
    return bytes(body[: len(_SEALED)]) == _SEALED


def letter(keys: PartyKeys, body: Buffer, sender: PartyId) -> bytes:
    """What is in a letter that was sealed to this party.

    Raises:
        Refused: it is no sealed letter of this sender's to this party.
    """
    if not is_sealed(body):
        raise Refused("a letter that is not sealed")
    return unsealed(keys, memoryview(body)[len(_SEALED) :], _LETTER + sender.encode("ascii"))
