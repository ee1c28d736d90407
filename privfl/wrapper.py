"""Privacy layers for somebody else's training loop: updates in, a mean and a receipt out, no engine
needed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt
import torch

from privfl.aggregators import Mean
from privfl.core import (
    BadUpdate,
    Bound,
    Bounded,
    Channel,
    Charge,
    ClientId,
    ConfigError,
    Context,
    DpEvent,
    Fidelity,
    Ledger,
    Mechanism,
    NeighbourRelation,
    NoiseSource,
    OsNoise,
    PartyId,
    Power,
    RoundFailed,
    RoundPlan,
    Rows,
    Rule,
    Sampling,
    Sensitivity,
    Vector,
    client_party,
    dropped,
)
from privfl.crypto import Plain
from privfl.dp import NoBound, spent_epsilon
from privfl.engine import Session, rule_reads_channel, unreadable

Array = npt.NDArray[np.floating[Any]]
V = TypeVar("V", Vector, Array)
O = TypeVar("O")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one aggregation cost and showed.

    ``server_reads`` says what the server could read if it followed the protocol: every update, or
    only a sum; ``read_by`` which coalitions read single updates; ``liars`` the most that one lying
    party can do (the channel's ``guarantee`` says how). Where ``fidelity`` is ideal no protocol
    ran, and ``bytes_sent``, ``exchanges`` and ``seconds`` are None. ``event`` is the noisy release,
    ``epsilon`` all that this layer has spent so far (at its ``delta``), None with the reason in
    ``epsilon_note`` where no claim can be made.
    """

    round: int
    survivors: tuple[ClientId, ...]
    dropped: tuple[ClientId, ...]
    excluded: Mapping[PartyId, str]
    server_reads: str
    read_by: str
    liars: Mapping[str, Power]
    fidelity: Fidelity
    bytes_sent: int | None
    exchanges: int | None
    seconds: float | None
    event: DpEvent | None
    epsilon: float | None
    epsilon_note: str


