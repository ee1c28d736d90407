"""When Python's cyclic collector works in a round, and when it rests."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Resting:
    """Has the cyclic collector rest while a round keeps its books, and work where other people's
    code runs.

    A round makes about ten small objects a client and no cycles, so that all of them go when their
    last reference does. Each full pass of the collector walks everything that is alive, and a round
    of 20,000 clients pays two or three of these, a third of its time, for nothing. Training, seats
    and attacks may make cycles with whole vectors in them: there it works.

    Where it is off already it stays off.

    >>> import gc
    >>> resting = Resting()
    >>> with resting:
    ...     inside = gc.isenabled()
    ...     with resting.interrupted():
    ...         training = gc.isenabled()
    >>> inside, training, gc.isenabled()
    (False, True, True)
    """

    _was_on: bool = field(default=False, init=False)

    def __enter__(self) -> None:
        self._was_on = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._was_on:
            gc.enable()
        self._was_on = False

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """The collector works inside, if it did before the rest began."""
        if not self._was_on:
            yield
            return
        gc.enable()
        try:
            yield
        finally:
            gc.disable()
