"""A model by name, with weights that a seed repeats."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from privfl.core import ConfigError, unknown

Builder: TypeAlias = Callable[..., nn.Module]
"""(shape of one sample, classes, **options) -> a module with fresh weights. One that takes no
argument called shape or classes is given none: somebody's own class of a network.
"""


_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def initialised(
    builder: Builder, shape: Sequence[int], classes: int, *, seed: int, **options: Any
) -> nn.Module:
    """A module whose weights depend on ``seed`` alone; torch's global generator is left as it was.

    Raises:
        ConfigError: the builder has no such option, or makes no module.

    >>> make = lambda: initialised(lambda shape, classes: nn.Linear(2, 1), (2,), 2, seed=5)
    >>> bool((make().weight == make().weight).all())
    True
    """
    taken = inspect.signature(builder).parameters
    facts = {"shape": shape, "classes": classes}
    known = [name for name, p in taken.items() if name not in facts and p.kind not in _ANY]
    for option in options:
        if option not in known:
            raise ConfigError(unknown("model option", option, known))
    told = {name: fact for name, fact in facts.items() if name in taken}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made: object = builder(**told, **options)
    if not isinstance(made, nn.Module):
        raise ConfigError(f"model is a {type(made).__name__}, and must be a torch.nn.Module.")
    return made


def build(
    models: Mapping[str, Builder],
    name: str,
    shape: Sequence[int],
    classes: int,
    *,
    seed: int,
    **options: Any,
) -> nn.Module:
    """The model of that name.

    Raises:
        ConfigError: no such model, or no such option.
    """
    if name not in models:
        raise ConfigError(unknown("model", name, models))
    return initialised(models[name], shape, classes, seed=seed, **options)
