"""A node that speaks to the SuperLink itself. A stock SuperNode fetches the app from the SuperLink
and runs it; this one fetches none: it takes bytes, and gives bytes back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from privfl.flower import internals
from privfl.flower.records import content_of, envelope_in
from privfl.flower.wire import pause

LOG = logging.getLogger("privfl.network")
AWAY = 0.5
"""Seconds until a SuperLink that does not answer is asked again."""
LEAST, MOST, SHARE = 0.15, 0.5, 0.75
"""How long a node waits from one look for mail to the next (`wire.pause`), and from an answer to
the first: a look takes a kilobyte, most of it headers, and others have to answer as well.
"""


def serve(
    address: str,
    ca: Path,
    key: Path,
    answer: Callable[[bytes], bytes],
    stop: threading.Event | None = None,
) -> None:
    """Answer envelopes until told to stop; whenever the SuperLink is away, try again.

    Args:
        address: host and port of the SuperLink.
        ca: the certificate by which it is known.
        key: the private key by which it knows this node.
        answer: from envelope to envelope (`party.NodeParty.answer`).
        stop: set when it is over.
    """
    stopped = stop or threading.Event()
    while not stopped.is_set():
        try:
            with internals.fleet(address, ca, key) as fleet:
                LOG.info("connected to %s", address)
                _serve(fleet, answer, stopped)
        except Exception as lost:
            LOG.warning("the SuperLink at %s does not serve this node: %r", address, lost)
            stopped.wait(1.0)


def _serve(fleet: internals.Fleet, answer: Callable[[bytes], bytes], stop: threading.Event) -> None:
    last = time.monotonic()
    while not stop.is_set():
        try:
            came = fleet.receive()
        except Exception as error:
            if not internals.away(error):  # it has forgotten this node: connect anew
                raise
            stop.wait(AWAY)  # it may be back, and still know this node
            continue
        if came is None:
            stop.wait(pause(time.monotonic() - last, LEAST, MOST, SHARE))
            continue
        try:
            fleet.answer(came, lambda asked: content_of(answer(envelope_in(asked) or b"")))
        except Exception as lost:  # a run that ended meanwhile, say: there will be others
            LOG.warning("an envelope is lost: %s: %s", type(lost).__name__, lost)
        last = time.monotonic()
        stop.wait(LEAST)
