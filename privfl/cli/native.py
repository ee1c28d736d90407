"""``privfl native``: compiled kernels, and what uses them."""

from __future__ import annotations

import ctypes
from typing import Annotated

import typer

from privfl.aggregators.network import MOST, agrees_with_the_sort
from privfl.cli.screen import say
from privfl.core.native import build_kernels, kernel_file, kernels
from privfl.crypto.fixed_kernel import agrees_with_doubles


def native(
    build: Annotated[
        bool, typer.Option("--build", help="Compile them, by $CC or cc, and check their bits.")
    ] = False,
) -> None:
    """Compiled kernels: whether they are there, and what uses them; --build makes them."""
    if build:
        say(f"privfl: built {build_kernels(_agree)}")
    if kernels() is None:
        say(f"privfl: no kernels are in use ({kernel_file()}): everything works without")
        return
    say(f"privfl: in use: {kernel_file()}")
    say(f"privfl: trimmed_mean and median of up to {MOST} finite rows, and fixed point, use it")


def _agree(library: ctypes.CDLL) -> bool:
    return agrees_with_the_sort(library) and agrees_with_doubles(library)
