"""The model's owner: evaluates the network on inputs that it cannot read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from privfl.core import Buffer, ConfigError
from privfl.crypto.he.lattice import frames, switching
from privfl.crypto.he.lattice.seal import context, passage
from privfl.crypto.he.libraries import seal
from privfl.crypto.he.wire import Refused
from privfl.inference import message
from privfl.inference.circuit import LARGEST, InferenceCircuit, PackedMap
from privfl.inference.diagonals import diagonals, packed_bias
from privfl.inference.network import Affine, Matrix, affine_stages, balanced


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a client's keys let the owner do: rotate, and multiply. They decrypt nothing."""

    products: Any
    rotations: Any


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A stage's plaintexts, at the level where it is evaluated: diagonals [rows] and the bias."""

    diagonals: Sequence[Any]
    bias: Any


class EncryptedModel:
    """A network that answers encrypted queries (Gilad-Bachrach et al. 2016, CryptoNets), in CKKS.

    Affine maps are products with diagonals in baby steps and giant steps, so that a map with m
    outputs takes about 2 sqrt(m) rotations; squares are relinearised. Its memory holds the
    diagonals encoded: 110 MB for `square_cnn` on MNIST.

    Threat model. The owner follows the protocol or not: it never learns a query, by the hardness of
    RLWE at 128 bits, as long as the client tells nobody what its answers decrypt to (decryptions of
    CKKS that are published give the key away; Li, Micciancio 2021), nor lets the owner see how it
    reacts to answers that a lying owner has made up. A lying owner can answer with another function
    of the query: NOTHING PROVES THE ANSWER. The client learns the widths of the network, its
    logits, and with them all that logits say: membership of samples, and in the long run a copy of
    the network. The ciphertext's noise depends on the weights too; no noise is added that would
    hide it (no circuit privacy).

    Args:
        model: an nn.Sequential of affine layers and `Square`.
        shape: one sample's.
        calibration: samples [B, ...] of the data that queries will be like. Values over what the
            modulus holds would overflow: what is squared is scaled by what these samples reach, and
            inputs and logits have to leave a factor 2. The answer to a sample that overflows is
            refused by its client (`EncryptedQuerier.logits`).

    Raises:
        UnsupportedModel: another layer, or another shape.
        ConfigError: inputs or logits that are too large on the calibration samples, weights that
            are too small or too large beside them, or a network that is too deep or too wide.

    >>> import torch
    >>> from privfl.models import Square
    >>> from privfl.inference import EncryptedQuerier
    >>> net = nn.Sequential(nn.Linear(4, 4), Square(), nn.Linear(4, 2))
    >>> x = torch.tensor([1.0, -1.0, 0.5, 0.0])
    >>> owner = EncryptedModel(net, (4,), calibration=x[None])
    >>> client = EncryptedQuerier(owner.circuit)
    >>> logits = client.logits(owner.answer(owner.keys(client.keys()), client.query(x)))
    >>> bool((logits - net(x)).abs().max() < 1e-2)
    True
    """

    def __init__(self, model: nn.Module, shape: Sequence[int], *, calibration: Tensor) -> None:
        network = balanced(affine_stages(model, shape), calibration)
        first, *_ = network.stages
        self.circuit = InferenceCircuit(
            (first.weight.shape[1], *(len(stage.bias) for stage in network.stages))
        )
        most = max(network.inputs, network.outputs)
        if most > LARGEST:
            raise ConfigError(
                f"calibration: inputs or logits reach {most:.3g} on these samples, and the modulus"
                f" holds {LARGEST:.0f} with a margin of two: scale the inputs, or train with weight"
                " decay."
            )
        self._encoded = self._encode(network.stages)

    def _encode(self, stages: Sequence[Affine]) -> list[_Encoded]:
        lattice = self.circuit.lattice
        made = context(lattice)
        encoder, level = seal.CKKSEncoder(made), made.first_context_data()
        scale, found = 2.0**lattice.scale_bits, []
        for number, (stage, affine) in enumerate(zip(self.circuit.stages, stages, strict=True)):
            if number:  # a square came before
                scale, level = scale * scale / _prime(level), level.next_context_data()
            # The weights' scale is the prime that the product is divided by: it leaves no trace.
            prime, after = float(_prime(level)), level.next_context_data()
            plains = [
                None if diagonal is None else _weights(encoder, diagonal, level, prime)
                for diagonal in diagonals(stage, affine.weight, lattice.slots)
            ]
            bias = _plain(encoder, packed_bias(stage, affine, lattice.slots), after, scale)
            if not any(plains):
                raise ConfigError(
                    f"calibration: stage {number + 1} of the network has weights below 2^-"
                    f"{lattice.scale_bits} once its values are scaled to these samples, and nothing"
                    " is left of them: calibrate on samples that queries will be like."
                )
            found.append(_Encoded(plains, bias))
            level = after
        return found

    def keys(self, data: Buffer) -> ClientKeys:
        """A client's keys of those that travelled; they are kept for all its queries.

        Raises:
            Refused: no keys for this circuit.
        """
        body = message.opened(self.circuit, "keys", data)
        return ClientKeys(*switching.load(self.circuit.lattice, body, self.circuit.rotations))

    def answer(self, keys: ClientKeys, query: Buffer) -> bytes:
        """The encrypted logits of an encrypted sample, under the smallest modulus.

        Raises:
            Refused: no query for this circuit, or keys with which its answer would hide nothing.
        """
        lattice = self.circuit.lattice
        body = message.opened(self.circuit, "query", query)
        with passage() as file:
            values = frames.expanded(file, lattice, body)
            try:
                values = self._evaluated(values, keys)
            except (RuntimeError, ValueError) as error:
                # SEAL throws at a ciphertext whose second polynomial is zero, as hostile keys make.
                raise Refused(
                    f"this client's keys and query cannot be evaluated: {error}"
                ) from error
            return message.closed(self.circuit, "answer", frames.closed_last(file, lattice, values))

    def _evaluated(self, values: Any, keys: ClientKeys) -> Any:
        evaluator = seal.Evaluator(context(self.circuit.lattice))
        for number, (stage, encoded) in enumerate(
            zip(self.circuit.stages, self._encoded, strict=True)
        ):
            if number:
                evaluator.square_inplace(values)
                evaluator.relinearize_inplace(values, keys.products)
                evaluator.rescale_to_next_inplace(values)
            values = _product(evaluator, stage, encoded, values, keys.rotations)
        return values


