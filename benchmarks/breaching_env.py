"""breaching in a folder of its own, `.venv-breaching` at the root of the checkout, laid over this
environment when it is asked for.

It pins an old torchvision, whose CPU operators the wheel lacks: two are declared, none is called.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch

from benchmarks.beside import lay_over

FOLDER = ".venv-breaching"
REQUIREMENTS = (
    "breaching==0.1.2",
    "lpips==0.1.4",
    "hydra-core==1.3.8",
    "omegaconf>=2.3,<2.4",
    "antlr4-python3-runtime==4.9.3",
    "torchvision==0.28.0",
)
_operators = torch.library.Library("torchvision", "DEF")


def breaching() -> Any:
    """The package, installed first if it is not there.

    Raises:
        ImportError: it cannot be installed.
    """
    lay_over(FOLDER, REQUIREMENTS)
    if "breaching" not in sys.modules:
        for name in ("nms", "qnms"):
            _operators.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import breaching as package
    return package
