"""The dealer in one round in which clients fix their rows: it hears the masks' seeds from the
clients themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from privfl.core import Buffer, KeepsSecrets, Mail, PartyId, PartyKeys, client_of
from privfl.crypto.primitives import fields, open_one
from privfl.crypto.primitives.fields import Malformed
from privfl.hybrid.two_server.between_servers import unusable
from privfl.hybrid.two_server.fixed_dealing import FixedDealing
from privfl.hybrid.two_server.malicious.letters import fitting, read_named
from privfl.hybrid.two_server.parameters import DEAL, SEED, SERVERS, TwoServerParameters
from privfl.hybrid.two_server.recipe import Recipe
from privfl.hybrid.two_server.sealing import SEED_SIZE, dealt_letter
from privfl.hybrid.two_server.sign_dealing import SignDealing


@dataclass(repr=False)
class FixedDealer(KeepsSecrets):
    """The dealer in one round: it sees seeds, no client's data, and must collude with neither
    server. Who takes part is whoever told it, and both servers, the same seeds.
    """

    now: TwoServerParameters
    recipe: Recipe
    identity: PartyKeys
    seeds: dict[int, bytes] = field(default_factory=dict)
    named: dict[PartyId, tuple[frozenset[int], bytes, bytes]] = field(default_factory=dict)
    done: bool = False

    def step(self, mail: Mail) -> Mail:
        """Once both servers have spoken, what each of them gets."""
        for who, body in mail.items():
            if client_of(who) is not None and not self.named:
                self._hear(who, body)
        for who in SERVERS:
            if who in mail and who not in self.named:
                self.named[who] = self._read(who, mail[who])
        if len(self.named) < 2 or self.done:
            return {}
        self.done = True
        now, dealing, members = self.now, *self._dealing()
        listed, letters = fields.bit_set(members, now.plan.n), [*dealing.letters()]
        out: dict[PartyId, Buffer] = {}
        seeds = (dealing.first, dealing.second)
        for who, seed, room in zip(SERVERS, seeds, dealing.rooms, strict=True):
            out[who] = dealt_letter(now, seed, [listed, *letters.pop(0)], room)
        self.seeds, self.named = {}, {}
        return out

    def _dealing(self) -> tuple[FixedDealing | SignDealing, list[int]]:
        now, left = self.now, set(self.seeds)
        for at, who in enumerate(SERVERS):
            members, _, said = self.named[who]
            own = {
                i: seeds[at * SEED_SIZE : (at + 1) * SEED_SIZE] for i, seeds in self.seeds.items()
            }
            left &= fitting(now, who, members, said, own)
        kept = sorted(left)
        now.enough("deal", kept)
        seeds = (
            [self.seeds[i][:SEED_SIZE] for i in kept],
            [self.seeds[i][SEED_SIZE:] for i in kept],
        )
        first, second = (self.named[who][1] for who in SERVERS)
        extent = self.recipe.extent(now, len(kept))
        deals = SignDealing if now.signs else FixedDealing
        return deals(now, extent, first, second, seeds), kept

    def _hear(self, who: PartyId, body: Buffer) -> None:
        try:
            position, content = self.now.sender(who, body, SEED)
            context = self.now.bound_to("seed", str(position))
            seeds = open_one(content, 2 * SEED_SIZE, self.identity, context)
            self.seeds.setdefault(position, seeds)
        except Malformed:  # whom the dealer did not hear takes no part
            return

    def _read(self, who: PartyId, body: Buffer) -> tuple[frozenset[int], bytes, bytes]:
        try:
            _, content = self.now.read(body, DEAL)
            return read_named(self.now, who, content, self.identity)
        except Malformed as malformed:
            raise unusable("deal", who, malformed) from None
