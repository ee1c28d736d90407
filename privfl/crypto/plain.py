"""The plain channel: every update travels in clear, and the server reads every row."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch

from privfl.core import (
    FRAME_ROOM,
    Able,
    Bounded,
    Buffer,
    ChannelKind,
    ClientId,
    Coalition,
    Guarantee,
    HelperMember,
    KnownKeys,
    Liars,
    Mail,
    Member,
    Opened,
    Party,
    PartyId,
    PartyKeys,
    Received,
    RoundPlan,
    Rows,
    ServerMember,
    Silent,
    Total,
    client_of,
    no_helper,
    norm,
)
from privfl.core.streaming import add_row
from privfl.crypto import lies

_HEADER = struct.Struct("<4sIQQd")
"""Magic and version, CRC-32 of the part's name, round, d, weight: FRAME_ROOM bytes in front of d
little-endian float32.
"""
_MAGIC = b"PFL\x01"
_SLACK = 1e-5


class _Refused(Exception):
    pass


def _header(plan: RoundPlan, weight: float) -> bytes:
    return _HEADER.pack(_MAGIC, zlib.crc32(plan.part.encode()), plan.number, plan.d, weight)


def _read(body: Buffer, plan: RoundPlan | None = None) -> tuple[torch.Tensor, float]:
    """The vector (a view of a body that can be written, or a copy) and its weight; with a plan,
    only if they belong to it.
    """
    if len(body) < FRAME_ROOM:
        raise _Refused(f"{len(body)} bytes are no message")
    magic, part, number, d, weight = _HEADER.unpack_from(body)
    if magic != _MAGIC:
        raise _Refused("not a plain update of this version")
    if len(body) != FRAME_ROOM + 4 * d:
        raise _Refused(f"{len(body)} bytes where {FRAME_ROOM + 4 * d} were announced")
    if plan is not None:
        if (part, number) != (zlib.crc32(plan.part.encode()), plan.number):
            raise _Refused(
                f"a message for round {number}, not for round {plan.number}, part '{plan.part}'"
            )
        if d != plan.d:
            raise _Refused(f"a vector of {d} values where {plan.d} were asked for")
        if not 0 < weight <= plan.max_weight:
            raise _Refused(f"weight {weight} is not in (0, {plan.max_weight}]")
    values = np.frombuffer(body, dtype="<f4", offset=FRAME_ROOM)
    return torch.from_numpy(values if values.flags.writeable else values.copy()), weight


@dataclass(slots=True)
class _Client:
    plan: RoundPlan
    update: Bounded

    def step(self, mail: Mail) -> Mail:
        if mail:
            return {}
        header = _header(self.plan, self.update.weight)
        frame = self.update.frame
        if frame is None:
            values = self.update.delta.detach().cpu().numpy().astype("<f4", copy=False)
            return {"server": bytearray(header) + values.tobytes()}
        frame[:FRAME_ROOM] = header
        return {"server": frame}


def _where_they_lie(bodies: Sequence[Buffer], at: Sequence[int], d: int) -> torch.Tensor | None:
    """The vectors of these messages, which begin at these addresses, as one matrix [n, d] where
    they lie, if they lie in one writable buffer and evenly apart, as those of an engine do; else
    None.
    """
    first = bodies[0]
    whole: object = first.obj if isinstance(first, memoryview) else None
    if not isinstance(whole, np.ndarray) or not whole.flags.c_contiguous:
        return None
    for body in bodies:  # what cannot be written was copied, so that its address is the copy's
        if not isinstance(body, memoryview) or body.readonly:
            return None
        owner: object = body.obj
        if owner is not whole:
            return None
    step = at[1] - at[0] if len(at) > 1 else len(first)
    if step < len(first) or step % 4 or any(b - a != step for a, b in pairwise(at)):
        return None
    offset = at[0] - whole.ctypes.data
    rows = np.ndarray((len(at), d), "<f4", buffer=whole.data, offset=offset, strides=(step, 4))
    return torch.from_numpy(rows)


def _checked(
    plan: RoundPlan,
    expected: Collection[ClientId],
    taken: Collection[ClientId],
    who: PartyId,
    body: Buffer,
) -> tuple[ClientId, torch.Tensor, float]:
    """Who sent a message, its vector and its weight.

    Raises:
        _Refused: it is none of this round's, or longer than the bound.
    """
    client = client_of(who)
    if client is None or client not in expected:
        raise _Refused("not in the cohort")
    if client in taken:
        raise _Refused("a second message")
    row, weight = _read(body, plan)
    length = norm(row)
    if not length <= plan.l2 * (1 + _SLACK) or length == float("inf"):
        raise _Refused(f"norm {length:.6g} is over the bound {plan.l2:.6g}, or not finite")
    return client, row, weight


@dataclass
class _SummingServer:
    """The server where nothing but the rows' sum is wanted: it adds each up when it comes."""

    plan: RoundPlan
    weighted: bool
    total: torch.Tensor | None = None
    weights: list[float] = field(default_factory=list)
    expected: set[ClientId] = field(default_factory=set)
    taken: dict[ClientId, None] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.expected = set(self.plan.cohort)

    def fold(self, sender: PartyId, body: Buffer) -> Buffer | None:
        """Add a row up, unless it cannot be used: why not is said when it arrives."""
        try:
            self._add(sender, body)
        except _Refused:
            return None
        return b""

    def step(self, mail: Mail) -> Mail:
        for who, body in mail.items():
            if not body and client_of(who) in self.taken:  # what was added up when it was written
                continue
            try:
                self._add(who, body)
            except _Refused as refused:
                self.excluded.setdefault(who, str(refused))
        return {}

    def _add(self, who: PartyId, body: Buffer) -> None:
        client, row, weight = _checked(self.plan, self.expected, self.taken, who, body)
        if self.total is None:
            self.total = torch.zeros(self.plan.d)
        weight = float(np.float32(weight)) if self.weighted else 1.0  # as rows carry weights
        add_row(self.total, row, weight)
        self.taken[client] = None
        self.weights.append(weight)

    @property
    def result(self) -> Opened[Total] | None:
        if self.total is None:
            return None
        total = Total(self.total, float(torch.tensor(self.weights).sum()), len(self.weights))
        return Opened(total, tuple(self.taken), excluded=dict(self.excluded))


