"""The models: sizes from the papers, shapes in and out, and weights that a seed repeats."""

import pytest
import torch

from privfl.core import ConfigError, FlatModel, UnsupportedModel
from privfl.models import MODELS, build, initialised
from privfl.training import cross_entropy

SIZES = [
    ("softmax", (28, 28), {}, 7850),
    ("mlp", (784,), {}, 159010),
    ("mlp", (28, 28), {"hidden": (200, 200)}, 199210),
    ("mlp", (8, 8), {"hidden": ()}, 650),
    ("tabular", (104,), {}, 9130),
    ("lenet", (3, 32, 32), {}, 15826),
    ("lenet", (28, 28), {"activation": "relu"}, 13426),
    ("cnn", (1, 28, 28), {}, 20490),
    ("cnn", (3, 32, 32), {}, 25578),
    ("cnn", (8, 8), {}, 6090),
    ("tanh_cnn", (28, 28), {}, 26010),
    ("tanh_cnn", (3, 32, 32), {}, 550570),
    ("resnet20", (3, 32, 32), {}, 272474),
    ("resnet20", (8, 8), {"groups": 4}, 272186),
]


@pytest.mark.parametrize(("name", "shape", "options", "d"), SIZES)
def test_a_model_has_the_papers_number_of_weights_and_gives_one_logit_a_class(
    name, shape, options, d
):
    model = build(MODELS, name, shape, 10, seed=0, **options)
    assert FlatModel(model).d == d
    assert model(torch.rand(3, *shape)).shape == (3, 10)


@pytest.mark.parametrize(
    ("layers", "d"),
    [
        (1, 720 + 4 * 128 * (8 + 128 + 2) + 90 * 129),
        (2, 720 + 4 * 128 * (8 + 3 * 128 + 4) + 90 * 129),
    ],
)
def test_the_lstm_gives_logits_for_every_next_token_and_its_loss_has_a_gradient(layers, d):
    model = build(MODELS, "lstm", (12,), 90, seed=0, layers=layers)
    tokens = torch.randint(0, 90, (4, 12), generator=torch.Generator().manual_seed(1))
    assert sum(p.numel() for p in model.parameters()) == d
    assert model(tokens).shape == (4, 12, 90)
    cross_entropy(model, tokens, tokens).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "options", "error", "says"),
    [
        ("tanh_cnn", (8, 8), {}, UnsupportedModel, "14 x 14"),
        ("cnn", (64,), {}, UnsupportedModel, "use mlp"),
        ("lstm", (8, 8), {}, UnsupportedModel, "sequences of tokens"),
        ("tabular", (8, 8), {}, UnsupportedModel, "flat rows"),
        ("resnet20", (8, 8), {"groups": 3}, ConfigError, "groups=3"),
        ("mlp", (8, 8), {"activation": "rellu"}, ConfigError, "did you mean 'relu'"),
        ("mlp", (8, 8), {"hiden": (3,)}, ConfigError, "did you mean 'hidden'"),
        ("resnet", (8, 8), {}, ConfigError, "did you mean 'resnet20'"),
        ("softmax", (0,), {}, ConfigError, "at least 1"),
    ],
)
def test_what_cannot_be_is_refused_in_words(name, shape, options, error, says):
    with pytest.raises(error, match=says):
        build(MODELS, name, shape, 10, seed=0, **options)


def test_a_single_class_is_refused():
    with pytest.raises(ConfigError, match="classes must be at least 2"):
        initialised(MODELS["softmax"], (4,), 1, seed=0)


def test_sigmoid_lenet_starts_as_wide_as_the_papers():
    flat = FlatModel(build(MODELS, "lenet", (28, 28), 10, seed=0)).flat
    assert flat.abs().max() <= 0.5
    assert flat.abs().max() > 0.49
