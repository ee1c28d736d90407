"""Models and losses under which one sample changes the gradients of others: refused on the batch
that shows it, whatever else the batch is.
"""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from privfl.core import FlatModel, UnsupportedModel, cross_entropy
from privfl.dp import DPGradient

CLASSES = 3


def data(n, d=6):
    generator = torch.Generator().manual_seed(4)
    x, y = torch.randn(n, d, generator=generator), torch.arange(n) % CLASSES
    return x, y


def mean_loss(module, x, y):
    return F.cross_entropy(module(x), y)


def net(*between, width=6):
    torch.manual_seed(0)
    return FlatModel(
        nn.Sequential(nn.Linear(6, width), nn.Tanh(), *between, nn.Linear(width, CLASSES))
    )


def step(model, loss, x, y, engine="bookkeeping", **options):
    gradient = DPGradient(l2=0.1, noise_multiplier=0.0, batch_size=8, engine=engine, **options)
    gradient(model, loss, x, y)
    return model.grad.clone()


class Centred(nn.Module):
    """Batch statistics without parameters."""

    def __init__(self, share=1.0):
        super().__init__()
        self.share = share

    def forward(self, x):
        return x - self.share * x.mean(dim=0)


class Flipped(nn.Module):
    """Each sample's states are the work of another one."""

    def forward(self, x):
        return x.flip(0)


def weighted(module, x, y):
    return F.cross_entropy(module(x), y, weight=torch.tensor([1.0, 1.0, 9.0]))


def contrastive(module, x, y):
    states = F.normalize(module(x), dim=1)
    return F.cross_entropy(states @ states.T, torch.arange(len(x)))


def two_views(module, x, y):
    one, two = module(x), module(-x)
    return F.cross_entropy(one @ two.T, torch.arange(len(x)))


def summed(module, x, y):
    return F.cross_entropy(module(x), y, reduction="sum")


COUPLED = {
    "a centring layer": (lambda: net(Centred()), mean_loss),
    "a layer that centres by a thousandth": (lambda: net(Centred(1e-3)), mean_loss),
    "a normalisation without parameters": (
        lambda: net(nn.BatchNorm1d(6, affine=False, track_running_stats=False)),
        mean_loss,
    ),
    "rows in another order": (lambda: net(Flipped()), mean_loss),
    "class weights in a mean": (net, weighted),
    "a contrastive loss": (net, contrastive),
    "a contrastive loss of two views": (net, two_views),
    "a sum instead of a mean": (net, summed),
}


@pytest.mark.parametrize("engine", ["bookkeeping", "opacus"])
@pytest.mark.parametrize("case", sorted(COUPLED))
def test_a_model_or_a_loss_that_couples_samples_is_refused(case, engine):
    make, loss = COUPLED[case]
    with pytest.raises(UnsupportedModel, match=r"mixes the samples|couples the samples"):
        step(make(), loss, *data(8), engine=engine)


@pytest.mark.parametrize(
    "case", [case for case in sorted(COUPLED) if "without parameters" not in case]
)  # that one is BatchNorm, which every engine refuses
def test_the_engine_that_runs_each_sample_alone_bounds_every_one_of_them(case):
    make, loss = COUPLED[case]
    x, y = data(8)
    whole = step(make(), loss, x, y, engine="vmap")
    for i in range(8):
        rest = torch.arange(8) != i
        moved = whole - step(make(), loss, x[rest], y[rest], engine="vmap")
        assert moved.norm() * 8 <= 0.1 * (1 + 1e-4)


def token_loss(module, x, y):
    return F.cross_entropy(module(x).flatten(0, 1), y.flatten())


@pytest.mark.parametrize("loss", [token_loss, cross_entropy], ids=["own", "ours"])
def test_ignored_labels_are_refused_on_the_batch_in_which_they_come(loss):
    torch.manual_seed(0)
    model = FlatModel(nn.Linear(6, CLASSES))
    x, y = torch.randn(8, 5, 6), torch.randint(0, CLASSES, (8, 5))
    gradient = DPGradient(l2=0.1, noise_multiplier=0.0, batch_size=8)
    gradient(model, loss, x, y)
    y[3, 1:] = -100
    with pytest.raises(UnsupportedModel, match=r"the loss couples.*not ignored"):
        gradient(model, loss, x, y)


