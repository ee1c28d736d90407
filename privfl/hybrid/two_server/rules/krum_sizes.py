"""How many Byzantine rows Krum still counts with, among those that are left."""

from __future__ import annotations

from privfl.crypto.abort import StageAbort
from privfl.hybrid.two_server.machine import Machine


def max_byzantine(machine: Machine, f: int, m: int) -> int:
    """How many Byzantine clients Krum must still count with, after those that failed the checks;
    who was refused and not proved wrong takes no part.

    Raises:
        StageAbort: too few rows for f and m, or more than f failed.
    """
    n = machine.n - machine.unproved
    lost = n - len(machine.valid)
    if n <= 2 * f + 2 or m > n - f:
        raise StageAbort(
            "select",
            f"Krum with f={f} and m={m} needs n > 2f + 2 and m <= n - f, and {n} rows are there",
        )
    if lost > f:
        liars = ("dealer",) if machine.now.malicious else (machine.other, "dealer")
        raise StageAbort(
            "select",
            f"Krum tolerates {f} Byzantine clients, and {lost} rows failed the norm check, unless"
            f" {' or the '.join(liars)} lied",
            who=(*machine.excluded, *liars),
        )
    return f - lost
