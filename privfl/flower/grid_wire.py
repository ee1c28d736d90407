"""The grid of a ServerApp as a wire to resident nodes."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from privfl.core import PartyId
from privfl.flower.internals import pulled_from, pushed_to, went_away
from privfl.flower.records import content_of, envelope_in
from privfl.flower.wire import pause

LOG = logging.getLogger("privfl.network")
LOOK = 0.5
"""Seconds from one look for nodes that are not there yet to the next."""


class GridWire:
    """A `wire.Wire` over the grid of a ServerApp. Which node is whose says the key by which it was
    registered; who answers is proved by the envelope, and not by this.

    Flower takes no message for a node that has never connected, and gives up one whose node it
    finds to be away, as between a node's end and its next start. The envelope is kept until the
    node is there, or its seconds are over; a node refuses what it had done already.
    """

    def __init__(self, grid: Any, keys: Mapping[bytes, PartyId]) -> None:
        self.grid, self.keys = grid, keys
        self._nodes: dict[PartyId, int] = {}
        self._asked: dict[str, tuple[PartyId, bytes, float]] = {}
        self._latest: dict[PartyId, str] = {}
        self._held: dict[PartyId, tuple[bytes, float]] = {}
        self._looked = 0.0

    def send(self, envelopes: Mapping[PartyId, bytes], seconds: float) -> None:
        """Push each envelope, those to nodes that are not there yet when they are."""
        until = time.monotonic() + seconds
        self._held |= {who: (raw, until) for who, raw in envelopes.items()}
        self._push()
        for who in envelopes.keys() & self._held.keys():
            LOG.warning("%s is not there yet", who)

    def _push(self) -> None:
        from flwr.app import Message

        now = self._looked = time.monotonic()
        self._held = {who: held for who, held in self._held.items() if held[1] > now}
        if not self._held.keys() <= self._nodes.keys():
            found = {
                in_one_form(info.public_key): int(info.node_id) for info in self.grid.get_nodes()
            }
            self._nodes |= {who: found[key] for key, who in self.keys.items() if key in found}
        there = [who for who in self._held if who in self._nodes]
        messages = []
        for who in there:
            raw, until = self._held[who]
            ttl = max(until - now, 1.0)
            messages.append(Message(content_of(raw), self._nodes[who], "query", ttl=ttl))
        pushed = pushed_to(self.grid, messages) if messages else []
        for who, key in zip(there, pushed, strict=False):
            if key is None:
                del self._nodes[who]
                continue
            self._asked[key], self._latest[who] = (who, *self._held.pop(who)), key

    def collect(self, seconds: float) -> Sequence[tuple[PartyId, bytes]]:
        """Pull until something has come, or the time is over."""
        began = time.monotonic()
        until = began + seconds
        while True:
            if self._held and time.monotonic() - self._looked > LOOK:
                self._push()
            answers = self._pulled()
            if answers or time.monotonic() >= until:
                return answers
            now = time.monotonic()
            time.sleep(max(min(pause(now - began), until - now), 0.0))

    def _pulled(self) -> list[tuple[PartyId, bytes]]:
        now = time.monotonic()
        self._asked = {key: one for key, one in self._asked.items() if one[2] + 60 > now}
        if not self._asked:
            return []
        answers = []
        for message in pulled_from(self.grid, list(self._asked)):
            key = message.metadata.reply_to_message_id
            asked = self._asked.pop(key, None)
            if asked is None:
                continue
            who, raw, until = asked
            if not message.has_error():
                answers.append((who, envelope_in(message.content) or b""))
            elif went_away(message) and self._latest[who] == key and until > now:
                self._held.setdefault(who, (raw, until))
        return answers


def in_one_form(pem: bytes) -> bytes:
    """A public key in one form, however it was written."""
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError:
        return pem
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def nodes_of(home: Path) -> dict[bytes, PartyId]:
    """The parties by the keys of their nodes, as `setup.set_up` noted them."""
    told = json.loads((home / "nodes.json").read_text(encoding="utf-8"))
    return {in_one_form(str(pem).encode()): who for who, pem in told.items()}
