"""What travels from the server to the clients and back: the round's public facts, the model, the
changes to it.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from privfl.core.errors import BadUpdate, ConfigError
from privfl.core.types import ClientId, Vector

FRAME_ROOM = 32
_RUN = 256
"""So many squares are added up in a vector's own precision: of more, where all are alike, all would
be rounded alike, and a norm of 10^6 of them could be off by 10^-3.
"""
_SHORT = 1 << 14
"""Up to so many values one product in float64 takes less time than a few short steps."""
SLACK = 1e-6
"""Relative slack of a norm check: a clip in float32 to l2 lands a rounding error above it half of
the time.
"""


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """The public facts of a round, agreed before it starts: headroom is proved from it, signatures
    and masks are bound to it.

    ``d`` is the length of the vector, ``l2`` the bound on every contribution's norm (inf over the
    plain channel only), ``max_weight`` the bound on a contribution's weight. ``part`` names the
    vector when a round sends several (``"delta"``, or an auxiliary vector such as SCAFFOLD's
    control variate); ``session`` tells runs apart. ``models`` are the SHA-256 digests (hex) of all
    the broadcasts that the cohort trained from (`Broadcast.digest`): one in a synchronous round.

    Raises:
        ConfigError: a client twice in the cohort, a number that must be above 0 and is not, or a
            model that is no SHA-256 in hex.

    >>> RoundPlan(number=0, cohort=(1, 2), d=10, l2=1.0).n
    2
    """

    number: int
    cohort: tuple[ClientId, ...]
    d: int
    l2: float
    max_weight: float = 1.0
    part: str = "delta"
    session: bytes = b""
    models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.cohort)) != len(self.cohort):
            raise ConfigError(
                f"round {self.number}: a client is in the cohort twice: {sorted(self.cohort)}."
            )
        if not self.l2 > 0 or not self.max_weight > 0 or self.d < 1:
            raise ConfigError(
                f"round {self.number}: d={self.d}, l2={self.l2}, max_weight={self.max_weight} must"
                " all be above 0."
            )
        for model in self.models:
            if not re.fullmatch("[0-9a-f]{64}", model):
                raise ConfigError(
                    f"round {self.number}: models holds '{model}', which is no SHA-256 in hex: use"
                    " Broadcast.digest."
                )

    @property
    def n(self) -> int:
        """How many clients are in the cohort."""
        return len(self.cohort)

    @property
    def digest(self) -> bytes:
        """SHA-256 of all that the plan says: what a signature over it binds its signer to.

        >>> one = RoundPlan(number=0, cohort=(1, 2), d=10, l2=1.0)
        >>> one.digest == RoundPlan(number=0, cohort=(2, 1), d=10, l2=1.0).digest
        False
        """
        numbers = struct.pack("<qQdd", self.number, self.d, self.l2, self.max_weight)
        fields = (
            numbers,
            self.part.encode(),
            self.session,
            ",".join(map(str, self.cohort)).encode(),
            ",".join(self.models).encode(),
        )
        return hashlib.sha256(
            b"privfl/plan/1" + b"".join(len(f).to_bytes(8, "little") + f for f in fields)
        ).digest()


@dataclass(frozen=True, slots=True)
class Broadcast:
    """What clients are sent: a model's version, its flat parameters [d], and named extra vectors.

    There is no plan in it: a client of an asynchronous run trains before its round is planned, and
    a plan names the models that its cohort trained from (`RoundPlan.models`). In a synchronous run
    the version is the number of the round.
    """

    version: int
    parameters: Vector
    aux: Mapping[str, Vector] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the parameters and the extra vectors, as little-endian numbers with
        their names and types: what a plan names in ``models``.
        """
        whole = hashlib.sha256(b"privfl/model/1")
        for name, vector in (("", self.parameters), *sorted(self.aux.items())):
            values = vector.detach().cpu().contiguous().numpy()
            little = values.astype(values.dtype.newbyteorder("<"), copy=False)
            for part in (name.encode(), little.dtype.str.encode()):
                whole.update(len(part).to_bytes(8, "little") + part)
            whole.update(little.nbytes.to_bytes(8, "little"))
            whole.update(little.data.cast("B") if little.nbytes else b"")
        return whole.hexdigest()

    def to(self, device: torch.device) -> Broadcast:
        """The same broadcast with every vector on a device; itself where all lie there."""
        vectors = (self.parameters, *self.aux.values())
        if all(vector.device == device for vector in vectors):
            return self
        aux = {name: vector.to(device) for name, vector in self.aux.items()}
        return Broadcast(self.version, self.parameters.to(device), aux)


