"""One of the two servers at its computation: its rows, the shares that every rule begins with, and
what comes of the round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from privfl.core import Buffer, PartyId
from privfl.crypto import mpc
from privfl.crypto.mpc.machine import advance
from privfl.crypto.mpc.words import U64
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.bits import BitRows, Bits, BitSeeds, Flips
from privfl.hybrid.two_server.fixed_rows import Fixed
from privfl.hybrid.two_server.fixed_stock import Stocked
from privfl.hybrid.two_server.parameters import Direction, TwoServerParameters
from privfl.hybrid.two_server.registers import DOTS, INNER
from privfl.hybrid.two_server.rows import Covers, MaskedRows, RowBlocks, SeedRows


@dataclass(repr=False, kw_only=True)
class Machine(mpc.TwoPartyMachine):
    """One of the two servers.

    ``disclosed`` is what the report must name, ``valid`` are the rows that passed the checks, by
    place among those that came. The sum opens to ``count`` rows of ``weight`` together, in steps of
    ``unit``; it is at most ``reach`` steps long, where that is known. ``bits`` are rows of signs,
    where there are any, ``flips`` the dealt bits that hide them. ``seed`` is the server's own;
    ``tags`` are what the first server has from the dealer to know the second's share of the sum by,
    ``memory`` what its member keeps of the direction's doing. ``fixed`` is what there is where
    clients fix their rows, ``stocked`` what their rule has of the dealer; ``unproved`` counts those
    that were refused though nothing proved them wrong: the other server may have lied. ``ahead``:
    the dealer dealt before the round, for every place of its cohort.
    """

    now: TwoServerParameters
    positions: tuple[int, ...]
    program: Sequence[Step]
    rows: RowBlocks
    veil: Covers | None = None
    key: bytes = b""
    opened: bytes = b""
    direction: Direction | None = None
    disclosed: dict[str, Tensor] = field(default_factory=dict)
    excluded: dict[PartyId, str] = field(default_factory=dict)
    valid: tuple[int, ...] = ()
    unit: float = 0.0
    weight: float = 0.0
    reach: float = math.inf
    count: int = 0
    trust_unit: float = 0.0
    seed: bytes = b""
    tags: U64 | None = None
    memory: dict[mpc.Shared, U64] = field(default_factory=dict)
    bits: BitRows | BitSeeds | None = None
    flips: Flips | None = None
    flipped: Bits | None = None
    fixed: Fixed | None = None
    stocked: Stocked | None = None
    unproved: int = 0
    ahead: bool = False

    def surveyed(self, shares: dict[mpc.Shared, U64]) -> None:
        """Begin with the own half of the survey, and the dealer's share of the inner products."""
        inner = shares[INNER]
        self.shares.update(shares.items())
        self.shares[INNER] = inner + self.preprocessing.inner.reshape(inner.shape)
        if not shares[DOTS].size:
            self.shares[DOTS] = np.zeros(self.n, dtype=np.uint64)

    @property
    def n(self) -> int:
        """How many rows reached both servers."""
        return len(self.positions)

    @property
    def one(self) -> U64:
        """The own share [1 + keys] of the public number 1, authenticated."""
        return np.concatenate([[self.constant(1)], self.keys])

    @property
    def stock(self) -> Stocked:
        """What a rule that is enforced has of the dealer.

        Raises:
            Malformed: this rule is not.
        """
        if self.stocked is None:
            raise Malformed("rows are not fixed in this round")
        return self.stocked

    def refuse(self, failed: npt.NDArray[np.bool_]) -> None:
        """Leave out, by name, the rows [n] that failed a check, and go on with the others.

        Raises:
            StageAbort: too few are left.
        """
        for i in np.flatnonzero(failed).tolist():
            name = self.now.name(self.positions[i])
            self.excluded[name] = "its update failed the norm check"
        self.valid = tuple(np.flatnonzero(~failed).tolist())
        self.now.enough("check", {self.positions[i] for i in self.valid})
        self.disclosed["accepted"] = torch.from_numpy(~failed)

    def forget_rows(self) -> None:
        """Let go of the rows: they are added up."""
        self.rows = SeedRows([])
        if self.fixed is not None:
            self.fixed = replace(self.fixed, rows=MaskedRows([]))

    @property
    def done(self) -> bool:
        """Whether the program is over."""
        return self.at == len(self.program)

    def advance(self, mail: Buffer | None = None) -> list[Buffer]:
        """Go as far as the other's messages reach; what is to be sent.

        Raises:
            StageAbort: the other's message is none, or what was opened does not allow to go on.
        """
        return advance(self, self.program, mail)


Step = mpc.Local[Machine] | mpc.Exchange[Machine]
