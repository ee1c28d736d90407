"""Putting members and parties to rest: the one way in which secrets leave memory.

A network engine may start a process per message, so what a party remembers must survive between
messages. Everything that holds secrets inherits `KeepsSecrets`: pickling, copying, printing it or
making a dictionary of it by accident is refused. `seal_state` writes it down under a key of that
machine (AES-256-GCM, fresh random nonce); `unseal_state` reads it back, and refuses what that key
did not seal. What a party has on loan (`Lent`: the directory of identities) does not sleep with it
and is handed in again.
"""

from __future__ import annotations

import inspect
import io
import pickle
import secrets
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privfl.core.errors import PrivflError, SecretsStay

T = TypeVar("T")
_MAGIC = b"privfl-rest-3"
_LENT = "lent"


def _refuse(name: str) -> NoReturn:
    raise SecretsStay(
        f"{name} holds secrets and does not serialise; use privfl.core.seal_state with a key of"
        " this machine."
    )


class _Stays:
    """A field's value that cannot be copied: `dataclasses.asdict` and `astuple` copy every field
    that is no container and no dataclass, and ask the object itself for nothing that could refuse.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __copy__(self) -> NoReturn:
        _refuse(self.name)

    def __deepcopy__(self, memo: object) -> NoReturn:
        _refuse(self.name)


class KeepsSecrets:
    """Base of everything that holds secrets: it does not serialise, and its repr shows nothing.

    A dataclass that inherits it gets one more field, the first, which is no argument, is not
    compared and cannot be copied, so that ``dataclasses.asdict`` and ``astuple`` refuse too.

    >>> class Key(KeepsSecrets):
    ...     def __init__(self) -> None:
    ...         self.secret = 7
    >>> Key()
    <Key: holds secrets>
    >>> import pickle
    >>> pickle.dumps(Key())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    privfl.core.errors.SecretsStay: Key holds secrets and does not serialise; use ...
    """

    __slots__ = ()

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        if "__dataclass_fields__" in cls.__dict__:  # the second making of a class with slots
            return
        cls.__annotations__ = {"_stays": _Stays, **inspect.get_annotations(cls)}
        stays: Any = field(default=_Stays(cls.__name__), init=False, repr=False, compare=False)
        type.__setattr__(cls, "_stays", stays)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: holds secrets>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        _refuse(type(self).__name__)


@dataclass(frozen=True, slots=True, repr=False)
class SealedState:
    """A party or member at rest, encrypted and authenticated: safe to write to a disk that others
    read.
    """

    body: bytes

    def __repr__(self) -> str:
        return f"<SealedState: {len(self.body)} bytes>"


class Lent:
    """Base of what a party holds and does not own: it is left out at rest, and handed in, as it is
    then, at waking.

    A directory of identities is lent. A copy of it would miss everybody who enrolled, and keep
    everybody who was struck out, while its holder slept.
    """

    __slots__ = ()


class StateKey(KeepsSecrets):
    """The key of one machine under which its parties sleep.

    Raises:
        PrivflError: the key has not 32 bytes.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes | None = None) -> None:
        self._key = secrets.token_bytes(32) if key is None else key
        if len(self._key) != 32:
            raise PrivflError(f"a rest key has 32 bytes, and this has {len(self._key)}.")

    def _cipher(self) -> AESGCM:
        return AESGCM(self._key)


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> str | None:
        return _LENT if isinstance(obj, Lent) else None

    def reducer_override(self, obj: object) -> Any:
        if isinstance(obj, KeepsSecrets):  # the plain protocol-2 way, past the class's own refusal
            return object.__reduce_ex__(obj, 4)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    lent: Lent | None = None

    def persistent_load(self, pid: Any) -> Lent:
        if self.lent is None:
            raise PrivflError(
                "this party sleeps without the directory of identities: hand in the one of now,"
                " unseal_state(..., lent=directory)."
            )
        return self.lent


def seal_state(awake: object, key: StateKey) -> SealedState:
    """Write a party or member down under this machine's key, without what it has on loan.

    Raises:
        PrivflError: it holds a lambda or a local function, as a rule may: these have no name under
            which another process finds them.
    """
    plain = io.BytesIO()
    try:
        _Pickler(plain, protocol=5).dump(awake)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise PrivflError(
            f"a {type(awake).__name__} cannot be put to rest: {error}. If its rule or another part"
            " holds a lambda or a local function, give it a function of a module, or an object of a"
            " class with __call__."
        ) from error
    nonce = secrets.token_bytes(12)
    return SealedState(_MAGIC + nonce + key._cipher().encrypt(nonce, plain.getvalue(), _MAGIC))


def unseal_state(
    sealed: SealedState, key: StateKey, kind: type[T], *, lent: Lent | None = None
) -> T:
    """Read a party or member back.

    Args:
        sealed: what `seal_state` wrote.
        key: the key of this machine.
        kind: what it must be.
        lent: what it had on loan when it went to rest, as it is now: the directory.

    Raises:
        PrivflError: another key sealed it, it was changed, it is not a ``kind``, or it had
            something on loan that is not handed in.

    >>> key = StateKey()
    >>> unseal_state(seal_state([1, 2], key), key, list)
    [1, 2]
    """
    head = len(_MAGIC)
    if sealed.body[:head] != _MAGIC:
        raise PrivflError("these bytes are no sealed party of this version.")
    nonce, body = sealed.body[head : head + 12], sealed.body[head + 12 :]
    try:
        plain = key._cipher().decrypt(nonce, body, _MAGIC)
    except InvalidTag:
        raise PrivflError(
            "a sealed party was changed, or another machine's key sealed it."
        ) from None
    reader = _Unpickler(io.BytesIO(plain))  # authenticated: only the holder of the key wrote it
    reader.lent = lent
    awake = reader.load()
    if not isinstance(awake, kind):
        raise PrivflError(f"a sealed {type(awake).__name__} is no {kind.__name__}.")
    return awake
