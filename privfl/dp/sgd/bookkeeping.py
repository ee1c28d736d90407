"""The book-keeping engine: one forward pass, one backward pass for layer errors only, and the
clipped sum from what was kept.

Per-sample weight gradients are never asked of autograd: each layer's backward leaves them in
whatever form is cheapest (Bu et al. 2023, book-keeping; Goodfellow 2015 and Li et al. 2022, ghost
norms), norms are added up, and the sum over samples is made once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from privfl.core import Loss, UnsupportedModel
from privfl.dp.sgd.attention import attention
from privfl.dp.sgd.engine import ClippedSum, Factors, trainable
from privfl.dp.sgd.kernels import KERNELS, Forward
from privfl.dp.sgd.lstm import lstm
from privfl.dp.sgd.per_sample_gradients import PerSampleGradient, SequenceOuterProduct, products
from privfl.dp.sgd.shared import together

MHA = nn.MultiheadAttention
SUPPORTED: tuple[type[nn.Module], ...] = (*KERNELS, nn.LSTM, MHA)


class _Recorded(torch.autograd.Function):
    """A layer whose backward also books its per-sample gradients. The anchor makes autograd come by
    even where no input needs it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        x: Tensor,
        kernel: Callable[[Any, Tensor], Forward],
        layer: nn.Module,
        book: _Book,
    ) -> Tensor:
        out, saved, ctx.backward_of_layer = kernel(layer, x)
        ctx.save_for_backward(*saved)
        ctx.layer, ctx.book = layer, book
        return out

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[None, Tensor | None, None, None, None]:
        behind, found = ctx.backward_of_layer(error, ctx.saved_tensors, ctx.needs_input_grad[1])
        ctx.book.add(ctx.layer, found)
        return None, behind, None, None, None