@dataclass(frozen=True, slots=True)
class Update:
    """What local training hands out: the change of the flat parameter vector [d], its weight, and
    named extra vectors.

    Nothing is checked yet: a diverged client's NaN is refused where a `Bounded` is made from it.
    """

    client: ClientId
    delta: Vector
    weight: float = 1.0
    aux: Mapping[str, Vector] = field(default_factory=dict)


def norm(vector: Float[Tensor, " d"]) -> float:
    """L2 norm, within 5e-7 of the exact one, and not finite exactly where an entry is not (or where
    no float64 holds the norm).

    Short vectors and those in half precision in float64. Of long ones, runs of a few numbers in the
    vector's own precision, for which it is enough, summed in float64; those whose squares would
    overflow or vanish are looked at again in float64, and where that is not enough in units of the
    largest entry.

    >>> norm(torch.tensor([3.0, 4.0]))
    5.0
    """
    if len(vector) > _SHORT and vector.dtype in (torch.float32, torch.float64):
        whole = len(vector) - len(vector) % _RUN
        runs = torch.linalg.vector_norm(vector[:whole].reshape(-1, _RUN), dim=1).double()
        rest = torch.linalg.vector_norm(vector[whole:]).double()
        total = float(torch.dot(runs, runs) + rest.square())
        if 1e-30 < total < 1e37:
            return math.sqrt(total)
    length = float(torch.linalg.vector_norm(vector, dtype=torch.float64))
    if vector.dtype != torch.float64 or 1e-140 < length < 1e150:
        return length
    most = float(vector.abs().max()) if len(vector) else 0.0
    if not 0 < most < math.inf:
        return length
    return most * float(torch.linalg.vector_norm(vector / most))


@dataclass(frozen=True, slots=True)
class Bounded:
    """A change of the flat parameter vector with norm at most ``l2`` and positive weight; it
    refuses to exist otherwise.

    Raises:
        BadUpdate: the norm is over ``l2``, an entry is NaN or infinite, or the weight is not
            positive and finite.

    ``frame`` is given where ``delta`` lies in a larger buffer with `FRAME_ROOM` bytes of room
    before it: a channel that sends plaintext can then write its header there and send the whole
    without a copy.

    >>> Bounded(client=3, delta=torch.tensor([0.6, 0.8]), l2=1.0).client
    3
    """

    client: ClientId
    delta: Vector
    l2: float
    weight: float = 1.0
    frame: memoryview | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.delta.ndim != 1:
            raise BadUpdate(
                f"client {self.client}: an update is one flat vector, and this has shape"
                f" {tuple(self.delta.shape)}."
            )
        length = norm(self.delta)
        if not length < float("inf"):
            raise BadUpdate(f"client {self.client}: the update holds NaN or infinite values.")
        if not length <= self.l2 * (1 + SLACK):
            raise BadUpdate(
                f"client {self.client}: the update's norm {length:.6g} is over its bound"
                f" {self.l2:.6g}."
            )
        if not 0 < self.weight < float("inf"):
            raise BadUpdate(f"client {self.client}: weight {self.weight} is not a positive number.")

    @classmethod
    def claimed(cls, client: ClientId, delta: Vector, l2: float, weight: float = 1.0) -> Bounded:
        """Unchecked: what a lying client hands to its own party. For attacks only."""
        lie = object.__new__(cls)
        for name, value in (
            ("client", client),
            ("delta", delta),
            ("l2", l2),
            ("weight", weight),
            ("frame", None),
        ):
            object.__setattr__(lie, name, value)
        return lie
