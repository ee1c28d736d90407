"""Who takes part in a protocol: parties that exchange bytes, and members that last between
rounds.
"""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

from privfl.core.errors import PrivflError
from privfl.core.opened import Opened
from privfl.core.types import Mail, PartyId
from privfl.core.update import Bounded, RoundPlan

O_co = TypeVar("O_co", covariant=True)


class Abort(PrivflError):
    """A party gives up. ``blamed``: whose message it could not accept, or None. ``letter_of``: in
    whose name the letter came that it could not accept, where nothing but that name says who wrote
    it: it convicts nobody, because whoever carries bare mail can write any.
    """

    def __init__(
        self, why: str, blamed: PartyId | None = None, letter_of: PartyId | None = None
    ) -> None:
        super().__init__(why)
        self.blamed = blamed
        self.letter_of = letter_of

    def convict(self) -> None:
        """Every letter was signed (`crypto.post`): it is by whoever it names.

        >>> abort = Abort("a letter in the name of dealer is none", letter_of="dealer")
        >>> abort.blamed
        >>> abort.convict()
        >>> abort.blamed
        'dealer'
        """
        self.blamed = self.blamed or self.letter_of


@runtime_checkable
class Party(Protocol):
    """One party's part in one protocol run: called with empty mail at the start, then whenever it
    has mail.

    It does no input or output of its own. It raises `Abort`, naming whom it blames, where going on
    would be unsafe; mail that it merely cannot use it ignores, which excludes the sender.
    """

    def step(self, mail: Mail) -> Mail:
        """Take what came, by sender, and answer what goes out, by receiver."""
        ...


@runtime_checkable
class Opener(Party, Protocol[O_co]):
    """A party that learns the outcome."""

    @property
    def result(self) -> Opened[O_co] | None:
        """What was opened, once it was."""
        ...


@runtime_checkable
class Member(Protocol):
    """What ONE party keeps between rounds on its own machine: identity key, key shares, the public
    keys of the others.
    """

    def set_up(self) -> Party:
        """Its part in key generation and agreement: once a session, driven like a round."""
        ...


@runtime_checkable
class ClientMember(Member, Protocol):
    """A client between rounds."""

    def enter(self, plan: RoundPlan, update: Bounded) -> Party:
        """Its part in one round, with its bounded update."""
        ...


@runtime_checkable
class ServerMember(Member, Protocol[O_co]):
    """The server between rounds."""

    def enter(self, plan: RoundPlan) -> Opener[O_co]:
        """Its part in one round."""
        ...


@runtime_checkable
class HelperMember(Member, Protocol):
    """A second server, a decryptor, a dealer, between rounds."""

    def enter(self, plan: RoundPlan) -> Party:
        """Its part in one round."""
        ...


class Silent:
    """A party with nothing to say, such as a key set-up that needs no keys."""

    def step(self, mail: Mail) -> Mail:
        """Nothing."""
        return {}
