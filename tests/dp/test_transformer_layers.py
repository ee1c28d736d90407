"""Per-sample gradients of attention, tied and repeated layers, positions and adapters: equal to
vmap(grad).
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from privfl.core import FlatModel, UnsupportedModel, cross_entropy
from privfl.dp import DPGradient
from privfl.dp.sgd import bookkeeping, vmapped
from privfl.dp.sgd.bookkeeping import _Book
from privfl.dp.sgd.closed_loss import closed_cross_entropy

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")  # of the oracle


def squared_loss(module, x, y):
    return (module(x).flatten(1).square().sum(dim=1) * y).mean()


def clip(norms):
    return (0.7 / norms).clamp(max=1.0)


def added(engine, module, x, loss=squared_loss):
    y = torch.linspace(0.5, 1.5, len(x), dtype=torch.float64)
    d = sum(p.numel() for p in module.parameters() if p.requires_grad)
    total = torch.zeros(d, dtype=torch.float64)
    return engine(module, loss, x, y, clip, total).norms, total


def assert_same(module, x):
    torch.manual_seed(0)
    module = module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    norms, total = added(bookkeeping, module, x)
    right_norms, right = added(vmapped, module, x)
    assert right_norms.min() > 0
    assert (norms - right_norms).abs().max() < 1e-10 * right_norms.max()
    assert (total - right).abs().max() < 1e-10


def numbers(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def tokens(*shape, below=7):
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(1))


class Attends(nn.Module):
    def __init__(self, cross=False, mask=None, padding=False, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, **options)
        self.other = nn.Linear(8, options.get("kdim", 8)) if cross else None
        self.mask, self.padding = mask, padding
        self.first = options.get("batch_first", False)

    def forward(self, x):
        key = x if self.other is None else self.other(x)[:, :3]
        if not self.first:
            x, key = x.transpose(0, 1), key.transpose(0, 1)
            key = x if self.other is None else key
        t, s = (5, 5 if self.other is None else 3)
        mask = None
        if self.mask == "causal":
            mask = torch.ones(t, s, dtype=torch.bool).triu(1)
        elif self.mask == "added":
            mask = torch.arange(t * s, dtype=x.dtype).view(t, s) / 10
        batch = x.shape[0] if self.first else x.shape[1]
        last = torch.zeros(s, dtype=x.dtype).index_fill(0, torch.tensor(s - 1), -torch.inf)
        padding = last.expand(batch, s) if self.padding else None
        out, weights = self.attention(x, key, key, key_padding_mask=padding, attn_mask=mask)
        out = out if self.first else out.transpose(0, 1)
        return out + weights.sum(dim=2, keepdim=True)


@pytest.mark.parametrize(
    "how",
    [
        {"batch_first": True},
        {},
        {"batch_first": True, "mask": "causal"},
        {"batch_first": True, "mask": "added", "padding": True},
        {"batch_first": True, "bias": False},
        {"batch_first": True, "cross": True},
        {"cross": True, "bias": False},
        {"batch_first": True, "cross": True, "kdim": 6, "vdim": 6},
    ],
    ids=str,
)
def test_attention_with_packed_and_with_parted_projections(how):
    assert_same(Attends(**how), numbers(4, 5, 8))


def test_attention_gives_what_torch_gives():
    layer = nn.MultiheadAttention(8, 2, batch_first=True).double()
    x, mask = numbers(3, 5, 8), torch.ones(5, 5, dtype=torch.bool).triu(1)
    seen = []

    def loss(module, x, y):
        out, weights = module(x, x, x, attn_mask=mask, average_attn_weights=False)
        seen.append((out.detach(), weights.detach()))
        return out.flatten(1).sum(dim=1).mean()

    added(bookkeeping, layer, x, loss)
    loss(layer, x, None)
    for ours, theirs in zip(*seen, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_a_whole_encoder_layer_of_torch():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    assert_same(nn.Sequential(layer, nn.Linear(8, 2)), numbers(4, 5, 8))


def test_attention_that_is_partly_frozen():
    net = Attends(batch_first=True)
    net.attention.in_proj_weight.requires_grad_(False)
    assert_same(net, numbers(4, 5, 8))


def test_extra_keys_are_refused_in_words():
    with pytest.raises(UnsupportedModel, match=r"add_bias_kv.*'vmap'"):
        added(bookkeeping, Attends(batch_first=True, add_bias_kv=True).double(), numbers(4, 5, 8))


class Tied(nn.Module):
    """Two tables, of tokens and of positions; the output layer is the first."""

    def __init__(self, size, width, depth=1, bias=False, padding_idx=None):
        super().__init__()
        self.table = nn.Embedding(size, width, padding_idx=padding_idx)
        self.place = nn.Embedding(16, width)
        self.inner = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, size, bias=bias)
        self.head.weight = self.table.weight

    def forward(self, x):
        state = self.table(x) + self.place(torch.arange(x.shape[1])[None])
        for layer in self.inner:
            state = state + layer(state.tanh())
        return self.head(state)


@pytest.mark.parametrize(
    ("net", "length"),
    [
        (Tied(40, 24), 5),
        (Tied(40, 24, bias=True), 1),
        (Tied(7, 3), 6),
        (Tied(40, 24, depth=2, padding_idx=3), 5),
    ],
)
def test_an_output_layer_that_is_the_embedding(net, length):
    assert_same(net, tokens(4, length))


class Repeated(nn.Module):
    def __init__(self, layer, shape):
        super().__init__()
        self.layer, self.shape = layer, shape

    def forward(self, x):
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        return x


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 6), (4, 6)),
        (nn.Linear(20, 20), (4, 2, 20)),
        (nn.Linear(6, 6), (4, 9, 6)),
        (nn.Conv2d(2, 2, 3, padding=1), (4, 2, 5, 5)),
        (nn.LayerNorm(6), (4, 3, 6)),
        (nn.RMSNorm(6), (4, 3, 6)),
        (nn.MultiheadAttention(8, 2, batch_first=True), (4, 5, 8)),
    ],
    ids=str,
)
def test_a_layer_that_runs_three_times(layer, shape):
    if isinstance(layer, nn.MultiheadAttention):

        class Alone(nn.Module):
            def __init__(self):
                super().__init__()
                self.inside = layer

            def forward(self, x):
                return self.inside(x, x, x, need_weights=False)[0]

        layer = Alone()
    assert_same(Repeated(layer, shape), numbers(*shape))


class Readers(nn.Module):
    """Layers that read one tensor, parts of it, and others of its memory and shape."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(20, 20 + k, bias=k != 1) for k in range(6))
        self.narrow = nn.Linear(10, 40)

    def forward(self, x):
        one, two, three, four, five, six = self.layers
        half = x.reshape(len(x), 4, 10)
        same = one(x).sum(2) + two(x).square().sum(2) + three(x).tanh().sum(2)
        other = four(x.flip(1)).sum(2) + five(x.mT.mT).square().sum(2)
        square = six(x[:, :1].expand(-1, 2, -1)).tanh().sum(2)
        return same * other + square + self.narrow(half).square().sum((1, 2))[:, None]