class _Book:
    """What one forward and backward pass leaves, by parameter."""

    def __init__(self, batch: int, anchor: Tensor) -> None:
        self.batch = batch
        self.anchor = anchor
        self.pieces: dict[nn.Parameter, list[PerSampleGradient]] = {}
        self.uses: Counter[nn.Parameter] = Counter()
        self.squared: Tensor | None = None
        self.alike: tuple[Tensor, int, Tensor] | None = None
        self.scored = False
        self.held: list[tuple[str, Tensor, int]] = []

    def run(
        self,
        name: str,
        layer: nn.Module,
        kernel: Callable[[Any, Tensor], Forward],
        x: Tensor,
        part: str = "",
    ) -> Tensor:
        if isinstance(layer, nn.Embedding) and x.ndim == 2 and len(x) == 1 < self.batch:
            x = x.expand(self.batch, -1)  # positions, which all samples share
        if x.shape[0] != self.batch:
            raise UnsupportedModel(
                f"layer '{name}' got {x.shape[0]} rows for a batch of {self.batch} samples: use"
                " engine 'vmap'."
            )
        if not self.scored:  # else a checkpoint runs it again, for what it had not kept
            self.uses.update(p for p in layer._parameters.values() if p is not None)
        out: Tensor = _Recorded.apply(self.anchor, x, kernel, layer, self)  # type: ignore[no-untyped-call]
        return out

    def add(self, layer: nn.Module, found: dict[str, PerSampleGradient]) -> None:
        if not self.scored:  # it would be booked beside the loss's own, as if it were a part of it
            raise UnsupportedModel(
                f"the model or the loss takes gradients through a {type(layer).__name__} itself,"
                " which engine 'bookkeeping' cannot tell from those of the loss: use engine 'vmap'."
            )
        for name, piece in found.items():
            parameter = layer._parameters.get(name)
            if parameter is not None and parameter.requires_grad:
                self.pieces.setdefault(parameter, []).append(piece)
                kind = type(layer).__name__
                self.held.extend((kind, tensor, tensor._version) for tensor in piece.tensors())
                if self.uses[parameter] == 1:
                    self._count(piece)  # while it is in the cache

    def close(self) -> None:
        """Let go of all activations. Their graph holds this book, so that a step which ends early
        would else keep its batch's memory for good: nobody collects a circle through a graph.
        """
        self.pieces.clear()
        self.held.clear()
        self.alike = None

    def _products(self, inputs: Tensor) -> Tensor:
        """Inner products of a layer's inputs, once for layers in a row that read the same tensor
        (which is held here meanwhile, so that no other can take its place in memory).
        """
        known = self.alike
        if known is None or known[1] != inputs._version or not _same(known[0], inputs):
            self.alike = known = inputs, inputs._version, products(inputs)
        return known[2]

    def _count(self, piece: PerSampleGradient) -> None:
        if isinstance(piece, SequenceOuterProduct):
            piece.alike = self._products(piece.inputs)
        squared = piece.squared()
        if isinstance(piece, SequenceOuterProduct):
            piece.alike = None  # the sum has no use for it
        self.squared = squared if self.squared is None else self.squared + squared

    def norms(self, total: Tensor) -> Tensor:
        """Each sample's norm, with what is left of each parameter put together.

        Raises:
            UnsupportedModel: what a layer read, or its error, is no longer what its norm was of.
        """
        for kind, tensor, version in self.held:
            if tensor._version != version:
                raise UnsupportedModel(
                    f"what a {kind} read, or its error, was changed in place during the backward"
                    " pass (a hook, or saved tensors that are unpacked into one buffer), so its"
                    " clipped sum would not be of the gradients that its norms are of: return new"
                    " tensors there."
                )
        self.held.clear()
        for parameter, found in self.pieces.items():
            if self.uses[parameter] > 1:
                piece = together(found, parameter.shape)
                self.pieces[parameter] = [piece]
                self._count(piece)
        return total.new_zeros(self.batch) if self.squared is None else self.squared.sqrt()


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are one piece of memory, read alike."""
    return (a.data_ptr(), a.shape, a.stride(), a.dtype, a.device) == (
        b.data_ptr(),
        b.shape,
        b.stride(),
        b.dtype,
        b.device,
    )


def survey(module: nn.Module) -> tuple[dict[str, nn.Parameter], list[tuple[str, nn.Module]]]:
    """Trainable parameters by name, and the layers that hold them.

    Raises:
        UnsupportedModel: a layer without a fast path, or a BatchNorm; with the engine that can
            train it.
    """
    named = trainable(module)
    layers: list[tuple[str, nn.Module]] = []
    for name, layer in module.named_modules():
        own: Iterable[nn.Parameter] = layer.parameters(recurse=isinstance(layer, MHA))
        if not any(parameter.requires_grad for parameter in own):
            continue
        if type(layer) not in SUPPORTED:
            raise UnsupportedModel(
                f"engine 'bookkeeping' has no fast path for layer '{name}'"
                f" ({type(layer).__name__}): use engine 'opacus' where Opacus supports it, or"
                " engine 'vmap' for anything."
            )
        layers.append((name, layer))
    return named, layers


@contextmanager
def _recording(layers: list[tuple[str, nn.Module]], book: _Book) -> Iterator[None]:
    try:
        for name, layer in layers:
            if isinstance(layer, nn.LSTM):
                run = partial(book.run, name)
                layer.forward = partial(lstm, layer, run)  # type: ignore[assignment]
            elif isinstance(layer, MHA):
                run = partial(book.run, name)
                layer.forward = partial(attention, layer, run)  # type: ignore[method-assign]
            else:
                layer.forward = partial(book.run, name, layer, KERNELS[type(layer)])
        yield
    finally:
        for _, layer in layers:
            layer.__dict__.pop("forward", None)


def bookkeeping(
    module: nn.Module,
    loss: Loss,
    x: Tensor,
    y: Tensor,
    factors: Factors,
    total: Float[Tensor, " d"],
) -> ClippedSum:
    """Add the sum of per-sample gradients of x [b, ...] and y [b, ...], each times its factor, to
    ``total`` by book-keeping.

    Raises:
        UnsupportedModel: a layer without a fast path, parameters that reach the loss outside of
            their layer, a loss that takes gradients itself, or activations or errors that are
            changed in place during the backward pass (through ``.data`` nobody can see it).
    """
    named, layers = survey(module)
    book = _Book(x.shape[0], torch.zeros((), requires_grad=True, device=x.device))
    try:
        with _recording(layers, book):
            mean = loss(module, x, y)
            book.scored = True
            # inside: a checkpoint is to keep of these layers what it kept at first
            _backward(mean * book.batch, book, named)
        with torch.no_grad():
            norms = book.norms(total)
            weights = factors(norms)
            start = 0
            for parameter in named.values():
                stop = start + parameter.numel()
                for piece in book.pieces.pop(parameter, ()):  # none where the loss never came by
                    piece.add(total[start:stop].view(parameter.shape), weights)
                start = stop
        return ClippedSum(norms, mean.item())
    finally:
        book.close()


def _backward(total: Tensor, book: _Book, named: dict[str, nn.Parameter]) -> None:
    """Fill the book.

    Raises:
        UnsupportedModel: a parameter has a gradient that no layer booked.
    """
    outside = torch.autograd.grad(total, [book.anchor, *named.values()], allow_unused=True)
    for name, stray in zip(named, outside[1:], strict=True):
        if stray is not None:
            raise UnsupportedModel(
                f"parameter '{name}' reaches the loss outside of its layer (a penalty, or a weight"
                " that another function reads): use engine 'vmap', leave penalties to the"
                " optimiser, and tie weights by giving two layers one parameter."
            )
