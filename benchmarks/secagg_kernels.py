"""What a client computes for a secure sum: masks beside the bare keystream, fixed point beside
numpy.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks import floors
from benchmarks.harness import Row, cost, interleaved
from privfl.core import Bounded, RoundPlan
from privfl.core.native import build_kernels, kernels
from privfl.crypto import FixedPoint
from privfl.crypto.fixed_kernel import agrees_with_doubles, encoded
from privfl.crypto.primitives import backend, mask


def keystream(quick: bool) -> Iterator[Row]:
    """One mask of 1M values, generated and added, against the bare AES-CTR keystream of the same
    length; quantising beside it.
    """
    values, seed, library = np.zeros(1_000_000, dtype=np.uint32), bytes(range(32)), backend()
    zeros, out = bytes(1 << 17), np.empty((1 << 17) + 16, dtype=np.uint8)

    def bare() -> None:
        stream = Cipher(algorithms.AES(seed[:16]), modes.CTR(bytes(16))).encryptor()
        for start in range(0, values.nbytes, len(zeros)):
            stream.update_into(zeros[: values.nbytes - start], out)

    found = interleaved(
        {
            "ours": lambda: mask(values, [(seed, 1)], library),
            "bare": bare,
            "keystream": floors.keystream(values.nbytes),
        },
        20 if quick else 60,
        time.process_time,
    )
    yield cost(
        "mask",
        "bare AES-CTR keystream",
        "s for 1M values",
        found["ours"],
        found["bare"],
        target=1 / 1.5,
    )
    least = found["keystream"]
    yield floors.floor("mask", "s for 1M values", "keystream as GCM has it", found["ours"], least)
    vector = torch.randn(1_000_000)
    update, plan = (
        Bounded(1, 0.9 * vector / vector.norm(), 1.0),
        RoundPlan(0, (1, 2), d=1_000_000, l2=1.0),
    )
    numbers, rng, repeats = update.delta.numpy(), np.random.default_rng(0), 5 if quick else 15
    textbook = {
        "nearest": lambda: np.rint(np.clip(numbers, -1, 1) * 32767.0).astype(np.int64),
        "stochastic": (
            lambda: np.floor(np.clip(numbers, -1, 1) * 32767.0 + rng.random(len(numbers))).astype(
                np.int64
            )
        ),
    }
    for rounding, theirs in textbook.items():
        code = FixedPoint(16, rounding=rounding)
        runs = {
            "ours": lambda code=code: code.encode(update, plan, dtype=np.int32),
            "theirs": theirs,
            "copying": floors.copied(update.delta),
        }
        found = interleaved(runs, repeats, time.process_time)
        metric, mine = f"s for 1M values, {rounding}", found["ours"]
        yield cost("quantise", "three lines of numpy", metric, mine, found["theirs"])
        yield floors.floor("quantise", metric, "copying the values", mine, found["copying"])


def compiled(quick: bool) -> Iterator[Row]:
    """Fixed point by the compiled kernel over the same by numpy's doubles, in turn, with the same
    words: 1M values, 16 bits.
    """
    with tempfile.TemporaryDirectory() as place:
        build_kernels(agrees_with_doubles, Path(place))
        library = kernels(Path(place))
    os.environ["PRIVFL_NATIVE"] = "off"  # from here on codes use numpy
    vector = torch.randn(1_000_000)
    update, plan = Bounded(1, 0.9 * vector / vector.norm(), 1.0), RoundPlan(0, (1, 2), 10**6, 1.0)
    code, values = FixedPoint(16), update.delta.numpy()
    factor = code.scale(plan)

    def by_kernel() -> Any:
        out = np.empty(code.length(plan), dtype=np.int32)
        if not encoded(values, factor, code.top, out[: plan.d], library):
            raise RuntimeError("the kernel does not take these values")
        return out

    if not np.array_equal(by_kernel()[: plan.d], code.encode(update, plan)[: plan.d]):
        raise RuntimeError("the kernel has other words")
    runs: dict[str, Callable[[], object]] = {
        "ours": by_kernel,
        "theirs": lambda: code.encode(update, plan, dtype=np.int32),
        "copying": floors.copied(update.delta),
    }
    found = interleaved(runs, 10 if quick else 30, time.process_time)
    metric = "s for 1M values to fixed point, nearest, compiled"
    yield cost("compiled", "our numpy", metric, found["ours"], found["theirs"], 2)
    yield floors.floor("compiled", metric, "copying the values", found["ours"], found["copying"])
