"""Layers of an audit one after the other, or several at a time in processes of their own."""

from __future__ import annotations

import pickle
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool

import torch

from privfl.audit.games import tell
from privfl.audit.layer import AskedOfLayers, LayerFound, attack_layer
from privfl.core import ConfigError, ProcessDied
from privfl.core.pool import pool_of, put
from privfl.federation import Federation

Progress = Callable[[str], None] | None


def each(
    layers: Mapping[str, Federation],
    asked: AskedOfLayers,
    deadline: float | None,
    jobs: int,
    progress: Progress,
) -> dict[str, LayerFound]:
    """What came of each layer, in the layers' order. After ``deadline``, as `time.perf_counter`
    counts, no further attack begins in any of them.

    Raises:
        ConfigError: a layer that does not travel to another process.
        ProcessDied: the process of a layer was killed.
    """
    jobs = min(jobs, len(layers))
    if jobs == 1:
        return {
            layer: attack_layer(layer, federation, asked, _left(deadline), progress)
            for layer, federation in layers.items()
        }
    packed = {layer: _packed(layer, federation, asked) for layer, federation in layers.items()}
    threads = max(1, torch.get_num_threads() // jobs)
    found: dict[str, LayerFound] = {}
    try:
        with pool_of(jobs, at_once=True) as pool:
            until = None if deadline is None else time.time() + (deadline - time.perf_counter())
            waiting = {
                put(pool, _attack, layer, packed.pop(layer), until, threads): layer
                for layer in layers
            }
            for done in as_completed(waiting):
                layer = waiting[done]
                found[layer], warned = done.result()
                for words, kind in warned:
                    warnings.warn(f"{layer}: {words}", kind, stacklevel=3)
                tell(progress, f"{layer}: done")
    except BrokenProcessPool:
        raise ProcessDied(
            "a process of the audit was killed, for want of memory perhaps, or a script lacks"
            " 'if __name__ == \"__main__\":' around what it runs: try fewer jobs."
        ) from None
    return {layer: found[layer] for layer in layers}


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.perf_counter()


def _packed(layer: str, federation: Federation, asked: AskedOfLayers) -> bytes:
    try:
        return pickle.dumps((federation, asked))
    except Exception as fault:  # whatever a part of somebody else's raises
        raise ConfigError(
            f"layer '{layer}' does not travel to another process ({fault}): audit it with jobs 1."
        ) from None


def _unpacked(layer: str, packed: bytes) -> tuple[Federation, AskedOfLayers]:
    try:
        made: tuple[Federation, AskedOfLayers] = pickle.loads(packed)
    except Exception as fault:
        raise ConfigError(
            f"layer '{layer}' cannot be made anew in another process ({fault}): audit it with jobs"
            " 1."
        ) from None
    return made


def _attack(
    layer: str, packed: bytes, until: float | None, threads: int
) -> tuple[LayerFound, list[tuple[str, type[Warning]]]]:
    """In a process of its own. Clocks that only go forward begin anew in each process."""
    torch.set_num_threads(threads)
    seconds = None if until is None else until - time.time()
    with warnings.catch_warnings(record=True) as caught:
        found = attack_layer(layer, *_unpacked(layer, packed), seconds, None)
    told = {(str(one.message), one.category) for one in caught}
    return found, sorted(told, key=str)
