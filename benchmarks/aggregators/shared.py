"""What the cases share: the peer's modules, the rows, and numbers of a fresh process.

ByzFL is pure Python but imports torchvision for its data sets: install it with ``pip install
--no-deps byzfl==0.0.11``; its rules are imported here without the rest of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import subprocess
import sys
import types

import torch

from privfl.core import Context, RoundPlan, Rows

N, D, F = 50, 1_000_000, 10
TAU = 100.0


def byzfl(module: str) -> types.ModuleType:
    """One of ByzFL's modules, past its package face (which imports torchvision)."""
    if "byzfl" not in sys.modules:
        spec = importlib.util.find_spec("byzfl")
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError("byzfl: pip install --no-deps byzfl==0.0.11")
        face = types.ModuleType("byzfl")
        face.__path__ = list(spec.submodule_search_locations)
        sys.modules["byzfl"] = face
    return importlib.import_module(f"byzfl.aggregators.{module}")


def rows(n: int = N, d: int = D) -> Rows:
    """Normal rows; the last fifth are one liar's copies."""
    values = torch.empty(n, d).normal_(generator=torch.Generator().manual_seed(n + d))
    liars = n // 5
    values[n - liars :] = -2 * values[0]
    return Rows.of(values)


def context(d: int) -> Context:
    return Context(
        RoundPlan(0, (0,), d, math.inf), torch.zeros(d), torch.Generator().manual_seed(0)
    )


def child(module: str, function: str, *arguments: str) -> float:
    """The number that a function of one of these modules prints in a fresh process."""
    script = f"from benchmarks.aggregators.{module} import {function}; {function}(*{arguments!r})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{function}{arguments} failed: {done.stderr[-400:]}")
    return float(done.stdout.split()[-1])
