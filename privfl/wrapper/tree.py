"""Updates in the shape that their loop has them, as one vector and back: flat vectors, state_dicts,
lists of arrays, nested mappings, numpy or torch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from privfl.core import BadUpdate, Vector

V = TypeVar("V")

Kind: TypeAlias = Literal["torch", "numpy", "scalar", "float"]
"""A tensor, an array, a numpy number, or Python's own."""
Float64: TypeAlias = Literal["refuse", "round"]
"""What becomes of values that float32 does not hold: refused, or rounded."""
_RUNNING = frozenset({"running_mean", "running_var", "num_batches_tracked"})
"""What torch's normalisation layers call the statistics that they keep."""
_EXACT = frozenset({torch.float32, torch.float16, torch.bfloat16})


@dataclass(frozen=True, slots=True)
class Leaf:
    """One array of an update: where it stands, its shape and type, and its place in the vector."""

    path: str
    shape: tuple[int, ...]
    dtype: torch.dtype | np.dtype[Any]
    kind: Kind
    device: torch.device | None
    start: int
    stop: int

    def read(self, value: Any, whose: str, into: npt.NDArray[np.float32]) -> None:
        """Write the values of an array of this shape and type into its place.

        Raises:
            BadUpdate: it has another shape or type.
        """
        kind, shape, dtype, _ = _facts(value, whose, self.path)
        if (kind, shape, dtype) != (self.kind, self.shape, self.dtype):
            own = _words(self.kind, self.shape, self.dtype)
            raise BadUpdate(
                f"{_at(whose, self.path)}: {own} was expected, as the first client sent, and this"
                f" is {_words(kind, shape, dtype)}."
            )
        values = value
        if kind == "torch":
            values = value.detach().cpu().resolve_neg().to(torch.float32).numpy()
        with np.errstate(over="ignore"):  # what becomes infinite is refused, or counts as zero
            into[self.start : self.stop] = np.asarray(values, dtype=np.float32).reshape(-1)

    def write(self, vector: Vector) -> Any:
        """The values of its place as an array of this shape, type and device."""
        part = vector[self.start : self.stop].reshape(self.shape)
        if isinstance(self.dtype, torch.dtype):
            return part.to(self.device, self.dtype)
        if self.kind == "float":
            return float(part.item())
        values = part.numpy().astype(self.dtype, copy=False)
        return values if self.kind == "numpy" else values[()]


@dataclass(frozen=True, slots=True)
class _Branch:
    """A mapping or a sequence: its type, and what is in it by key or position."""

    made_by: type
    keys: tuple[Hashable, ...] | None
    below: tuple[_Branch | Leaf, ...]


@dataclass(frozen=True, slots=True)
class UpdateLayout(Generic[V]):
    """How updates look: read an update of this shape as a vector [d], and write a vector [d] as an
    update. Keys of a mapping may come in another order.

    Every update has the shape and the types of the first. Values of float64 are refused unless
    ``float64`` is "round": a round computes with the 24 bits of float32, and what comes back as
    float64 holds no more. Whole numbers are refused: their mean is none. So are the running
    statistics of normalisation layers, by name.

    >>> layout = UpdateLayout.of({"w": torch.ones(2, 2), "b": torch.zeros(1)}, "client 0")
    >>> layout.d, layout.read({"b": torch.ones(1), "w": torch.ones(2, 2)}, "client 1")
    (5, tensor([1., 1., 1., 1., 1.]))
    >>> layout.write(torch.zeros(5))["b"]
    tensor([0.])
    """

    root: _Branch | Leaf
    d: int
    float64: Float64 = "refuse"

    @property
    def keys(self) -> tuple[Hashable, ...] | None:
        """The keys of updates that are mappings; None of others."""
        return None if isinstance(self.root, Leaf) else self.root.keys

    @classmethod
    def of(cls, update: V, whose: str, float64: Float64 = "refuse") -> UpdateLayout[V]:
        """The layout of an update, which ``whose`` names in messages.

        Raises:
            BadUpdate: something in it is no array of numbers, or is refused (see above).
        """
        root, d = _layout(update, whose, "", 0, float64)
        if d == 0:
            raise BadUpdate(f"{whose}: the update holds no values at all.")
        return cls(root, d, float64)

    def read(self, update: V, whose: str) -> Vector:
        """An update as float32 [d] on the CPU: a copy.

        Raises:
            BadUpdate: it has another shape, or values of another type.
        """
        vector = torch.empty(self.d)
        into: npt.NDArray[np.float32] = vector.numpy()
        for leaf, value in _pairs(self.root, update, whose, ""):
            leaf.read(value, whose, into)
        return vector

    def write(self, vector: Vector) -> V:
        """A vector [d] as an update of this shape, on the devices and of the types of the first."""
        made: V = _built(self.root, vector.detach().cpu())
        return made


