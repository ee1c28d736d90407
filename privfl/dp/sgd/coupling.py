"""Whether samples are coupled: clipping bounds one sample's gradient, and that says nothing where a
sample changes the gradients of the others.

Two checks, by comparing a sample in a batch with the same sample alone. `check_model` runs once a
model, through all of it, in float64 (a chain that is rowwise by what it is made of needs none).
`WatchedLoss` runs on every batch, and looks at the loss alone, of every sample: its coupling can
hang on labels that the first batch does not have, and concern no others.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.modules.dropout import _DropoutNd

from privfl.core import Loss, UnsupportedModel, cross_entropy
from privfl.dp.sgd.closed_loss import closed_cross_entropy
from privfl.dp.sgd.engine import Engine, trainable

_FEW = 4
"""So many samples of the first batch are looked at, in the whole model."""
_CLOSE = {torch.float64: 1e-6}
"""How far apart two norms of one gradient may be, relative to it, by type."""
_ROUGH = 1e-2
"""The same for types that are not listed: sums in another order."""


class Checked:
    """Modules that have been checked, for as long as they live; a copy or a pickle is empty.

    ``modules`` have been run; ``chains`` are seen to be rowwise, under a loss that gives them the
    batch as it is.
    """

    def __init__(self) -> None:
        self.modules: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self.chains: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    def __reduce__(self) -> tuple[type[Checked], tuple[()]]:
        return Checked, ()


def _refusal(what: str, apart: float) -> UnsupportedModel:
    return UnsupportedModel(
        f"{what} couples the samples of a batch: a sample's gradient among others differs from its"
        f" gradient alone by {apart:.2g} of its length, so clipping does not bound what one sample"
        " changes. Batch statistics, [time, batch] layouts, contrastive terms, and means that"
        " divide by class weights or by the labels that are not ignored do so. Score each sample"
        " for itself (a loss per sample, then their mean), use GroupNorm or LayerNorm and [batch,"
        " time], or use engine 'vmap', which runs each sample alone."
    )


def check_model(engine: Engine, module: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> bool:
    """Compare a few samples of a batch x [b, ...], y [b, ...] with themselves alone; False where
    this batch could not tell: fewer than two samples, or all alike.

    Dropout is off while it looks. The module is left as it was.

    Raises:
        UnsupportedModel: samples are coupled, or a sample twice gives two outputs.
    """
    rows = _unlike(x)
    if len(rows) < 2:
        return False
    x, y = x[rows], y[rows]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        try:
            exact = _exact(module)
            with torch.no_grad():
                loss(exact, _double(x), _double(y))
        except (RuntimeError, TypeError):  # it cannot be copied, or fixes a type: as it is, then
            with _settled(module, x) as settled:
                return _compare(engine, settled, loss, x, y)
        with _settled(exact, _double(x)) as settled:
            return _compare(engine, settled, loss, _double(x), _double(y))


def _exact(module: nn.Module) -> nn.Module:
    """The module in float64; its own tensors are not copied as they are first."""
    own = (*module.parameters(), *module.buffers())
    memo = {
        id(tensor): nn.Parameter(_double(tensor.detach()), requires_grad=tensor.requires_grad)
        if isinstance(tensor, nn.Parameter)
        else _double(tensor)
        for tensor in own
        if tensor.is_floating_point()
    }
    return copy.deepcopy(module, memo)


def _unlike(x: Tensor) -> list[int]:
    """Positions of the first sample and of a few others that are not like it."""
    other = [i for i in range(1, len(x)) if not torch.equal(x[i], x[0])]
    few = min(len(other), _FEW - 1)
    return [0, *(other[k * (len(other) - 1) // max(few - 1, 1)] for k in range(few))]


def _double(x: Tensor) -> Tensor:
    return x.to(torch.float64, copy=True) if x.is_floating_point() else x


@contextmanager
def _settled(module: nn.Module, x: Tensor) -> Iterator[nn.Module]:
    """The module with dropout off; in evaluation where it is random all the same."""
    modes = {layer: layer.training for layer in module.modules()}
    try:
        for layer in modes:
            if isinstance(layer, _DropoutNd | nn.MultiheadAttention | nn.RNNBase):
                layer.training = False
        if _random(module, x):
            module.eval()
            if _random(module, x):
                raise UnsupportedModel(
                    "the model gives another output each time, even in evaluation, so whether it"
                    " couples samples cannot be seen: draw chance in nn.Dropout alone, or use"
                    " engine 'vmap', which runs each sample alone."
                )
        yield module
    finally:
        for layer, training in modes.items():
            layer.training = training


def _random(module: nn.Module, x: Tensor) -> bool:
    with torch.no_grad():
        one, two = module(x), module(x)
    return isinstance(one, Tensor) and not torch.equal(one.nan_to_num(), two.nan_to_num())


def _compare(engine: Engine, module: nn.Module, loss: Loss, x: Tensor, y: Tensor) -> bool:
    named = list(trainable(module).values())
    among = _norms(engine, module, loss, x, y, named)
    together = _outputs(module, x)
    allowed = _CLOSE.get(among.dtype, _ROUGH)
    told = 0
    for i in range(len(x)):
        norm = _norm_alone(module, loss, x[i : i + 1], y[i : i + 1], named)
        if not bool(torch.isfinite(among[i])):
            continue  # that sample is left out
        apart = float((among[i] - norm).abs() / norm.clamp(min=torch.finfo(norm.dtype).tiny))
        if not apart <= allowed and float((among[i] - norm).abs()) > allowed * 1e-6:
            raise _refusal("the model or its loss", apart)
        if together is not None:
            alone = _outputs(module, x[i : i + 1])
            if alone is not None and alone.shape[1:] == together.shape[1:]:
                scale = float(alone.abs().max())
                moved = float((alone[0] - together[i]).abs().max())
                if moved > allowed * max(scale, 1e-6):
                    raise _refusal("the model", moved / max(scale, 1e-6))
        told += 1
    return told > 1


def _norm_alone(
    module: nn.Module, loss: Loss, x: Tensor, y: Tensor, named: Sequence[nn.Parameter]
) -> Tensor:
    """The norm of one sample's gradient, by autograd alone; each parameter's is let go before the
    next is made.
    """
    kept = [parameter.grad for parameter in named]
    norms: list[Tensor] = []

    def seen(parameter: Tensor) -> None:
        if parameter.grad is not None:
            norms.append(parameter.grad.norm())
            parameter.grad = None

    for parameter in named:
        parameter.grad = None
    hooks = [
        parameter.register_post_accumulate_grad_hook(seen)  # type: ignore[no-untyped-call]
        for parameter in named
    ]
    try:
        loss(module, x, y).backward()  # type: ignore[no-untyped-call]
    finally:
        for hook, parameter, grad in zip(hooks, named, kept, strict=True):
            hook.remove()
            parameter.grad = grad
    norm: Tensor = torch.stack(norms).norm()
    return norm


class _Seen(Exception):
    """An engine's norms are known, and nothing is to be added up."""

    def __init__(self, norms: Tensor) -> None:
        super().__init__()
        self.norms = norms


