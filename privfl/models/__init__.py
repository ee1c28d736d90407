"""The models of the literature, and room for anybody's own."""

from collections.abc import Mapping

from privfl.models.build import Builder, build, initialised
from privfl.models.cnn import cnn
from privfl.models.lenet import lenet
from privfl.models.lstm import lstm
from privfl.models.mlp import mlp
from privfl.models.resnet import resnet20
from privfl.models.softmax import softmax
from privfl.models.square import Square, square_cnn
from privfl.models.tabular import tabular
from privfl.models.tanh_cnn import tanh_cnn
from privfl.models.transformer import adapted, transformer

MODELS: Mapping[str, Builder] = {
    "softmax": softmax,
    "mlp": mlp,
    "tabular": tabular,
    "lenet": lenet,
    "cnn": cnn,
    "tanh_cnn": tanh_cnn,
    "square_cnn": square_cnn,
    "resnet20": resnet20,
    "lstm": lstm,
    "transformer": transformer,
}

__all__ = [
    "MODELS",
    "Builder",
    "Square",
    "adapted",
    "build",
    "cnn",
    "initialised",
    "lenet",
    "lstm",
    "mlp",
    "resnet20",
    "softmax",
    "square_cnn",
    "tabular",
    "tanh_cnn",
    "transformer",
]
