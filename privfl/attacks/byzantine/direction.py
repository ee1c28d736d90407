"""The directions in which optimised attacks push (Shejwalkar, Houmansadr 2021, section IV-B)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Direction: TypeAlias = Literal["unit", "sign", "std"]
"""Inverse unit vector, inverse sign, inverse standard deviation."""
Along: TypeAlias = Literal["unit", "sign", "std", "best"]
"""One of them, or whichever does most harm: the paper finds that this differs from task to task."""
ALL: tuple[Direction, ...] = ("unit", "sign", "std")


def directions(along: Along) -> tuple[Direction, ...]:
    """The directions to try.

    >>> directions("best")
    ('unit', 'sign', 'std')
    """
    return ALL if along == "best" else (along,)


def direction(along: Direction, honest: Float[Tensor, "h d"]) -> Float[Tensor, " d"]:
    """P [d]: -mu / ||mu||, -sign(mu), or -sigma (of the sample, h - 1).

    >>> direction("sign", torch.tensor([[1.0, -2.0], [3.0, -4.0]]))
    tensor([-1.,  1.])
    """
    mu = honest.mean(dim=0)
    if along == "sign":
        return -mu.sign()
    if along == "unit":
        return -mu / float(mu.norm().clamp(min=torch.finfo(mu.dtype).tiny))
    return -honest.std(dim=0) if len(honest) > 1 else torch.zeros_like(mu)
