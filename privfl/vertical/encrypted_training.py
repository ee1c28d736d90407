"""A run of regression under Paillier, the same in the clear, and what a host still learns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from privfl.core import (
    NO_FAULTS,
    BadUpdate,
    ConfigError,
    Faults,
    Outcome,
    RoundFailed,
    drive_all,
)
from privfl.crypto.he.paillier.keys import PaillierPublic, PaillierSecret, generate
from privfl.vertical.encrypted import (
    HOLDER,
    HOST,
    EncryptedGuest,
    EncryptedHolder,
    EncryptedHost,
    EncryptedStep,
)
from privfl.vertical.encrypted_mail import Numbers
from privfl.vertical.message import Batch
from privfl.vertical.parties import GUEST


@dataclass(frozen=True, slots=True, eq=False)
class EncryptedRun:
    """What came of a run: both parties' weights, the host's gradient of each batch (which it learns
    in the clear), all messages, bytes and CPU seconds.
    """

    host_weights: Numbers
    guest_weights: Numbers
    host_gradients: tuple[Numbers, ...]
    outcomes: tuple[Outcome[None], ...] = field(repr=False)
    bytes_sent: int
    seconds: float


def train_encrypted(
    x_host: Numbers,
    x_guest: Numbers,
    y: Numbers,
    batches: Sequence[Batch],
    step: EncryptedStep,
    *,
    secret: PaillierSecret | None = None,
    key_bits: int = 3072,
    least_bits: int = 2048,
    faults: Faults = NO_FAULTS,
    keep_bodies: bool = False,
) -> EncryptedRun:
    """Regression on labels y [n] of +-1 and two parties' columns, through the three parties and
    their bytes (Hardy et al. 2017, sections 3 and 4, the linear loss).

    Threat model: the three follow the protocol, and no two of them act together. The guest reads
    ciphertexts and its own gradient of each batch; so does the host; the key holder reads numbers
    that are uniform mod n, and sizes. Beyond that:

    - the host's own gradient X_h^T r of a batch no larger than the rank of X_h there IS the
      residuals, and their signs are the labels (`residuals_from`): batches have to be larger, and
      of larger ones it still tells linear functions of the labels;
    - and over epochs that deal the rows anew every batch adds equations, so that in the end they
      are as many as the labels, however large batches are;
    - the key holder with the host opens every residual, and with the guest every share; it needs no
      help where it reads the wire;
    - a party that lies about its ciphertexts is not found out: nothing is proved. A host that sends
      the key holder packed residuals where sums of them are due reads about n.bit_length() / 32
      labels from each number that is opened for it, and a guest shares so.

    Args:
        x_host, x_guest: columns [n, d], standardised; a constant column is the bias.
        y: labels.
        batches: public.
        step: public.
        secret: the key holder's; a fresh one of ``key_bits`` unless said.
        least_bits: shorter keys are refused.
        faults: what goes wrong in every batch.
        keep_bodies: keep what was sent.

    Raises:
        ConfigError: columns and labels of different lengths, labels that are not +-1, values that
            are too large.
        Refused: a short key.
        RoundFailed: a party gave up, and why.
    """
    if not len(x_host) == len(x_guest) == len(y):
        raise ConfigError(f"{len(x_host)}, {len(x_guest)} and {len(y)} rows: align them.")
    began = time.process_time()
    secret = secret or generate(key_bits, 16, None, 1)
    holder = EncryptedHolder(secret)
    # what the others hold went over the wire, and a short key does not pass
    public = PaillierPublic.from_bytes(secret.public.to_bytes(), least_bits=least_bits)
    host = EncryptedHost(public, x_host, step)
    guest = EncryptedGuest(public, x_guest, y, step)
    columns = {HOST: x_host.shape[1], GUEST: x_guest.shape[1]}
    outcomes: list[Outcome[None]] = []
    gradients: list[Numbers] = []
    for batch in batches:
        outcome = drive_all(
            {
                HOST: host.enter(batch),
                GUEST: guest.enter(batch),
                HOLDER: holder.enter(batch, columns),
            },
            faults,
            keep_bodies=keep_bodies,
        )
        for who, abort in outcome.aborts.items():
            raise RoundFailed(f"batch {batch.number} ended at {who}: {abort}.")
        if host.gradient is None or guest.gradient is None:
            raise RoundFailed(f"batch {batch.number} ended early: somebody fell silent.")
        outcomes.append(outcome)
        gradients.append(host.gradient)
    return EncryptedRun(
        host.w,
        guest.w,
        tuple(gradients),
        tuple(outcomes),
        sum(outcome.bytes_sent() for outcome in outcomes),
        time.process_time() - began,
    )


def train_in_the_clear(
    x: Numbers, y: Numbers, batches: Sequence[Batch], step: EncryptedStep
) -> Numbers:
    """The same steps by one owner of all columns [n, d]: its weights.

    >>> import torch
    >>> batch = Batch(b"", 0, torch.arange(2), training=True)
    >>> train_in_the_clear(np.eye(2), np.array([1.0, -1.0]), [batch], EncryptedStep(lr=1.0))
    array([ 0.25, -0.25])
    """
    w: Numbers = np.zeros(x.shape[1])
    for batch in batches:
        rows = batch.rows.numpy()
        residual = x[rows] @ w / 4 - y[rows] / 2
        gradient = np.asarray(x[rows].T @ residual / len(rows), dtype=np.float64)
        w = step.taken(w, gradient)
    return w


def residuals_from(x: Numbers, gradient: Numbers) -> Numbers:
    """A host's guess of a batch's residuals [B] from its own gradient X^T r / B: the shortest
    solution, which is THE solution where the rows of its columns [B, d] are independent. Labels of
    1 have the smaller residuals.

    Raises:
        BadUpdate: shapes that do not fit.

    >>> residuals_from(np.eye(2), np.array([-0.25, 0.25]))
    array([-0.5,  0.5])
    """
    if gradient.shape != (x.shape[1],):
        raise BadUpdate(f"a gradient of {x.shape[1]} columns, and it has shape {gradient.shape}.")
    solution = np.linalg.lstsq(x.T, gradient * len(x), rcond=None)[0]
    return np.asarray(solution, dtype=np.float64)
