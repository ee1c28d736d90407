"""A client's part: it shares its vector with a proof, and speaks once."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from privfl.core import Buffer, ClientId, KeepsSecrets, Mail, PartyId, client_party
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives import backend, fields, seal_to
from privfl.crypto.sharing.pine.circuit import OutOfRange
from privfl.crypto.sharing.pine.field64 import Field64
from privfl.crypto.sharing.pine.parameters import REPORT, SEEDS, PineParameters
from privfl.crypto.sharing.pine.vdaf import NONCE, Report

TRIES = 20
"""How often fresh coins are tried where an honest vector's products leave their range; once fails
with a chance below 2^-40.
"""


@dataclass(repr=False)
class PineClientParty(KeepsSecrets):
    """A client in one round."""

    round: PineParameters
    who: ClientId
    position: int
    boxes: tuple[bytes, ...]
    contribution: tuple[Field64, int] | None
    refused: str | None = None

    def step(self, mail: Mail) -> Mail:
        """The first server's share, and the other one's, sealed."""
        if self.refused is not None:
            raise StageAbort("enter", self.refused, client_party(self.who))
        if self.contribution is None:
            return {}
        (vector, weight), self.contribution = self.contribution, None
        now, drawn = self.round, secrets.token_bytes(NONCE)
        report = self._report(vector, weight, now.nonce(self.position, drawn))
        out: dict[PartyId, Buffer] = {
            "server": now.write(
                REPORT,
                self.position,
                fields.facts(now.plan),
                drawn,
                report.public,
                report.leader,
            )
        }
        sealed = seal_to(
            self.boxes,
            drawn + report.public + report.helper,
            now.report_context(self.position),
            backend(),
        )
        out[now.other] = now.write(SEEDS, self.position, sealed)
        return out

    def _report(self, vector: Field64, weight: int, nonce: bytes) -> Report:
        pine = self.round.pine
        for _ in range(TRIES):
            try:
                return pine.shard(vector, nonce, secrets.token_bytes(pine.rand), weight)
            except OutOfRange:
                continue
        raise StageAbort(
            "enter",
            f"no proof in {TRIES} tries: the update is longer than the round allows",
            client_party(self.who),
        )
