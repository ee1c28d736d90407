"""Transformations of images [n, channels, height, width] with features in [0, 1], by a level from 0
to 1 and the way that a coin said. Each image is transformed by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Images: TypeAlias = Float[Tensor, "n c h w"]
Transform: TypeAlias = Callable[..., Any]
"""(images, level=..., way=...) -> images of the same shape."""

_LEVELS = 255
_MOVED = 150 / 331
_TURNED = 30.0
_SHEARED = 0.3
_ENHANCED = 0.5
_GREY = (0.299, 0.587, 0.114)


def translate_x(x: Images, level: float, way: float) -> Images:
    """Shifted along the rows by up to 45 % of the width; black comes in."""
    return _shifted(x, round(way * level * _MOVED * x.shape[3]), 3)


def translate_y(x: Images, level: float, way: float) -> Images:
    """Shifted along the columns by up to 45 % of the height."""
    return _shifted(x, round(way * level * _MOVED * x.shape[2]), 2)


def rotate(x: Images, level: float, way: float) -> Images:
    """Turned by up to 30 degrees; grey comes in."""
    angle = math.radians(way * level * _TURNED)
    cos, sin = math.cos(angle), math.sin(angle)
    return _affine(x, ((cos, -sin), (sin, cos)), 0.5)


def shear_x(x: Images, level: float, way: float) -> Images:
    """Sheared along the rows by up to 0.3."""
    return _affine(x, ((1.0, way * level * _SHEARED), (0.0, 1.0)), 0.0)


def shear_y(x: Images, level: float, way: float) -> Images:
    """Sheared along the columns by up to 0.3."""
    return _affine(x, ((1.0, 0.0), (way * level * _SHEARED, 1.0)), 0.0)


def brightness(x: Images, level: float, way: float) -> Images:
    """Up to half as bright, or half as much again."""
    return x * (1 + way * level * _ENHANCED)


def contrast(x: Images, level: float, way: float) -> Images:
    """Further from the mean grey of the image or nearer to it, by up to a half."""
    mean = _grey(x).mean(dim=(2, 3), keepdim=True)
    return mean + (x - mean) * (1 + way * level * _ENHANCED)


def color(x: Images, level: float, way: float) -> Images:
    """Further from grey or nearer to it, by up to a half; images of one channel stay."""
    grey = _grey(x)
    return grey + (x - grey) * (1 + way * level * _ENHANCED)


def sharpness(x: Images, level: float, way: float) -> Images:
    """Further from the smoothed image or nearer to it, by up to a half; borders stay."""
    kernel = torch.tensor([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]]) / 13
    weight = kernel.to(x).expand(x.shape[1], 1, 3, 3)
    inner = functional.conv2d(x, weight, groups=x.shape[1])
    smooth = x.clone()
    smooth[:, :, 1:-1, 1:-1] = inner
    return smooth + (x - smooth) * (1 + way * level * _ENHANCED)


def invert(x: Images, level: float, way: float) -> Images:
    """The negative."""
    return 1 - x


def solarize(x: Images, level: float, way: float) -> Images:
    """The negative of what is at or above a threshold, which is 256 of 255 at level 0."""
    threshold = 256 * (1 - level) / _LEVELS
    return torch.where(x >= threshold, 1 - x, x)


def posterize(x: Images, level: float, way: float) -> Images:
    """Eight to four bits a pixel."""
    step = 2.0 ** (8 - round(8 - 4 * level))
    low = ((x * _LEVELS).round() / step).floor() * step / _LEVELS
    return x + (low - x).detach()


def autocontrast(x: Images, level: float, way: float) -> Images:
    """Each channel stretched to its whole range; a channel of one value stays."""
    least, most = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    span = most - least
    return torch.where(span > 1 / _LEVELS, (x - least) / span.clamp(min=1 / _LEVELS), x)


def equalize(x: Images, level: float, way: float) -> Images:
    """The ranks of each channel's 256 values in place of the values."""
    whole = (x * _LEVELS).round().long().clamp(0, _LEVELS)
    n, c, h, w = x.shape
    flat = whole.view(n * c, h * w)
    counts = torch.zeros(n * c, _LEVELS + 1, dtype=torch.int64, device=x.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    last = counts.gather(1, flat.amax(dim=1, keepdim=True))
    step = (counts.sum(dim=1, keepdim=True) - last) // _LEVELS
    table = (counts.cumsum(dim=1) - counts + step // 2) // step.clamp(min=1)
    told = table.clamp(0, _LEVELS).gather(1, flat)
    told = torch.where(step > 0, told, flat).view(n, c, h, w).to(x) / _LEVELS
    return x + (told - x).detach()


TRANSFORMS: Mapping[str, Transform] = {
    "translate_x": translate_x,
    "translate_y": translate_y,
    "rotate": rotate,
    "shear_x": shear_x,
    "shear_y": shear_y,
    "brightness": brightness,
    "contrast": contrast,
    "color": color,
    "sharpness": sharpness,
    "invert": invert,
    "solarize": solarize,
    "posterize": posterize,
    "autocontrast": autocontrast,
    "equalize": equalize,
}
SIGNED = frozenset(TRANSFORMS) - {"invert", "solarize", "posterize", "autocontrast", "equalize"}
"""Those that go either way by a coin."""


def _grey(x: Images) -> Float[Tensor, "n 1 h w"]:
    if x.shape[1] != len(_GREY):
        return x.mean(dim=1, keepdim=True)
    return (x * x.new_tensor(_GREY).view(1, -1, 1, 1)).sum(dim=1, keepdim=True)


def _shifted(x: Images, by: int, along: int) -> Images:
    moved = torch.roll(x, by, dims=along)
    there = torch.arange(x.shape[along], device=x.device) - by
    stays = (there >= 0) & (there < x.shape[along])
    shape = [1, 1, 1, 1]
    shape[along] = -1
    return moved * stays.view(shape)


def _affine(
    x: Images, turn: tuple[tuple[float, float], tuple[float, float]], fill: float
) -> Images:
    theta = torch.tensor([[*turn[0], 0.0], [*turn[1], 0.0]], dtype=x.dtype, device=x.device)
    grid = functional.affine_grid(theta.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return fill + functional.grid_sample(x - fill, grid, align_corners=False)
