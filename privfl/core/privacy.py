"""The nouns of differential privacy: how a release was sampled, what noise it carried, whose
privacy it charges, and the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt

from privfl.core.errors import ConfigError, unknown
from privfl.core.guarantee import Guarantee
from privfl.core.oracle import Needs
from privfl.core.randomness import NoiseSource
from privfl.core.sampling import Sampling
from privfl.core.threat import Against, Coins
from privfl.core.types import ClientId, NeighbourRelation, Unit, Vector
from privfl.core.users import UserBounds


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How far one neighbour moves a vector, by norm; inf where it is not bounded."""

    l2: int | float
    l1: int | float = float("inf")
    linf: int | float = float("inf")


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What two neighbouring worlds differ in: one unit's data, under a relation.

    Raises:
        ConfigError: an unknown unit or relation, of which nothing can be claimed.

    >>> Neighbours("client", "replace_one").ends
    2
    """

    unit: Unit
    relation: NeighbourRelation

    def __post_init__(self) -> None:
        for what, name, known in (
            ("unit", self.unit, get_args(Unit)),
            ("relation", self.relation, get_args(NeighbourRelation)),
        ):
            if name not in known:
                raise ConfigError(unknown(what, name, known))

    @property
    def ends(self) -> int:
        """How many vectors of the ball one neighbour differs in: 2 where one takes another's place
        (the row leaves and another comes), 1 where a row appears, goes or becomes zero.
        """
        return 2 if self.relation == "replace_one" else 1


@dataclass(frozen=True, slots=True)
class Moves:
    """How far one neighbour moves rows: the sum over all rows of how far each moves, in L2
    (``total``), how long the longest row can be (``longest``), how many rows move (``changed``),
    and how many rows there are where that number is public and the same in both worlds (``rows``).

    Infinite is what nobody proved.

    >>> Moves.of_one_row(10).bounded(1.5, Neighbours("client", "replace_one"))
    Moves(total=3.0, longest=1.5, changed=1, rows=10)
    """

    total: float = math.inf
    longest: float = math.inf
    changed: float = math.inf
    rows: int | None = None

    @classmethod
    def of_one_row(cls, rows: int | None = None) -> Moves:
        """What neighbours differ in by definition: one client's own row, by any distance."""
        return cls(changed=1, rows=rows)

    def bounded(self, l2: float, neighbours: Neighbours) -> Moves:
        """What leaves a map of each client's own row into the ball of radius ``l2``, zero to zero.

        Whatever that row was, it lies in the ball now: it moves from one point of the ball to
        another where it is replaced, and between one point and zero (or nothing) where it becomes
        zero or comes or goes. Of rows that are mixtures already nothing is proved.
        """
        if self.changed > 1:
            return UNPROVED
        return Moves(neighbours.ends * l2, l2, 1, self.rows)


UNPROVED = Moves()


@runtime_checkable
class Stable(Protocol):
    """A stage from rows to rows that says how far one neighbour moves what leaves it, given how far
    it moves what enters. A stage without this moves without bound.
    """

    def stability(self, moves: Moves, neighbours: Neighbours) -> Moves:
        """How far one neighbour moves the rows that leave; infinite where that is not proved."""
        ...


@dataclass(frozen=True, slots=True)
class Released:
    """A vector [d] that left with everything that was promised to be done to it: noised and charged
    for where the run claims privacy, as it is where the run claims nothing.

    Whatever is computed from it, from public facts and from fresh coins costs nothing more
    (post-processing: Dwork, Roth 2014, Proposition 2.1), so seats after the rule and the server's
    half of a method take this type and no rows. Only `privfl.dp.pipeline` makes one.
    """

    vector: Vector