def _norms(
    engine: Engine,
    module: nn.Module,
    loss: Loss,
    x: Tensor,
    y: Tensor,
    named: Sequence[nn.Parameter],
) -> Float[Tensor, " b"]:
    """The norms of a batch's gradients, as an engine sees them; their sum is never made, which for
    a small batch would need most of the memory.
    """

    def stop(norms: Tensor) -> Tensor:
        raise _Seen(norms)

    try:
        return engine(module, loss, x, y, stop, named[0].new_empty(0)).norms
    except _Seen as seen:
        return seen.norms


def _outputs(module: nn.Module, x: Tensor) -> Tensor | None:
    with torch.no_grad():
        out = module(x)
    return out if isinstance(out, Tensor) and out.ndim and len(out) == len(x) else None


class WatchedLoss:
    """A loss that keeps what the module put out for a batch, and the errors that came back; `check`
    then compares every sample's error with that of the sample alone. What rounding cannot tell
    apart is looked at again in float64, where the loss takes it.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss = loss
        self.calls = 0
        self.output: Tensor | None = None
        self.error: Tensor | None = None
        self.upstream: Tensor | None = None

    def __call__(self, module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The loss itself."""

        def keep_upstream(error: Tensor) -> None:
            self.upstream = error

        def keep(module: nn.Module, arguments: Any, out: Any) -> None:
            self.calls += 1
            if isinstance(out, Tensor) and out.requires_grad and len(out) == len(x):
                self.output = seen = out.detach()

                def keep_error(error: Tensor) -> None:  # that there was one, where none is compared
                    self.error = error.new_empty(0) if self._clear(seen, y) else error.clone()

                out.register_hook(keep_error)  # type: ignore[no-untyped-call]

        handle = module.register_forward_hook(keep)
        try:
            loss = closed_cross_entropy if self.loss is cross_entropy else self.loss
            mean = loss(module, x, y)
        finally:
            handle.remove()
        if mean.requires_grad:
            mean.register_hook(keep_upstream)  # type: ignore[no-untyped-call]
        return mean

    def check(self, module: nn.Module, x: Tensor, y: Tensor) -> bool:
        """Whether it could tell of x [b, ...] and y [b, ...]: the loss calls the module once, for
        one tensor.

        Raises:
            UnsupportedModel: the loss couples samples.
        """
        if self.calls != 1 or self.output is None or self.error is None or self.upstream is None:
            return False
        if len(x) < 2:
            return True  # alone already
        if self._clear(self.output, y):
            return True
        among = self.error / self.upstream * len(x)
        alone = self._alone(module, self.output, x, y)
        if _apart(among, alone) is None:
            return True
        try:
            exact = self.output.double(), _double(x), _double(y)
            among = self._errors(module, *exact) * len(x)
            apart = _apart(among, self._alone(module, *exact))
        except (RuntimeError, TypeError):  # it fixes a type
            apart = _apart(among, alone, rough=True)
        if apart is not None:
            raise _refusal("the loss", apart)
        return True

    def _clear(self, out: Tensor, y: Tensor) -> bool:
        return self.loss is cross_entropy and _told_apart(out, y)

    def _alone(
        self, module: nn.Module, out: Tensor, x: Tensor, y: Tensor
    ) -> Float[Tensor, "b ..."]:
        """The errors of the outputs, each as if it were the batch."""

        def one(out: Tensor, x: Tensor, y: Tensor) -> Tensor:
            with _putting_out(module, out[None]):
                return self.loss(module, x[None], y[None])

        leaf = out.detach().requires_grad_()
        try:
            with torch.enable_grad():
                values: Tensor = vmap(one)(leaf, x, y)
                # not torch.func.grad, which loads a compiler of 80 MB
                errors = torch.autograd.grad(values.sum(), leaf)[0]
        except RuntimeError:  # it looks into its tensors, as a branch does
            rows = range(len(x))
            errors = torch.cat(
                [self._errors(module, out[i : i + 1], x[i : i + 1], y[i : i + 1]) for i in rows]
            )
        return errors

    def _errors(
        self, module: nn.Module, out: Tensor, x: Tensor, y: Tensor
    ) -> Float[Tensor, "b ..."]:
        leaf = out.detach().requires_grad_()
        with torch.enable_grad(), _putting_out(module, leaf):
            return torch.autograd.grad(self.loss(module, x, y), leaf)[0]


