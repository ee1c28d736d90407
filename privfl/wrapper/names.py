"""Clients by whatever their owner calls them: parties know numbers, and reports say the names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable, Iterable, Mapping
from numbers import Integral
from typing import Any
from uuid import UUID

import numpy as np

from privfl.core import BadUpdate, ClientId, ConfigError, PartyId, client_of

OWN = 1 << 31
"""Whole numbers from 0 to below this stand for themselves, so a ledger reads as its owner expects;
every other name has a number from here to 2^53, which JSON holds exactly.
"""
_SPAN = (1 << 53) - OWN
_SAID = re.compile(r"\bclient([ /])(\d{10,16})\b")


class Names:
    """Which number stands for which client, and back.

    The number of a name is a hash of it, so that it is the same in every process: a ledger that
    outlives this one charges the same client. Names that Python holds for equal (1 and 1.0) are one
    client. A name of a kind of its own (an object) has a number that lasts as long as this.

    >>> names = Names()
    >>> names.numbers([3, "St. Mary", -1])[0], names.name(names.number("St. Mary"))
    (3, 'St. Mary')
    """

    def __init__(self) -> None:
        self._numbers: dict[Hashable, ClientId] = {}
        self._names: dict[ClientId, Hashable] = {}
        self._own = 0

    def number(self, name: Any) -> ClientId:
        """The number of a name.

        Raises:
            BadUpdate: a name that is not equal to itself (NaN, as a table has for a missing one),
                or with such a part, or that cannot be hashed.
            ConfigError: another name has the same number.
        """
        try:
            known = self._numbers.get(name)
        except TypeError:
            raise BadUpdate(
                f"client {name!r}: a name is hashable, as strings, numbers and tuples are, and this"
                f" is a {type(name).__name__}."
            ) from None
        if known is not None:
            return known
        if not _is_itself(name):
            raise BadUpdate(
                f"client {name!r}: this name is not equal to itself, so nobody can say whose the"
                " update is: give clients without a name one, or leave them out."
            )
        number = self._fresh(name)
        other = self._names.setdefault(number, name)
        if other is not name:
            raise ConfigError(
                f"clients {other!r} and {name!r} have the same number inside: rename one of them."
            )
        self._numbers[name] = number
        return number

    def _fresh(self, name: Hashable) -> ClientId:
        whole = _whole(name)
        if whole is not None and 0 <= whole < OWN:
            return whole
        written = _written(name)
        if written is None:
            self._own += 1
            written = ["own", self._own]
        said = b"privfl/1/client/" + json.dumps(written).encode()
        digest = hashlib.blake2b(said, digest_size=8).digest()
        return OWN + int.from_bytes(digest, "little") % _SPAN

    def numbers(self, names: Iterable[Any]) -> tuple[ClientId, ...]:
        """The numbers of names, in their order."""
        return tuple(self.number(name) for name in names)

    def name(self, number: ClientId) -> Any:
        """The name that a number stands for; the number itself where it stands for none."""
        return self._names.get(number, number)

    def party(self, party: PartyId) -> PartyId:
        """The party of a client with the client's name in it."""
        number = client_of(party)
        return party if number is None else f"client/{self.name(number)}"

    def said(self, text: str) -> str:
        """A sentence with names in place of numbers."""
        return _SAID.sub(lambda found: f"client{found[1]}{self.name(int(found[2]))}", text)

    @property
    def known(self) -> Mapping[Any, ClientId]:
        """The number of every name so far."""
        return dict(self._numbers)

    def to_json(self) -> list[Any]:
        """All names as plain data, but those that end with this process."""
        return [written for written in map(_written, self._numbers) if written is not None]

    def take(self, written: Iterable[Any]) -> None:
        """Know these names too, which `to_json` wrote.

        Raises:
            ValueError: it wrote no such thing.
        """
        for one in written:
            self.number(_read(one))

    def require_lasting(self, what: str) -> None:
        """Refuse names whose numbers end with this process.

        Raises:
            ConfigError: ``what``, which outlives it, would charge somebody else the next time.
        """
        for name in self._numbers:
            if _written(name) is None:
                raise ConfigError(
                    f"client {name!r}: {what} outlives this process, and a name of type"
                    f" {type(name).__name__} does not: give a string or a number in its place."
                )


def _is_itself(name: Any) -> bool:
    if isinstance(name, tuple):  # which Python holds for equal where a part is the same object
        return all(map(_is_itself, name))
    try:
        return bool(name == name)  # noqa: PLR0124  NaN is not
    except TypeError:  # a table's missing value, which is neither equal nor not
        return False


def _whole(name: Any) -> int | None:
    """A name that is a whole number, of whatever type."""
    if isinstance(name, Integral):
        return int(name)
    if isinstance(name, float | np.floating) and float(name) == name and float(name).is_integer():
        return int(name)
    return None


def _written(name: Any) -> Any:
    """A name as plain data that is the same in every process, and another's for no other name; None
    for a kind of which that is not known.
    """
    whole = _whole(name)
    if whole is not None:
        return ["whole", whole]
    match name:
        case float() | np.floating() if float(name) == name:
            return ["float", float(name).hex()]
        case str():  # an Enum of text says another text of itself, and is equal to this one
            text = str.__str__(name)
            return ["text", text] if name == text and hash(name) == hash(text) else None
        case bytes():
            plain = bytes(name)
            return ["bytes", plain.hex()] if name == plain and hash(name) == hash(plain) else None
        case UUID():
            return ["uuid", str(name)]
        case None:
            return ["none"]
        case tuple():
            parts = [_written(part) for part in name]
            return None if None in parts else ["tuple", *parts]
        case _:
            return None


def _read(written: Any) -> Any:
    """The name that `_written` wrote.

    Raises:
        ValueError: it wrote no such thing.
    """
    match written:
        case ["whole", int(whole)]:
            return whole
        case ["float", str(digits)]:
            return float.fromhex(digits)
        case ["text", str(text)]:
            return text
        case ["bytes", str(digits)]:
            return bytes.fromhex(digits)
        case ["uuid", str(text)]:
            return UUID(text)
        case ["none"]:
            return None
        case ["tuple", *parts]:
            return tuple(_read(part) for part in parts)
        case _:
            raise ValueError(f"{written!r} is no name")
