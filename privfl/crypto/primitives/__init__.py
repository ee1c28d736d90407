"""The cryptographic primitives that channels share: one face over two libraries, key derivation,
keystreams, sealed boxes, identities.
"""

from privfl.crypto.primitives.backend import Backend, BackendName, Keystream, backend
from privfl.crypto.primitives.directory import Directory
from privfl.crypto.primitives.hkdf import derive, expand, extract
from privfl.crypto.primitives.identity import Identity, Public
from privfl.crypto.primitives.letter_keys import LetterKeys
from privfl.crypto.primitives.sealed_box import (
    open_box,
    open_one,
    seal_box,
    seal_to,
)
from privfl.crypto.primitives.stream import Words, fresh_words, keystream_words, mask

__all__ = [
    "Backend",
    "BackendName",
    "Directory",
    "Identity",
    "Keystream",
    "LetterKeys",
    "Public",
    "Words",
    "backend",
    "derive",
    "expand",
    "extract",
    "fresh_words",
    "keystream_words",
    "mask",
    "open_box",
    "open_one",
    "seal_box",
    "seal_to",
]
