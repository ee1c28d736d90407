"""What is the whole process's and hangs on the device: generators of layers that draw, and how
products of float32 are rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

CPU = torch.device("cpu")
"""Where everything lies but a run's model and data, and what trains."""
_SWITCHES = (
    ("cuda", "matmul"),
    *((library, operation) for library in ("cudnn", "mkldnn") for operation in ("conv", "rnn")),
    ("mkldnn", "matmul"),
)
_WHOLE = ("ieee", "none")
"""Float32 products in float32, as torch's newer switches name it; "none" leaves it to the switch
above, whose own default is that.
"""


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Whatever draws without a generator of its own (dropout and its like) draws from this seed
    inside, on the CPU and on the device; afterwards both go on as if nothing had been drawn.

    ``torch.default_generator`` is the CPU's alone: layers on an accelerator draw from that one's.
    The same seed draws other numbers there than on the CPU.

    Args:
        device: where the layers compute.
        seed: of 64 bits, for both generators.

    >>> with seeded(torch.device("cpu"), 7):
    ...     first = torch.rand(2)
    >>> with seeded(torch.device("cpu"), 7):
    ...     print(torch.equal(first, torch.rand(2)))
    True
    """
    if device.type == "cpu":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
        return
    module = getattr(torch, device.type)
    at = module.current_device() if device.index is None else device.index
    with torch.random.fork_rng(devices=[at], device_type=device.type):
        torch.default_generator.manual_seed(seed)
        with module.device(at):
            module.manual_seed(seed)
        yield


@contextmanager
def exact_products() -> Iterator[None]:
    """Products of float32 are rounded as float32 inside, whatever the process asked for; afterwards
    it has again what it asked for.

    A GPU may round factors to 10 bits (TF32), which cuDNN does of itself in convolutions and
    recurrent layers, and a processor to 7 (bfloat16), where
    ``torch.set_float32_matmul_precision`` allows it. Then a clipped gradient can be longer than its
    clip, by more than noise was scaled for, and rows that are close look as if they were alike.

    >>> torch.set_float32_matmul_precision("medium")
    >>> with exact_products():
    ...     print(torch.get_float32_matmul_precision())
    highest
    >>> torch.get_float32_matmul_precision()
    'medium'
    >>> torch.set_float32_matmul_precision("highest")
    """
    with ExitStack() as after:
        try:
            matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        except RuntimeError:  # the newer switches were used, which these cannot say
            matmul, cudnn = "highest", False
        if matmul != "highest":
            after.callback(torch.set_float32_matmul_precision, matmul)
            torch.set_float32_matmul_precision("highest")
        if cudnn:
            after.callback(partial(setattr, torch.backends.cudnn, "allow_tf32", True))
            torch.backends.cudnn.allow_tf32 = False
        for library, operation in _SWITCHES:
            switch: Any = getattr(getattr(torch.backends, library), operation, None)
            was = getattr(switch, "fp32_precision", _WHOLE[0])  # torch before 2.9 has none
            if was not in _WHOLE:
                after.callback(partial(setattr, switch, "fp32_precision", was))
                switch.fp32_precision = _WHOLE[0]
        yield
