"""Several processes and threads beside one."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import Row, cost, interleaved
from benchmarks.he.values import D, plan_of, rows
from privfl.crypto import BFV, Paillier


def workers(quick: bool) -> Iterator[Row]:
    """Two workers against one; wall time. Threads encrypt under BFV and decrypt under Paillier
    (numpy and GMP let go of the interpreter lock), processes decrypt under BFV (SEAL holds it).
    """
    integers, _ = rows(D)
    plan, repeats = plan_of(D), 3 if quick else 7
    (one, opens), (two, open_abreast) = (BFV(workers=n).scheme.generate() for n in (1, 2))
    seconds = interleaved(
        {"one": lambda: one.encrypt(integers, plan), "two": lambda: two.encrypt(integers, plan)},
        repeats,
    )
    yield cost("workers", "1 thread", "BFV encrypt 1M, s", seconds["two"], seconds["one"], 1.7)
    sealed, both = one.encrypt(integers, plan), two.encrypt(integers, plan)
    seconds = interleaved(
        {
            "one": lambda: opens.decrypt(sealed, plan, 1),
            "two": lambda: open_abreast.decrypt(both, plan, 1),
        },
        repeats,
    )
    yield cost("workers", "1 process", "BFV decrypt 1M, s", seconds["two"], seconds["one"])
    few = plan_of(12_700)
    secret = Paillier().scheme.generate()[1]
    mine = secret.public.encrypt(integers[:12_700], few)

    def decrypt(threads: int) -> object:
        secret.public.threads = threads
        return secret.decrypt(mine, few, 1)

    seconds = interleaved({"one": lambda: decrypt(1), "two": lambda: decrypt(2)}, repeats)
    yield cost(
        "workers", "1 thread", "Paillier decrypt 12,700, s", seconds["two"], seconds["one"], 1.7
    )
