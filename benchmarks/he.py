"""Homomorphic aggregation against python-paillier, BatchCrypt's way of packing, NVFlare's and
TenSEAL's tutorial settings.

Times are CPU seconds of one process, ours and the peer's in turn; worker cases and the federated
run are wall time. Lattice cases carry a million values and include serialising and deserialising on
both sides, as a round does.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.harness import Row, cost, gain, interleaved, main, say
from privfl import Federation
from privfl.config import AuditConfig
from privfl.core import LocalPlan, RoundPlan
from privfl.crypto import BFV, CKKS, Paillier, Plain, SecAgg
from privfl.crypto.he.lattice.keys import LatticeSecret, fresh
from privfl.crypto.he.lattice.parameters import ckks as ckks_sets
from privfl.crypto.he.mprlwe.keys import JointPublic, TernaryPart, add_c0, partial
from privfl.crypto.he.mprlwe.ring import summed
from privfl.data import load
from privfl.dp import Clip
from privfl.federation import Run
from privfl.training import LocalSGD

D = 1_000_000
CLIENTS = 100
SAMPLE = 1 << 16
"""Values over which errors of sums of 100 fresh ciphertexts are looked at."""
TOP = (1 << 15) - 1


def plan_of(d: int) -> RoundPlan:
    return RoundPlan(0, tuple(range(CLIENTS)), d - 1, l2=1.0)


def rows(d: int) -> tuple[Any, Any]:
    """The same values twice: integers of 16 bits, and reals in [-1, 1]."""
    integers = np.random.default_rng(0).integers(-TOP, TOP + 1, d)
    return integers, integers / TOP


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

    factors = public.fresh_blinding(public.slots(plan).plaintexts(d))
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
        },
        2 if quick else 4,
        time.process_time,
    )
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
    yield gain(case, "phe", "add, values/s", per["add"], per["phe add"], 150)
    yield gain(case, "phe", "decrypt, values/s", per["decrypt"], per["phe decrypt"], 100)
    yield cost(
        case, "phe", "bytes a value", len(mine[0]) / d, naive[0].ciphertext().bit_length() / 8, 125
    )
    yield gain(case, "packed with r^n", "encrypt, values/s", per["encrypt"], per["r^n"], 14)
    yield gain(case, "phe", "encrypt from the pool, values/s", per["pooled"], per["phe encrypt"])


class Peer:
    """CKKS through TenSEAL: a context, a million values, and the three steps of a round."""

    def __init__(self, degree: int, primes: list[int], symmetric: bool) -> None:
        import tenseal

        self.tenseal = tenseal
        how = tenseal.ENCRYPTION_TYPE.SYMMETRIC if symmetric else tenseal.ENCRYPTION_TYPE.ASYMMETRIC
        self.context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=primes, encryption_type=how
        )
        self.context.global_scale = 2.0**40
        self.values = rows(D)[1]
        self.body: bytes = self.encrypt()
        self.total = tenseal.ckks_vector_from(self.context, self.body)

    def encrypt(self) -> bytes:
        with quiet():
            return bytes(self.tenseal.ckks_vector(self.context, self.values).serialize())

    def add(self) -> None:
        self.total += self.tenseal.ckks_vector_from(self.context, self.body)

    def decrypt(self) -> object:
        return np.array(self.tenseal.ckks_vector_from(self.context, self.body).decrypt())

    def error(self) -> float:
        """The largest error of a sum of 100 clients, each freshly encrypted."""
        part = self.values[:SAMPLE]
        with quiet():
            total = self.tenseal.ckks_vector(self.context, part)
            for _ in range(CLIENTS - 1):
                total += self.tenseal.ckks_vector(self.context, part)
        return float(np.abs(np.array(total.decrypt()) - CLIENTS * part).max())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """TenSEAL prints a warning about long vectors each time."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def nvflare() -> Peer:
    return Peer(8192, [60, 40, 40], symmetric=True)


