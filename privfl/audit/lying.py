"""Liars, played: every lie that a channel's record declares, and between two servers a library of
lies in single frames, told through the real parties in a round of the run's own updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from privfl.aggregators import CosineFilter, Krum
from privfl.core import (
    POWERS,
    BadUpdate,
    Channel,
    ClientId,
    Coalition,
    ConfigError,
    Liars,
    Lie,
    Power,
    client_of,
)
from privfl.engine import Scenario
from privfl.federation import Run
from privfl.hybrid.two_server import SignTwoServer, TwoServer
from privfl.hybrid.two_server.frame_lies import Frames, library, notes
from privfl.hybrid.two_server.machine import Step
from privfl.hybrid.two_server.parameters import SERVERS
from privfl.hybrid.two_server.rushing import chooses_with_friends, forges
from privfl.testing import Contributions, LiesTold, PlayedRound, ToldLie

FRAMES = 12
"""How many lies in single frames an audit tells of each server, unless it is asked for more."""
AGAIN = 3
"""How often a lie that may abort by what is shared is told, on each of two data sets."""


@dataclass(frozen=True, slots=True)
class LieFinding:
    """What came of one lie under one privacy layer.

    ``says`` is the most that the channel's record lets it do ("" where the record promises nothing
    against these liars), ``met`` what it did: nothing, abort, choose, shift, read; ``read`` are the
    clients whose update the liars then had, ``why`` who ended the round or refused the liars, and
    why. ``framed``: it is a lie in one frame of a server. ``aborts``, of a lie that may hang on
    what is shared: how many of `AGAIN` rounds ended on the run's updates, and on the same updates
    dealt to other clients.
    """

    layer: str
    liars: str
    does: str
    says: Power | None
    met: Power
    read: tuple[ClientId, ...] = ()
    why: str = ""
    framed: bool = False
    aborts: tuple[int, int] | None = None

    @property
    def telling(self) -> bool:
        """Whether the round ended by what is shared: always on one data set, never on another."""
        return self.aborts in ((0, AGAIN), (AGAIN, 0))

    @property
    def alarming(self) -> bool:
        """Whether the lie did more than the record says."""
        return self.says is not None and POWERS.index(self.met) > POWERS.index(self.says)

    def row(self) -> dict[str, Any]:
        """One row of a table."""
        return {
            "layer": self.layer,
            "liars": self.liars,
            "lie": self.does,
            "may": "no promise" if self.says is None else self.says,
            "did": self.met,
            "read": ", ".join(f"client/{c}" for c in self.read),
            "why": self.why,
            "aborts": "" if self.aborts is None else "{} and {} of {}".format(*self.aborts, AGAIN),
        }


def told_lies(
    layer: str, scenario: Scenario, run: Run, frames: int = FRAMES
) -> Iterator[LieFinding]:
    """Tell the lies of a scenario's channel in the last round of a run that was kept whole, each
    once.

    An ideal run has no parties that could lie; a round with as many clients as values, or none that
    can be encoded, tells nothing.

    Args:
        layer: the name in the findings.
        scenario: what was run.
        run: all of whose rounds were kept.
        frames: how many lies in single frames of each of two servers.
    """
    channel: Channel[Any] = scenario.channel
    if channel.guarantee.fidelity == "ideal":
        return
    found = last_contributions(scenario, run)
    if found is None:
        return
    held, names = found
    told = LiesTold(channel, held)
    try:
        if told.honest.mean is None:
            return
    except (BadUpdate, ConfigError):  # of these clients, or of these rows, it opens none
        return
    for lie in channel.guarantee.lies:
        yield _finding(layer, lie, told.most(lie, tries=1), names, told)
    if isinstance(channel, TwoServer | SignTwoServer):
        yield from _between_servers(layer, channel, told, names, frames)


def last_contributions(
    scenario: Scenario, run: Run
) -> tuple[Contributions, tuple[ClientId, ...]] | None:
    """What the clients sent in the last round of a run, as the channel carries it, and whose row
    each is; None where that cannot be told apart.
    """
    numbers = [number for number, kept in sorted(run.transcripts.items()) if kept.updates]
    if not numbers:
        return None
    last = run.transcripts[numbers[-1]]
    before = run.transcripts[numbers[-2]].before if len(numbers) > 1 else last.before
    names = tuple(client for client in last.plan.cohort if client in last.updates)
    if not 2 <= len(names) < last.plan.d:
        return None
    bound = scenario.in_round(last.plan.number, last.plan.l2).bound
    encodes = scenario.channel.able.encodes
    try:
        rows = [bound(last.updates[client].delta.detach().clone()) for client in names]
        carried = rows if encodes is None else [encodes.arrives(row, last.plan) for row in rows]
    except BadUpdate:
        return None
    plan = replace(last.plan, cohort=tuple(range(len(names))))
    models = (before, last.before)
    return Contributions(torch.stack(rows), plan, models, torch.stack(carried)), names


def _finding(
    layer: str,
    lie: Lie[Liars],
    came: ToldLie,
    names: tuple[ClientId, ...],
    told: LiesTold,
    promised: bool = True,
) -> LieFinding:
    own = lie.who.example(told.honest.plan)
    honest = [f"{_named(who, names)}: {why}" for who, why in came.ended if who not in own]
    return LieFinding(
        layer,
        lie.who.describe(told.honest.plan),
        lie.does,
        lie.can if promised else None,
        came.power,
        tuple(names[c] for c in came.read),
        "; ".join(honest[:2]) if came.power in ("abort", "nothing") else "",
    )


def _named(who: str, names: tuple[ClientId, ...]) -> str:
    client = client_of(who)
    return who if client is None else f"client/{names[client]}"


def _between_servers(
    layer: str,
    channel: TwoServer | SignTwoServer,
    told: LiesTold,
    names: tuple[ClientId, ...],
    frames: int,
) -> Iterator[LieFinding]:
    """Lies in frames of either server, and a server with colluding clients that picks the sum."""
    rows, carried = (kept.roll(1, dims=0) for kept in (told.held.rows, told.held.carried))
    turned = replace(told.held, rows=rows, encoded=carried)
    other = LiesTold(channel, turned)
    may: Mapping[str, Power] = channel.guarantee.liars()
    for who in SERVERS:
        sent = _frames_of(channel, told.held, who)
        for lie, kind in library(who, may.get(who, "nothing"), sent, frames):
            ended = [
                sum(each.of(lie).power == "abort" for _ in range(AGAIN))
                for each in (told, other)
                if kind == "selects"
            ]
            finding = _finding(layer, lie, told.most(lie, tries=1), names, told)
            yield replace(finding, framed=True, aborts=(ended[0], ended[1]) if ended else None)
    if isinstance(channel, TwoServer):
        yield from _with_friends(layer, channel, told, names)


def _with_friends(
    layer: str, channel: TwoServer, told: LiesTold, names: tuple[ClientId, ...]
) -> Iterator[LieFinding]:
    """A server with colluding clients, where the servers open who counts."""
    recipe = channel.recipe
    chooses = isinstance(channel.rule, Krum | CosineFilter)
    if not chooses or recipe.rule.reveal != "selection" or recipe.malicious:
        return
    count, friends = recipe.traits.exact or recipe.least, max(recipe.colluders, 1)
    for who in SERVERS:
        lie = Lie(
            Coalition.of(who, *(f"client/{c}" for c in range(friends))),
            "choose",
            "opens a selection of its own: who colludes with it, and as few others as it may",
            partial(chooses_with_friends, count),
        )
        came = told.most(lie, tries=1)
        yield _finding(layer, lie, came, names, told, promised=recipe.colluders > 0)


def _frames_of(channel: TwoServer | SignTwoServer, held: Contributions, who: str) -> Frames:
    """The frames that a server sends in an honest round."""
    seen: list[tuple[Step, int]] = []
    PlayedRound.play(channel, held, forges(notes(seen)), {who})
    return seen
