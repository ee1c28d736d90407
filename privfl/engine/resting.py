"""When Python's cyclic collector works in a round, and when it rests."""

from __future__ import annotations

import gc
import threading
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

    Where it is off already, or code inside turns it off, it stays off. It belongs to the whole
    process, so only the main thread has it rest. A keyboard interrupt that lands in the instant of
    entering or leaving can leave it off.

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
    _depth: int = field(default=0, init=False)

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            self._was_on = gc.isenabled()
            gc.disable()

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._was_on:
            self._was_on = False
            gc.enable()

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
            self._was_on = gc.isenabled()
            gc.disable()