def test_layers_that_read_one_tensor_and_layers_that_only_seem_to():
    torch.manual_seed(0)
    net, x = Readers().double(), numbers(4, 2, 20)
    (norms, total), (right, expected) = (added(e, net, x) for e in (bookkeeping, vmapped))
    assert (norms - right).abs().max() < 1e-10 * right.max()
    assert (total - expected).abs().max() < 1e-10 * expected.abs().max()


def test_two_tables_that_are_one():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Embedding(7, 4), nn.Embedding(7, 4)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.one(x) * self.two(x.flip(1)).tanh()

    assert_same(Twice(), tokens(4, 6))


def test_adapters_beside_a_frozen_layer():
    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = nn.Linear(8, 6).requires_grad_(False)
            self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 6, bias=False)

        def forward(self, x):
            return self.base(x) + 2 * self.up(self.down(x))

    net = nn.Sequential(nn.Linear(8, 8).requires_grad_(False), nn.Tanh(), Adapted())
    assert_same(net, numbers(4, 5, 8))


@pytest.mark.parametrize("eps", [None, 0.3])
def test_normalisation_by_the_root_mean_square(eps):
    net = nn.Sequential(nn.Linear(5, 6), nn.RMSNorm((3, 6), eps=eps), nn.Linear(6, 2))
    assert_same(net, numbers(4, 3, 5))


