"""Who a party is: an Ed25519 key to sign with and an X25519 key to be sent sealed boxes, in memory
and on disk.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from privfl.core import Buffer, ConfigError, KeepsSecrets, PartyId
from privfl.crypto.primitives import private_file
from privfl.crypto.primitives.backend import backend
from privfl.crypto.primitives.hkdf import derive
from privfl.crypto.primitives.sealed_box import open_box
from privfl.crypto.primitives.weak_keys import forgeable, unusable

_MAGIC = b"privfl-identity-1\n"
_RAW, _SEALED = b"r", b"s"
_BODY = struct.Struct("<32s32s")
_SALT = 16
_LOG_N = 15


def refuse_box(key: bytes) -> None:
    """Refuse a public X25519 key that nothing can be sealed to.

    Raises:
        ConfigError: it has not 32 bytes, or is a point of small order.
    """
    _refuse_length(key, "X25519")
    if unusable(key):
        raise ConfigError(
            f"the box key {key.hex()} is a point of small order, to which nothing can be sealed:"
            " make another identity."
        )


def refuse_signing(key: bytes) -> None:
    """Refuse a public Ed25519 key for which anybody can sign: whoever has one could say of each of
    its signatures that it was somebody else's.

    Raises:
        ConfigError: it has not 32 bytes, or is a point of small order.
    """
    _refuse_length(key, "Ed25519")
    if forgeable(key):
        raise ConfigError(
            f"the signing key {key.hex()} is a point of small order, for which anybody can sign:"
            " make another identity."
        )


def _refuse_length(key: bytes, kind: str) -> None:
    if len(key) != 32:
        raise ConfigError(f"a public key of {len(key)} bytes, where {kind} has 32.")


@dataclass(frozen=True, slots=True)
class Public:
    """What the others must know of a party: the key that its signatures are checked with, and the
    key that boxes for it are sealed to, 32 bytes each.

    Raises:
        ConfigError: a key of another length, a box key with which nobody can agree on a secret, or
            a signing key for which anybody can sign (points of small order).

    >>> Public.from_bytes(Identity.fresh("client/1").public.to_bytes()).to_bytes()[64:]
    b''
    """

    signing: bytes
    box: bytes

    def __post_init__(self) -> None:
        refuse_signing(self.signing)
        refuse_box(self.box)

    def to_bytes(self) -> bytes:
        """Both keys, 64 bytes."""
        return self.signing + self.box

    @classmethod
    def from_bytes(cls, both: bytes) -> Public:
        """What `to_bytes` wrote; raises as the class does."""
        return cls(both[:32], both[32:])


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Identity(KeepsSecrets):
    """One party's secret keys: the seed of an Ed25519 signing key and an X25519 scalar, 32 bytes
    each.

    ``who`` is the party's name: letters are signed in it. ``public`` are the public halves, which a
    directory holds. One identity serves for everything that its party signs and is sent sealed:
    mail (`crypto.post`) and what a channel's own protocol signs and seals; each use has a context
    of its own, so that nothing made for one passes for another. It holds bytes and no key objects,
    so that a party with its identity can be put to rest (`core.seal_state`).

    >>> me = Identity.fresh("client/1")
    >>> me
    <Identity: holds secrets>
    >>> backend().verify(me.public.signing, b"hello", me.sign(b"hello"))
    True
    """

    who: PartyId
    signing: bytes
    box: bytes
    _public: Public | None = field(default=None, init=False)

    @property
    def public(self) -> Public:
        """The public halves, computed when somebody first asks."""
        if self._public is None:
            library = backend()
            public = Public(library.ed25519_public(self.signing), library.x25519_public(self.box))
            object.__setattr__(self, "_public", public)
            return public
        return self._public

    @property
    def hello(self) -> bytes:
        """`public` as bytes [64]."""
        return self.public.to_bytes()

    @classmethod
    def fresh(cls, who: PartyId) -> Identity:
        """New keys from the operating system."""
        return cls(who, secrets.token_bytes(32), secrets.token_bytes(32))

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature [64 bytes] (RFC 8032)."""
        return backend().sign(self.signing, data)

    def unseal(self, box: Buffer, context: bytes) -> bytes | None:
        """What was sealed to this party in this context (`seal_box`), or None."""
        return open_box(self.box, box, context, backend(), self.public.box)

    def sharing(self, context: bytes) -> Callable[[bytes], bytes]:
        """Box key -> what only this party and its holder can compute [32 bytes]: the agreement of
        two lasting X25519 keys, in a context of its own; for any number of others, because a key
        takes as long to read as to use. It raises ValueError for a point of small order.

        >>> one, two = Identity.fresh("client/1"), Identity.fresh("client/2")
        >>> one.sharing(b"x")(two.public.box) == two.sharing(b"x")(one.public.box)
        True
        """
        agree = backend().agreement(self.box)
        return lambda box: derive(agree(box), context, "lasting pair")

    def write(self, path: Path, passphrase: str | None = None) -> None:
        """Write the keys to a new file that only its owner can read (mode 0600).

        Without a passphrase the keys lie in the file as they are: whoever reads the file (root, a
        backup, a copied disk) can speak as this party and read its mail. With one they are sealed
        (AES-256-GCM under scrypt, N = 2^15, r = 8, p = 1; RFC 7914): a copied file then is worth as
        much as the passphrase is hard to guess, and a node needs the passphrase at every start.

        Raises:
            ConfigError: the file exists: a key is never overwritten.
        """
        body = _BODY.pack(self.signing, self.box)
        name = self.who.encode()
        head = _MAGIC + (_RAW if passphrase is None else _SEALED)
        head += len(name).to_bytes(2, "little") + name
        if passphrase is not None:
            salt = secrets.token_bytes(_SALT)
            body = salt + backend().seal(_stretched(passphrase, salt), bytes(12), body, head)
        private_file.write(path, head + body)

    @classmethod
    def read(cls, path: Path, passphrase: str | None = None) -> Identity:
        """Read what `write` wrote.

        Raises:
            ConfigError: there is no such file, others than its owner may read it, it holds no
                identity of this version, or it is sealed under another passphrase.
        """
        try:
            content = private_file.read(path)
        except OSError as error:
            raise ConfigError(
                f"cannot read the identity {path}: {error.strerror or error}."
            ) from None
        return cls._parsed(content, path, passphrase)

    @classmethod
    def _parsed(cls, content: bytes, path: Path, passphrase: str | None) -> Identity:
        start = len(_MAGIC) + 3
        kind, length = content[len(_MAGIC) : start - 2], content[start - 2 : start]
        end = start + int.from_bytes(length, "little")
        head, name, body = content[:end], content[start:end], content[end:]
        sealed = kind == _SEALED
        due = _BODY.size + (_SALT + 16 if sealed else 0)
        if not content.startswith(_MAGIC) or kind not in (_RAW, _SEALED) or len(body) != due:
            raise ConfigError(f"key file {path} holds no identity of this version.")
        if sealed and passphrase is None:
            raise ConfigError(f"the identity {path} is sealed: give its passphrase.")
        if not sealed and passphrase is not None:
            raise ConfigError(
                f"the identity {path} is not sealed, and a passphrase was given: leave it out, or"
                " name the sealed file."
            )
        plain: bytes | None = body
        if sealed and passphrase is not None:
            salt, box = body[:_SALT], body[_SALT:]
            plain = backend().unseal(_stretched(passphrase, salt), bytes(12), box, head)
        if plain is None:
            raise ConfigError(
                f"the identity {path} does not open: another passphrase, or a changed file."
            )
        try:
            return cls(name.decode(), *_BODY.unpack(plain))
        except UnicodeDecodeError:
            raise ConfigError(f"key file {path} holds no identity of this version.") from None


def _stretched(passphrase: str, salt: bytes) -> bytes:
    """A key that seals once: the salt is fresh."""
    return hashlib.scrypt(
        passphrase.encode(), salt=salt, n=1 << _LOG_N, r=8, p=1, maxmem=1 << 26, dklen=32
    )
