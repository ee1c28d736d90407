"""Reconstruction: attacks on one round whose clients hold few samples, for their labels and their
features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from privfl.attacks import (
    ByRow,
    Counts,
    Forward,
    Inference,
    Knowledge,
    LabelCounts,
    NotApplicable,
    Reconstruction,
    Result,
    StatisticCounts,
)
from privfl.audit import score
from privfl.audit.findings import Finding
from privfl.audit.games.labels import label_finding
from privfl.audit.games.luck import RARE, recognised_luck
from privfl.audit.games.notes import (
    AuditNotes,
    answered,
    attacked,
    judged,
    name_of,
    tell,
    unasked,
)
from privfl.audit.games.tables import field_luck, field_rates
from privfl.audit.intervals import FEW, by_cluster, clustered_mean
from privfl.audit.rehearsal import Ground, views_of
from privfl.core import ClientId, Dataset, Rows, View
from privfl.federation import Run

RECOGNISED = 20.0
"""PSNR in dB above which a picture counts as recognised, by convention."""
ROWS = 60
"""So many rows of a view are attacked at most, spread evenly over it."""
DECOYS = 400
"""So many decoys are held against an audit's claims, or 20 sets of them where that is more: enough
for one exact sample to stand out. Each counts once: with fewer samples to spare there are fewer.
"""
Answers = Sequence[tuple[tuple[ClientId, ...], Result]]


@dataclass(frozen=True, slots=True)
class Truth:
    """What clients held in the probed round, and as many other samples of theirs that they did not
    hold (``decoys``), which say what a guess at such a client is worth.
    """

    held: Mapping[ClientId, Tensor]
    data: Dataset
    ground: Ground

    def of(self, clients: Sequence[ClientId]) -> Dataset:
        """All samples that were really held."""
        return self.data.take(torch.cat([self.held[client] for client in clients]))

    def decoys(self, clients: Sequence[ClientId], draw: int = 0) -> Dataset:
        """For each client as many of its own candidates that were not; auxiliary samples where it
        has too few. Each ``draw`` takes others, and each client begins elsewhere among them.
        """
        pool, held = self.ground.pool, self.ground.auxiliary
        place = {client: at for at, client in enumerate(sorted(self.held))}
        x: list[Tensor] = []
        y: list[Tensor] = []
        for client in clients:
            want = len(self.held[client])
            at = self._others(client)
            used = max(draw * want - len(at), 0) + place[client] * self._stride
            at = at[draw * want :][:want]
            more = (used + torch.arange(want - len(at))) % held.n
            x.append(torch.cat([pool.x[at], held.x[more]]))
            y.append(torch.cat([pool.y[at], held.y[more]]))
        return Dataset(torch.cat(x), torch.cat(y), pool.classes)

    def apart(self, clients: Sequence[ClientId]) -> int:
        """In how many draws these clients' decoys are no other clients', and 1 where there are too
        few for that: a mean over more of them errs alike for all clients, which no interval over
        clients would see.
        """
        own = (
            (len(self._others(client)) + self._stride) // max(len(self.held[client]), 1)
            for client in clients
        )
        return max(1, min(own))

    def their_own(self, clients: Sequence[ClientId]) -> int:
        """In how many draws all of these clients' decoys are samples of their own: others' are less
        like theirs, where labels differ from client to client, so that what a client is like would
        pass for what it held.
        """
        return min(
            len(self._others(client)) // max(len(self.held[client]), 1) for client in clients
        )

    def different(self, clients: Sequence[ClientId]) -> int:
        """How many draws of these clients' decoys there are before samples come again, and 1 at
        least: a decoy that is counted twice says no more than once.
        """
        every = (
            (len(self._others(client)) + self.ground.auxiliary.n) // max(len(self.held[client]), 1)
            for client in clients
        )
        return max(1, min(every))

    def _others(self, client: ClientId) -> Tensor:
        """Where the client's own candidates lie that were not trained on."""
        return ((self.ground.owner == client) & ~self.ground.inside).nonzero().squeeze(1)

    @property
    def _stride(self) -> int:
        """Each client's share of the auxiliary samples."""
        return self.ground.auxiliary.n // max(len(self.held), 1)