@dataclass
class _Server:
    plan: RoundPlan
    member: _ServerMember
    weights: list[float] = field(default_factory=list)
    ids: list[ClientId] = field(default_factory=list)
    taken: set[ClientId] = field(default_factory=set)
    bodies: list[Buffer] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    opened: Rows | None = None

    def __getstate__(self) -> dict[str, object]:
        """A party that is put to rest leaves the engine's buffer behind: its rows are copied."""
        rows = [bytes(body) for body in self.bodies]
        return {**vars(self), "bodies": rows, "opened": None}

    def step(self, mail: Mail) -> Mail:
        if not mail:
            return {}
        expected = set(self.plan.cohort)
        for who, body in mail.items():
            try:
                client, row, weight = _checked(self.plan, expected, self.taken, who, body)
            except _Refused as refused:
                self.excluded.setdefault(who, str(refused))
                continue
            self.taken.add(client)
            self.bodies.append(body)
            self.at.append(row.data_ptr())
            self.ids.append(client)
            self.weights.append(weight)
        self.opened = None
        return {}

    @property
    def result(self) -> Opened[Rows] | None:
        if not self.ids:
            return None
        if self.opened is None:
            values = _where_they_lie(self.bodies, self.at, self.plan.d)
            if values is None:
                values = self.member.stacked(self.plan, self.bodies)
            self.opened = Rows(values, torch.tensor(self.weights), tuple(self.ids))
        return Opened(self.opened, tuple(self.ids), excluded=dict(self.excluded))


class _ClientMember:
    def set_up(self) -> Party:
        return Silent()

    def enter(self, plan: RoundPlan, update: Bounded) -> Party:
        return _Client(plan, update)


