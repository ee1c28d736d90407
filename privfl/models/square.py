"""Networks of affine layers and squares, which can be evaluated on encrypted inputs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from privfl.models.shapes import image


class Square(nn.Module):
    """The activation x^2, entry by entry: the cheapest one that a homomorphic scheme can do
    (Gilad-Bachrach et al. 2016, CryptoNets, section 3.1).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Squares [...] of values [...] of any shape."""
        return x * x


def square_cnn(
    shape: Sequence[int], classes: int, *, channels: int = 4, hidden: int = 64
) -> nn.Sequential:
    """A 7x7 convolution of stride 3, a square, a hidden layer, a square and a linear layer: 17,298
    weights on MNIST.

    The network of TenSEAL's encrypted inference (Benaissa et al. 2021, section 4.2), which
    `privfl.inference` evaluates on encrypted images. Squares grow fast: train it with small steps
    or clipped updates.

    Raises:
        UnsupportedModel: samples that are no images of at least 7 x 7.

    >>> sum(p.numel() for p in square_cnn((28, 28), 10).parameters())
    17298
    """
    lead, colours, height, width = image(shape, classes, model="square_cnn", smallest=7)
    windows = ((height - 7) // 3 + 1) * ((width - 7) // 3 + 1)
    return nn.Sequential(
        *lead,
        nn.Conv2d(colours, channels, 7, stride=3),
        Square(),
        nn.Flatten(),
        nn.Linear(channels * windows, hidden),
        Square(),
        nn.Linear(hidden, classes),
    )
