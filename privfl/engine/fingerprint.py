"""What a run is made of, in words and hashes: every part with all its fields, the data, the model's
layers, the versions of what computes.

Two scenarios with the same fingerprint compute the same from the same state; a run that is resumed
must have the one that it began with. What the model holds before the first round is in the run's
first checkpoint, and not here. It holds hashes of clients' data, so it stays on the private side of
a run.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import platform
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from privfl.core import Faults, FlatModel, KeepsSecrets, SeededNoise, running_layers
from privfl.core.field_values import field_values
from privfl.engine.foreign_code import Code, library
from privfl.engine.scenario import Scenario
from privfl.version import __version__

_MANY = 24
"""Collections of more items stand as one hash."""
_DEEP = 16
_NAMES = {"workload.model": "model", "workload.data": "data", "workload.method": "training"}


def fingerprint(
    scenario: Scenario, faults: Faults | None = None, **settings: Any
) -> dict[str, str]:
    """What a run is made of, by the path of each part and field, with ``settings`` of the run
    beside the scenario.

    >>> sorted(versions())
    ['numpy', 'privfl', 'python', 'torch']
    """
    parts = {name: held for name, held in field_values(scenario).items() if name != "facts"}
    whole = {**parts, "faults": faults or Faults(), **settings, "versions": versions()}
    found: dict[str, str] = {}
    walk = _Walk()
    for name, value in whole.items():
        for path, words in walk.leaves(name, value):
            found[_renamed(path)] = words
    return found


def versions() -> dict[str, str]:
    """Of what computes a run's numbers."""
    return {
        "privfl": __version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def difference(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What differs between the fingerprint of a run and that of another, in words; "" if nothing.

    >>> difference({"rounds": "3", "seed": "0"}, {"rounds": "4", "seed": "0"})
    'rounds is 3 there and 4 here'
    """
    keys = (*there, *(key for key in here if key not in there))
    differing = [key for key in keys if there.get(key) != here.get(key)]
    if not differing:
        return ""
    # where a part is another one, its own fields say nothing more
    first = [
        key for key in differing if not any(key.startswith(f"{above}.") for above in differing)
    ]
    shown = [
        f"{key} is {there.get(key, 'not set')} there and {here.get(key, 'not set')} here"
        for key in first[:3]
    ]
    more = len(first) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def packages_of(scenario: Scenario) -> frozenset[str]:
    """The packages that a run's parts come from: whose state its checkpoint may hold."""
    walk = _Walk()
    parts = [
        scenario.channel,
        scenario.aggregator,
        scenario.bound,
        scenario.sampler,
        scenario.pace,
        scenario.mechanism,
        scenario.server_optimizer,
        scenario.workload.method,
        *scenario.defences,
        *scenario.data_seats,
        *(attacker.attack for attacker in scenario.attackers),
    ]
    for part in parts:
        for _ in walk.leaves("", part):
            pass
    return frozenset(walk.packages)


def _renamed(path: str) -> str:
    for long, short in _NAMES.items():
        if path == long or path.startswith(f"{long}."):
            return short + path[len(long) :]
    return path.removeprefix("workload.")


class _Walk:
    """A walk over parts, which notes whose classes it met, and hashes a tensor once."""

    def __init__(self) -> None:
        self.packages: set[str] = set()
        self._tensors: dict[int, tuple[Tensor, str]] = {}
        self._above: list[int] = []
        self._code = Code(self._words)

    def leaves(self, path: str, value: Any) -> Iterator[tuple[str, str]]:
        """Path and words of everything that a value is made of."""
        if value is None or isinstance(value, bool | int | float | str | complex):
            yield path, repr(value)
        elif isinstance(value, bytes | bytearray | memoryview):
            yield path, f"{len(value)} bytes {_hash(bytes(value))}"
        elif isinstance(value, Tensor):
            yield path, self._tensor(value)
        elif isinstance(value, np.ndarray):
            yield path, self._tensor(torch.from_numpy(np.ascontiguousarray(value)))
        elif isinstance(value, np.generic):
            yield path, repr(value.item())
        elif isinstance(value, Enum | torch.device | torch.dtype | PurePath | range):
            yield path, str(value)
        elif id(value) in self._above or len(self._above) > _DEEP:
            yield path, f"{_name(type(value))} again"
        else:
            self._above.append(id(value))
            yield from self._composite(path, value)
            self._above.pop()

    def _composite(self, path: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, Mapping):
            keys = [str(key) for key in value]
            yield from self._several(path, "mapping", list(zip(keys, value.values(), strict=True)))
        elif isinstance(value, set | frozenset):
            yield path, f"{{{', '.join(sorted(self._words(item) for item in value))}}}"
        elif isinstance(value, list | tuple):
            yield from self._several(path, "list", [(str(i), v) for i, v in enumerate(value)])
        elif isinstance(value, type):
            yield path, self._class(value)
        elif isinstance(value, types.FunctionType | types.BuiltinFunctionType):
            yield path, self._function(value)
        elif isinstance(value, types.MethodType):
            yield path, self._function(value.__func__)
            yield from self.leaves(f"{path}.self", value.__self__)
        elif isinstance(value, functools.partial):
            held = {"of": value.func, "arguments": value.args, "named": value.keywords}
            yield from self._several(path, "partial", list(held.items()))
        elif isinstance(value, torch.Generator):
            yield path, _hash(value.get_state().numpy().tobytes())
        else:
            yield from self._object(path, value)

    def _object(self, path: str, value: Any) -> Iterator[tuple[str, str]]:
        words = self._class(type(value))
        if isinstance(value, SeededNoise):
            yield path, f"{words} {value.digest}"
        elif isinstance(value, KeepsSecrets):
            yield path, words
        elif isinstance(value, FlatModel):
            yield from self._module(path, value.module)
            yield f"{path}.parameters", str(value.d)
        elif isinstance(value, nn.Module):
            yield from self._module(path, value)
            trained = {name: one for name, one in value.named_parameters() if one.requires_grad}
            yield from self._several(f"{path}.parameters", "mapping", list(trained.items()))
        else:
            held = field_values(value) if dataclasses.is_dataclass(value) else _held(value)
            yield path, words
            yield from self._several(path, "", list(held.items()))

    def _module(self, path: str, module: nn.Module) -> Iterator[tuple[str, str]]:
        """A torch module: its layers, their code where it is not torch's, and what is not trained
        of it.
        """
        layers = "; ".join(
            f"{name} {self._class(type(layer))}({layer.extra_repr()}, {layer.training})"
            for name, layer in module.named_modules()
        )
        training = tuple(f"{name}." if name else "" for name, _ in running_layers(module))
        constant = [
            (name, one)
            for name, one in module.named_buffers()
            if f"{name.rpartition('.')[0]}.".removeprefix(".") not in training
        ]  # what training changes is no more of the recipe than parameters are
        held = [*constant, *module.named_parameters()]
        fixed = [(name, self._tensor(one)) for name, one in held if not one.requires_grad]
        own = [(name, self._settings(layer)) for name, layer in module.named_modules()]
        yield path, f"{_name(type(module))} {_hash(f'{layers} {fixed} {own}'.encode())}"

    def _settings(self, layer: nn.Module) -> str:
        """What somebody's own layer computes with beside tensors: torch's say it themselves."""
        if library(type(layer).__module__):
            return ""
        held = {name: one for name, one in vars(layer).items() if not name.startswith("_")}
        return self._words({k: v for k, v in held.items() if not isinstance(v, Tensor)})

    def _several(
        self, path: str, what: str, items: list[tuple[str, Any]]
    ) -> Iterator[tuple[str, str]]:
        if len(items) > _MANY:
            each = "\n".join(
                f"{at} {words}" for key, v in items for at, words in self.leaves(key, v)
            )
            yield path, f"{len(items)} items {_hash(each.encode())}"
            return
        if what:
            yield path, f"{what} of {', '.join(key for key, _ in items) or 'nothing'}"
        for key, v in items:
            yield from self.leaves(f"{path}.{key}", v)

    def _words(self, value: Any) -> str:
        return ", ".join(words for _, words in self.leaves("", value))

    def _tensor(self, value: Tensor) -> str:
        if id(value) not in self._tensors:  # held, so that nobody else gets its id
            plain = value.detach().cpu().contiguous()
            content = plain.reshape(-1).view(torch.uint8) if plain.numel() else plain
            words = f"{str(plain.dtype).removeprefix('torch.')} {list(plain.shape)}"
            self._tensors[id(value)] = value, f"{words} {_hash(content.numpy().data)}"
        return self._tensors[id(value)][1]

    def _class(self, kind: type) -> str:
        self.packages.add(kind.__module__.partition(".")[0])
        if library(kind.__module__):
            return _name(kind)
        return f"{_name(kind)} {_hash(self._code.of_class(kind).encode())}"

    def _function(self, function: Any) -> str:
        module = str(function.__module__ or "builtins")
        self.packages.add(module.partition(".")[0])
        name = f"{module}:{function.__qualname__}"
        if library(module) or not isinstance(function, types.FunctionType):
            return name
        return f"{name} {_hash(self._code.of_function(function).encode())}"


def _held(value: Any) -> dict[str, Any]:
    """The attributes that an object itself holds: in its dictionary, and in the slots of its class
    and those before it that were filled.
    """
    held = dict(vars(value)) if "__dict__" in dir(value) else {}
    for kind in type(value).__mro__:
        for name, slot in vars(kind).items():
            if isinstance(slot, types.MemberDescriptorType):
                try:
                    held[name] = slot.__get__(value, kind)
                except AttributeError:  # it was never filled
                    continue
    return held


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _hash(content: bytes | memoryview) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()[:32]}"