def _prime(level: Any) -> int:
    found: int = level.parms().coeff_modulus()[-1].value()
    return found


def _plain(encoder: Any, values: Matrix, level: Any, scale: float) -> Any:
    plain = seal.Plaintext()
    try:
        encoder.encode(values.tolist(), level.parms_id(), scale, plain)
    except ValueError as error:
        raise ConfigError(
            f"calibration: weights or biases reach {np.abs(values).max():.3g} once the network's"
            " values are scaled to these samples, and the modulus does not hold them: calibrate on"
            " samples that queries will be like, or train with weight decay."
        ) from error
    return plain


def _weights(encoder: Any, diagonal: Matrix, level: Any, scale: float) -> Any:
    """None if they are too small for the scale: a product with zero would hide nothing."""
    plain = _plain(encoder, diagonal, level, scale)
    return None if plain.is_zero() else plain


def _product(
    evaluator: Any, stage: PackedMap, encoded: _Encoded, values: Any, rotations: Any
) -> Any:
    """W x + b, packed with the outputs' period; ``values`` is x, packed with the inputs'."""
    steps = range(1, stage.baby)
    turned = [values, *(_rotated(evaluator, values, step, rotations) for step in steps)]
    whole = None
    for giant in range(stage.giant):
        part = None
        for baby in range(stage.baby):
            diagonal = encoded.diagonals[giant * stage.baby + baby]
            if diagonal is not None:
                part = _added(evaluator, part, _times(evaluator, turned[baby], diagonal))
        if part is not None:
            if giant:
                part = _rotated(evaluator, part, giant * stage.baby, rotations)
            whole = _added(evaluator, whole, part)
    evaluator.rescale_to_next_inplace(whole)
    for step in stage.folds:
        evaluator.add_inplace(whole, _rotated(evaluator, whole, step, rotations))
    evaluator.add_plain_inplace(whole, encoded.bias)
    return whole


def _rotated(evaluator: Any, values: Any, step: int, rotations: Any) -> Any:
    found = seal.Ciphertext()
    evaluator.rotate_vector(values, step, rotations, found)
    return found


def _times(evaluator: Any, values: Any, plain: Any) -> Any:
    found = seal.Ciphertext()
    evaluator.multiply_plain(values, plain, found)
    return found


def _added(evaluator: Any, total: Any, part: Any) -> Any:
    if total is None:
        return part
    evaluator.add_inplace(total, part)
    return total
