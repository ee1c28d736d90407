"""The cases of `benchmarks.he`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.harness import Row, main
from benchmarks.he.federated import federated, mnist
from benchmarks.he.foreign_bytes import foreign_bytes
from benchmarks.he.lattice import bfv, ckks
from benchmarks.he.lying_decryptors import lying_decryptors
from benchmarks.he.multi_party import mp_rlwe
from benchmarks.he.mutations import mutations
from benchmarks.he.one_time import one_time_rlwe, one_time_sums
from benchmarks.he.packed import paillier
from benchmarks.he.selective import selective
from benchmarks.he.whole_rounds import paillier_rounds, whole_rounds
from benchmarks.he.workers import workers

CASES: dict[str, Callable[[bool], Iterable[Row]]] = {
    "whole_rounds": whole_rounds,
    "paillier_rounds": paillier_rounds,
    "paillier": paillier,
    "bfv": bfv,
    "ckks": ckks,
    "mp_rlwe": mp_rlwe,
    "one_time_rlwe": one_time_rlwe,
    "one_time_sums": one_time_sums,
    "selective": selective,
    "workers": workers,
    "federated": federated,
    "mnist": mnist,
    "foreign_bytes": foreign_bytes,
    "mutations": mutations,
    "lying_decryptors": lying_decryptors,
}

if __name__ == "__main__":
    main("he", CASES)
