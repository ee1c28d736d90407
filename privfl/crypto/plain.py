"""The plain channel: every update travels in clear, and the server reads every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
)
from privfl.crypto import lies
from privfl.crypto.plain_letters import NotUsable, checked, header, read
from privfl.crypto.plain_sum import SummingServer


@dataclass(slots=True)
class _Client:
    plan: RoundPlan
    update: Bounded

    def step(self, mail: Mail) -> Mail:
        if mail:
            return {}
        head = header(self.plan, self.update.weight)
        frame = self.update.frame
        if frame is None:
            values = self.update.delta.detach().cpu().numpy().astype("<f4", copy=False)
            return {"server": bytearray(head) + values.tobytes()}
        frame[:FRAME_ROOM] = head
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
                client, row, weight = checked(self.plan, expected, self.taken, who, body)
            except NotUsable as refused:
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

    def enter_summing(self, plan: RoundPlan, *, weighted: bool) -> SummingServer:
        """Its part in a round whose rows are no more than their sum (`core.streaming.SumsRows`)."""
        return SummingServer(plan, weighted)

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
                        vector, weight = read(body)
                        if torch.isfinite(vector).all():
                            seen[client] = vector.clone(), weight
                except NotUsable:
                    continue
        if not seen:
            return None
        d = len(next(iter(seen.values()))[0])
        usable = {client: pair for client, pair in seen.items() if len(pair[0]) == d}
        values = torch.stack([vector for vector, _ in usable.values()])
        return Rows(values, torch.tensor([weight for _, weight in usable.values()]), tuple(usable))