def attack_probe(
    notes: AuditNotes,
    layer: str,
    run: Run,
    adversaries: Sequence[str],
    attacks: Sequence[Inference],
    knows: Knowledge,
    truth: Truth,
    progress: Callable[[str], None] | None,
) -> None:
    """How many labels are right, and how close pictures come, from one round in which each client
    held few samples; beside what somebody guesses who saw nothing, and beside the same claims held
    against other samples of the same clients.

    An attack on single updates is run on every row of the view, and each row scored against the
    clients in it. Label counts of a row are held against the labels of other rows too, which says
    what they tell of this one.
    """
    forward = knows.forward
    for adversary in adversaries:
        views = _rows_alone(views_of(run, adversary))
        for attack in attacks:
            tell(progress, f"{layer}: {adversary}: {name_of(attack)}")
            counts = _counts(attack)
            result, finding = attacked(
                notes, layer, adversary, attack, views, knows, metric_of(attack), rows=ROWS
            )
            if isinstance(result, NotApplicable) or isinstance(views, str) or forward is None:
                continue
            numbers = [v.plan.number for v in (views if attack.takes_rounds else views[:1])]
            there = {client for n in numbers for client in run.transcript(n).clients_seen()}
            everybody = tuple(sorted(there))
            answers = result.answers if isinstance(result, ByRow) else ((everybody, result),)
            finding = replace(finding, effort=f"{len(answers)} rows attacked")
            why = _unfit(answers, truth.data, counts)
            if why:
                unasked(notes, finding, why)
            elif counts:
                rows = [
                    (told, truth.of(clients))
                    for clients, told in _grouped(answers, everybody).items()
                ]
                notes.findings.append(label_finding(finding, rows, truth.data.classes, knows))
            else:
                _pictures(notes, finding, answers, everybody, truth, knows, forward)


def metric_of(attack: Inference) -> str:
    """What an attack on the probe is measured in."""
    return "share of labels" if _counts(attack) else "PSNR, dB"


def _counts(attack: Inference) -> bool:
    return isinstance(attack, LabelCounts | StatisticCounts)


def _unfit(answers: Answers, data: Dataset, counts: bool) -> str:
    """Why answers are none to the question; empty where every row's is one, or says why not."""
    asked = f"a count of each of {data.classes} classes, none below zero" if counts else ""
    asked = asked or f"samples of shape {tuple(data.x.shape[1:])}"
    for _, answer in answers:
        if isinstance(answer, NotApplicable):
            continue
        if counts and isinstance(answer, Counts):
            fits = answer.counts.shape == (data.classes,) and bool((answer.counts >= 0).all())
        elif not counts and isinstance(answer, Reconstruction):
            fits = len(answer.samples) > 0 and answer.samples.shape[1:] == data.x.shape[1:]
        else:
            fits = False
        if not fits:
            return f"its answer is {answered(answer)}, and {asked} were asked for."
    return ""


def _rows_alone(views: list[View] | str) -> list[View] | str:
    """Views without the updates of the adversary's own clients where every part is read by named
    rows, among which they are: who reads the same rows is then told the same, once.
    """
    if isinstance(views, str):
        return views
    named = [
        bool(view.opened)
        and all(isinstance(part, Rows) and part.ids is not None for part in view.opened.values())
        for view in views
    ]
    return [
        replace(view, own={}) if rows else view for view, rows in zip(views, named, strict=True)
    ]


def _grouped(
    answers: Answers, everybody: tuple[ClientId, ...]
) -> dict[tuple[ClientId, ...], list[Result]]:
    """Answers by the clients who may be in the row: rows that nobody can tell apart go together."""
    groups: dict[tuple[ClientId, ...], list[Result]] = {}
    for clients, answer in answers:
        there = tuple(client for client in clients if client in everybody)
        if there:
            groups.setdefault(there, []).append(answer)
    return groups


