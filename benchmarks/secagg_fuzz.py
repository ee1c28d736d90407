"""Secure aggregation through random rounds: ``python -m benchmarks.secagg_fuzz [HONEST] [LIARS]
[SERVERS]``.

So many rounds with drop-outs at every stage, of which none may be wrong, below its quorum or crash;
so many with a client that lies at random, of which none may blame anybody else; and so many with a
lying server and as many friends as the channel stands, of which none may show a sum over fewer
honest clients than is claimed. Exit code 1 where one did.
"""

from __future__ import annotations

import sys

from privfl.audit.protocol.fuzz import counted, honest, with_a_liar
from privfl.audit.protocol.search import lying_server

FINE = {"opened", "refused", "a sum", "nothing"}


def main(rounds: int = 2000, liars: int = 10_000, servers: int = 2000) -> int:
    """Play them and print what came of them."""
    bad = 0
    cases = (
        ("honest", honest, rounds),
        ("one liar", with_a_liar, liars),
        ("a lying server", lying_server, servers),
    )
    for name, play, count in cases:
        found = counted(play, range(count))
        print(f"{name}: {count} rounds")
        for what, often in found.most_common():
            print(f"  {often:6d}  {what}")
        bad += sum(often for what, often in found.items() if what not in FINE)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:4])))
