"""Per-sample gradient engines: equal to vmap(grad) on every layer, and what they refuse."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from privfl.core import (
    BadUpdate,
    ConfigError,
    FlatModel,
    Ledger,
    LocalPlan,
    Neighbours,
    Sampling,
    SeededNoise,
    UnsupportedModel,
)
from privfl.dp import DPGradient, PrivacyWarning, epsilon, spend
from privfl.dp.pipeline import Pipeline
from privfl.dp.sgd import ENGINES, bookkeeping, opacus, vmapped
from privfl.dp.sgd.per_sample_gradients import SequenceOuterProduct

PLAN = LocalPlan(batch_size=8)


def squared_loss(module, x, y):
    return (module(x).flatten(1).square().sum(dim=1) * y).mean()


def clip(norms):
    return (0.7 / norms).clamp(max=1.0)


def both(module, x, engine=bookkeeping, loss=squared_loss):
    """What an engine and the oracle add, and the norms that they found."""
    y = torch.linspace(0.5, 1.5, len(x), dtype=torch.float64)
    d = sum(p.numel() for p in module.parameters() if p.requires_grad)
    ours, theirs = torch.zeros(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
    return (engine(module, loss, x, y, clip, ours).norms, ours), (
        vmapped(module, loss, x, y, clip, theirs).norms,
        theirs,
    )


def assert_same(module, x, engine=bookkeeping):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    (norms, total), (right_norms, right) = both(module.double(), x, engine)
    assert right_norms.min() > 0
    assert (norms - right_norms).abs().max() < 1e-10 * right_norms.max()
    assert (total - right).abs().max() < 1e-10


def images(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # torch's own, about the oracle
@pytest.mark.parametrize(
    ("padding", "stride"),
    [*itertools.product([0, 1, (2, 1), "valid"], [1, 2, (2, 3)]), ("same", 1)],
)
@pytest.mark.parametrize("dilation", [1, (2, 1)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions_of_every_shape(padding, stride, dilation, groups):
    assert_same(nn.Conv2d(4, 8, (3, 2), stride, padding, dilation, groups), images(5, 4, 9, 11))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("size", [9, 20])
def test_convolutions_with_every_padding_mode_and_behind_another_layer(mode, size):
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode),
        nn.Tanh(),
        nn.Conv2d(3, 4, 3, padding=2, padding_mode=mode, bias=False),
    )
    assert_same(net, images(3, 2, size, size))


@pytest.mark.parametrize(
    ("net", "x"),
    [
        (nn.Linear(6, 4), images(5, 6)),
        (nn.Linear(6, 4, bias=False), images(5, 6)),
        (nn.Sequential(nn.Linear(6, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)), images(5, 6)),
        (nn.Linear(6, 4), images(5, 3, 6)),
        (nn.Sequential(nn.Linear(3, 40), nn.Tanh(), nn.Linear(40, 30)), images(5, 2, 3)),
        (nn.Linear(6, 4), images(5, 2, 3, 6)),
        (nn.Conv1d(4, 6, 3, stride=2, groups=2, dilation=2, padding=1), images(3, 4, 17)),
        (nn.Conv3d(2, 4, 2, padding=(1, 0, 1)), images(2, 2, 4, 5, 3)),
        (
            nn.Sequential(
                nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3)
            ),
            images(3, 2, 24, 24),
        ),
        (nn.GroupNorm(2, 4), images(3, 4)),
        (nn.LayerNorm(6), images(4, 6)),
        (nn.Sequential(nn.Linear(5, 6), nn.LayerNorm((3, 6)), nn.Linear(6, 2)), images(4, 3, 5)),
        (nn.LayerNorm((2, 3)), images(4, 5, 2, 3)),
        (nn.LayerNorm(6, bias=False), images(4, 6)),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, nn.Module) else str(tuple(value.shape)),
)
def test_every_other_layer(net, x):
    assert_same(net, x)


def test_a_net_with_all_of_them_and_a_shortcut():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (
                nn.Conv2d(3, 8, 3, padding=1),
                nn.Conv2d(8, 8, 3, padding=1, bias=False),
            )
            self.norm, self.last = nn.GroupNorm(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            first = self.first(x)
            return self.last((first + self.norm(self.second(torch.relu(first)))).mean(dim=(2, 3)))

    assert_same(Net(), images(4, 3, 17, 17))


class Tokens(nn.Module):
    def __init__(self, padding_idx=None, **lstm):
        super().__init__()
        self.table = nn.Embedding(7, 5, padding_idx=padding_idx)
        self.lstm = nn.LSTM(5, 4, **lstm)
        self.first = lstm.get("batch_first", False)
        self.out = nn.Linear(4 * (2 if lstm.get("bidirectional") else 1), 3)

    def forward(self, tokens):
        x = self.table(tokens)
        states, (hidden, cell) = self.lstm(x if self.first else x.transpose(0, 1))
        states = states if self.first else states.transpose(0, 1)
        return self.out(states).mean(dim=1) + hidden[-1, :, :3] * cell[-1, :, 1:]


def unrolled(model):
    """The same net in plain tensor operations, for vmap has no rule for the fused LSTM."""

    def loss(module, tokens, y):
        x = module.table(tokens)
        ends = []
        for depth in range(model.lstm.num_layers):
            sides = []
            for suffix in (f"_l{depth}", f"_l{depth}_reverse")[
                : 2 if model.lstm.bidirectional else 1
            ]:
                h = c = x.new_zeros(len(tokens), 4)
                states = []
                steps = range(x.shape[1])[::-1] if "reverse" in suffix else range(x.shape[1])
                for t in steps:
                    gates = F.linear(
                        x[:, t], getattr(module.lstm, "weight_ih" + suffix)
                    ) + F.linear(h, getattr(module.lstm, "weight_hh" + suffix))
                    if model.lstm.bias:
                        gates = (
                            gates
                            + getattr(module.lstm, "bias_ih" + suffix)
                            + getattr(module.lstm, "bias_hh" + suffix)
                        )
                    i, f, g, o = gates.chunk(4, dim=1)
                    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                    h = o.sigmoid() * c.tanh()
                    states.append(h)
                ends.append((h, c))
                sides.append(torch.stack(states[::-1] if "reverse" in suffix else states, dim=1))
            x = torch.cat(sides, dim=2)
        out = module.out(x).mean(dim=1) + ends[-1][0][:, :3] * ends[-1][1][:, 1:]
        return (out.square().sum(dim=1) * y).mean()

    return loss


@pytest.mark.parametrize(
    "how",
    [
        {"batch_first": True},
        {},
        {"batch_first": True, "num_layers": 2},
        {"batch_first": True, "bidirectional": True},
        {"batch_first": True, "bias": False},
    ],
    ids=str,
)
def test_embeddings_and_lstms(how):
    torch.manual_seed(3)
    net = Tokens(**how).double()
    tokens = torch.randint(0, 7, (4, 6))
    y = torch.linspace(0.5, 1.5, 4, dtype=torch.float64)
    d = sum(p.numel() for p in net.parameters())
    ours, theirs = torch.zeros(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
    found = bookkeeping(net, squared_loss, tokens, y, clip, ours)
    right = vmapped(net, unrolled(net), tokens, y, clip, theirs)
    assert found.mean_loss == pytest.approx(squared_loss(net, tokens, y).item())
    assert (found.norms - right.norms).abs().max() < 1e-10
    assert (ours - theirs).abs().max() < 1e-10


def test_an_embedding_does_not_learn_its_padding():
    net = nn.Sequential(nn.Embedding(7, 5, padding_idx=0), nn.Flatten(), nn.Linear(15, 2)).double()
    total = torch.zeros(7 * 5 + 32, dtype=torch.float64)
    bookkeeping(
        net,
        squared_loss,
        torch.tensor([[0, 1, 1], [0, 0, 2]]),
        torch.ones(2, dtype=torch.float64),
        clip,
        total,
    )
    assert (total[:5] == 0).all()
    assert (total[5:15] != 0).any()


def test_opacus_agrees_and_leaves_the_module_as_it_was():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(36, 3))
    assert_same(net, images(5, 2, 5, 5), engine=opacus)
    assert not any(hasattr(p, "grad_sample") or p.grad is not None for p in net.parameters())
    assert "forward" not in vars(net[0])
    assert_same(net, images(5, 2, 5, 5))


def test_frozen_parameters_have_no_part_in_it():
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    net[0].weight.requires_grad_(False)
    (norms, total), (right_norms, right) = both(net, images(3, 6))
    assert len(total) == 5 + 24
    assert torch.allclose(norms, right_norms)
    assert torch.allclose(total, right)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x * self.scale


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (nn.Sequential(nn.Linear(3, 3), Scale()), r"layer '1' \(Scale\).*'opacus'.*'vmap'"),
        (
            nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False)),
            "mixes the samples.*GroupNorm",
        ),
        (
            nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 1)), nn.Linear(1, 3)),
            "12 rows for a batch of 4",
        ),
    ],
)
def test_what_has_no_fast_path_is_named_with_the_way_out(net, words):
    with pytest.raises(UnsupportedModel, match=words):
        both(net.double(), images(4, 3))


def test_penalties_are_refused_not_ignored():
    net = nn.Linear(3, 3).double()

    def penalised(module, x, y):
        return squared_loss(module, x, y) + module.weight.square().sum()

    with pytest.raises(UnsupportedModel, match="outside of its layer"):
        both(net, images(4, 3), loss=penalised)


def test_a_refused_model_is_left_as_it_was():
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(4, 2)).double()
    with pytest.raises(RuntimeError):
        both(net, images(4, 3))
    assert "forward" not in vars(net[0])


# ---- the seat


def model_of(*layers):
    torch.manual_seed(0)
    return FlatModel(nn.Sequential(*layers))


def cross_entropy(module, x, y):
    return F.cross_entropy(module(x), y)


def data(n, d=6, classes=3):
    generator = torch.Generator().manual_seed(4)
    return torch.randn(n, d, generator=generator), torch.randint(
        0, classes, (n,), generator=generator
    )


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_every_engine_writes_the_clipped_mean_over_the_public_batch_size(engine):
    model, (x, y) = model_of(nn.Linear(6, 3)), data(5)
    DPGradient(l2=0.3, noise_multiplier=0.0, batch_size=8, engine=engine)(
        model, cross_entropy, x, y
    )
    written = model.grad.clone()
    right = torch.zeros(model.d)
    for i in range(5):
        gradient = torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(
                    cross_entropy(model.module, x[i : i + 1], y[i : i + 1]),
                    list(model.module.parameters()),
                )
            ]
        )
        right += gradient * min(1.0, 0.3 / gradient.norm().item())
    assert torch.allclose(written, right / 8, atol=1e-6)
    assert all(
        p.grad.data_ptr() != 0 and torch.equal(p.grad.flatten(), written[s.start : s.stop])
        for p, s in zip(model.module.parameters(), model.slots, strict=True)
    )


def test_no_sample_moves_the_gradient_by_more_than_the_clip():
    model, (x, y) = model_of(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), data(8)
    gradient = DPGradient(l2=0.01, noise_multiplier=0.0, batch_size=1)
    for i in range(8):
        gradient(model, cross_entropy, x[i : i + 1] * 100, y[i : i + 1])
        assert model.grad.norm() <= 0.01


def test_virtual_batches_change_nothing():
    model, (x, y) = model_of(nn.Linear(6, 3)), data(11)
    grads, losses = [], []
    for microbatch in (None, 1, 4, 100):
        losses.append(
            DPGradient(
                l2=0.5,
                noise_multiplier=1.0,
                batch_size=8,
                microbatch=microbatch,
                noise=SeededNoise(1),
            )(model, cross_entropy, x, y)
        )
        grads.append(model.grad.clone())
    for other, loss in zip(grads[1:], losses[1:], strict=True):
        assert torch.allclose(grads[0], other, atol=1e-6)
        assert loss == pytest.approx(losses[0], rel=1e-5)


def test_an_empty_batch_is_a_step_of_pure_noise():
    model = model_of(nn.Linear(60, 30))
    loss = DPGradient(l2=2.0, noise_multiplier=3.0, batch_size=4, noise=SeededNoise(0))(
        model, cross_entropy, torch.zeros(0, 60), torch.zeros(0, dtype=torch.int64)
    )
    assert loss == 0.0
    assert model.grad.std().item() == pytest.approx(2.0 * 3.0 / 4, rel=0.1)


def test_noise_is_fresh_each_step_and_comes_from_the_operating_system_unless_said():
    model, (x, y) = model_of(nn.Linear(6, 3)), data(4)
    gradient = DPGradient(l2=1.0, noise_multiplier=1.0, batch_size=4)
    seen = []
    for _ in range(2):
        torch.manual_seed(0)
        gradient(model, cross_entropy, x, y)
        seen.append(model.grad.clone())
    assert not torch.equal(*seen)
    assert not gradient.noise.repeatable


def test_a_zero_gradient_stays_zero_under_both_clippings():
    model = model_of(nn.Linear(6, 3, bias=False))
    for clipping in ("flat", "normalised"):
        DPGradient(l2=1.0, noise_multiplier=0.0, batch_size=4, clipping=clipping)(
            model, cross_entropy, torch.zeros(4, 6), torch.zeros(4, dtype=torch.int64)
        )
        assert (model.grad == 0).all()


def test_normalised_gradients_are_all_nearly_of_the_clips_length():
    model, (x, y) = model_of(nn.Linear(6, 3)), data(1)
    DPGradient(l2=0.5, noise_multiplier=0.0, batch_size=1, clipping="normalised")(
        model, cross_entropy, x * 1e-1, y
    )
    assert 0.45 < model.grad.norm() < 0.5


def test_nan_samples_are_left_out_and_said():
    model, (x, y) = model_of(nn.Linear(6, 3)), data(5)
    gradient = DPGradient(l2=0.3, noise_multiplier=0.0, batch_size=8)
    gradient(model, cross_entropy, x[1:], y[1:])
    right = model.grad.clone()
    x[0, 2] = math.nan
    with pytest.warns(PrivacyWarning, match="1 of 5 samples have a NaN"):
        gradient(model, cross_entropy, x, y)
    assert torch.allclose(model.grad, right)


@pytest.mark.parametrize("engine", ["bookkeeping", "opacus", "vmap"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_sample_that_is_no_number_stops_nothing_even_where_it_is_a_whole_batch(engine, bad):
    """Without it the batch is empty and the step is noise: an error would tell of it."""
    model, (x, y) = model_of(nn.Linear(6, 3)), data(2)
    x[:] = bad
    gradient = DPGradient(l2=0.3, noise_multiplier=0.0, batch_size=8, engine=engine, microbatch=1)
    for size in (1, 2):
        with pytest.warns(PrivacyWarning, match="1 of 1 samples have a NaN"):
            assert gradient(model, cross_entropy, x[:size], y[:size]) == 0
        assert not model.grad.any()


def test_samples_that_are_no_numbers_only_under_some_dropout_are_left_out():
    class Fragile(nn.Module):
        """Overflows where dropout keeps a large input."""

        def forward(self, x):
            return x * torch.where(x.abs() > 1e3, math.inf, 1.0).nan_to_num(posinf=math.inf)

    torch.manual_seed(0)
    model = model_of(nn.Sequential(nn.Dropout(0.5), Fragile(), nn.Linear(6, 3)))
    x, y = data(16)
    gradient = DPGradient(l2=0.3, noise_multiplier=0.0, batch_size=16)
    gradient(model, cross_entropy, x, y)
    x[:12, 0] = 1e4
    with pytest.warns(PrivacyWarning):
        gradient(model, cross_entropy, x, y)
    assert model.grad.isfinite().all()


@pytest.mark.parametrize("engine", ["bookkeeping", "opacus", "vmap"])
@pytest.mark.parametrize("entry", [0.3, 1 / 3, 0.7, 1.1])
def test_a_gradient_of_many_like_numbers_is_no_longer_than_the_clip(engine, entry):
    """What float32 rounds off each square adds up where all squares are alike."""
    d = 1_000_000
    model = model_of(nn.Linear(d, 1, bias=False))
    gradient = DPGradient(l2=1.0, noise_multiplier=0.0, batch_size=1, engine=engine)
    gradient(model, lambda m, x, y: m(x).mean(), torch.full((1, d), entry), torch.zeros(1))
    assert 1 - 1e-5 < model.grad.double().norm() <= 1


def test_a_ghost_norm_of_many_like_numbers_is_no_longer_than_the_clip():
    """Two positions of 20,000 like inputs each: their inner products are sums as long."""
    d = 20_000
    for entry in (0.1, 0.3, 0.7):
        found = SequenceOuterProduct(torch.full((1, 2, d), entry), torch.ones(1, 2, 8)).squared()
        assert float(found) ** 0.5 >= 2 * torch.tensor(entry).double() * (8 * d) ** 0.5 * (1 - 1e-6)


def test_a_diverged_model_is_an_error():
    model, (x, y) = model_of(nn.Linear(6, 3)), data(5)
    model.flat.fill_(math.nan)
    with pytest.raises(BadUpdate, match="all 5 gradients"):
        DPGradient(l2=0.3, noise_multiplier=1.0, batch_size=8)(model, cross_entropy, x, y)


def test_batches_are_poisson_samples_of_the_right_rate():
    gradient = DPGradient(l2=1.0, noise_multiplier=1.0, batch_size=8)
    sizes = [
        len(batch)
        for batch in gradient.batches(
            100, LocalPlan(batch_size=8, steps=2000), torch.Generator().manual_seed(0)
        )
    ]
    assert len(sizes) == 2000
    assert sum(sizes) / 2000 == pytest.approx(8, abs=0.35)
    variance = sum((s - 8) ** 2 for s in sizes) / 2000
    assert variance == pytest.approx(100 * 0.08 * 0.92, rel=0.2)
    assert (
        min(
            len(b)
            for b in gradient.batches(
                10, LocalPlan(batch_size=8, epochs=1), torch.Generator().manual_seed(0)
            )
        )
        >= 0
    )
    tiny = [
        len(b)
        for b in DPGradient(l2=1.0, noise_multiplier=1.0, batch_size=1).batches(
            3, LocalPlan(1, steps=50), torch.Generator().manual_seed(0)
        )
    ]
    assert 0 in tiny
    assert [len(b) for b in gradient.batches(5, LocalPlan(8, steps=1), torch.Generator())] == [5]
    assert gradient.steps(100, LocalPlan(batch_size=8, epochs=2)) == 25


def test_the_charge_is_what_the_accountant_prices():
    gradient = DPGradient(l2=1.0, noise_multiplier=1.0, batch_size=32)
    pipeline = Pipeline({}, Neighbours("client", "replace_one"), Sampling("all", 1.0, 1))

    def charged(made, round, steps):
        return pipeline.trained(round, 7, made.noisy(600, LocalPlan(batch_size=32), steps))

    [charge] = charged(gradient, 3, 100)
    assert (charge.unit, charge.subject, charge.round, charge.count) == (
        "sample",
        "sample of client 7",
        3,
        100,
    )
    [spent] = spend(Ledger((charge,)), 1e-5)
    assert spent.rdp == pytest.approx(
        epsilon(noise_multiplier=1.0, sample_rate=32 / 600, steps=100, delta=1e-5)
    )
    assert spent.pld == pytest.approx(3.74, abs=0.02)
    seeded = DPGradient(l2=1.0, noise_multiplier=1.0, batch_size=32, noise=SeededNoise(1))
    [void] = spend(Ledger(charged(seeded, 0, 1)), 1e-5)
    assert "void" in (void.refused or "")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"l2": 0.0}, "l2"),
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"noise_multiplier": math.inf}, "noise_multiplier"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_impossible_settings_are_refused(change, word):
    with pytest.raises(ConfigError, match=word):
        DPGradient(**({"l2": 1.0, "noise_multiplier": 1.0, "batch_size": 4} | change))


def test_a_plan_with_another_batch_size_is_refused():
    with pytest.raises(ConfigError, match=r"batch_size=8.*batches of 16"):
        next(
            DPGradient(l2=1.0, noise_multiplier=1.0, batch_size=8).batches(
                100, LocalPlan(batch_size=16), torch.Generator()
            )
        )


class Checkpointed(nn.Module):
    """Its middle runs again in the backward pass, where memory is short."""

    def __init__(self):
        super().__init__()
        layers = nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)
        self.body, self.out, self.kept = nn.Sequential(*layers), nn.Linear(8, 3), False

    def forward(self, x):
        if self.kept:
            return self.out(self.body(x))
        return self.out(checkpoint(self.body, x, use_reentrant=False))


def test_a_checkpoint_keeps_of_a_layer_what_book_keeping_does():
    torch.manual_seed(0)
    module, x, y = Checkpointed(), torch.randn(8, 8), torch.arange(8) % 3
    found = []
    for engine, module.kept in ((bookkeeping, False), (vmapped, True)):
        total = torch.zeros(sum(p.numel() for p in module.parameters()))
        done = engine(module, cross_entropy, x, y, lambda norms: 0.5 / norms, total)
        found.append((done.norms, total))
    (norms, total), (true_norms, true_total) = found
    assert torch.allclose(norms, true_norms, rtol=1e-5)
    assert torch.allclose(total, true_total, atol=1e-5)


def test_a_checkpoint_is_refused_by_opacus_whose_norms_are_too_small_there():
    torch.manual_seed(0)
    module, x, y = Checkpointed(), torch.randn(8, 8), torch.arange(8) % 3
    total = torch.zeros(sum(p.numel() for p in module.parameters()))
    with pytest.raises(UnsupportedModel, match="runs again in the backward pass"):
        opacus(module, cross_entropy, x, y, lambda norms: 0.5 / norms, total)
    assert not any(layer._forward_pre_hooks for layer in module.modules())