def _pictures(
    notes: AuditNotes,
    finding: Finding,
    answers: Answers,
    everybody: tuple[ClientId, ...],
    truth: Truth,
    knows: Knowledge,
    forward: Forward,
) -> None:
    shown: list[score.Pictures] = []
    blind: list[score.Pictures] = []
    groups = _grouped(answers, everybody)
    size = sum(len(truth.held[client]) for clients in groups for client in clients)
    most = min(truth.different(clients) for clients in groups)
    draws = min(max(20, -(-DECOYS // max(size, 1))), most)
    chances: list[Tensor] = []
    beside: list[Tensor] = []
    home: list[int] = []
    raw: list[tuple[Tensor | None, Tensor]] = []
    for number, (clients, group) in enumerate(groups.items()):
        true = truth.of(clients)
        held = knows.auxiliary.x if knows.auxiliary is not None else true.x
        guess = _unit(held.mean(dim=0, keepdim=True), forward)
        found = [answer.samples for answer in group if isinstance(answer, Reconstruction)]
        raw.append((torch.cat(found) if found else None, true.x))
        claimed = _unit(torch.cat(found), forward) if found else guess
        shown.append(score.pictures(claimed, _unit(true.x, forward)))
        blind.append(score.prior(guess, _unit(true.x, forward)))
        decoys = torch.cat([truth.decoys(clients, draw).x for draw in range(draws)])
        sets = _unit(decoys, forward).view(draws, true.n, *true.x.shape[1:])
        chances.append(torch.stack([score.decibels(claimed, others) for others in sets]))
        alike = truth.their_own(clients) or truth.apart(clients)
        beside.append(chances[-1][:alike].mean(dim=0))
        one = len(answers) == 1  # of a sum each client's samples are a cluster
        home += [
            who if one else number
            for who, client in enumerate(clients)
            for _ in truth.held[client].tolist()
        ]
    told, prior = score.joined(shown), score.joined(blind)
    decoy = torch.cat(chances, dim=1)
    at = torch.tensor(home)
    value, baseline, control, gap = (
        _by_cluster(values, at)
        for values in (told.psnr, prior.psnr, decoy.mean(dim=0), told.psnr - torch.cat(beside))
    )
    sharp, chance = (int((psnr > RECOGNISED).sum()) for psnr in (told.psnr, decoy))
    n, m = len(told.psnr), decoy.numel()
    others = decoy.mean(dim=1).tolist()
    luck = recognised_luck(sharp, n, chance, m, float(told.psnr.mean()), others)
    # gaps of few clients are no normal ones: draws of decoys as good as the truth are luck too
    fresh = min(truth.apart(clients) for clients in groups)
    ranked = decoy[:fresh].mean(dim=1) >= told.psnr.mean()
    rank = (1 + int(ranked.sum())) / (1 + len(ranked))
    ahead = len(set(home)) >= FEW or rank <= max(RARE, 1 / (1 + len(ranked)))
    leaks = (gap.low > 0 and ahead) or luck < RARE
    fields = field_rates(raw, at, knows) if truth.data.x.ndim == 2 else {}
    if fields:  # of a table they are the second test, in place of what looks alike
        luck = 1.0
        if len(set(home)) == 1:  # one row alone
            (clients,) = groups
            apart = range(min(draws, truth.apart(clients)))
            luck = field_luck(*raw[0], [truth.decoys(clients, draw).x for draw in apart], knows)
        leaks = (gap.low > 0 and ahead) or fields["gap to blind"].low > 0 or luck < RARE
    recognised = score.proportion(sharp, n)
    more = (
        f"best {float(told.psnr.max()):.1f} dB; SSIM {float(told.ssim.mean()):.3f}; over"
        f" {RECOGNISED:.0f} dB {recognised}"
    )
    if n == 1 and m < 2:
        more += "; too few decoys to tell luck from a find: hold out more samples"
    notes.galleries[finding.layer, finding.adversary, finding.attack] = told
    notes.findings.append(
        judged(
            replace(
                finding,
                value=value,
                baseline=score.Figure(baseline.value),
                control=control,
                rates={
                    "recognised": recognised,
                    "recognised, decoys": score.proportion(chance, m),
                    "best": score.Figure(float(told.psnr.max())),
                    "gap to decoys": gap,
                    **fields,
                },
                units=n,
                clusters=len(set(home)),
                more=more,
                verdict="leaks" if leaks else "not found",
                luck=luck,
            )
        )
    )


def _by_cluster(values: Tensor, at: Tensor) -> score.Figure:
    """The mean PSNR over samples, or of how much more it is, with its interval over clusters."""
    mean, count = by_cluster(values.double().numpy(), at.numpy())
    within = (0.0 if bool((values >= 0).all()) else -score.EXACT, score.EXACT)
    return clustered_mean(mean, count, units=len(values), within=within)


def _unit(x: Tensor, forward: Forward) -> Tensor:
    """Features in [0, 1], as the recipe's range says."""
    low, high = forward.span(x)
    return (x - low) / (high - low).clamp(min=1e-9)
