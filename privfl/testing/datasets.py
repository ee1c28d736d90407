"""What holds of every data set: training and test samples of the shape, kind and classes that its
split states, the same each time it is loaded.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch

from privfl.core import Dataset
from privfl.data import Split
from privfl.data.split import Kind
from privfl.testing.building import Subject, checks_of
from privfl.testing.check import Check, expect, run_all


def check_dataset(dataset: Any) -> None:
    """Check a data set: an object (called with a folder, or None), a class (each of its
    ``examples``), or a function that makes one.

    Raises:
        ConformanceError: the first property that does not hold, with what was tried, what came of
            it, and what to change.
        DataMissing: its files are not on this machine.

    >>> from privfl.data import Digits
    >>> check_dataset(Digits)
    """
    run_all(dataset_checks(dataset))


def dataset_checks(dataset: Any) -> Iterator[Check]:
    """The single checks of `check_dataset`, as callables for a test runner.

    >>> from privfl.data import Digits
    >>> str(next(dataset_checks(Digits)))
    'Digits: its split holds samples to train on and others to test with'
    """
    yield from checks_of(dataset, _checks, "data set")


def _checks(subject: Subject) -> Iterator[Check]:
    properties: list[tuple[str, Callable[[_Loaded], None]]] = [
        ("its split holds samples to train on and others to test with", _split),
        ("samples have the shape and type that the split states", _shapes),
        ("labels are classes, or next tokens", _labels),
        ("facts about samples have names", _facts),
        ("it loads the same each time", _again),
    ]
    loaded = _Loaded(subject.made)
    for says, run in properties:
        yield Check(subject.name, says, partial(run, loaded))


@dataclass
class _Loaded:
    """A data set, loaded once for all checks of it."""

    made: Any

    @cached_property
    def split(self) -> Split:
        return self.load()

    def load(self) -> Split:
        split = self.made(None)
        expect(
            isinstance(split, Split),
            f"calling it gave {type(split).__name__}",
            "return a privfl.data.Split",
        )
        loaded: Split = split
        return loaded


def _parts(split: Split) -> tuple[tuple[str, Dataset], ...]:
    return ("train", split.train), ("test", split.test)


def _split(loaded: _Loaded) -> None:
    split = loaded.split
    expect(
        bool(split.name) and split.kind in typing.get_args(Kind),
        f"its name is {split.name!r} and its kind {split.kind!r}",
        f"give it a name and one of the kinds {', '.join(typing.get_args(Kind))}",
    )
    for what, part in _parts(split):
        expect(part.n > 0, f"{what} has no samples", "hold some samples out, and leave some")
    expect(
        split.train.x.data_ptr() != split.test.x.data_ptr(),
        "training and test samples are one tensor",
        "hold test samples out",
    )


def _shapes(loaded: _Loaded) -> None:
    split = loaded.split
    wanted = torch.int64 if split.kind == "text" else torch.float32
    for what, part in _parts(split):
        expect(
            tuple(part.x.shape[1:]) == tuple(split.shape) and part.x.dtype == wanted,
            f"{what} holds {part.x.dtype} of shape {tuple(part.x.shape[1:])}, and the split of kind"
            f" {split.kind} states {tuple(split.shape)}",
            f"make samples of that shape and of {wanted}",
        )
        expect(
            bool(torch.isfinite(part.x.float()).all()),
            f"{what} holds values that are not finite",
            "fill what is missing",
        )
    if split.mean:
        back = split.original(split.train.x[:5])
        expect(
            back.shape == split.train.x[:5].shape and bool(torch.isfinite(back).all()),
            f"mean and std of {len(split.mean)} numbers do not undo the scaling",
            "give one number a channel, or a feature",
        )


def _labels(loaded: _Loaded) -> None:
    split = loaded.split
    for what, part in _parts(split):
        expect(
            part.classes == split.classes
            and part.y.dtype == torch.int64
            and part.y.shape in ((part.n,), part.x.shape)
            and int(part.y.min()) >= 0
            and int(part.y.max()) < split.classes,
            f"{what} has labels {part.y.dtype} {tuple(part.y.shape)} in [{int(part.y.min())},"
            f" {int(part.y.max())}] of {part.classes} classes, and the split states"
            f" {split.classes}",
            "number classes from 0, in int64",
        )
    expect(
        len(split.class_names) in (0, split.classes),
        f"{split.classes} classes have {len(split.class_names)} names",
        "name every class, or none",
    )
    expect(
        int(split.train.y.min()) < int(split.train.y.max()),
        "all training samples have one label",
        "hold samples of every class",
    )


def _facts(loaded: _Loaded) -> None:
    split = loaded.split
    expect(
        split.train.attributes.keys() == split.test.attributes.keys(),
        f"train knows {sorted(split.train.attributes)} of its samples, test"
        f" {sorted(split.test.attributes)}",
        "tell the same of both",
    )
    expect(
        split.natural is None or split.natural in split.train.attributes,
        f"natural clients are told by '{split.natural}', and there is no such attribute",
        "name an attribute of the samples",
    )
    for what, part in _parts(split):
        for name, groups in part.groups.items():
            column = part.attributes.get(name)
            expect(
                column is not None and int(column.min()) >= 0 and int(column.max()) < len(groups),
                f"{what} names {len(groups)} values of '{name}', and its samples have others",
                "name the values 0, 1, .. of an attribute",
            )


def _again(loaded: _Loaded) -> None:
    once, before = loaded.split, torch.get_rng_state()
    again = loaded.load()
    expect(
        torch.equal(torch.get_rng_state(), before),
        "loading it moved torch's global generator",
        "use a torch.Generator of its own with a fixed seed",
    )
    for (what, one), (_, other) in zip(_parts(once), _parts(again), strict=True):
        expect(
            torch.equal(one.x, other.x) and torch.equal(one.y, other.y),
            f"loading it twice gave other samples in {what}",
            "split by a fixed rule",
        )