def timed(quick: bool, runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    return interleaved(runs, 2 if quick else 5, time.process_time)


def bfv(quick: bool) -> Iterator[Row]:
    """BFV under a shared key, seeded and not, and under a public key, against NVFlare's
    settings.
    """
    peer, plan = nvflare(), plan_of(D)
    integers, _ = rows(D)
    for how in ("symmetric", "seeded", "public"):
        keys = "authority" if how == "public" else "shared"
        public, secret = BFV(keys=keys, encryption=how).scheme.generate()
        body = secret.encrypt(integers, plan)
        total = [public.add([body, body], plan)]

        def add(public: Any = public, body: Any = body, total: list[Any] = total) -> None:
            total[0] = public.add([body] * 8, plan)

        seconds = timed(
            quick,
            {
                "encrypt": lambda secret=secret: secret.encrypt(integers, plan),
                "peer encrypt": peer.encrypt,
                "add": add,
                "peer add": lambda: [peer.add() for _ in range(8)],
                "decrypt": lambda secret=secret, body=body: secret.decrypt(body, plan, 1),
                "peer decrypt": peer.decrypt,
            },
        )
        case, targets = (
            f"bfv-{how}",
            {
                "symmetric": (2, 3, 1.8, 4.5),
                "seeded": (2, None, None, 9),
                "public": (None, None, None, 4.5),
            }[how],
        )
        yield cost(
            case,
            "NVFlare's CKKS",
            "encrypt 1M, s",
            seconds["encrypt"],
            seconds["peer encrypt"],
            targets[0],
        )
        yield cost(
            case,
            "NVFlare's CKKS",
            "add a client, s",
            seconds["add"] / 8,
            seconds["peer add"] / 8,
            targets[1],
        )
        yield cost(
            case,
            "NVFlare's CKKS",
            "decrypt 1M, s",
            seconds["decrypt"],
            seconds["peer decrypt"],
            targets[2],
        )
        yield cost(
            case,
            "NVFlare's CKKS",
            "bytes a value",
            len(body[0]) / D,
            len(peer.body) / D,
            targets[3],
        )
        exact = public.add([body] * CLIENTS, plan)
        wrong = np.abs(secret.decrypt(exact, plan, CLIENTS) - CLIENTS * integers).max()
        yield gain(case, "NVFlare's CKKS", "sums of 100 that are exact", float(wrong == 0), 1.0, 1)


def ckks(quick: bool) -> Iterator[Row]:
    """The raw arithmetic of the short chain, unflooded, against the tutorial's default; and what
    the flooded default's error is.
    """
    peer, plan = Peer(8192, [60, 40, 40, 60], symmetric=False), plan_of(D)
    _, reals = rows(D)
    lattice = ckks_sets(clients=255)[0]
    public, raw = fresh(lattice, 1)
    secret = LatticeSecret(public, raw, "public")
    body = public.encrypt(reals, plan)
    seconds = timed(
        quick,
        {
            "encrypt": lambda: public.encrypt(reals, plan),
            "peer encrypt": peer.encrypt,
            "add": lambda: public.add([body] * 8, plan),
            "peer add": lambda: [peer.add() for _ in range(8)],
            "decrypt": lambda: secret._decrypted(body, plan),
            "peer decrypt": peer.decrypt,
        },
    )
    case, against = "ckks-4096-raw", "CKKS 8192 [60,40,40,60]"
    yield cost(case, against, "encrypt 1M, s", seconds["encrypt"], seconds["peer encrypt"], 1.7)
    yield cost(case, against, "add a client, s", seconds["add"] / 8, seconds["peer add"] / 8, 2.8)
    yield cost(case, against, "decrypt 1M, s", seconds["decrypt"], seconds["peer decrypt"], 2.5)
    yield cost(case, against, "bytes a value", len(body[0]) / D, len(peer.body) / D, 2.6)
    part, few = reals[:SAMPLE], plan_of(SAMPLE)
    total = public.add([public.encrypt(part, few) for _ in range(CLIENTS)], few)
    error = float(np.abs(secret._decrypted(total, few) - CLIENTS * part).max())
    yield cost(case, "1e-8", "error of a sum of 100", error, 1e-8, 1)
    yield cost(case, against, "error of a sum of 100", error, peer.error())
    channel = CKKS()
    yield cost(
        "ckks-flooded",
        "fixed point of 16 bits",
        "error (1 sigma) of a sum of 100",
        channel.error(plan),
        math.sqrt(CLIENTS / 12) / TOP,
    )


def mp_rlwe(quick: bool) -> Iterator[Row]:
    """Multi-party RLWE with three decryptors against NVFlare's settings."""
    peer, plan = nvflare(), plan_of(D)
    integers, _ = rows(D)
    pieces, seed = [TernaryPart() for _ in range(3)], bytes(32)
    public = JointPublic(seed, summed([piece.public(seed) for piece in pieces]), 16)
    body, blocks = public.encrypt(integers, plan), public.blocks(plan)

    seconds = timed(
        quick,
        {
            "encrypt": lambda: public.encrypt(integers, plan),
            "peer encrypt": peer.encrypt,
            "add": lambda: (add_c0([body[0]] * 8), public.add_c1([body[1]] * 8, plan)),
            "peer add": lambda: [peer.add() for _ in range(8)],
            "partial": lambda: partial(pieces[:1], body[1], blocks, 67),
            "peer decrypt": peer.decrypt,
        },
    )
    case = "mp-rlwe"
    yield cost(
        case, "NVFlare's CKKS", "encrypt 1M, s", seconds["encrypt"], seconds["peer encrypt"], 8
    )
    yield cost(
        case, "NVFlare's CKKS", "add a client, s", seconds["add"] / 8, seconds["peer add"] / 8, 15
    )
    yield cost(
        case,
        "NVFlare's CKKS",
        "partial decrypt 1M, s",
        seconds["partial"],
        seconds["peer decrypt"],
        1.3,
    )
    yield cost(
        case,
        "NVFlare's CKKS",
        "bytes a value",
        (len(body[0]) + len(body[1])) / D,
        len(peer.body) / D,
        3.5,
    )
    c0, c1 = public.add([body] * CLIENTS, plan)
    opened = public.opened(bytes(c0), [partial([piece], c1, blocks, 67) for piece in pieces], plan)
    yield gain(
        case,
        "NVFlare's CKKS",
        "sums of 100 that are exact",
        float(bool((opened == CLIENTS * integers).all())),
        1.0,
        1,
    )


def workers(quick: bool) -> Iterator[Row]:
    """Two processes (TenSEAL holds the interpreter lock) and two threads (GMP lets go of it)
    against one; wall time.
    """
    integers, _ = rows(D)
    plan, repeats = plan_of(D), 3 if quick else 7
    one, two = (BFV(workers=n).scheme.generate()[0] for n in (1, 2))
    seconds = interleaved(
        {"one": lambda: one.encrypt(integers, plan), "two": lambda: two.encrypt(integers, plan)},
        repeats,
    )
    yield cost("workers", "1 process", "BFV encrypt 1M, s", seconds["two"], seconds["one"], 1.7)
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


def federated(quick: bool) -> Iterator[Row]:
    """A federation on MNIST over BFV against the same over the plain channel (wall time), and
    against plain training on the same integers.

    Ten clients hold 6,000 images each and train a perceptron of 1,000,120 parameters for one epoch
    in batches of 10, as McMahan et al. (2017) do on MNIST, clipped to norm 5. Every run has one
    process and one thread. The quantised peer adds the same 16-bit integers at a trusted party,
    without any cryptography.
    """
    split, rounds = load("mnist"), 3
    parts = torch.randperm(split.train.n, generator=torch.Generator().manual_seed(0)).split(6000)
    clients = [split.train.take(part) for part in parts]
    torch.manual_seed(0)
    start = nn.Sequential(nn.Flatten(), nn.Linear(784, 1258), nn.ReLU(), nn.Linear(1258, 10))

    def train(channel: Any) -> tuple[float, float, Run]:
        federation = Federation(
            copy.deepcopy(start),
            clients,
            split.test,
            rounds=rounds,
            training=LocalSGD(lr=0.1, plan=LocalPlan(batch_size=10)),
            bound=Clip(l2=5.0),
            channel=channel,
            executor="sequential",
            audit=AuditConfig(keep="none"),
        )
        began, busy = time.perf_counter(), time.process_time()
        run = federation.run()
        return time.perf_counter() - began, time.process_time() - busy, run

    channels = {"plain": Plain(), "bfv": BFV()}
    turns = [
        {name: train(channel) for name, channel in channels.items()}
        for _ in range(1 if quick else 3)
    ]
    wall, cpu = (
        {name: min(turn[name][clock] for turn in turns) for name in channels} for clock in (0, 1)
    )
    run, exact = turns[0]["bfv"][2], train(SecAgg(bits=16, fidelity="ideal"))[2]
    stages = {
        stage: sum(record.seconds.get(stage, 0.0) for record in run.history) / rounds
        for stage in ("train", "channel", "evaluate")
    }
    say(
        "federated, seconds a round over bfv:",
        ", ".join(f"{stage} {spent:.2f}" for stage, spent in stages.items()),
    )
    curve, peer = ([record.accuracy or math.nan for record in one.history] for one in (run, exact))
    say("federated, accuracy by round:", ", ".join(f"{accuracy:.4f}" for accuracy in curve))
    apart = max(abs(ours - theirs) for ours, theirs in zip(curve, peer, strict=True))
    moved = float((run.parameters - exact.parameters).abs().max())
    case = "federated"
    yield cost(case, "plain", "seconds of a run", wall["bfv"], wall["plain"], 0.667)
    yield cost(case, "plain", "CPU seconds of a run", cpu["bfv"], cpu["plain"])
    yield Row(
        case,
        "plain quantised",
        "difference of the accuracy curves",
        apart,
        0.0,
        float(apart == 0),
        1,
    )
    yield Row(
        case,
        "plain quantised",
        "difference of the final parameters",
        moved,
        0.0,
        float(moved == 0),
        1,
    )
    yield gain(
        case, "plain", "accuracy after 3 rounds", run.accuracy, turns[0]["plain"][2].accuracy
    )


CASES: dict[str, Callable[[bool], Iterable[Row]]] = {
    "paillier": paillier,
    "bfv": bfv,
    "ckks": ckks,
    "mp_rlwe": mp_rlwe,
    "workers": workers,
    "federated": federated,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    main("he", CASES)
