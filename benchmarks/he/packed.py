"""Packed Paillier beside python-paillier."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks import floors
from benchmarks.harness import Row, cost, gain, interleaved
from benchmarks.he.values import plan_of, rows
from privfl.crypto import Paillier

TABLE = 192
"""Products of one exponentiation by the table of a 3072-bit key."""


def paillier(quick: bool) -> Iterator[Row]:
    """Paillier 3072 against python-paillier, one float at a time, and against r^n blinding; rates
    in values a second.
    """
    import phe

    d, few = 12_700, 4 if quick else 8
    plan = plan_of(d)
    integers, reals = rows(d)
    public, secret = Paillier().scheme.generate()
    theirs = phe.PaillierPublicKey(public.n)
    private = phe.PaillierPrivateKey(theirs, secret.p, secret.q)
    floats = [float(x) for x in reals[:few]]
    standard = type(public)(public.n, 0, public.bits)
    public.fresh_blinding(1)  # the table of h_s, built once a session
    mine, naive = public.encrypt(integers, plan), [theirs.encrypt(x) for x in floats]
    packed = integers[: 127 * 4]
    packed_plan = plan_of(len(packed))

    def pooled() -> object:
        public.pool.put(factors[:])
        return public.encrypt(integers, plan)

    plaintexts = public.slots(plan).plaintexts(d)
    factors = public.fresh_blinding(plaintexts)
    seconds = interleaved(
        {
            "encrypt": lambda: public.encrypt(integers, plan),
            "pooled": pooled,
            "phe encrypt": lambda: [theirs.encrypt(x) for x in floats],
            "r^n": lambda: standard.encrypt(packed, packed_plan),
            "add": lambda: public.add([mine] * 33, plan),
            "phe add": lambda: [a + b for a, b in zip(naive * 50, naive * 50, strict=True)],
            "decrypt": lambda: secret.decrypt(mine, plan, 1),
            "phe decrypt": lambda: [private.decrypt(c) for c in naive],
            "products": floors.modular_products(public.n**2, TABLE * plaintexts),
        },
        2 if quick else 4,
        time.process_time,
    )
    least = seconds.pop("products")
    rate = {
        "encrypt": d,
        "pooled": d,
        "add": 32 * d,
        "decrypt": d,
        "r^n": len(packed),
        "phe encrypt": few,
        "phe add": 50 * few,
        "phe decrypt": few,
    }
    per = {name: rate[name] / seconds[name] for name in seconds}
    case = "paillier-3072"
    yield gain(case, "phe", "encrypt, values/s", per["encrypt"], per["phe encrypt"], 1800)
    what = f"{TABLE} products mod n^2 a plaintext, of the blinding's table"
    yield floors.floor(case, f"encrypt {d:,} values, s", what, seconds["encrypt"], least)
    yield gain(case, "phe", "add, values/s", per["add"], per["phe add"], 150)
    yield gain(case, "phe", "decrypt, values/s", per["decrypt"], per["phe decrypt"], 100)
    yield cost(
        case, "phe", "bytes a value", len(mine[0]) / d, naive[0].ciphertext().bit_length() / 8, 125
    )
    yield gain(case, "packed with r^n", "encrypt, values/s", per["encrypt"], per["r^n"], 14)
    yield gain(case, "phe", "encrypt from the pool, values/s", per["pooled"], per["phe encrypt"])