@dataclass(frozen=True, slots=True)
class DpEvent:
    """One noisy release in the vocabulary of an accountant: the mechanism's name and its numbers.

    >>> DpEvent("gaussian", {"noise_multiplier": 1.1}).mechanism
    'gaussian'
    """

    mechanism: str
    parameters: Mapping[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NoisySteps:
    """What training did to one client's own samples: ``count`` releases of one event, each of a
    sample of them drawn like this. ``repeatable``: a seed repeats the noise; ``coins``: whether a
    seed repeats the samples. ``relation`` is that of the neighbours whom it protects, where that
    follows from how the batches are made; None: that of the run.

    Training says what happened; a charge is made of it where all charges are made.
    """

    event: DpEvent
    sampling: Sampling
    count: int = 1
    repeatable: bool = False
    coins: Coins = "public"
    relation: NeighbourRelation | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """A release charged to somebody: everything that an epsilon claim must state, or it is refused.
    ``last`` is given where one event covers all rounds from ``round`` to there together.

    ``subject`` names whose privacy pays: ``"client"`` or ``"sample of client 3"``. ``relation`` is
    the neighbour relation under which the sensitivity was taken. ``uniform`` tells whether every
    contribution had the same weight, ``public_denominator`` whether the mean divided by a fixed
    public number, ``cohort_hidden`` whether the adversary does not learn who took part (only then
    does sampling amplify), ``repeatable_noise`` whether a seed repeats the noise, which voids the
    claim. ``count`` is how many times it was released, ``weights_counted`` whether weights that
    differ are in the sensitivity, and ``cohort`` who took part, where that is public: then each
    client pays for its own rounds only. ``void`` says what voids the claim, where something does.
    ``against`` is the adversary, with so many ``colluders``; ``coins`` whether a seed repeats the
    sample: what sampling saves is then what it would save with secret coins. ``users`` says who is
    one user and what of a user takes part, where the unit is the user.

    Raises:
        ConfigError: ``round``, ``last`` or ``count`` is no number of rounds or releases.
    """

    round: int
    event: DpEvent
    sampling: Sampling
    unit: Unit
    relation: NeighbourRelation
    subject: str = "client"
    uniform: bool = True
    public_denominator: bool = True
    cohort_hidden: bool = True
    repeatable_noise: bool = False
    count: int = 1
    weights_counted: bool = False
    cohort: tuple[ClientId, ...] | None = None
    void: str = ""
    against: Against = "model_recipients"
    colluders: int = 0
    coins: Coins = "secret"
    last: int | None = None
    users: UserBounds | None = None

    def __post_init__(self) -> None:
        last = self.round if self.last is None else self.last
        numbers = {"round": self.round, "last": last, "count": self.count}
        odd = [name for name, value in numbers.items() if not isinstance(value, int)]
        if odd or self.count < 0 or last < self.round:
            raise ConfigError(
                f"a charge's round, last and count are whole numbers, count at least 0 and last at"
                f" least round, and they are {numbers}: it would charge less than was spent."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Charge:
        """From what `to_json` made; coins of which nothing is said are public."""
        cohort = None if data.get("cohort") is None else tuple(data["cohort"])
        users = None if data.get("users") is None else UserBounds(**data["users"])
        return cls(
            **{
                "coins": "public",
                **data,
                "event": DpEvent(**data["event"]),
                "sampling": _sampling(data["sampling"]),
                "cohort": cohort,
                "users": users,
            }
        )


def _sampling(data: Mapping[str, Any]) -> Sampling:
    classes = tuple((str(name), rate, n) for name, rate, n in data.get("classes", ()))
    return Sampling(**{**data, "classes": classes})


@dataclass(frozen=True, slots=True)
class Ledger:
    """All charges of a run, in order. It only grows.

    >>> len(Ledger().charged(()).charges)
    0
    """

    charges: tuple[Charge, ...] = ()

    def charged(self, charges: tuple[Charge, ...]) -> Ledger:
        """The ledger with these charges added."""
        return Ledger(self.charges + charges)


@runtime_checkable
class Bound(Protocol):
    """What makes an update's norm at most ``l2``."""

    adaptive: ClassVar[bool]
    """Whether it follows the clients' norms (`engine.seams.AdaptiveBound`)."""
    needs: ClassVar[Needs]
    """The constructor's arguments that a run fills."""

    @property
    def l2(self) -> float:
        """The bound; inf where there is none."""
        ...

    @property
    def parts(self) -> Sequence[int] | None:
        """How long the parts of a vector are that are bounded each on its own; None for the
        whole.
        """
        ...

    def __call__(self, delta: Vector) -> Vector:
        """A vector of norm at most ``l2``; NaN and infinities pass through to be refused by name,
        never scaled away.
        """
        ...

    def at(self, round: int) -> Bound:
        """A round's own bound: itself, unless it follows a schedule."""
        ...

    def describe(self) -> str:
        """What a report says."""
        ...


B = TypeVar("B", bound="FixedBound")


class FixedBound:
    """What a bound declares unless it says otherwise: the same in every round, over the whole
    vector. A base for bounds that have an ``l2``.
    """

    __slots__ = ()
    adaptive: ClassVar[bool] = False
    needs: ClassVar[Needs] = {}

    @property
    def parts(self) -> Sequence[int] | None:
        """None: the whole vector."""
        return None

    def at(self: B, round: int) -> B:
        """Itself."""
        return self


@runtime_checkable
class Mechanism(Protocol):
    """Noise in two halves, one of which may be empty; the noise and the event that accounts for it
    are born together. What that event will be is known before any noise is drawn (`event`): a round
    is charged before its first message.

    ``local``: every client adds noise of its own, so what it sends has no bound, and the noise does
    not depend on how the server averages.
    """

    __slots__ = ()
    local: ClassVar[bool] = False
    remembers: ClassVar[Literal[False]] = False

    @property
    def guarantee(self) -> Guarantee[Mechanism]:
        """Who sees what without noise, and what leaving noise out does."""
        ...

    def at(self, round: int) -> Mechanism:
        """A round's own mechanism: itself, unless it follows a schedule."""
        return self

    def event(self, d: int) -> DpEvent | None:
        """What accounts for the noise on one vector [d], by whichever half adds it."""
        ...

    def local_deviation(self, sensitivity: Sensitivity) -> float:
        """The standard deviation of a client's own noise in one value; 0 where it adds none."""
        return 0.0

    def share(
        self, values: Vector, sensitivity: Sensitivity, among: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """At each client, before encoding: local noise, or its share of noise that ``among``
        survivors must add up to.
        """
        ...

    def release(
        self, vector: Vector, sensitivity: Sensitivity, survivors: int, noise: NoiseSource
    ) -> tuple[Vector, DpEvent | None]:
        """At the server, on the aggregate: central noise; the event of all the noise that is in
        it.
        """
        ...


@runtime_checkable
class RingNoise(Protocol):
    """Distributed noise on ring integers: a channel that sums integers calls it between encoding
    and masking, at each client.

    ``unit_l2`` is the norm of one contribution in integer units, rounding included; ``among`` the
    fewest contributions whose shares must add up to the whole noise. Nobody then sees a sum without
    noise.
    """

    @property
    def guarantee(self) -> Guarantee[RingNoise]:
        """Who sees what without noise, and what leaving noise out does."""
        ...

    def add(
        self, integers: npt.NDArray[np.int64], unit_l2: int | float, among: int, noise: NoiseSource
    ) -> npt.NDArray[np.int64]:
        """New integers [d]: the contribution with one share of the noise in it."""
        ...

    def reach(self, unit_l2: int | float, among: int, contributors: int) -> int:
        """How far the noise of so many contributors moves any integer, but with chance 2^-40: the
        headroom that the ring must add.
        """
        ...

    def event(self, unit_l2: int | float, d: int, among: int, survivors: int) -> DpEvent:
        """What accounts for the noise of the shares that did arrive."""
        ...