@dataclass
class _ServerMember:
    """Keeps a matrix for each part between rounds, where rows must be copied into one: fresh memory
    costs more than the copy, and parts of one round must not share rows.
    """

    matrices: dict[str, torch.Tensor] = field(default_factory=dict)

    def set_up(self) -> Party:
        return Silent()

    def enter(self, plan: RoundPlan) -> _Server:
        return _Server(plan, self)

    def enter_summing(self, plan: RoundPlan, *, weighted: bool) -> _SummingServer:
        """Its part in a round whose rows are no more than their sum (`core.streaming.SumsRows`)."""
        return _SummingServer(plan, weighted)

    def stacked(self, plan: RoundPlan, bodies: Sequence[Buffer]) -> torch.Tensor:
        """The vectors of these messages, copied into one matrix [n, d]."""
        matrix = self.matrices.get(plan.part)
        if matrix is None or matrix.shape[1] != plan.d or len(matrix) < len(bodies):
            matrix = self.matrices[plan.part] = torch.empty(len(bodies), plan.d)
        rows = matrix[: len(bodies)]
        for row, body in zip(rows.numpy(), bodies, strict=True):
            row[:] = np.frombuffer(body, "<f4", offset=FRAME_ROOM)
        return rows


@dataclass(frozen=True, slots=True)
class Plain:
    """Every update in clear: the server and anybody on the wire read every row.

    The server checks what it can see: shape, round, weight, norm and finiteness; what fails is
    excluded by name. The rows that it opens are valid until its member enters the next round; those
    that came in one buffer (`Bounded.frame`) are views of it, and all others are copied.

    >>> Plain().kind.opens
    'rows'
    """

    kind: ClassVar[ChannelKind] = ChannelKind("rows")

    @property
    def able(self) -> Able:
        """Nothing beside opening rows, or adding them up as they come."""
        return Able(streams=True)

    @property
    def guarantee(self) -> Guarantee[Liars]:
        """Who may collude, who may lie and what the lie can do."""
        return Guarantee(
            reads=(Coalition.of("server"),),
            lies=(
                lies.publishes_another(),
                lies.skips_its_clip("nothing", "the server sees that, and leaves it out"),
                lies.sends_garbage(),
            ),
            leaks=("everything",),
            assumes=("a clip, where lying clients are to be bounded", lies.MAIL),
        )

    def describe(self) -> str:
        """Who can read what, who can lie, and what leaks, for the report."""
        return f"Every update in clear. {self.guarantee.describe()}"

    @property
    def helpers(self) -> tuple[PartyId, ...]:
        """None."""
        return ()

    def client(self, who: ClientId, identity: PartyKeys, directory: KnownKeys) -> _ClientMember:
        """A client that sends its update. It needs no keys."""
        return _ClientMember()

    def server(self, identity: PartyKeys, directory: KnownKeys) -> ServerMember[Rows]:
        """A server that stacks what arrives. It needs no keys."""
        return _ServerMember()

    def helper(self, who: PartyId, identity: PartyKeys, directory: KnownKeys) -> HelperMember:
        """There is none.

        Raises:
            ConfigError: always.
        """
        raise no_helper("plain", who, ())

    def decode(self, received: Received, members: Mapping[PartyId, Member]) -> Rows | Total | None:
        """Every update that reached the server, for whoever holds the server's mail or taps the
        wire.
        """
        seen: dict[ClientId, tuple[torch.Tensor, float]] = {}
        for mail in received.get("server", ()):
            for who, body in mail.items():
                client = client_of(who)
                try:
                    if client is not None and client not in seen:
                        vector, weight = _read(body)
                        if torch.isfinite(vector).all():
                            seen[client] = vector.clone(), weight
                except _Refused:
                    continue
        if not seen:
            return None
        d = len(next(iter(seen.values()))[0])
        usable = {client: pair for client, pair in seen.items() if len(pair[0]) == d}
        values = torch.stack([vector for vector, _ in usable.values()])
        return Rows(values, torch.tensor([weight for _, weight in usable.values()]), tuple(usable))
