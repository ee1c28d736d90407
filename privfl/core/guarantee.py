"""What a channel, a hybrid or a mechanism promises, as data from which every sentence is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from privfl.core.protocol import Party
from privfl.core.types import PartyId

Power: TypeAlias = Literal["nothing", "abort", "choose", "shift", "read"]
"""What a lie can do, from least to most: nothing (the liar's own contribution aside), end the
round, choose among the declared functions (whose contributions count), shift the result, or read
what the liar must not read.
"""


@dataclass(frozen=True, slots=True)
class Lie:
    """One way to lie: who, what it does in words, the most that it can do, and the lie itself.

    ``how`` takes the honest party and returns the one that lies in its place: a contract test plays
    it through the real parties and measures that it can do what ``can`` says, and no more.
    """

    who: PartyId
    can: Power
    does: str
    how: Callable[[Party], Party] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Guarantee:
    """Who may collude, who may lie and what the lie can do, what leaks, what is assumed.

    ``reads``: the least coalitions that read a single update (a party that holds keys and one that
    holds mail, say); any smaller coalition reads no more than the result and what leaks. ``leaks``:
    what is shown beside the result, by name. ``assumes``: what must hold, in words.

    >>> Guarantee((frozenset({"server"}),), (), ("everything",), ("nothing",)).describe()
    'Single updates are read by server. Leaks: everything. Assumes: nothing.'
    """

    reads: tuple[frozenset[PartyId], ...]
    lies: tuple[Lie, ...]
    leaks: tuple[str, ...]
    assumes: tuple[str, ...]

    def describe(self) -> str:
        """The guarantee in sentences."""
        coalitions = [" with ".join(sorted(coalition)) for coalition in self.reads]
        said = [f"Single updates are read by {' or by '.join(coalitions) or 'nobody'}."]
        said += [
            f"{lie.who} may lie: one that {lie.does} can {_DOES[lie.can]}." for lie in self.lies
        ]
        said.append(f"Leaks: {', '.join(self.leaks) or 'nothing'}.")
        said.append(f"Assumes: {', '.join(self.assumes) or 'nothing'}.")
        return " ".join(said)


_DOES: dict[Power, str] = {
    "nothing": "do nothing to the others",
    "abort": "end the round",
    "choose": "choose whose contributions count",
    "shift": "shift the result",
    "read": "read what it must not",
}
