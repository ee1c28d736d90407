"""A device that is pretended: where no GPU is, code for one runs on it, held to a GPU's rules.

Its tensors are dense ones of torch's open backend ("PrivateUse1"), under the name ``pretended``.
Their memory is the CPU's, and each operation on them is the CPU's on that memory, so a result has
the CPU's bits. What a GPU refuses is refused: tensors of the CPU beside its own (single numbers in
pointwise operations, and indices, excepted), generators of the CPU, numpy, buffers. The device has
a generator of its own, which ``torch.default_generator`` does not seed, and memory is filled with
NaN where it would be whatever lay there. Factors of products are rounded to TF32 where torch's
switches would let a GPU round them. What makes the CPU wait for a GPU is counted.

What this cannot show: the values of a GPU's own kernels (the order of their sums, autocast, what
its dropout draws), kernels that it does not have, streams and whatever is not yet done when a call
returns, more than one device, and how fast anything is.
"""

import contextlib
import ctypes
import functools
from collections import Counter

import torch
from torch._C import _from_dlpack, _to_dlpack
from torch.utils import backend_registration
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

NAME = "pretended"
CPU, HERE = 1, 12
"""Kinds of devices in DLPack: the CPU, and one that is an extension."""
_KIND, _INDEX = 8, 12
"""Where a DLPack tensor says its device: after a pointer to its memory."""
_POINTER = ctypes.pythonapi.PyCapsule_GetPointer
_POINTER.restype, _POINTER.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]

TAKES_INDICES = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
TAKES_NUMBERS = {"fill_", "fill", "masked_fill", "masked_fill_", "index_fill_", "where"}
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "addmv", "mv", "dot"}
FOLDS = {"convolution", "convolution_backward"}
_LOST = 13
"""Bits of a factor of float32 that TF32 leaves out."""
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim"}


class Backend:
    """What torch asks of the module of a device, with its generator, and what was waited for."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)
        self.waits = Counter()

    def is_initialized(self):
        return True

    def is_available(self):
        return True

    def _is_in_bad_fork(self):
        return False

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def device(self, index):
        return contextlib.nullcontext()

    def manual_seed(self, seed):
        self.generator.manual_seed(seed)

    def manual_seed_all(self, seed):
        """Of `torch.manual_seed`, which seeds all devices."""
        self.generator.manual_seed(seed)

    def get_rng_state(self, device=0):
        return self.generator.get_state()

    def set_rng_state(self, state, device=0):
        self.generator.set_state(state)


BACKEND = Backend()


def _as(kind, tensor):
    """The same memory as a tensor of another device."""
    capsule = _to_dlpack(tensor)
    head = _POINTER(capsule, b"dltensor")
    ctypes.c_int32.from_address(head + _KIND).value = kind
    ctypes.c_int32.from_address(head + _INDEX).value = 0
    if not torch.is_inference_mode_enabled():
        return _from_dlpack(capsule)
    with torch.inference_mode(False):  # memory could not be given to an inference tensor later
        return _from_dlpack(capsule)


def _on_cpu(tensor):
    """The same memory; what has none may get some."""
    return _as(CPU, tensor) if tensor.numel() else torch.empty(tensor.shape, dtype=tensor.dtype)


def _is_here(tensor):
    return tensor.device.type == NAME


def _refuse_mixed(op, name, tensors):
    """What a GPU's kernel refuses."""
    here = [one for one in tensors if _is_here(one)]
    away = [one for one in tensors if not _is_here(one)]
    if not here or not away or (name in TAKES_INDICES and _is_here(tensors[0])):
        return
    numbers = torch.Tag.pointwise in op.tags or name in TAKES_NUMBERS
    if not (numbers and all(one.dim() == 0 for one in away)):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices,"
            f" {NAME}:0 and cpu, in {op}!"
        )


def _rounds(name):
    """Whether a GPU would round factors of an operation to TF32."""
    if name in PRODUCTS:
        return torch.backends.cuda.matmul.fp32_precision == "tf32"
    return name in FOLDS and torch.backends.cudnn.conv.fp32_precision == "tf32"


def _rounded(value):
    """A factor in TF32, to the nearest."""
    if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
        return value
    bits = value.contiguous().view(torch.int32)
    return ((bits + (1 << (_LOST - 1))) >> _LOST << _LOST).view(torch.float32).view(value.shape)