def test_a_rare_label_with_a_weight_of_its_own_is_refused_when_it_comes():
    model, (x, _) = net(), data(8)
    gradient = DPGradient(l2=0.1, noise_multiplier=0.0, batch_size=8)
    common = torch.arange(8) % 2
    gradient(model, weighted, x, common)
    common[4] = 2
    with pytest.raises(UnsupportedModel, match="the loss couples"):
        gradient(model, weighted, x, common)


class TimeFirst(nn.Module):
    """Its inner layer sees [time, batch, d]: rows are positions, not samples."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.outer(self.inner(x.transpose(0, 1)).tanh().transpose(0, 1).sum(dim=1))


@pytest.mark.parametrize("batch", [2, 3, 4, 5, 8])
def test_time_in_front_is_refused_even_where_it_is_as_long_as_the_batch(batch):
    torch.manual_seed(0)
    model, x = FlatModel(TimeFirst()), torch.randn(batch, batch, 6)
    with pytest.raises(UnsupportedModel, match=r"couples the samples|rows for a batch"):
        step(model, mean_loss, x, torch.arange(batch) % CLASSES)


class Positions(nn.Module):
    """A table of positions without a batch in front: its rows are positions, not samples."""

    def __init__(self):
        super().__init__()
        self.place, self.outer = nn.Embedding(4, 6), nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.outer((x + self.place(torch.arange(4))).tanh().sum(dim=1))


def test_positions_that_are_as_many_as_samples_are_not_taken_for_them():
    torch.manual_seed(0)
    with pytest.raises(UnsupportedModel, match=r"couples the samples|rows for a batch"):
        step(FlatModel(Positions()), mean_loss, torch.randn(4, 4, 6), torch.arange(4) % CLASSES)


@pytest.mark.parametrize("engine", ["bookkeeping", "opacus"])
def test_honest_models_pass_and_are_left_as_they_were(engine):
    model, (x, y) = net(nn.Dropout(0.5)), data(8)
    x[5] = 0
    modes = [layer.training for layer in model.module.modules()]
    before, state = model.read(), torch.get_rng_state()
    gradient = DPGradient(l2=0.1, noise_multiplier=0.0, batch_size=8, engine=engine)
    torch.manual_seed(7)
    gradient(model, mean_loss, x, y)
    first = model.grad.clone()
    torch.manual_seed(7)
    gradient(model, mean_loss, x, y)
    assert torch.equal(first, model.grad)
    assert torch.equal(before, model.read())
    assert modes == [layer.training for layer in model.module.modules()]
    assert "forward" not in vars(model.module)
    assert not model.module._forward_hooks
    torch.set_rng_state(state)


def test_a_batch_of_one_sample_or_of_equal_ones_settles_nothing():
    model, (x, y) = net(Centred()), data(8)
    gradient = DPGradient(l2=0.1, noise_multiplier=0.0, batch_size=8)
    gradient(model, mean_loss, x[:1], y[:1])
    gradient(model, mean_loss, torch.zeros(3, 6), y[:3])
    with pytest.raises(UnsupportedModel, match="couples the samples"):
        gradient(model, mean_loss, x, y)


def test_equal_samples_among_others_hide_no_coupling():
    """Those of the first batch that a fixed stride meets are alike."""
    model, (x, y) = net(Centred()), data(16)
    x[::5] = 0
    with pytest.raises(UnsupportedModel, match="couples the samples"):
        step(model, mean_loss, x, y)


def pulled_together(module, x, y):
    """Pairs of samples of the last class are drawn to each other: nobody else is."""
    out = module(x)
    rare = out[y == CLASSES - 1]
    return F.cross_entropy(out, y) + (rare - rare.mean(dim=0)).square().sum() / len(x)


@pytest.mark.parametrize("at", [(0, 1), (1, 2), (5, 6), (1, 7)])
def test_a_pair_that_a_loss_couples_is_refused_wherever_it_comes_and_in_later_batches(at):
    model, (x, _) = net(), data(8)
    gradient = DPGradient(l2=0.1, noise_multiplier=0.0, batch_size=8)
    common = torch.arange(8) % 2
    gradient(model, mean_loss, x, common)
    common[list(at)] = CLASSES - 1
    with pytest.raises(UnsupportedModel, match="the loss couples"):
        gradient(model, pulled_together, x, common)


def branching(module, x, y):
    """Looks into its tensors, so nothing traces it."""
    out = module(x)
    return F.cross_entropy(out, y) if float(out.detach().sum()) < 1e9 else out.mean()


def one_by_one(model, loss, x, y, l2):
    """Each sample's gradient by autograd alone, in float64 as far as it goes, cut to the clip."""
    rows = []
    for i in range(len(x)):
        mean = loss(model.module, x[i : i + 1], y[i : i + 1])
        parts = torch.autograd.grad(mean, list(model.module.parameters()))
        row = torch.cat([part.flatten() for part in parts]).double()
        rows.append(row * min(1.0, l2 / max(float(row.norm()), 1e-300)))
    return torch.stack(rows)


