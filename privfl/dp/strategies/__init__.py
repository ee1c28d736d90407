"""Strategies of matrix mechanisms: how noise of one round hangs together with that of others."""

from privfl.dp.strategies.banded import Banded
from privfl.dp.strategies.base import NoiseStream, Strategy, StrategyMatrix, rmse
from privfl.dp.strategies.bisr import Bisr
from privfl.dp.strategies.blt import Blt
from privfl.dp.strategies.square_root import SquareRoot
from privfl.dp.strategies.tree import Tree

__all__ = [
    "Banded",
    "Bisr",
    "Blt",
    "NoiseStream",
    "SquareRoot",
    "Strategy",
    "StrategyMatrix",
    "Tree",
    "rmse",
]
