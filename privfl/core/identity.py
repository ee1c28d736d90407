"""What a channel asks of a party's keys on disk and of the directory of everybody's public keys.

`crypto.primitives.Identity` and `crypto.primitives.Directory` are these; channels of other packages
name these protocols, so that they need not import them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from privfl.core.errors import ConfigError
from privfl.core.types import Buffer, PartyId


@runtime_checkable
class PartyKeys(Protocol):
    """The secret keys of ONE party: Ed25519 to sign with, X25519 to be sent sealed boxes."""

    @property
    def who(self) -> PartyId:
        """Whose keys they are."""
        ...

    @property
    def hello(self) -> bytes:
        """The public halves [64 bytes]: the key that signatures are checked with, then the one that
        boxes are sealed to.
        """
        ...

    def sign(self, data: bytes) -> bytes:
        """A signature [64 bytes]."""
        ...

    def unseal(self, box: Buffer, context: bytes) -> bytes | None:
        """What was sealed to this party in this context, or None."""
        ...

    def sharing(self, context: bytes) -> Callable[[bytes], bytes]:
        """Box key -> what only this party and its holder can compute [32 bytes], in this context.
        It raises ValueError where the key is a point of small order.
        """
        ...


@runtime_checkable
class KnownKeys(Protocol):
    """Who is who: the public keys of parties, the newest last."""

    def keys(self, who: PartyId) -> tuple[bytes, ...]:
        """The keys [32 bytes] that may sign for a party; none of a stranger's."""
        ...

    def boxes(self, who: PartyId) -> tuple[bytes, ...]:
        """The keys [32 bytes] to which boxes for a party are sealed; none for a stranger."""
        ...


def refuse_others_keys(who: PartyId, identity: PartyKeys) -> None:
    """Refuse to make a party from the keys of another one.

    Raises:
        ConfigError: they are another party's.
    """
    if identity.who != who:
        raise ConfigError(
            f"{who} cannot be made from the keys of {identity.who}: read the identity of {who}."
        )


def no_helper(channel: str, who: PartyId, helpers: tuple[PartyId, ...]) -> ConfigError:
    """What to raise where a channel has no helper of that name.

    >>> print(no_helper("plain", "dealer", ()))
    plain has no helper 'dealer': it has none.
    """
    return ConfigError(
        f"{channel} has no helper '{who}': it has {', '.join(helpers) if helpers else 'none'}."
    )