def _kernel(op, *args, **kwargs):
    """Any operation with a tensor of this device in it, or that makes one."""
    name = op.overloadpacket.__name__
    leaves, spec = tree_flatten((args, kwargs))
    tensors = [one for one in leaves if isinstance(one, torch.Tensor)]
    _refuse_mixed(op, name, tensors)
    if any(isinstance(one, torch.Generator) for one in leaves):
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu'")
    if name in WAITS:
        BACKEND.waits[name] += 1
    moved = {id(one): _on_cpu(one) for one in tensors if _is_here(one)}
    plain = [
        moved.get(id(one), one)
        if isinstance(one, torch.Tensor)
        else torch.device("cpu")
        if isinstance(one, torch.device)
        else one
        for one in leaves
    ]
    if _rounds(name):
        out = kwargs.get("out")
        plain = [
            one if out is not None and one is moved[id(out)] else _rounded(one) for one in plain
        ]
    at_work, named = tree_unflatten(plain, spec)
    if torch.Tag.nondeterministic_seeded in op.tags:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(BACKEND.generator.get_state())
            out = op(*at_work, **named)
            BACKEND.generator.set_state(torch.get_rng_state())
    else:
        out = op(*at_work, **named)
    given = {id(moved[id(one)]): one for one in tensors if _is_here(one)}

    def back(tensor):
        own = given.get(id(tensor))
        if own is None:
            return _as(HERE, tensor)
        if own.shape != tensor.shape:  # it had no memory yet
            own.data = _as(HERE, tensor)
        return own

    return tree_map_only(torch.Tensor, back, out)


def _empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    made = torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format)
    return _as(HERE, _whatever_lay_there(made))


def _empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
    return _as(HERE, _whatever_lay_there(torch.empty_strided(size, stride, dtype=dtype)))


def _whatever_lay_there(made):
    return made.fill_(torch.nan) if made.is_floating_point() else made


def _copy(self, src, non_blocking=False):
    """Between devices too."""
    if _is_here(src) and not _is_here(self):
        BACKEND.waits["to the CPU"] += 1
    into, of = (_as(CPU, one) if _is_here(one) else one for one in (self, src))
    into.copy_(of)
    return self


def _lstm_cell(gates, more, cell, bias=None, further=None):
    """What a GPU has one kernel for; its workspace is the gates."""
    total = gates + more if bias is None else gates + more + bias + further
    i, f, g, o = total.chunk(4, dim=1)
    space = torch.cat([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], dim=1)
    i, f, g, o = space.chunk(4, dim=1)
    after = f * cell + i * g
    return o * after.tanh(), after, space


def _lstm_cell_back(slope, slope_of_cell, cell, after, space, has_bias):
    i, f, g, o = space.chunk(4, dim=1)
    bent = after.tanh()
    back = torch.zeros_like(after)
    if slope is not None:
        back = back + slope * o * (1 - bent * bent)
    if slope_of_cell is not None:
        back = back + slope_of_cell
    out = torch.zeros_like(o) if slope is None else slope * bent
    gates = torch.cat(
        [
            back * g * i * (1 - i),
            back * cell * f * (1 - f),
            back * i * (1 - g * g),
            out * o * (1 - o),
        ],
        dim=1,
    )
    return gates, back * f, gates.sum(0) if has_bias else torch.empty(0, device=gates.device)


def _convolution(*args):
    """As the CPU's; a backend of its own is asked for this one."""
    return _kernel(torch.ops.aten.convolution.default, *args)


def _convolution_back(slope, x, weight, *args):
    *shape, mask = args
    bias = [weight.shape[1] * shape[-1] if shape[3] else weight.shape[0]]
    return _kernel(
        torch.ops.aten.convolution_backward.default, slope, x, weight, bias, *shape, mask
    )


def copied_deeply(self, memo, whole=torch.Tensor.__deepcopy__):
    """`copy.deepcopy` of a tensor, without an allocator of this device's, which Python cannot
    give it.
    """
    if not _is_here(self) or id(self) in memo:
        return whole(self, memo)
    with torch.no_grad():
        made = self.detach().clone()
        if isinstance(self, torch.nn.Parameter):
            made = torch.nn.Parameter(made, self.requires_grad)
        made.requires_grad_(self.requires_grad)
        if self.grad is not None:
            made.grad = copied_deeply(self.grad, memo)
    memo[id(self)] = made
    return made


def refused_pickle(self, protocol, whole=torch.Tensor.__reduce_ex__):
    """What a GPU's tensor is pickled as, no machine without that GPU can read."""
    if _is_here(self):
        raise RuntimeError(f"a tensor on {NAME} is about to be pickled: move it to the CPU first.")
    return whole(self, protocol)


@functools.cache
def installed():
    """Make torch know the device: a process cannot forget it again."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, BACKEND)
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(_kernel, "PrivateUse1")
    some = torch.library.Library("aten", "IMPL")
    for name, kernel in {
        "empty.memory_format": _empty,
        "empty_strided": _empty_strided,
        "copy_": _copy,
        "_thnn_fused_lstm_cell": _lstm_cell,
        "_thnn_fused_lstm_cell_backward_impl": _lstm_cell_back,
        "convolution_overrideable": _convolution,
        "convolution_backward_overrideable": _convolution_back,
    }.items():
        some.impl(name, kernel, "PrivateUse1")
    return everything, some