@pytest.mark.parametrize("sharp", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("batch", [7, 100])
@pytest.mark.parametrize("loss", [mean_loss, branching], ids=["plain", "branching"])
def test_samples_of_which_a_model_is_sure_are_not_taken_for_coupled(sharp, batch, loss):
    """Their errors are differences of numbers near 1, whose rounding is larger than they are; the
    step is the one of each sample alone, and none moves it beyond the clip.
    """
    model, (x, _) = net(width=16), data(batch)
    with torch.no_grad():
        model.module[-1].weight.mul_(sharp)
    y = model.module(x).argmax(dim=1)
    rows = one_by_one(model, loss, x, y, l2=0.1)
    for _ in range(2):
        found = step(model, loss, x, y).double() * 8
        assert torch.isfinite(found).all()
        assert found == pytest.approx(rows.sum(dim=0), rel=1e-4, abs=1e-5 * float(rows.norm()))
    for i in (0, batch // 2, batch - 1):
        rest = torch.arange(batch) != i
        moved = found - step(model, loss, x[rest], y[rest]).double() * 8
        assert moved.norm() <= 0.1 * (1 + 1e-5) + 1e-6 * found.norm()


def test_a_model_is_looked_at_once_and_a_copied_gradient_looks_again():
    model, (x, y) = net(), data(8)
    calls = []

    def counted(module, x, y):
        calls.append(len(x))
        return mean_loss(module, x, y)

    gradient = DPGradient(l2=0.1, noise_multiplier=0.0, batch_size=8)
    gradient(model, counted, x, y)
    assert len(calls) > 6
    calls.clear()
    gradient(model, counted, x, y)
    assert calls == [8, 1]
    for twin in (pickle.loads(pickle.dumps(gradient)), copy.deepcopy(gradient)):
        assert twin == gradient
        assert not list(twin.checked.modules)


def test_a_model_that_fixes_its_type_is_looked_at_in_that_type():
    class Fixed(nn.Module):
        def __init__(self, couple):
            super().__init__()
            self.layer, self.couple = nn.Linear(6, CLASSES), couple

        def forward(self, x):
            out = self.layer(x.float())
            return out - out.mean(dim=0) if self.couple else out

    x, y = data(8)
    step(FlatModel(Fixed(couple=False)), mean_loss, x, y)
    with pytest.raises(UnsupportedModel, match="couples the samples"):
        step(FlatModel(Fixed(couple=True)), mean_loss, x, y)


def test_a_model_that_is_random_beyond_dropout_is_refused_in_words():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, CLASSES)

        def forward(self, x):
            return self.layer(x + torch.randn_like(x))

    with pytest.raises(UnsupportedModel, match="another output each time"):
        step(FlatModel(Noisy()), mean_loss, *data(8))
