"""A network of squares that answers encrypted queries, against TenSEAL's own layers.

``python -m benchmarks.encrypted_inference [--quick] [--json] [--only CASE]``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import tenseal
import torch
from torch import Tensor, nn

from benchmarks.harness import Row, cost, gain, main
from privfl import Federation
from privfl.core import Dataset, LocalPlan
from privfl.data import load
from privfl.inference import EncryptedModel, EncryptedQuerier, Inferred, infer_encrypted
from privfl.models import initialised, square_cnn
from privfl.training import LocalSGD

IMAGES = 100
PRIMES = (31, 26, 26, 26, 26, 26, 26, 31)
"""TenSEAL's modulus: its packing of channels takes a multiplication more than the network does."""


@dataclass(frozen=True)
class Trained:
    """A network and the data that it was trained and is tested on."""

    net: nn.Module
    members: Dataset
    others: Dataset


@lru_cache(maxsize=2)
def trained(samples: int, rounds: int, steps: int) -> Trained:
    """`square_cnn` after rounds of five clients on that many digits of MNIST."""
    split = load("mnist")
    members = split.train.take(range(samples))
    run = Federation(
        initialised(square_cnn, split.shape, split.classes, seed=0),
        [members.take(range(first, samples, 5)) for first in range(5)],
        split.test,
        rounds=rounds,
        training=LocalSGD(lr=0.01, plan=LocalPlan(32, steps=steps)),
        seed=0,
    ).run()
    return Trained(run.model, members, split.test)


def answers(quick: bool) -> Iterator[Row]:
    """Whether encrypted answers name the same class, at natural settings."""
    of = trained(60_000, 10, 375)
    test = of.others
    found = infer_encrypted(of.net, test.x[:IMAGES], calibration=test.x[:1000])
    with torch.no_grad():
        clear = of.net.eval()(test.x).argmax(dim=1)
    accuracy = float((clear == test.y).double().mean())
    encrypted, same = found.accuracy(test.y[:IMAGES])
    yield gain(
        "answers", "goal", f"share of {IMAGES} images in the same class", found.agreement, 0.99, 1
    )
    yield gain("answers", "goal", "accuracy in the clear, 10,000 images", accuracy, 0.96, 1)
    yield gain("answers", "plain", f"accuracy encrypted, {IMAGES} images", encrypted, same)
    yield cost(
        "answers", "none", "largest error of a logit", found.error, float(found.clear.abs().max())
    )


def costs(quick: bool) -> Iterator[Row]:
    """CPU seconds and bytes of one query, beside TenSEAL on the same network."""
    of = trained(60_000, 10, 375)
    test = of.others
    owner = EncryptedModel(of.net, test.x.shape[1:], calibration=test.x[:1000])
    client = EncryptedQuerier(owner.circuit)
    start = time.process_time()
    sent = client.keys()
    made = time.process_time() - start
    keys, peer = owner.keys(sent), Peer(of.net)
    ours, theirs = [[1e9] * 3 for _ in range(2)]
    for sample in test.x[: 3 if quick else 10]:
        query, asked = _timed(lambda x=sample: client.query(x))
        answer, answered = _timed(lambda q=query: owner.answer(keys, q))
        _, read = _timed(lambda a=answer: client.logits(a))
        ours = list(map(min, ours, (asked, answered, read)))
        sealed, asked = _timed(lambda x=sample: peer.query(x))
        reply, answered = _timed(lambda s=sealed: peer.answer(s))
        logits, read = _timed(lambda r=reply: peer.logits(r))
        theirs = list(map(min, theirs, (asked, answered, read)))
    apart = np.abs(client.logits(answer).numpy() - logits).max()
    words = ("encrypt", "evaluate", "decrypt")
    for word, mine, other, target in zip(words, ours, theirs, (None, 4.0, None), strict=True):
        yield cost("costs", "tenseal", f"CPU s to {word} one image", mine, other, target)
    yield cost("costs", "tenseal", "CPU s to make the keys, once", made, peer.made)
    yield cost("costs", "tenseal", "bytes of the keys, once", len(sent), peer.public)
    yield cost("costs", "tenseal", "bytes of a query", len(query), len(sealed))
    yield cost("costs", "tenseal", "bytes of an answer", len(answer), len(reply))
    yield cost("costs", "none", "difference of both tools' logits", float(apart), 1.0)


class Peer:
    """The same network by TenSEAL's layers: convolution on windows that the client lays out,
    packing, squares, products with matrices.
    """

    def __init__(self, net: nn.Module) -> None:
        start = time.process_time()
        self.context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=list(PRIMES), n_threads=1
        )
        self.context.global_scale = 2.0**26
        self.context.generate_galois_keys()
        self.made = time.process_time() - start
        self.public = len(self.context.serialize(save_secret_key=False))
        layers = {type(layer): layer for layer in net.children()}
        convolution = layers[nn.Conv2d]
        self.kernels = convolution.weight.detach()[:, 0].tolist()
        self.biases = convolution.bias.detach().tolist()
        self.linear = [
            (layer.weight.detach().T.tolist(), layer.bias.detach().tolist())
            for layer in net.children()
            if isinstance(layer, nn.Linear)
        ]
        self.windows = 0

    def query(self, sample: Tensor) -> bytes:
        """One image."""
        sealed, self.windows = tenseal.im2col_encoding(
            self.context, sample.reshape(28, 28).tolist(), 7, 7, 3
        )
        data: bytes = sealed.serialize()
        return data

    def answer(self, query: bytes) -> bytes:
        """The logits, encrypted."""
        image = tenseal.ckks_vector_from(self.context, query)
        channels = [
            image.conv2d_im2col(kernel, self.windows) + bias
            for kernel, bias in zip(self.kernels, self.biases, strict=True)
        ]
        values = tenseal.CKKSVector.pack_vectors(channels)
        for weight, bias in self.linear:
            values.square_()
            values = values.mm(weight) + bias
        data: bytes = values.serialize()
        return data

    def logits(self, answer: bytes) -> Any:
        """The logits."""
        return np.array(tenseal.ckks_vector_from(self.context, answer).decrypt())


def leaks(quick: bool) -> Iterator[Row]:
    """What answers say about who was trained on: membership by the loss of the true class, from
    decrypted logits and from those in the clear; 100 samples learnt by heart.
    """
    of, each = trained(100, 20, 60), 100
    other = of.others.take(range(5000, 5000 + each))  # MNIST's first test images are easier
    x, y = torch.cat([of.members.x, other.x]), torch.cat([of.members.y, other.y])
    found: Inferred = infer_encrypted(of.net, x, calibration=of.others.x[:1000])
    aucs = []
    for logits in (found.encrypted, found.clear):
        losses = nn.functional.cross_entropy(logits, y, reduction="none")
        aucs.append(float((losses[:each, None] < losses[None, each:]).double().mean()))
    yield gain("leaks", "plain", "membership AUC from answers, encrypted and clear", *aucs)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    found = work()
    return found, time.process_time() - start


CASES = {"answers": answers, "costs": costs, "leaks": leaks}

if __name__ == "__main__":
    main("encrypted_inference", CASES)
