"""The names of the small things: vectors, ids, mail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from torch import Tensor

Vector: TypeAlias = Tensor
"""A 1-D tensor, float32 unless said otherwise."""
ClientId: TypeAlias = int
PartyId: TypeAlias = str
"""`client/7`, `server`, `server/1`, `decryptor/0`, `dealer`."""
Buffer: TypeAlias = bytes | bytearray | memoryview
"""What a party hands over. The plain channel hands out views of the update matrix: nothing is
copied.
"""
Mail: TypeAlias = Mapping[PartyId, Buffer]
"""One exchange at one party: by sender when it is received, by receiver when it is sent."""
Received: TypeAlias = Mapping[PartyId, Sequence[Mail]]
"""All that each party was handed, exchange by exchange."""
NeighbourRelation: TypeAlias = Literal["add_remove", "replace_one", "zero_out"]
"""What two neighbouring data sets (or cohorts) differ in."""
Unit: TypeAlias = Literal["sample", "client", "user"]
"""Whose privacy an event is about: a sample's, a client's with all its data, or a person's, who may
have several samples and be at several clients.
"""


def client_party(client: ClientId) -> PartyId:
    """The party that acts for a client.

    >>> client_party(7)
    'client/7'
    """
    return f"client/{client}"


def client_of(party: PartyId) -> ClientId | None:
    """The client that a party acts for, or None where it is a server or a helper.

    >>> client_of("client/7"), client_of("server"), client_of("client/x")
    (7, None, None)
    """
    kind, _, number = party.partition("/")
    return int(number) if kind == "client" and number.isascii() and number.isdigit() else None
