"""The client: asks about samples that it does not show."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core import BadUpdate, Buffer, KeepsSecrets
from privfl.crypto.he.lattice import frames, switching
from privfl.crypto.he.lattice.seal import context, encoders, passage
from privfl.crypto.he.libraries import seal
from privfl.crypto.he.wire import Refused
from privfl.inference import message
from privfl.inference.circuit import HELD, InferenceCircuit
from privfl.inference.diagonals import packed_input

STRAY = 16.0
"""How far one slot may be from the mean of its copies: noise gives up to .4 at logits of 500."""
SPARE = 2.0**-4
"""The largest mean of a spare slot's copies: noise gives 1e-5."""


class EncryptedQuerier(KeepsSecrets):
    """A client of an `EncryptedModel`, with a secret key of its own, which never leaves it.

    `keys` go to the owner once, `query` for each sample. Answers decrypt to logits. KEEP THEM TO
    YOURSELF: whoever sees decryptions beside their ciphertexts, as the owner would, learns the key
    (Li, Micciancio 2021). `EncryptedModel` says what is promised and what is not.

    Args:
        circuit: of the owner's network.

    Raises:
        ConfigError: this system has no memory files (it is not Linux).

    >>> from privfl.inference import InferenceCircuit
    >>> EncryptedQuerier(InferenceCircuit((4, 2)))
    <EncryptedQuerier: holds secrets>
    """

    def __init__(self, circuit: InferenceCircuit) -> None:
        self.circuit = circuit
        self._secret = frames.generate(circuit.lattice)[1]

    def keys(self) -> bytes:
        """What the owner needs to rotate and multiply: 106 MB for `square_cnn` on MNIST, once."""
        lattice = self.circuit.lattice
        body = switching.generate(lattice, self._secret, self.circuit.rotations)
        return message.closed(self.circuit, "keys", body)

    def query(self, sample: Float[Tensor, "..."]) -> bytes:
        """One sample, encrypted: half of a ciphertext and a seed.

        Raises:
            BadUpdate: another number of values than the network's inputs, or one that is not
                finite or above 1024.
        """
        values = sample.detach().cpu().double().reshape(-1).numpy()
        if len(values) != self.circuit.widths[0] or not (np.abs(values) <= HELD).all():
            raise BadUpdate(
                f"a sample of {self.circuit.widths[0]} finite values up to {HELD:.0f} is due, and"
                f" this one has {len(values)}, or NaN, infinity or larger values among them."
            )
        lattice = self.circuit.lattice
        encode, _ = encoders(lattice)
        plain = seal.Plaintext()
        encode(packed_input(self.circuit.stages[0], values, lattice.slots), plain)
        with passage() as file:
            key = frames.secret_key(file, lattice, self._secret)
            sealed = seal.Encryptor(context(lattice), key).encrypt_symmetric(plain)
            return message.closed(
                self.circuit, "query", frames.closed_seeded(file, lattice, sealed)
            )

    def logits(self, answer: Buffer) -> Float[Tensor, " classes"]:
        """The network's outputs for the sample of a query: the mean of their copies in the slots.

        An answer that overflowed differs from the network's by q/scale = 2^11 times an algebraic
        integer of a real field with one embedding for each of the layout's ``rows``. The product
        over these is at least 1, so what is small in the spare slots is large in others: with p
        spare slots beside m outputs, an overflown answer passes only if a logit is beyond
        2^11 (2^11 / `SPARE`)^(p/m) - 2^10, and then by chance alone.

        Raises:
            Refused: no answer for this circuit, or one that no network of it can have given:
                decrypted with another key, or overflown.
        """
        lattice, stage = self.circuit.lattice, self.circuit.stages[-1]
        body = message.opened(self.circuit, "answer", answer)
        _, decode = encoders(lattice)
        with passage() as file:
            opened, plain = frames.opened_last(file, lattice, body, self._scale()), seal.Plaintext()
            key = frames.secret_key(file, lattice, self._secret)
            seal.Decryptor(context(lattice), key).decrypt(opened, plain)
        copies = decode(plain).reshape(-1, stage.rows)
        values = copies.mean(axis=0)
        stray, spare = np.abs(copies - values).max(), np.abs(values[stage.outputs :]).max()
        # written so that NaN is refused
        if not (stray <= STRAY and spare <= SPARE and np.abs(values).max() <= HELD):
            raise Refused(
                "the answer decrypts to values that no network can have given: another key's, or"
                " the sample is far from those that the model was calibrated on, and overflowed"
            )
        return torch.from_numpy(values[: stage.outputs]).float()

    def _scale(self) -> float:
        """Of the answer: as the owner's arithmetic leaves it."""
        scale = 2.0**self.circuit.lattice.scale_bits
        primes = frames.residues(self.circuit.lattice).primes
        for number in range(1, len(self.circuit.stages)):
            scale = scale * scale / primes[len(primes) - 2 * number]
        return scale