def _layout(
    value: Any, whose: str, path: str, start: int, float64: Float64
) -> tuple[_Branch | Leaf, int]:
    """The branch or leaf of a value, and where in the vector the next one begins."""
    keys = tuple(value) if type(value) in (dict, OrderedDict) else None
    if keys is None and type(value) is not list and not isinstance(value, tuple):
        return _leaf(value, whose, path, start, float64)
    below: list[_Branch | Leaf] = []
    for key, one in _items(value):
        if keys is not None and isinstance(key, str) and key.rpartition(".")[2] in _RUNNING:
            raise BadUpdate(
                f"{_at(whose, _joined(path, key))}: these are running statistics of a normalisation"
                " layer, and no parameters: a mean of them is none of the data's, and noise makes"
                " variances negative. Leave them out (torch: send named_parameters()), or use"
                " GroupNorm."
            )
        made, start = _layout(one, whose, _joined(path, key), start, float64)
        below.append(made)
    return _Branch(type(value), keys, tuple(below)), start


def _leaf(value: Any, whose: str, path: str, start: int, float64: Float64) -> tuple[Leaf, int]:
    kind, shape, dtype, device = _facts(value, whose, path)
    exact = dtype in _EXACT if isinstance(dtype, torch.dtype) else dtype.itemsize <= 4
    if not exact and float64 != "round":
        raise BadUpdate(
            f"{_at(whose, path)}: values of {_plain(dtype)} would be rounded to the 24 bits of"
            " float32: send float32, or say float64='round', and their means are rounded so."
        )
    stop = start + int(np.prod(shape, dtype=np.int64))
    return Leaf(path, shape, dtype, kind, device, start, stop), stop


def _facts(
    value: Any, whose: str, path: str
) -> tuple[Kind, tuple[int, ...], torch.dtype | np.dtype[Any], torch.device | None]:
    """What a value is.

    Raises:
        BadUpdate: no array, or no array of real numbers with a fraction.
    """
    if isinstance(value, torch.Tensor):
        dense = value.layout is torch.strided and not value.is_quantized
        if not dense or not value.is_floating_point():
            raise BadUpdate(_no_reals(whose, path, value.dtype, value.is_complex() or not dense))
        return "torch", tuple(value.shape), value.dtype, value.device
    if isinstance(value, np.ndarray | np.floating | float):
        array = np.asarray(value)
        if isinstance(value, np.ma.MaskedArray) or array.dtype.kind != "f":
            whole = array.dtype.kind in "iub"
            raise BadUpdate(_no_reals(whose, path, array.dtype, not whole))
        own: Kind = "scalar" if isinstance(value, np.floating) else "float"
        kind: Kind = "numpy" if isinstance(value, np.ndarray) else own
        return kind, array.shape, array.dtype, None
    raise BadUpdate(
        f"{_at(whose, path)}: an update is made of numpy arrays or torch tensors, in lists, tuples"
        f" and dicts, and this is a {type(value).__name__}."
    )


def _no_reals(whose: str, path: str, dtype: object, other: bool) -> str:
    said = f"{_at(whose, path)}: values of type {_plain(dtype)} are"
    if other:
        return (
            f"{said} no dense real numbers: send the real and the imaginary part of complex values"
            " as two arrays, and others as floats."
        )
    return f"{said} whole numbers, and their mean is none: leave them out, or send them as float32."


def _items(value: Any) -> Iterator[tuple[Hashable, Any]]:
    yield from (value.items() if isinstance(value, dict) else enumerate(value))


def _pairs(at: _Branch | Leaf, value: Any, whose: str, path: str) -> Iterator[tuple[Leaf, Any]]:
    """Each leaf with the array that stands there in another update."""
    if isinstance(at, Leaf):
        yield at, value
        return
    if type(value) is not at.made_by:
        raise BadUpdate(
            f"{_at(whose, path)}: a {at.made_by.__name__} was expected, as the first client sent,"
            f" and this is a {type(value).__name__}."
        )
    below: dict[Any, Any] = dict(_items(value))
    keys = at.keys if at.keys is not None else range(len(at.below))
    odd = below.keys() ^ set(keys)
    if odd:
        where = _at(whose, _joined(path, min(odd, key=str)))
        raise BadUpdate(
            f"{where}: this client and the first do not both have it: updates have the same parts."
        )
    for key, one in zip(keys, at.below, strict=True):
        yield from _pairs(one, below[key], whose, _joined(path, key))


def _built(at: _Branch | Leaf, vector: Vector) -> Any:
    if isinstance(at, Leaf):
        return at.write(vector)
    made = [_built(below, vector) for below in at.below]
    if at.keys is not None:
        return at.made_by(zip(at.keys, made, strict=True))
    named = at.made_by not in (list, tuple)  # a named tuple takes its fields one by one
    return at.made_by(*made) if named else at.made_by(made)


def _joined(path: str, key: Hashable) -> str:
    return f"{path}.{key}" if path else str(key)


def _at(whose: str, path: str) -> str:
    return f"{whose}, '{path}'" if path else whose


def _plain(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _words(kind: str, shape: tuple[int, ...], dtype: object) -> str:
    what = {"torch": "a tensor", "numpy": "an array"}.get(kind, "a number")
    return f"{what} of {_plain(dtype)} with shape {shape}"
