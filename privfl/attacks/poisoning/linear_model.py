"""The attackers' own softmax regression: what bilevel poisoning differentiates through."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

Points = Float[Tensor, "n d"]
Labels = Int[Tensor, " n"]
Theta = Float[Tensor, " p"]


def loss(theta: Theta, x: Points, y: Labels, classes: int, decay: float) -> Float[Tensor, ""]:
    """Mean cross-entropy plus (decay / 2) |theta|^2, of weights and biases theta [(d + 1)
    classes].
    """
    weights = theta.view(x.shape[1] + 1, classes)
    logits = x @ weights[:-1] + weights[-1]
    return functional.cross_entropy(logits, y) + decay / 2 * theta.dot(theta)


def fit(
    x: Points, y: Labels, classes: int, decay: float, start: Theta | None = None, steps: int = 100
) -> Theta:
    """The regularised minimum, by L-BFGS in float64."""
    theta = (
        torch.zeros((x.shape[1] + 1) * classes, dtype=x.dtype) if start is None else start.clone()
    )
    theta.requires_grad_(True)
    lbfgs = torch.optim.LBFGS(
        [theta], max_iter=steps, tolerance_grad=1e-8, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        lbfgs.zero_grad()
        value = loss(theta, x, y, classes, decay)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    lbfgs.step(closure)  # type: ignore[no-untyped-call]
    return theta.detach()


def gradient(theta: Theta, x: Points, y: Labels, classes: int, decay: float) -> Theta:
    """The loss's gradient in theta [p]."""
    theta = theta.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(loss(theta, x, y, classes, decay), theta)
    return slope


def products(
    theta: Theta, x: Points, y: Labels, classes: int, decay: float, along: Theta
) -> tuple[Theta, Points]:
    """The Hessian times ``along`` [p], and the mixed derivative d/dx <dL/dtheta, along> [n, d]."""
    theta, x = theta.detach().requires_grad_(True), x.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(loss(theta, x, y, classes, decay), theta, create_graph=True)
    hessian, mixed = torch.autograd.grad(slope.dot(along), (theta, x))
    return hessian, mixed


def solve(
    theta: Theta, x: Points, y: Labels, classes: int, decay: float, right: Theta, steps: int = 60
) -> Theta:
    """H^-1 right [p] by conjugate gradients: H is positive definite since decay > 0."""
    answer, left = torch.zeros_like(right), right.clone()
    along, square = left.clone(), float(left.dot(left))
    goal = 1e-16 * max(square, 1e-300)
    for _ in range(steps):
        if square <= goal:
            break
        product, _ = products(theta, x, y, classes, decay, along)
        step = square / float(along.dot(product))
        answer += step * along
        left -= step * product
        fresh = float(left.dot(left))
        along, square = left + fresh / square * along, fresh
    return answer
