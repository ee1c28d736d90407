"""What holds of every model: logits of the right shape, a flat vector of parameters and back, and
no sample that sees another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from privfl.core import FlatModel, PrivflError, UnsupportedModel
from privfl.core.flat import refuse_running_statistics
from privfl.models import Builder, initialised
from privfl.testing.check import Broken, Check, expect, run_all

CLASSES = 9


@dataclass(frozen=True, slots=True)
class Drawn:
    """Four samples of one shape."""

    name: str
    x: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """One sample's."""
        return tuple(self.x.shape[1:])


def samples() -> tuple[Drawn, ...]:
    """Small and large images, a table, and text of nine tokens."""
    rng = torch.Generator().manual_seed(0)
    images = [
        Drawn(f"images {shape}", torch.randn(4, *shape, generator=rng))
        for shape in ((1, 8, 8), (28, 28), (1, 28, 28), (3, 32, 32))
    ]
    table = Drawn("a table of 12 columns", torch.randn(4, 12, generator=rng))
    text = Drawn("12 tokens", torch.randint(0, CLASSES, (4, 12), generator=rng))
    return (*images, table, text)


def check_model(builder: Builder) -> None:
    """Check a model: a function (shape of one sample, classes, **options) that makes a module.

    It is tried on images, a table and text of several shapes; it may refuse those that it is not
    for with `UnsupportedModel`.

    Raises:
        ConformanceError: the first property that does not hold, with what was tried, what came of
            it, and what to change.

    >>> from privfl.models import softmax
    >>> check_model(softmax)
    >>> def normed(shape, classes):
    ...     return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes), nn.BatchNorm1d(classes))
    >>> check_model(normed)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    privfl.testing.check.ConformanceError: normed: it does not hold that ...
    """
    run_all(model_checks(builder))


def model_checks(builder: Builder) -> Iterator[Check]:
    """The single checks of `check_model`, as callables for a test runner.

    >>> from privfl.models import softmax
    >>> str(next(model_checks(softmax)))
    'softmax: it gives one logit a class for samples that it is for'
    """
    properties: list[tuple[str, Callable[[Builder], None]]] = [
        ("it gives one logit a class for samples that it is for", _logits),
        ("its parameters are one flat vector and back", _flat),
        ("no sample's logits depend on the others", _coupled),
        ("every parameter has a gradient", _gradient),
        ("its weights depend on the seed alone", _seeded),
    ]
    for says, run in properties:
        yield Check(builder.__name__, says, partial(run, builder))


def _fitting(builder: Builder) -> list[tuple[Drawn, nn.Module]]:
    """The samples that it takes, each with a model for them.

    Raises:
        Broken: it takes none, or refuses some without saying so.
    """
    found, refused = [], []
    for held in samples():
        try:
            module = initialised(builder, held.shape, CLASSES, seed=1)
        except UnsupportedModel as refusal:
            refused.append(f"{held.name}: {refusal}")
            continue
        try:
            module(held.x)
        except (RuntimeError, IndexError, TypeError) as unfit:
            refused.append(f"{held.name}: {unfit}")  # a table's shape may be a text's
            continue
        found.append((held, module))
    if not found:
        raise Broken(
            f"it takes none of {len(refused)} kinds of samples ({'; '.join(refused)})",
            "take at least one of them, and refuse the others with UnsupportedModel",
        )
    return found


def _logits(builder: Builder) -> None:
    for held, module in _fitting(builder):
        made = module(held.x)
        wanted = (4, CLASSES) if made.ndim == 2 else (4, *held.shape, CLASSES)
        expect(
            tuple(made.shape) == wanted and bool(torch.isfinite(made).all()),
            f"of 4 samples of {held.name} it made {tuple(made.shape)}, or logits that are not"
            " finite",
            f"return logits {wanted}",
        )


def _flat(builder: Builder) -> None:
    for held, module in _fitting(builder):
        before = module(held.x).detach().clone()
        try:
            refuse_running_statistics(module)
            flat = FlatModel(module)
        except PrivflError as refusal:
            raise Broken(
                f"{held.name}: {refusal}",
                "use layers without running state, or leave those to an option, as resnet20 does",
            ) from None
        whole = flat.read()
        flat.write(torch.zeros(flat.d))
        expect(
            all(not p.any() for p in module.parameters()),
            "writing zeros left a parameter as it was",
            "make every parameter a leaf that is trained",
        )
        flat.write(whole)
        expect(
            torch.allclose(module(held.x), before, atol=1e-6),
            "reading all parameters and writing them back changed its logits",
            "keep no state beside its parameters",
        )


def _coupled(builder: Builder) -> None:
    for held, module in _fitting(builder):
        module.eval()
        together, other = module(held.x), held.x.clone()
        other[1:] = other[1:].flip(0) if held.x.dtype == torch.int64 else 5 * other[1:] + 1
        expect(
            torch.allclose(together[0], module(other)[0], atol=1e-5)
            and torch.allclose(together[0], module(held.x[:1])[0], atol=1e-5),
            f"the logits of one of 4 samples of {held.name} change with the other three",
            "normalise each sample on its own (GroupNorm, LayerNorm)",
        )


def _gradient(builder: Builder) -> None:
    for held, module in _fitting(builder):
        torch.autograd.backward(module(held.x).square().sum())
        idle = [name for name, p in module.named_parameters() if p.grad is None]
        expect(not idle, f"{held.name}: {', '.join(idle)} has no gradient", "use every parameter")


def _seeded(builder: Builder) -> None:
    held = _fitting(builder)[0][0]
    before = torch.get_rng_state()
    one, again, other = (
        FlatModel(initialised(builder, held.shape, CLASSES, seed=seed)).flat for seed in (1, 1, 2)
    )
    expect(
        torch.equal(torch.get_rng_state(), before)
        and torch.equal(one, again)
        and not torch.equal(one, other),
        "the same seed gave other weights, or another seed the same",
        "draw weights from torch's default generator, as torch's layers do",
    )
