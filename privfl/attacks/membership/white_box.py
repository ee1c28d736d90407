"""White-box membership: a classifier over what rounds show of a sample, and an attacker who pushes
to see who pulls back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from privfl.attacks.inference import (
    Family,
    Inference,
    Lacking,
    auxiliary,
    candidates,
    recipe,
    summed,
)
from privfl.attacks.inversion.simulate import Simulator, standing
from privfl.attacks.knowledge import Forward, Knowledge
from privfl.attacks.membership.gradients import losses, per_sample
from privfl.attacks.result import Scores
from privfl.attacks.rows import readable
from privfl.core import (
    AttackSeat,
    Broadcast,
    ClientId,
    Dataset,
    Examples,
    RoundKnowledge,
    Rows,
    Vector,
    View,
    require,
)

By: TypeAlias = Literal["server", "participant"]


@dataclass(frozen=True, slots=True)
class WhiteBoxMembership(Inference):
    """Passive white-box membership (Nasr, Shokri, Houmansadr 2019, section II): a classifier over
    each round's features of a sample.

    Features by round: its loss before and after, the norm of its gradient by parameter, and the
    cosine of that gradient and the update. The classifier is learnt from samples whose membership
    the adversary knows: ``Knowledge.members`` against its auxiliary samples (logistic regression in
    place of their convolutional net: with a few hundred known samples that is what can be learnt).

    Args:
        client: whose model the features are of; None is the released model that everybody has.

    >>> WhiteBoxMembership().client is None
    True
    """

    family: ClassVar[Family] = "membership"
    client: ClientId | None = None
    ridge: float = 1.0

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Scores:
        """Log odds of every candidate.

        Raises:
            NotVisible: the client's updates are hidden.
            Lacking: no candidates, or fewer than 20 known members or auxiliary samples.
        """
        forward = recipe(views[0], knowledge)
        pool = candidates(knowledge, type(self).__name__)
        outside = auxiliary(knowledge, type(self).__name__, 20)
        inside = knowledge.members
        if inside is None or inside.n < 20:
            raise Lacking(
                "the classifier learns from members that it knows, 20 at least: give"
                " Knowledge(members=...)."
            )
        X: list[Tensor] = []
        Z: list[Tensor] = []
        A: list[Tensor] = []
        for view in views:
            update = self._update(view)
            for kept, data in ((X, pool), (Z, inside), (A, outside)):
                kept.append(_features(view, forward, data, update))
        known = torch.cat([torch.cat(Z, dim=1), torch.cat(A, dim=1)])
        truth = torch.cat([torch.ones(inside.n), torch.zeros(outside.n)])
        scores = _logistic(known, truth, torch.cat(X, dim=1), self.ridge)
        return Scores(
            type(self).__name__,
            views[0].adversary,
            scores,
            notes={"rounds": len(views), "known members": inside.n},
        )

    def _update(self, view: View) -> Vector:
        return summed(view).mean() if self.client is None else _of(view, self.client)


@dataclass(frozen=True, slots=True, eq=False)
class GradientAscent(Inference):
    """Active membership (Nasr, Shokri, Houmansadr 2019, section II-B): push up the loss of targets,
    and see whose loss is pulled down.

    The attacker adds ``gamma`` times the normalised gradient of its targets' loss to the model. A
    client that holds a target trains it away again, steeply; nobody does so for the others. A
    ``server`` sends such a model to the clients it attacks (seat ``broadcast``) and looks at what
    comes back; a ``participant`` puts the push into its update (seat ``update``), scaled by the
    size of the cohort, and looks at where the honest clients take the model. The score is minus the
    loss that is left on a target, summed over the rounds in which it was pushed.

    Args:
        targets: the samples in question; ``forward`` the public recipe.
        groups: the targets are pushed in so many groups, one a round in turn: few at a time, so
            that what holds for all images alike does not drown what holds for one.
        active: False pushes nothing and scores the loss that training took off, in the same rounds:
            the passive attack to compare with.

    >>> GradientAscent.__mro__[1].__name__
    'Inference'
    """

    seats: ClassVar[frozenset[AttackSeat]] = frozenset({"update", "broadcast"})

    family: ClassVar[Family] = "membership"
    targets: Dataset = field(repr=False)
    forward: Forward = field(repr=False)
    gamma: float = 10.0
    groups: int = 5
    by: By = "server"
    client: ClientId | None = None
    active: bool = True

    @classmethod
    def examples(cls) -> Examples:
        """Four samples of 8 x 8 pixels, and a net of one hidden layer."""
        x = torch.linspace(-1, 1, 4 * 64).view(4, 1, 8, 8)
        targets = Dataset(x, torch.arange(4), classes=4)
        with torch.random.fork_rng(devices=[]):
            layers = (nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
            module = nn.Sequential(*layers)

        def loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            return functional.cross_entropy(net(x), y)

        forward = Forward(module, loss, (1, 8, 8), 4, lr=0.1)
        return {"": {"targets": targets, "forward": forward}}

    def __post_init__(self) -> None:
        require.positive(gamma=self.gamma)
        require.at_least(1, groups=self.groups)

    @property
    def knows(self) -> Literal["own"]:
        """Its own honest update."""
        return "own"

    def push(self, parameters: Vector, round: int) -> Vector:
        """The step up [d] of the loss of this round's targets, of length ``gamma``."""
        simulator = Simulator(self.forward, parameters, round=round)
        now = self._asked(round)
        slope = torch.autograd.grad(
            simulator.loss_of(self.targets.x[now], self.targets.y[now]), simulator.leaves
        )
        flat: Vector = torch.cat([part.reshape(-1) for part in slope])
        step: Vector = flat * (self.gamma / flat.norm().clamp(min=1e-12))
        return step

    def _asked(self, round: int) -> Tensor:
        """Which targets this round is about."""
        return torch.arange(self.targets.n) % self.groups == round % min(
            self.groups, self.targets.n
        )

    def poison_broadcast(
        self, broadcast: Broadcast, client: ClientId, rng: torch.Generator
    ) -> Broadcast:
        """The pushed model, where the server attacks this client."""
        if self.by != "server" or not self.active or self.client not in (None, client):
            return broadcast
        return replace(
            broadcast,
            parameters=broadcast.parameters + self.push(broadcast.parameters, broadcast.version),
        )

    def poison_updates(
        self, own: Float[Tensor, "f d"], knowledge: RoundKnowledge, rng: torch.Generator
    ) -> Float[Tensor, "f d"]:
        """Its own updates with the push in them, such that the mean moves by it."""
        if self.by != "participant" or not self.active:
            return own.clone()
        share = float(knowledge.shares(len(own)).sum())
        return own + self.push(knowledge.before, knowledge.plan.number) / share

    def infer(self, views: tuple[View, ...], knowledge: Knowledge) -> Scores:
        """Minus the loss that is left on each target, or, without a push, the loss that was taken
        off.

        Raises:
            NotVisible: the client's updates are hidden.
        """
        total = torch.zeros(self.targets.n)
        for view in views:
            sent, back = self._around(view)
            now = self._asked(view.plan.number)
            told = (
                -self._losses(back, view)
                if self.active
                else self._losses(sent, view) - self._losses(back, view)
            )
            total[now] += told[now]
        kind = "active" if self.active else "passive"
        return Scores(
            type(self).__name__,
            views[0].adversary,
            total,
            notes={"rounds": len(views), "kind": kind, "by": self.by},
        )

    def _around(self, view: View) -> tuple[Vector, Vector]:
        """The model from which the honest clients began, and where they took it."""
        number = view.plan.number
        if self.by == "server":
            base = view.base(self.client)
            sent = base + self.push(base, number) if self.active else base
            return sent, sent + (
                summed(view).mean() if self.client is None else _of(view, self.client)
            )
        mean, n = view.after - view.before, view.plan.n
        mine = (
            torch.stack([update.delta for update in view.own.values()]).sum(dim=0) / n
            if view.own
            else torch.zeros_like(mean)
        )
        return view.before, view.before + mean - mine

    def _losses(self, parameters: Vector, view: View) -> Float[Tensor, " n"]:
        fixed = standing(view, self.forward, parameters, self.targets.x)
        simulator = Simulator(self.forward, parameters, round=view.plan.number, statistics=fixed)
        return losses(simulator, self.targets)


