"""How many threads torch computes with, and how it rounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from privfl.core import ConfigError, exact_products

MOST = 1024
"""Threads beyond any machine's: OpenMP ends the process where it cannot have so many."""


def refuse_threads(count: int) -> None:
    """Refuse a number of threads that no machine has.

    Raises:
        ConfigError: it is below 1 or above `MOST`.
    """
    if not 1 <= count <= MOST:
        raise ConfigError(f"threads must lie between 1 and {MOST}, and is {count}.")


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many threads for torch inside, as before after: small nets are slower on two, and one and
    two threads round differently. Products of float32 are whole inside, so that a run's numbers
    hang on no switch of the process (`core.exact_products`).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with exact_products():
            yield
    finally:
        torch.set_num_threads(before)
