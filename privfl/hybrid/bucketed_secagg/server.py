"""The server's part: one server of secure aggregation a group."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from privfl.core import (
    Abort,
    Buffer,
    ClientId,
    KeepsSecrets,
    Mail,
    Opened,
    Opener,
    PartyId,
    Rows,
    Total,
    client_party,
)

WEIGHT_SLACK = 1e-3
"""How far the sum of a group's weights may lie from its number of members."""


@dataclass(repr=False)
class BucketedServerParty(KeepsSecrets):
    """The server in one round: it hands each group's mail to that group's own server; a group that
    gives up is left out.
    """

    cohort: tuple[ClientId, ...]
    groups: tuple[tuple[ClientId, ...], ...]
    servers: list[Opener[Total]]
    started: bool = False
    lost: dict[int, str] = field(default_factory=dict)

    def step(self, mail: Mail) -> Mail:
        """Every group goes on for itself."""
        home = {
            client_party(client): number
            for number, group in enumerate(self.groups)
            for client in group
        }
        inboxes: dict[int, dict[PartyId, Buffer]] = {}
        for who, body in mail.items():
            if who in home:
                inboxes.setdefault(home[who], {})[who] = body
        out: dict[PartyId, Buffer] = {}
        for number, server in enumerate(self.servers):
            if number in self.lost or (self.started and number not in inboxes):
                continue
            try:
                out |= server.step(inboxes.get(number, {}))
            except Abort as abort:
                self.lost[number] = str(abort)
        self.started = True
        return out

    @property
    def result(self) -> Opened[Rows] | None:
        """The means of the groups that got through; None where no group did."""
        means: list[torch.Tensor] = []
        counts: list[float] = []
        of_group: list[int] = []
        survivors: list[ClientId] = []
        excluded: dict[PartyId, str] = {}
        for number, (group, server) in enumerate(zip(self.groups, self.servers, strict=True)):
            opened = server.result
            if opened is not None:
                excluded |= opened.excluded
            why = self.lost.get(number) or _unfit(opened)
            if opened is None or why:
                names = ", ".join(str(client) for client in sorted(group))
                excluded |= {
                    client_party(c): f"group of clients {names}: {why}"
                    for c in group
                    if client_party(c) not in excluded
                }
                continue
            means.append(opened.what.value / opened.what.count)
            counts.append(float(opened.what.count))
            of_group.append(number)
            survivors += opened.survivors
        if not means:
            return None
        home = {client: number for number, group in enumerate(self.groups) for client in group}
        disclosed = {
            "group_counts": torch.tensor(counts),
            "groups": torch.tensor(of_group),
            "membership": torch.tensor([home.get(client, -1) for client in self.cohort]),
        }
        return Opened(
            Rows(torch.stack(means), torch.tensor(counts)),
            tuple(sorted(survivors)),
            disclosed,
            excluded,
        )


def _unfit(opened: Opened[Total] | None) -> str:
    if opened is None:
        return "too few of them answered"
    total = opened.what
    if not math.isclose(total.weight, total.count, rel_tol=WEIGHT_SLACK):
        return (
            f"its weights sum to {total.weight:.3g} and not to its {total.count} members, so one of"
            " them lied"
        )
    return ""
