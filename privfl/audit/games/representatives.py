"""Representatives: what a class of the clients' samples looks like, by generators against the
shared model, and whether they say more of members than of others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from privfl.attacks import (
    ClientGAN,
    Forward,
    Knowledge,
    NotApplicable,
    Representatives,
    ServerGAN,
)
from privfl.attacks.rows import readable
from privfl.audit.assets import REPRESENTATIVES as METRIC
from privfl.audit.findings import Finding
from privfl.audit.games.notes import (
    AuditNotes,
    answered,
    attacked,
    name_of,
    tell,
    unasked,
    undone,
)
from privfl.audit.intervals import Figure
from privfl.audit.rehearsal import Ground, rehearse, views_of
from privfl.audit.representatives import class_likeness
from privfl.core import Adversary, ClientId, Dataset, Seeds, View, client_of
from privfl.engine import Attacker
from privfl.federation import Federation, Run
from privfl.models import initialised, mlp

KNOWS = 0.7
"""A judge that takes fewer of a class's own samples for it than this decides nothing."""
_STEPS = 150
_TWINS = 19
"""So many generators that see nobody's data: of twenty that see nothing, the best is the attack in
one audit of twenty at most.
"""


def attack_representatives(
    notes: AuditNotes,
    layer: str,
    federation: Federation,
    run: Run,
    adversaries: Sequence[str],
    attacks: Sequence[ClientGAN | ServerGAN],
    knows: Knowledge,
    ground: Ground,
    progress: Callable[[str], None] | None,
) -> None:
    """How many representatives of a class another classifier takes for it, and how well the
    distance to the nearest of them tells members of the class from held-out samples of it.

    The adversary has half of the auxiliary samples, and the other half trains the classifier. A
    client's generator is for a class that it lacks, so its adversary has no samples of that class;
    where one of its clients holds some, the question is none. Blind is the best of these: the mean
    of the adversary's samples (of the class, where it has some), its own samples of the class one
    by one (who has some can hand out any of them), what the same client's generator makes of models
    that have seen nobody's data (that before the first round, and `_TWINS` trained on the
    adversary's samples), and one in the number of classes. Nearness to members is held against the
    nearness of the first of these.

    An active `ClientGAN` trains among the clients, in a run of its own through the same channel,
    in the place of every client of its adversary's. Where that run cannot be played, samples are no
    features with one class each, or the budget is used up, the finding says so.
    """
    own, judges = _halves(ground.auxiliary, knows.seed)
    unfit = _unfit(judges)
    judge = nn.Identity() if unfit else _classifier(judges, knows.seed)
    for adversary in adversaries:
        mine = frozenset(
            client
            for party in Adversary.parse(adversary).parties
            if (client := client_of(party)) is not None
        )
        for attack in attacks:
            tell(progress, f"{layer}: {adversary}: {name_of(attack)}")
            if unfit:
                undone(notes, layer, adversary, attack, METRIC, unfit)
                continue
            asked = own
            if isinstance(attack, ClientGAN):
                asked = own.take((own.y != attack.wanted).nonzero().squeeze(1))
                why = _no_question(attack, adversary, mine, ground, own.classes)
                if why:
                    undone(notes, layer, adversary, attack, METRIC, why)
                    continue
            active, played = isinstance(attack, ClientGAN) and attack.active, run
            if active:
                why = "the budget was used up before it began." if notes.late else ""
                try:
                    played = run if why else _taken_part(federation, attack, mine, ground, run)
                except Exception as fault:  # a run that cannot be played must not end an audit
                    why = f"its run failed with {type(fault).__name__}: {fault}"
                if why:
                    undone(notes, layer, adversary, attack, METRIC, why)
                    continue
            views = views_of(played, adversary)
            informed = replace(knows, auxiliary=asked, candidates=None)
            result, finding = attacked(notes, layer, adversary, attack, views, informed, METRIC)
            if isinstance(result, NotApplicable) or isinstance(views, str):
                continue
            finding = replace(finding, active=active)
            if not isinstance(result, Representatives):
                why = f"its answer is {answered(result)}, and representatives were asked for."
                unasked(notes, finding, why)
                continue
            _scored(notes, finding, attack, result.samples, views, informed, ground, mine, judge)


def _unfit(judges: Dataset) -> str:
    """Why samples have no representatives that a classifier could judge; empty where they have."""
    if not judges.x.is_floating_point():
        return "samples are tokens, and no generator learns to write them."
    if judges.y.ndim != 1 or judges.n < 2:
        return (
            f"the classifier that judges would learn from {judges.n} samples with labels of shape"
            f" {tuple(judges.y.shape[1:])}, and needs 2 with one class each."
        )
    return ""


def _no_question(
    attack: ClientGAN, adversary: str, mine: frozenset[ClientId], ground: Ground, classes: int
) -> str:
    """Why a client's generator is not asked of this adversary; empty where it is."""
    if max(attack.wanted, attack.labelled) >= classes:
        return (
            f"wanted is {attack.wanted} and labelled {attack.labelled}, and there are {classes}"
            f" classes: name two of 0 to {classes - 1}."
        )
    if attack.active and not mine:
        return (
            f"it trains among the clients, and {adversary} has no client of its own: ask a"
            " client(0), or set active: false."
        )
    held = ground.inside & (ground.pool.y == attack.wanted)
    holds = int((held & torch.isin(ground.owner, torch.tensor(sorted(mine)))).sum()) if mine else 0
    if holds:
        return (
            f"{adversary} holds {holds} samples of class {attack.wanted} itself, so what they look"
            " like is no secret from it: name a class that it lacks."
        )
    return ""


