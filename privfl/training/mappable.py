"""Whether a network computes the same when it is mapped over clients: asked of the network itself,
on samples of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from privfl.core import Dataset, FlatModel, LocalPlan, UnsupportedModel, Vector
from privfl.training.task import Workload

NEAR, NEAR_LOSS = 1e-2, 1e-4
"""How far mapped gradients and losses of a batch may lie from those of the network alone, as parts
of these. Rounding takes a gradient over a corner of a ReLU here and there, which moved those of
ResNet-20 by 2e-3 and their losses by nothing; what couples samples moves losses.
"""
FAINT = 0.1
"""How much of that is granted to a parameter beside its own length: some gradients are nothing but
rounding (a bias before a norm).
"""
WIDEST, DRAWN = 32, 256
"""Samples in the batches that are tried, at most, and those among which they are looked for."""
IGNORED = -100
"""The label that `torch.nn.functional.cross_entropy` leaves out."""
Gradients: TypeAlias = Callable[
    [dict[str, Tensor], Tensor, Tensor, Bool[Tensor, "K B"]], tuple[dict[str, Tensor], Tensor]
]
"""Of the parameters of K networks by name [K, ...], their batches [K, B, ...], labels and which
samples are there: the gradients of their mean losses, and these [K].
"""


def refuse_unmappable(workload: Workload, gradients: Gradients) -> None:
    """Refuse a network whose mapped gradients are not its own: three copies of it, unlike each
    other, on a batch as wide as the plan's, on one that lacks a sample and on one sample, the last
    two padded. The network is left as it was.

    What is seen is what these samples show: a network that goes by what it keeps in lists of its
    own, or by numbers that Python draws, may pass.

    Raises:
        UnsupportedModel: they are not, or nothing can be tried; says why.
    """
    model, method = workload.model, workload.method
    why = _by_its_layers(model.module)
    if why is not None:
        raise UnsupportedModel(f"this network cannot be mapped: {why}. {_WAY_OUT}")
    before, left = model.read(), model.grad.clone()
    try:
        data = _unlike(workload.data, method.recipe.plan)
        model.write(before)
        with _as_it_was(model.module) as wrote:
            try:
                same = _tried(workload, gradients, data, before)
            finally:
                why = wrote()
            if why is None and not same:
                why = "it reads the samples of a batch together, or computes otherwise when it is"
    except UnsupportedModel:
        raise
    except Exception as refused:
        said = str(refused).strip().partition("\n")[0]
        raise UnsupportedModel(
            "this network cannot be mapped"
            f" ({why or f'{type(refused).__name__}: {said[:200]}'}): use the sequential executor."
        ) from refused
    finally:
        model.write(before)
        model.grad.copy_(left)
    if why is not None:
        raise UnsupportedModel(f"this network cannot be mapped: {why}. {_WAY_OUT}")


_WAY_OUT = "Use the sequential executor."


def parts(model: FlatModel, rows: Tensor) -> dict[str, Tensor]:
    """Views of K flat vectors [K, d], by parameter name [K, ...]."""
    return {
        slot.name: rows[:, slot.start : slot.stop].view(-1, *slot.shape) for slot in model.slots
    }


def _by_its_layers(module: nn.Module) -> str | None:
    """What is known without trying, because few samples show it: gradients that somebody else
    changes, and embeddings that count or change rows by who is in a batch.
    """
    for name, p in module.named_parameters():
        if p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None):
            return f"a hook changes the gradient of its parameter '{name}'"
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
            if layer.scale_grad_by_freq:
                return f"layer '{name}' counts tokens over a batch (scale_grad_by_freq)"
            if layer.max_norm is not None:
                return f"layer '{name}' changes its weights while it computes (max_norm)"
    return None


@torch.no_grad()
def _unlike(data: Dataset, plan: LocalPlan) -> Dataset:
    """Samples to try it on: unlike each other, finite, with labels of classes that are there.

    Raises:
        UnsupportedModel: among those that were looked at are none, or are not two where batches
            hold several.
    """
    rng = torch.Generator().manual_seed(0)
    some = data.take(torch.randperm(data.n, generator=rng)[:DRAWN])
    x, y = (each.unsqueeze(1).flatten(1) for each in (some.x, some.y))
    there = ((y >= 0) & (y < data.classes)) | (y == IGNORED)
    usable = x.isfinite().all(1) & there.all(1) & (y != IGNORED).any(1)
    sums = x.float() @ torch.randn(x.shape[1], generator=rng).to(x.device)
    first: dict[float, int] = {}
    for at, (good, value) in enumerate(zip(usable.tolist(), sums.tolist(), strict=True)):
        if good:
            first.setdefault(value, at)
    if len(first) < min(2, plan.batch_size):
        raise UnsupportedModel(
            "whether this network can be mapped cannot be tried: of"
            f" {min(data.n, DRAWN)} samples that were looked at, {len(first)} are finite, unlike"
            f" each other and have labels of classes that are there. {_WAY_OUT}"
        )
    return some.take(list(first.values())[: min(WIDEST, plan.batch_size)])


def _tried(workload: Workload, gradients: Gradients, data: Dataset, start: Vector) -> bool:
    """Whether mapped gradients on these samples are those of the networks alone."""
    model, width = workload.model, data.n
    rng = torch.Generator().manual_seed(1)
    rows = torch.stack([start, *(_changed(start, rng) for _ in range(2))])
    sizes = [width, max(1, width - 1), 1]
    at = torch.arange(width).repeat(3, 1)
    there = at < torch.tensor(sizes)[:, None]
    at = (at * there).to(data.x.device)  # padded with the first
    found, losses = gradients(parts(model, rows), data.x[at], data.y[at], there.to(at.device))
    return all(
        _as_alone(workload, rows[k], data.take(range(size)), found, losses, k)
        for k, size in enumerate(sizes)
    )


def _changed(start: Vector, rng: torch.Generator) -> Vector:
    """Another network near one: no value stays, and none that was zero is, as otherwise a network
    of zeros shows nothing of what its layers do.
    """
    drawn = torch.rand(len(start), generator=rng).to(start.device)
    return torch.where(start == 0, 0.05 * drawn, start * (0.9 + 0.2 * drawn))


def _as_alone(
    workload: Workload,
    row: Vector,
    data: Dataset,
    found: dict[str, Tensor],
    losses: Tensor,
    k: int,
) -> bool:
    """Whether the k-th gradient and loss are those of the network ``row`` [d] by itself on these
    samples.
    """
    model = workload.model
    model.write(row)
    model.grad.zero_()
    loss = workload.loss(model.module, data.x, data.y)
    loss.backward()  # type: ignore[no-untyped-call]
    whole = FAINT * float(torch.linalg.vector_norm(model.grad))
    for slot in model.slots:
        mine, own = found[slot.name][k].flatten(), model.grad[slot.start : slot.stop]
        off, long = (float(torch.linalg.vector_norm(v)) for v in (mine - own, own))
        if not off <= NEAR * (long + whole):
            return False
    value = float(loss.detach())
    return abs(float(losses[k]) - value) <= NEAR_LOSS * abs(value)


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[Callable[[], str | None]]:
    """What a network writes into itself while it computes is undone; yields a question: what was
    it, if anything? K networks that share a layer would write over one another's.
    """
    layers = list(module.named_modules())
    own = [dict(vars(layer)) for _, layer in layers]
    buffers = [dict(layer._buffers) for _, layer in layers]
    values = [{n: b.clone() for n, b in held.items() if b is not None} for held in buffers]

    def wrote() -> str | None:
        for (name, layer), plain, held, kept in zip(layers, own, buffers, values, strict=True):
            there = name or type(layer).__name__
            for now, then in ((vars(layer), plain), (layer._buffers, held)):
                for key in {**now, **then}:
                    if not _same(now.get(key, _NONE), then.get(key, _NONE)):
                        return f"layer '{there}' writes its '{key}' while it computes"
            for key, value in kept.items():
                if not bool(torch.isclose(held[key], value, 0, 0, equal_nan=True).all()):
                    return f"layer '{there}' writes its '{key}' while it computes"
        return None

    try:
        yield wrote
    finally:
        for (_, layer), plain, held, kept in zip(layers, own, buffers, values, strict=True):
            vars(layer).clear()
            vars(layer).update(plain)
            layer._buffers.clear()
            layer._buffers.update(held)
            for key, value in kept.items():
                held[key].detach().copy_(value)


_NONE = object()


def _same(now: object, then: object) -> bool:
    """Whether an attribute is what it was: no other object, or another of the same plain value."""
    if now is then:
        return True
    return type(now) is type(then) and isinstance(now, int | float | str) and now == then