def test_a_weight_that_another_function_reads_is_refused_with_the_way_out():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(7, 4)

        def forward(self, x):
            return F.linear(self.table(x), self.table.weight)

    with pytest.raises(UnsupportedModel, match=r"outside of its layer.*giving two layers one"):
        added(bookkeeping, Functional().double(), tokens(4, 5))


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5)])
def test_the_closed_error_of_the_cross_entropy_is_autograds(shape, scale):
    logits, labels = scale * numbers(*shape).float(), tokens(*shape[:-1], below=5)
    logits = logits.requires_grad_()
    found, right = (
        loss(nn.Identity(), logits, labels) for loss in (closed_cross_entropy, cross_entropy)
    )
    error, expected = (torch.autograd.grad(3 * value, logits)[0] for value in (found, right))
    assert found.item() == pytest.approx(right.item(), rel=1e-6)
    assert (error - expected).abs().max() <= 2e-7


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_sample_without_a_number_leaves_the_others_their_closed_errors(bad):
    logits, labels = numbers(6, 5).float(), tokens(6, below=5)
    logits[2, 1] = bad
    logits.requires_grad_()
    value = closed_cross_entropy(nn.Identity(), logits, labels)
    (error,) = torch.autograd.grad(value, logits)
    assert value.isnan()
    assert error[2].isnan().all()
    assert error[[0, 1, 3, 4, 5]].isfinite().all()


def test_labels_that_are_left_out_and_shares_keep_the_loss_of_torch():
    logits = numbers(4, 5)
    left = torch.tensor([1, -100, 2, 4])
    shares = numbers(4, 5).softmax(1)
    assert closed_cross_entropy(nn.Identity(), logits, left) == F.cross_entropy(logits, left)
    assert closed_cross_entropy(nn.Identity(), logits, shares) == F.cross_entropy(logits, shares)
    with pytest.raises((RuntimeError, IndexError)):
        closed_cross_entropy(nn.Identity(), logits, torch.tensor([1, 5, 2, 4]))


class Unpacked(nn.Module):
    """What layers read is kept away and comes back in one buffer, as where memory is short."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(40, 40) for _ in range(3))

    def forward(self, x):
        one, two, three = self.layers
        buffer = torch.empty_like(x)
        with torch.autograd.graph.saved_tensors_hooks(torch.clone, buffer.copy_):
            return one(x) + two(x.flip(1) * 9) + three(x * 0.1)


class Hooked(nn.Module):
    """A hook lengthens the error of one layer, which is the memory of another's as well."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(40, 40), nn.Linear(40, 40)

    def forward(self, x):
        one = self.one(x.flip(1))
        if one.requires_grad:
            one.register_hook(lambda error: error.mul_(50))
        return one + self.two(x)


@pytest.mark.parametrize("net", [Unpacked, Hooked])
def test_what_is_changed_in_place_between_a_norm_and_its_sum_is_refused(net):
    gradient = DPGradient(l2=0.1, noise_multiplier=0.0, batch_size=4)
    torch.manual_seed(0)
    model, x = FlatModel(nn.Sequential(net(), nn.Flatten())), numbers(4, 2, 40).float()
    with pytest.raises(UnsupportedModel, match="was changed in place during the backward pass"):
        gradient(model, cross_entropy, x, torch.tensor([0, 1, 2, 3]))
    assert not model.grad.any()


def test_inputs_that_change_between_two_layers_have_products_of_their_own():
    book, x = _Book(3, torch.zeros(())), numbers(3, 2, 5)
    before = book._products(x).clone()
    x.mul_(2)
    assert torch.equal(book._products(x), 4 * before)


def test_a_loss_that_takes_gradients_itself_on_some_batches_is_refused_on_those():
    def loss(module, x, y):
        x = x.detach().requires_grad_()
        out = module(x)
        if bool((y == 2).any()):
            torch.autograd.grad(out.square().sum(), x, retain_graph=True)
        return F.cross_entropy(out, y)

    gradient = DPGradient(l2=0.1, noise_multiplier=0.0, batch_size=4)
    torch.manual_seed(0)
    model, x = FlatModel(nn.Linear(5, 3)), numbers(4, 5).float()
    gradient(model, loss, x, torch.tensor([0, 1, 0, 1]))
    assert model.grad.any()
    with pytest.raises(UnsupportedModel, match="takes gradients through a Linear itself"):
        gradient(model, loss, x, torch.tensor([0, 1, 2, 1]))
