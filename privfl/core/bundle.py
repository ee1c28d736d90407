"""The parts of a round as one party: one letter to each receiver in each exchange.

A round that sends several vectors (SCAFFOLD's control variates beside the delta, the bits of an
adaptive bound) is a protocol run for each, and they travel together: no part is opened before
another one is sent, and nobody waits for twice as many exchanges.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from privfl.core.errors import PrivflError
from privfl.core.protocol import Abort, Party
from privfl.core.sealed_state import KeepsSecrets
from privfl.core.types import Buffer, Mail, PartyId

_MAGIC = b"PFB\x01"
_COUNT = struct.Struct("<4sH")
_ENTRY = struct.Struct("<HQ")


class MalformedBundle(PrivflError, ValueError):
    """Bytes that are no bundle of this version."""


def pack_parts(bodies: Mapping[str, Buffer]) -> bytes:
    """One frame of the parts' bodies, by name.

    >>> unpack_parts(pack_parts({"delta": b"abc"}))["delta"].tobytes()
    b'abc'
    """
    head = [_COUNT.pack(_MAGIC, len(bodies))]
    for name, body in bodies.items():
        head += [_ENTRY.pack(len(name.encode()), len(body)), name.encode()]
    return b"".join([*head, *bodies.values()])


def unpack_parts(frame: Buffer) -> dict[str, memoryview]:
    """The bodies in a frame, by name; views of it, nothing is copied.

    Raises:
        MalformedBundle: anything that `pack_parts` did not make.
    """
    view = memoryview(frame).cast("B")
    try:
        magic, count = _COUNT.unpack_from(view)
        if magic != _MAGIC:
            raise MalformedBundle("not a bundle of this version.")
        at, sizes = _COUNT.size, dict[str, int]()
        for _ in range(count):
            letters, size = _ENTRY.unpack_from(view, at)
            at += _ENTRY.size
            name = bytes(view[at : at + letters]).decode()
            if name in sizes:
                raise MalformedBundle(f"part '{name}' is in the bundle twice.")
            sizes[name], at = size, at + letters
    except (struct.error, UnicodeDecodeError) as error:
        raise MalformedBundle(f"a bundle's head is cut off or garbled ({error}).") from None
    if len(view) != at + sum(sizes.values()):
        raise MalformedBundle(f"a bundle of {len(view)} bytes announces another length.")
    bodies = {}
    for name, size in sizes.items():
        bodies[name], at = view[at : at + size], at + size
    return bodies


@dataclass(repr=False)
class Bundle(KeepsSecrets):
    """All parts of one party as one party.

    A part without mail is not stepped, because empty mail means "begin"; a frame that is no bundle
    is ignored, which excludes its sender from every part. An abort ends its part and leaves the
    others alone. ``lying`` parties run foreign code: what it raises ends the part, and not the run.

    >>> class Hello:
    ...     def step(self, mail):
    ...         return {} if mail else {"server": b"hello"}
    >>> said = Bundle({"delta": Hello(), "control": Hello()}).step({})
    >>> sorted(unpack_parts(said["server"]))
    ['control', 'delta']
    """

    parts: Mapping[str, Party]
    lying: bool = False
    aborts: dict[str, Abort] = field(default_factory=dict)

    def step(self, mail: Mail) -> Mail:
        """Hand each part its own mail, and bundle what the parts answer."""
        inboxes: dict[str, dict[PartyId, Buffer]] = {}
        for who, frame in mail.items():
            try:
                bodies = unpack_parts(frame)
            except MalformedBundle:
                continue
            for part, content in bodies.items():
                inboxes.setdefault(part, {})[who] = content
        out: dict[PartyId, dict[str, Buffer]] = {}
        for part, party in self.parts.items():
            if part in self.aborts or (mail and part not in inboxes):
                continue
            for to, body in self._stepped(part, party, inboxes.get(part, {})).items():
                out.setdefault(to, {})[part] = body
        return {to: pack_parts(bodies) for to, bodies in out.items()}

    def _stepped(self, part: str, party: Party, inbox: Mail) -> Mail:
        try:
            return party.step(inbox)
        except Abort as abort:
            self.aborts[part] = abort
        except Exception as crash:
            if not self.lying:  # an honest party that crashes is our fault: show it
                raise
            self.aborts[part] = Abort(f"the liar's own code failed: {crash!r}")
        return {}
