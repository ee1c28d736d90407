"""``privfl native``: compiled kernels, and which rules use them."""

from __future__ import annotations

from typing import Annotated

import typer

from privfl.aggregators.native import build_kernels, kernel_file, kernels
from privfl.aggregators.network import MOST, agrees_with_the_sort
from privfl.cli.screen import say


def native(
    build: Annotated[
        bool, typer.Option("--build", help="Compile them, by $CC or cc, and check their bits.")
    ] = False,
) -> None:
    """Compiled kernels for trimmed mean and median: whether they are there; --build makes them."""
    if build:
        say(f"privfl: built {build_kernels(agrees_with_the_sort)}")
    if kernels() is None:
        say(f"privfl: no kernels are in use ({kernel_file()}): trimmed_mean and median sort")
    else:
        say(f"privfl: trimmed_mean and median of up to {MOST} finite rows use {kernel_file()}")
