"""A client's part: it splits its vector, and speaks once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from privfl.core import Buffer, ClientId, KeepsSecrets, Mail, PartyId, client_party
from privfl.crypto.abort import StageAbort
from privfl.crypto.primitives import Words, backend, fields, seal_to
from privfl.crypto.sharing.additive import split
from privfl.crypto.sharing.parameters import SEEDS, VECTOR, SharingParameters, bound_to


@dataclass(repr=False)
class SharingClientParty(KeepsSecrets):
    """A client in one round: it speaks once."""

    round: SharingParameters
    who: ClientId
    position: int
    boxes: Mapping[PartyId, tuple[bytes, ...]]
    vector: Words | None
    refused: str | None = None

    def step(self, mail: Mail) -> Mail:
        """The first server's share, and everybody else's seed, sealed."""
        if self.refused is not None:
            raise StageAbort("enter", self.refused, client_party(self.who))
        if self.vector is None:
            return {}
        vector, seeds = split(self.vector, len(self.boxes) + 1)
        self.vector = None
        now, library = self.round, backend(self.round.library_name)
        out: dict[PartyId, Buffer] = {
            "server": now.write(
                VECTOR, self.position, fields.facts(now.plan), fields.pack(vector, now.ring)
            )
        }
        for (who, boxes), seed in zip(self.boxes.items(), seeds, strict=True):
            sealed = seal_to(boxes, seed, bound_to(now.tag, self.position, who), library)
            out[who] = now.write(SEEDS, self.position, sealed)
        return out