def _taken_part(
    federation: Federation,
    attack: ClientGAN | ServerGAN,
    mine: frozenset[ClientId],
    ground: Ground,
    honest: Run,
) -> Run:
    """The honest run again, with the attack in place of these clients' training."""
    scenario, model = federation.scenario, federation.scenario.workload.model
    seat = Attacker("generator", attack, mine)
    told = federation.with_scenario(replace(scenario, attackers=(*scenario.attackers, seat)))
    start = model.read()
    try:
        return rehearse(told, ground.members, len(honest.transcripts))
    finally:
        model.write(start)


def _scored(
    notes: AuditNotes,
    finding: Finding,
    attack: ClientGAN | ServerGAN,
    found: Tensor,
    views: Sequence[View],
    knows: Knowledge,
    ground: Ground,
    mine: frozenset[ClientId],
    judge: nn.Module,
) -> None:
    """Note what representatives are worth."""
    wanted, pool, held = attack.wanted, ground.pool, knows.auxiliary
    there = (pool.y == wanted) & ~torch.isin(ground.owner, torch.tensor(sorted(mine)))
    victim = _victim(attack, views)
    if victim is not None:
        there &= ground.owner == victim
    members, others = pool.x[there & ground.inside], pool.x[there & ~ground.inside]
    real = torch.cat([members, others])
    if not len(members) or not len(others) or held is None or not held.n:
        whose = "the others" if victim is None else f"client {victim}"
        why = (
            f"{whose} trained on {len(members)} samples of class {wanted} and hold {len(others)}"
            " others: one of each at least is needed."
        )
        unasked(notes, finding, why)
        return
    with torch.no_grad():
        known = float((judge(real).argmax(dim=1) == wanted).double().mean())
    if known < KNOWS:
        why = (
            f"the classifier that judges takes only {known:.0%} of {len(real)} real samples of"
            f" class {wanted} for it, so what it says of others decides nothing."
        )
        unasked(notes, finding, why)
        return
    of_class = held.x[held.y == wanted]
    guess = (of_class if len(of_class) else held.x).mean(dim=0)
    told = class_likeness(found, wanted, members, others, guess, judge, _peak(knows, real))
    with torch.no_grad():
        shown = bool((judge(of_class).argmax(dim=1) == wanted).any()) if len(of_class) else False
    blind = max(told.blind_right, float(shown), 1 / pool.classes)
    if isinstance(attack, ClientGAN):
        blind = _twins(attack, views, knows, judge, blind, told.right.low)
    leaks = told.right.low > blind or told.of_members
    notes.findings.append(
        replace(
            finding,
            value=told.right,
            baseline=Figure(blind),
            rates={"auc": told.nearer, "auc, blind": Figure(max(0.5, told.blind_nearer))},
            units=len(members) + len(others),
            unit=f"samples of class {wanted} beside {len(found)} representatives",
            clusters=len(found),
            more=f"class {wanted}: {told}; the judge takes {known:.2f} of real samples for it",
            verdict="leaks" if leaks else "not found",
        )
    )


def _twins(
    attack: ClientGAN,
    views: Sequence[View],
    knows: Knowledge,
    judge: nn.Module,
    blind: float,
    enough: float,
) -> float:
    """The most of what is ``blind`` and of what the same generator has right without anybody's
    data: of the model before the first round, and, until that is ``enough``, of models that the
    adversary trains on its own samples, which lack the class.

    All pictures of one generator are right or none is, so a single twin would often be wrong where
    few classes are left to be.
    """
    start, own, train = views[0].before, knows.auxiliary, knows.trainer
    for twin in range(1 + _TWINS):
        if twin and (blind >= enough or own is None or train is None):
            break
        models = [start]
        for view in views:
            moved = torch.zeros_like(start)
            if twin and own is not None and train is not None:
                rng = knows.generator(100 + twin)
                some = torch.randperm(own.n, generator=rng)[: max(1, own.n // 2)]
                moved = train(models[-1], own, [some], seed=1009 * twin + view.plan.number)[0]
            models.append(models[-1] + moved)
        untold = [
            replace(view, before=before, after=after)
            for view, before, after in zip(views, models, models[1:], strict=False)
        ]
        made = replace(attack, seed=attack.seed + twin).run(untold, knows)
        if isinstance(made, Representatives):
            with torch.no_grad():
                taken = judge(made.samples).argmax(dim=1) == attack.wanted
            blind = max(blind, float(taken.double().mean()))
    return blind


def _victim(attack: ClientGAN | ServerGAN, views: Sequence[View]) -> ClientId | None:
    """Whose representatives they are; None where they are everybody's."""
    if isinstance(attack, ClientGAN) or attack.takes_sum:
        return None
    if attack.client is not None:
        return attack.client
    ids = readable(views[0]).ids  # also where a row is what is left of a sum
    return None if ids is None else ids[0]


def _halves(data: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Samples dealt into two halves."""
    order = torch.randperm(data.n, generator=Seeds(seed).generator("audit representatives"))
    return data.take(order[::2]), data.take(order[1::2])


def _classifier(data: Dataset, seed: int) -> nn.Module:
    """Another classifier than the run's: one hidden layer, by Adam on all samples at once."""
    net = initialised(mlp, tuple(data.x.shape[1:]), data.classes, seed=seed + 1, hidden=(64,))
    adam = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(_STEPS):
        adam.zero_grad()
        torch.autograd.backward(functional.cross_entropy(net(data.x), data.y))
        adam.step()
    return net.eval()


def _peak(knows: Knowledge, x: Tensor) -> float:
    """The features' range."""
    if isinstance(knows.forward, Forward):
        low, high = knows.forward.span(x)
        return float((high - low).max())
    return max(float(x.max() - x.min()), 1e-9)
