"""What a run remembers between rounds: explicit data that goes into a round and comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from privfl.core import Broadcast, ClientId, ClientState, Ledger, Released, Vector
from privfl.engine.pace import Clock


@dataclass(frozen=True, slots=True)
class RunState:
    """All of it, without keys: a resumed run sets up a new session, and since sums are exact its
    numbers stay.

    ``round`` is the number of the next round, ``parameters`` the model [d], ``last`` the last
    change [d], ``released`` what left last of each part. ``rules`` is the rule's memory by part,
    ``seats`` the server-side defences' by position, ``client_seats`` the client-side ones' by
    position and client; ``attacks`` the attackers', by position and by the first client of a team;
    ``arrived`` is, by client, the last round whose extra vectors of it are in the model, and which:
    clients elsewhere are told with the next model. ``bound`` is where an adaptive L2 bound has got
    to, ``name`` [16 bytes] under what clients elsewhere keep what they remember of the run (empty
    where they are here). ``executor`` is the way of training that was picked, and is used again.
    """

    round: int
    parameters: Vector
    executor: str
    method: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    rules: Mapping[str, Any] = field(default_factory=dict)
    seats: Mapping[int, Any] = field(default_factory=dict)
    client_seats: Mapping[int, Mapping[ClientId, Any]] = field(default_factory=dict)
    clients: Mapping[ClientId, ClientState] = field(default_factory=dict)
    attacks: Mapping[int, Mapping[ClientId, Any]] = field(default_factory=dict)
    last: Vector | None = None
    released: Mapping[str, Released] = field(default_factory=dict)
    arrived: Mapping[ClientId, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    name: bytes = b""
    bound: float | None = None
    ledger: Ledger = field(default_factory=Ledger)
    clock: Clock = Clock()
    versions: Mapping[int, Broadcast] = field(default_factory=dict)