class PrivateAggregation(Generic[O]):
    """Clip, protect, aggregate and noise the updates of any federated training loop.

    ``bound`` clips each update, ``channel`` carries it (`Plain` shows every update to the server;
    others a sum, group means or an aggregate, to a server that follows the protocol: their
    ``guarantee`` says what one that lies can do), ``rule`` makes one vector, ``mechanism`` adds
    noise. A rule that reads what the channel hides does not type-check, and is refused. An epsilon
    is claimed only with ``sampling`` (how each round's clients were drawn) and a public
    ``denominator``: the mean then divides by that number, because dividing by the number present
    voids add/remove sensitivity. Noise is from the operating system unless ``noise`` says
    otherwise.

    Raises:
        ConfigError: a rule that reads what the channel hides, noise without a finite bound, a
            denominator beside a rule.

    >>> layer = PrivateAggregation(channel=Plain())
    >>> mean, receipt = layer.aggregate({1: np.array([1.0, 2.0]), 2: np.array([3.0, 4.0])})
    >>> mean, receipt.server_reads
    (array([2., 3.]), 'every update')
    """

    @overload
    def __init__(
        self: PrivateAggregation[Rows],
        *,
        bound: Bound | None = None,
        channel: None = None,
        mechanism: Mechanism | None = None,
        rule: Rule[Rows] | None = None,
        sampling: Sampling | None = None,
        denominator: float | None = None,
        delta: float = 1e-5,
        noise: NoiseSource | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        bound: Bound | None = None,
        channel: Channel[O],
        mechanism: Mechanism | None = None,
        rule: Rule[O] | None = None,
        sampling: Sampling | None = None,
        denominator: float | None = None,
        delta: float = 1e-5,
        noise: NoiseSource | None = None,
    ) -> None: ...

    def __init__(
        self,
        *,
        bound: Bound | None = None,
        channel: Channel[Any] | None = None,
        mechanism: Mechanism | None = None,
        rule: Rule[Any] | None = None,
        sampling: Sampling | None = None,
        denominator: float | None = None,
        delta: float = 1e-5,
        noise: NoiseSource | None = None,
    ) -> None:
        if rule is not None and denominator is not None:
            raise ConfigError(
                "denominator goes with the mean; a rule of your own divides as it says: leave one"
                " of the two out."
            )
        self.bound = bound or NoBound()
        self.channel: Channel[Any] = channel or Plain()
        self.mechanism = mechanism
        able = self.channel.able
        grouped = able.groups is not None  # its rows weigh as many clients as they stand for
        self.rule: Rule[Any] = rule or Mean(
            weighted=grouped or able.hosts is not None, denominator=denominator
        )
        self.sampling, self.denominator, self.delta = sampling, denominator, delta
        self.noise = noise or OsNoise()
        self.ledger = Ledger()
        if grouped and denominator is not None:
            raise ConfigError(
                "a mean over groups divides by the clients in them: leave denominator out, or use a"
                " channel that sums."
            )
        if not rule_reads_channel(self.rule, self.channel):
            raise ConfigError(
                f"{unreadable(self.rule, self.channel)} Use Mean, the plain channel, or a hybrid."
                " See 'privfl list --compat'."
            )
        if not self.bound.l2 < float("inf"):
            if mechanism is not None:
                raise ConfigError("noise needs a bound on each update: set bound=Clip(l2=...).")
            if able.encodes is not None:
                name = type(self.channel).__name__
                raise ConfigError(
                    f"{name} computes on integers, whose scale comes from a clip: set"
                    " bound=Clip(l2=...)."
                )
        self._session: Session[Any] = Session(self.channel)
        self._id = secrets.token_bytes(16)
        self._round = 0

    def aggregate(self, updates: Mapping[ClientId, V]) -> tuple[V, Receipt]:
        """One round: the aggregate, of the kind and type of the updates, and the receipt.

        Args:
            updates: flat vectors [d] by client, numpy or torch, all of one kind, length and type.

        Raises:
            BadUpdate: no updates, different lengths, or NaN (the client is named).
            RoundFailed: the protocol opened nothing.
        """
        if not updates:
            raise BadUpdate("there are no updates to aggregate: give at least one client's vector.")
        began = time.perf_counter()
        first = next(iter(updates.values()))
        vectors = {
            client: _vector(client, update, len(first)) for client, update in updates.items()
        }
        d, cohort = len(first), tuple(updates)
        self._sensitivity(d, self._rows(len(cohort)))  # refuses before anything is sent
        bounded: dict[ClientId, Bounded] = {}
        local: DpEvent | None = None
        for client, vector in vectors.items():
            delta = self.bound(vector)
            if self.mechanism is not None:
                Bounded(client, delta, self.bound.l2)  # refuse NaN before noise hides it
                delta, local = self.mechanism.share(
                    delta, Sensitivity(2 * self.bound.l2), len(cohort), self.noise
                )
            bounded[client] = Bounded(
                client, delta, float("inf") if local is not None else self.bound.l2
            )
        plan = RoundPlan(
            self._round,
            cohort,
            d,
            float("inf") if local is not None else self.bound.l2,
            session=self._id,
        )
        self._round += 1  # a round that fails has used its number up
        self._session.enrol(cohort)
        self._session.inform(
            Context(plan, torch.zeros(d), torch.Generator().manual_seed(plan.number))
        )
        outcome = self._session.play(plan, bounded)
        opened = outcome.opened
        if opened is None:
            why = (
                "; ".join(f"{who}: {abort}" for who, abort in outcome.aborts.items())
                or "too few clients answered"
            )
            raise RoundFailed(f"round {plan.number} opened nothing: {why}.")
        mean: Vector = self.rule(opened.what)
        event = local
        if self.mechanism is not None:
            rows = opened.what.n if isinstance(opened.what, Rows) else len(opened.survivors)
            mean, released = self.mechanism.release(
                mean, self._sensitivity(d, rows), len(opened.survivors), self.noise
            )
            event = released or local
        epsilon, note = self._charge(event, plan.number)
        said = self.channel.guarantee
        receipt = Receipt(
            round=plan.number,
            survivors=opened.survivors,
            dropped=tuple(
                c for c in dropped(plan, opened.survivors) if client_party(c) not in opened.excluded
            ),
            excluded=opened.excluded,
            server_reads=said.server_reads(
                len(opened.survivors),
                opened.what.n if isinstance(opened.what, Rows) else None,
                opened.disclosed,
            ),
            read_by=said.read_by(),
            liars=said.liars(),
            fidelity=said.fidelity,
            bytes_sent=outcome.bytes_sent() if said.measured else None,
            exchanges=outcome.exchanges if said.measured else None,
            seconds=time.perf_counter() - began if said.measured else None,
            event=event,
            epsilon=epsilon,
            epsilon_note=note,
        )
        return _like(first, mean), receipt

    def _rows(self, contributions: int) -> int:
        groups = self.channel.able.groups
        return contributions if groups is None else groups.rows(contributions)

    def _sensitivity(self, d: int, n: int) -> Sensitivity:
        if self.mechanism is None:
            return Sensitivity(float("inf"))
        relation: NeighbourRelation = "add_remove" if self.denominator else "replace_one"
        l2 = self.rule.sensitivity(self.channel.row_bound(self.bound.l2, d), n, relation)
        if not l2 < float("inf"):
            raise ConfigError(
                f"{type(self.rule).__name__} has no proved sensitivity, so no noise can be"
                " calibrated to it."
            )
        return Sensitivity(l2)

    def _charge(self, event: DpEvent | None, number: int) -> tuple[float | None, str]:
        if event is None:
            return None, "no noise was added"
        if self.sampling is None or self.denominator is None:
            missing = " and ".join(
                name
                for name, value in (
                    ("sampling=", self.sampling),
                    ("denominator=", self.denominator),
                )
                if value is None
            )
            return (
                None,
                (
                    f"no claim without {missing}: how clients were drawn, and the public number"
                    " that the sum is divided by"
                ),
            )
        charge = Charge(
            number,
            event,
            self.sampling,
            unit="client",
            relation="add_remove",
            repeatable_noise=self.noise.repeatable,
        )
        self.ledger = self.ledger.charged((charge,))
        return spent_epsilon(self.ledger, self.delta)


def _vector(client: ClientId, update: Vector | Array, d: int) -> Vector:
    if update.ndim != 1 or len(update) != d:
        raise BadUpdate(
            f"client {client}: a flat vector of {d} values was expected, and this has shape"
            f" {tuple(update.shape)}."
        )
    vector = (
        update
        if isinstance(update, torch.Tensor)
        else torch.from_numpy(np.ascontiguousarray(update))
    )
    return vector.detach().to("cpu", torch.float32)


def _like(first: V, mean: Vector) -> V:
    if isinstance(first, torch.Tensor):
        return mean.to(first.device, first.dtype)
    return mean.numpy().astype(first.dtype)
