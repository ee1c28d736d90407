"""What both sides of somebody's Flower app agree on, and what each makes of it in a round."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privfl.aggregators import Mean
from privfl.core import (
    Bound,
    Bounded,
    Broadcast,
    Channel,
    ClientId,
    ConfigError,
    Mechanism,
    OsNoise,
    PlanRefused,
    RoundPlan,
    Threat,
    Vector,
    client_party,
    require,
)
from privfl.crypto.primitives import Directory, Identity
from privfl.dp.pipeline import Pipeline
from privfl.wrapper.given import Given
from privfl.wrapper.names import Names
from privfl.wrapper.parts import Parts
from privfl.wrapper.refusals import refuse_parts
from privfl.wrapper.round import bounded
from privfl.wrapper.tree import UpdateLayout
from privfl.wrapper.weights import RoundWeights

IDENTITY, DIRECTORY = "identity", "directory.json"


@dataclass(frozen=True)
class PrivateLayer:
    """The privacy of a Flower app's rounds: `private` keeps to it at every node, `PrivateGrid` at
    the server. Both are given the same.

    The channel's guarantee says who reads what. It holds against the server and the SuperLink as
    far as nodes run this code: a stock SuperNode runs whatever app the SuperLink ships.

    Args:
        channel: how updates travel, with its helpers as nodes of their own.
        bound: the clip of an update (after training minus before).
        mechanism: noise on the aggregate or at the clients; noise in shares is the channel's.
        max_weight: a public bound on ``num-examples``, what is more counts as that; None: every
            client weighs alike.
        denominator: a public number that the sum is divided by, in the place of how many came.
        delta: that of what receipts claim.
        quorum: a node takes part in no smaller cohort.

    Raises:
        ConfigError: parts that do not go together, as in `PrivateAggregation`.

    >>> from privfl.crypto import SecAgg
    >>> from privfl.dp import Clip
    >>> PrivateLayer(SecAgg(), Clip(1.0)).plan_of(0, (0, 1), b"session", 3, "0" * 64).l2
    1.0
    """

    channel: Channel[Any]
    bound: Bound
    mechanism: Mechanism | None = None
    max_weight: float | None = None
    denominator: float | None = None
    delta: float = 1e-5
    quorum: int = 2

    def __post_init__(self) -> None:
        refuse_parts(self.bound, None, self.denominator, self.max_weight, "refuse")
        require.at_least(1, quorum=self.quorum)
        if self.max_weight is not None:
            self.parts.mean()  # refuses

    @property
    def parts(self) -> Parts:
        """The same as the parts of the layer around other loops."""
        able = self.channel.able
        hosted = able.groups is not None or able.hosts is not None
        return Parts(
            bound=self.bound,
            channel=self.channel,
            rule=Mean(weighted=hosted, denominator=self.denominator),
            mechanism=self.mechanism,
            sampling=None,
            delta=self.delta,
            relation=None,
            threat=Threat(),
            noise=OsNoise(),
            max_weight=self.max_weight,
            float64="refuse",
            own_rule=False,
        )

    @property
    def rule(self) -> Mean:
        """What makes one vector of what is opened."""
        weighed, parts = self.weighed(), self.parts
        rule = parts.rule if weighed is None else weighed.rule(parts.mean())
        if not isinstance(rule, Mean):
            raise ConfigError(f"the rule here is the mean, and is {rule}.")
        return rule

    def weighed(self, client: ClientId = 0, weight: float = 1.0) -> RoundWeights | None:
        """The weight of a client; None where all weigh alike."""
        if self.max_weight is None:
            return None
        own = {client: min(weight, self.max_weight)}
        return RoundWeights(own, self.max_weight, self.parts.noised)

    def plan(
        self, number: int, cohort: tuple[ClientId, ...], session: bytes, start: Vector
    ) -> RoundPlan:
        """The public facts of a round that begins with the model ``start`` [d]."""
        model = Broadcast(number, start).digest
        return self.plan_of(number, cohort, session, len(start), model)

    def plan_of(
        self, number: int, cohort: tuple[ClientId, ...], session: bytes, d: int, model: str
    ) -> RoundPlan:
        """`plan`, for a party that is told of the model no more than its length and digest."""
        local, weighed = self.parts.local, self.weighed()
        return RoundPlan(
            number,
            cohort,
            d,
            float("inf") if local else self.bound.l2,
            1.0 if weighed is None else weighed.most,
            session=session,
            models=(model,),
        )

    def admit(self, client: ClientId, plan: RoundPlan) -> Pipeline:
        """How a round's vectors leave, of a round that a client takes part in.

        Raises:
            PlanRefused: a cohort that it is not in, or that is too small.
            ConfigError: noise of which no claim can be made.
        """
        if client not in plan.cohort or plan.n < self.quorum:
            raise PlanRefused(
                f"round {plan.number}: {client_party(client)} takes part in no cohort of {plan.n}"
                f" clients{'' if client in plan.cohort else ' that it is not in'}; its quorum is"
                f" {self.quorum}."
            )
        return self.parts.checked(plan.d, plan.cohort, self.rule)

    def sent(
        self,
        client: ClientId,
        plan: RoundPlan,
        layout: UpdateLayout[Any],
        update: Vector,
        weight: float,
    ) -> Bounded:
        """What a client hands its party, of its update [d] as training made it.

        Raises:
            PlanRefused, ConfigError: as `admit`.
            BadUpdate: the update is not finite, and no noise hides whose.
        """
        pipeline = self.admit(client, plan)
        given = Given(layout, {client: update}, plan.cohort)
        weighed = self.weighed(client, weight)
        return bounded(given, weighed, plan, pipeline, self.parts, Names())[client]


def read_keys(folder: Path) -> tuple[Identity, Directory]:
    """Who a node is, and who is who, from its folder.

    Raises:
        ConfigError: there are no such files, others may read the identity, or it is not in the
            directory.
    """
    identity = Identity.read(folder / IDENTITY)
    directory = Directory.read(folder / DIRECTORY)
    if identity.public.signing not in directory.keys(identity.who):
        raise ConfigError(
            f"the directory in '{folder}' does not know the keys of {identity.who} that are beside"
            " it: make both together (make_keys)."
        )
    return identity, directory


def make_keys(folder: Path, channel: Channel[Any], clients: int) -> dict[str, Path]:
    """Fresh keys for a server, so many clients and the channel's helpers: a folder for each, named
    ``server``, ``client-0``, ``server-1``; each travels to its own machine, and to no other.

    Whoever makes them holds everybody's: on several owners' machines each makes its own
    (``Identity.fresh(...).write``), and they agree on the directory.

    Raises:
        ConfigError: there are keys already.

    >>> import tempfile
    >>> from privfl.crypto import AdditiveSharing
    >>> folder = Path(tempfile.mkdtemp())
    >>> sorted(make_keys(folder, AdditiveSharing(), clients=2))
    ['client/0', 'client/1', 'server', 'server/1']
    """
    parties = ("server", *map(client_party, range(clients)), *channel.helpers)
    identities = {who: Identity.fresh(who) for who in parties}
    directory = Directory.of({who: one.public for who, one in identities.items()})
    made: dict[str, Path] = {}
    for who, identity in identities.items():
        made[who] = folder / who.replace("/", "-")
        made[who].mkdir(mode=0o700, parents=True, exist_ok=True)
        identity.write(made[who] / IDENTITY)
        directory.write(made[who] / DIRECTORY)
    return made
