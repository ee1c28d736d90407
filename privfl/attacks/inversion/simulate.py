"""The forward model with a graph: from guessed samples to the update that they would have caused,
through steps, clip and mean.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from privfl.attacks.inversion.statistics import hold, listening, replaced_by_batches, unmoved
from privfl.attacks.inversion.twice import Layout, gradients
from privfl.attacks.knowledge import Forward
from privfl.core import BUFFERS, Loss, Vector, View


class _LossOf(nn.Module):
    """The loss as a module of the module, so that its parameters can be swapped for tensors with a
    history.
    """

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module, self.loss = module, loss

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.loss(self.module, x, y)


class Simulator:
    """Updates as a differentiable function of samples, at fixed parameters [d].

    Samples lie in the order in which the clients hold them, ``clients`` equal shares one after
    another, and each client's batches are cut in that order: since a guess has no order of its own,
    the first epoch's shuffle costs nothing; later epochs repeat it.

    Layers with running statistics compute with those of their batches, as they do in training, or
    with ``statistics`` [s] (`core.FlatModel.state`), as they do where a model is measured or where
    they are frozen.
    """

    def __init__(
        self,
        forward: Forward,
        before: Vector,
        *,
        round: int = 0,
        clients: int = 1,
        dtype: torch.dtype = torch.float32,
        statistics: Vector | None = None,
    ) -> None:
        self.forward, self.clients, self.lr = forward, clients, forward.rate(round)
        self.module = copy.deepcopy(forward.module).to(device=before.device, dtype=dtype)
        self.module.eval()
        named = [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]
        self.names = [f"module.{name}" for name, _ in named]
        self.leaves = [p for _, p in named]
        self.write(before)
        self.norms = [] if statistics is not None else replaced_by_batches(self.module)
        if statistics is not None:
            hold(self.module, statistics)
        self.loss_of = _LossOf(self.module, forward.loss)
        self.layouts: tuple[Layout, ...] = ("fastest", "given")

    def write(self, parameters: Vector) -> None:
        """Replace the parameters [d]."""
        with torch.no_grad():
            for leaf, part in zip(
                self.leaves, torch.split(parameters, [p.numel() for p in self.leaves]), strict=True
            ):
                leaf.copy_(part.view(leaf.shape))
                leaf.grad = None

    def gradients(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """The batch's gradient by parameter (zero where it does not depend on one), with a graph to
        ``x``: in closed form where module and loss stand it, in one layout or the other, and by
        autograd elsewhere.
        """
        before = [(ear, len(ear)) for norm in self.norms for ear in norm.ears]
        for at, layout in enumerate(self.layouts if x.requires_grad else ()):
            parts = self._in_closed_form(x, y, layout)
            if parts is not None:
                self.layouts = self.layouts[at:]
                return parts
            for ear, length in before:  # the same batch comes by again
                del ear[length:]
        parts = _by_autograd(self.loss_of(x, y), self.leaves)
        if x.requires_grad:
            self.layouts = ()
        return parts

    def _in_closed_form(self, x: Tensor, y: Tensor, layout: Layout) -> tuple[Tensor, ...] | None:
        try:
            return gradients(lambda: self.loss_of(x, y), self.leaves, layout)
        except Exception:  # autograd says whether it is the closed form that does not work here
            return None

    def gradient(self, x: Tensor, y: Tensor) -> Float[Tensor, " d"]:
        """The batch's gradient [d], with a graph to ``x``."""
        return _flat(self.gradients(x, y))

    def update(self, x: Tensor, y: Int[Tensor, "n *place"]) -> Float[Tensor, " d"]:
        """The mean change [d] of the parameters, clipped at each client, with a graph to ``x``."""
        if self.clients == 1:
            return self._clip(self._local(x, y))
        parts = zip(x.chunk(self.clients), y.chunk(self.clients), strict=True)
        apart = bool(self.norms) or self.forward.l2 < float("inf")
        if self.single_step(len(x)) and not apart:
            return -self.lr * self.gradient(x, y)
        if not self.norms and self._dense and len(x) % self.clients == 0:
            return self._together(x, y).mean(dim=0)
        return torch.stack([self._clip(self._local(a, b)) for a, b in parts]).mean(dim=0)

    @property
    def _dense(self) -> bool:
        """Whether all parameters are of linear layers, of which many clients' own copies cost
        little more than one.
        """
        return all(
            isinstance(layer, nn.Linear)
            for layer in self.module.modules()
            if next(layer.parameters(recurse=False), None) is not None
        )

    def _together(self, x: Tensor, y: Tensor) -> Float[Tensor, "clients d"]:
        """Every client's change, clipped, all of them at once."""
        size = len(x) // self.clients

        def one(a: Tensor, b: Tensor) -> Tensor:
            return self._clip(self._local(a, b, at_once=True))

        shared = (part.reshape(self.clients, size, *part.shape[1:]) for part in (x, y))
        changes: Tensor = vmap(one)(*shared)
        return changes

    def single_step(self, n: int) -> bool:
        """Whether a client with its share of n samples takes one plain step with all of them."""
        share = max(1, n // self.clients)
        return self.forward.steps_on(share) == 1 and not self.forward.weight_decay

    def _clip(self, delta: Tensor) -> Tensor:
        return (
            delta
            if not self.forward.l2 < float("inf")
            else delta * (self.forward.l2 / delta.norm().clamp(min=1e-30)).clamp(max=1)
        )

    def _local(self, x: Tensor, y: Tensor, *, at_once: bool = False) -> Tensor:
        """A client's change. ``at_once``: inside of a map over clients, in which gradients are
        taken of a function.
        """
        if self.single_step(len(x) * self.clients) and not at_once:
            return -self.lr * self.gradient(x, y)
        forward, start = self.forward, list(self.leaves)
        now: Sequence[Tensor] = start
        velocity: list[Tensor] | None = None
        size = min(forward.batch_size, len(x))
        chunks = list(zip(torch.split(x, size), torch.split(y, size), strict=True))
        for step in range(forward.steps_on(len(x))):
            a, b = chunks[step % len(chunks)]
            grads = self._slopes(now, a, b, at_once)
            if forward.weight_decay:
                grads = [g + forward.weight_decay * w for g, w in zip(grads, now, strict=True)]
            if forward.prox:
                grads = [
                    g + forward.prox * (w - s) for g, w, s in zip(grads, now, start, strict=True)
                ]
            if forward.momentum:
                velocity = (
                    grads
                    if velocity is None
                    else [forward.momentum * v + g for v, g in zip(velocity, grads, strict=True)]
                )
                grads = (
                    [g + forward.momentum * v for g, v in zip(grads, velocity, strict=True)]
                    if forward.nesterov
                    else velocity
                )
            now = [w - self.lr * g for w, g in zip(now, grads, strict=True)]
        return _flat([w - s for w, s in zip(now, start, strict=True)])

    def _slopes(self, now: Sequence[Tensor], x: Tensor, y: Tensor, at_once: bool) -> list[Tensor]:
        """The gradients of a batch's loss at these parameters, with a graph to both."""

        def loss(parameters: Sequence[Tensor]) -> Tensor:
            named = dict(zip(self.names, parameters, strict=True))
            value: Tensor = functional_call(self.loss_of, named, (x, y))
            return value

        if at_once:
            return list(grad(loss)(tuple(now)))
        return list(_by_autograd(loss(now), now))


def _by_autograd(loss: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The gradient by leaf, zero where the loss does not depend on one, with a graph."""
    found: Sequence[Tensor | None] = torch.autograd.grad(
        loss, list(leaves), create_graph=True, allow_unused=True
    )
    return tuple(
        torch.zeros_like(leaf) if part is None else part
        for part, leaf in zip(found, leaves, strict=True)
    )


def frozen(view: View, forward: Forward) -> Vector | None:
    """The statistics [s] that clients' layers compute with in training; None where they compute
    with those of batches, or keep none.
    """
    return view.extra.get(BUFFERS) if forward.buffers == "frozen" else None


def standing(view: View, forward: Forward, parameters: Vector, x: Tensor) -> Vector | None:
    """The statistics [s] with which a model is measured: those that are broadcast beside the view's
    model; where clients keep their own, those of samples ``x`` [n, ...]; None where there are none.
    """
    if forward.buffers is None or BUFFERS in view.extra:
        return view.extra.get(BUFFERS)
    simulator = Simulator(forward, parameters)
    with torch.no_grad(), listening(simulator.norms) as heard:
        simulator.module(x)
    return heard.mean(unmoved(simulator.norms).to(x))


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])
