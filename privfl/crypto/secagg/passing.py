"""What the server passes on from client to client."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from privfl.core import Buffer
from privfl.crypto.secagg import boxes
from privfl.crypto.secagg.parameters import SecAggParameters


def by_listener(
    words: Mapping[int, Mapping[int, bytes]], to: Collection[int]
) -> dict[int, dict[int, Buffer]]:
    """What was said, by speaker and listener, for each of these listeners by speaker."""
    meant: dict[int, dict[int, Buffer]] = {i: {} for i in to}
    for speaker, said in words.items():
        for listener, word in said.items():
            if listener in meant:
                meant[listener][speaker] = word
    return meant


def inboxes(
    now: SecAggParameters,
    adverts: Mapping[int, bytes],
    sealed: Mapping[int, Mapping[int, bytes]],
) -> dict[int, bytes]:
    """The sealed shares for each client that sealed some itself, with their senders' keys where it
    chose nobody and was told none.
    """
    rows: dict[int, dict[int, Buffer]] = {i: {} for i in sealed}
    added = now.key_bytes if now.chosen else 0
    for sender, sealed_boxes in sealed.items():
        public = adverts[sender][:added]
        for receiver, sealed_box in sealed_boxes.items():
            if receiver in rows:
                rows[receiver][sender] = public + sealed_box
    return {i: boxes.write(now, inbox, added) for i, inbox in rows.items()}