def _told_apart(out: Tensor, y: Tensor) -> bool:
    """Whether the cross-entropy of logits [b, ..., c] with these labels is a mean of as many terms
    whatever the labels are, each of one sample: a negative label is left out of the mean.
    """
    return out.shape[:-1] == y.shape and bool((y >= 0).all())


def _apart(among: Tensor, alone: Tensor, *, rough: bool = False) -> float | None:
    """How far errors [b, ...] are from those alone, relative to them; None where that is rounding:
    of an error, or where ``rough``, of the terms that it is the difference of.
    """
    lengths, gaps = (
        torch.linalg.vector_norm(each.flatten(1), dim=1) for each in (among, among - alone)
    )
    eps = torch.finfo(among.dtype).eps
    double = among.dtype == torch.float64
    allowed = (1e4 if double else 100) * eps * lengths
    if rough or double:
        allowed += 100 * eps * lengths.max()
    if bool((gaps <= allowed).all()):
        return None
    tiny = torch.finfo(among.dtype).tiny
    return float((gaps / lengths.clamp(min=tiny)).nan_to_num(math.inf).max())


@contextmanager
def _putting_out(module: nn.Module, out: Tensor) -> Iterator[None]:
    """The module, as if it had put that out."""
    before = module.__dict__.get("forward")
    module.forward = lambda *arguments, **options: out
    try:
        yield
    finally:
        if before is None:
            module.__dict__.pop("forward", None)
        else:
            module.forward = before