def _of(view: View, client: ClientId) -> Vector:
    rows: Rows = readable(view)
    if rows.ids is None or client not in rows.ids:
        raise Lacking(
            f"round {view.plan.number} has no update of client {client} that {view.adversary} could"
            " tell from others."
        )
    return rows.values[rows.ids.index(client)] / view.scale(client)


def _features(view: View, forward: Forward, data: Dataset, update: Vector) -> Float[Tensor, "n k"]:
    number = view.plan.number
    fixed = standing(view, forward, view.before, data.x)
    before = Simulator(forward, view.before, round=number, statistics=fixed)
    G = per_sample(before, data)
    sizes = [leaf.numel() for leaf in before.leaves]
    norms = [part.norm(dim=1).clamp(min=1e-12).log() for part in torch.split(G, sizes, dim=1)]
    step = -update / update.norm().clamp(min=1e-30)
    along = (G @ step) / G.norm(dim=1).clamp(min=1e-30)
    first, last = (
        losses(before, data),
        losses(Simulator(forward, view.before + update, round=number, statistics=fixed), data),
    )
    return torch.stack([first, last, first - last, along, *norms], dim=1)


def _logistic(
    X: Float[Tensor, "n k"], y: Float[Tensor, " n"], Z: Float[Tensor, "m k"], ridge: float
) -> Float[Tensor, " m"]:
    """Log odds under logistic regression on standardised features, by Newton's method."""
    centre, spread = X.mean(dim=0), X.std(dim=0).clamp(min=1e-9)

    def standard(features: Tensor) -> Tensor:
        scaled = ((features - centre) / spread).clamp(-8, 8).double()
        return torch.cat([scaled, torch.ones(len(scaled), 1, dtype=torch.float64)], dim=1)

    A, target = standard(X), y.double()
    w = torch.zeros(A.shape[1], dtype=torch.float64)
    penalty = ridge * torch.eye(A.shape[1], dtype=torch.float64)
    for _ in range(25):
        p = torch.sigmoid(A @ w)
        H = (A * (p * (1 - p))[:, None]).T @ A + penalty
        w = w + torch.linalg.solve(H, A.T @ (target - p) - penalty @ w)
    return (standard(Z) @ w).float()
