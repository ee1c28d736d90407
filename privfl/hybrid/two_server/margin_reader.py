"""A server that reads a row off its norm check: what the checks of one client say, at thresholds of
the liar's choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from privfl.core import Buffer, Cast, ClientId, KeepsSecrets, Liars, Mail, RoundPlan
from privfl.crypto.lies import victim
from privfl.crypto.primitives import fields as wire
from privfl.hybrid.two_server.checks import Ranges
from privfl.hybrid.two_server.machine import Machine
from privfl.hybrid.two_server.parameters import HELD, MASKED
from privfl.hybrid.two_server.rows import projected
from privfl.hybrid.two_server.sealing import SEED_SIZE, coin_of, open_masked
from privfl.hybrid.two_server.server import FirstServer
from privfl.hybrid.two_server.tampering import Server, Took, after, server_of, tampered

_STEPS = 3000


@dataclass(repr=False)
class ShiftMargins(KeepsSecrets):
    """A step after `Ranges`: the own share of one row's margins is shifted, so that each opened bit
    says on which side of a threshold one projection of the row lies.
    """

    at: int
    thresholds: np.ndarray

    def act(self, machine: Machine) -> None:
        """Shift them."""
        now, n = machine.now, machine.n
        offsets = np.stack([-now.reach - self.thresholds[0], self.thresholds[1] - now.reach])
        for half, offset in enumerate(offsets.astype(np.int64).view(np.uint64)):
            start = half * now.rows * n + self.at
            machine.shares["checked"][start : start + now.rows * n : n] += offset


@dataclass(repr=False)
class MarginReader(KeepsSecrets):
    """A server that reads a row off its norm check: two bits for each of its projections, which the
    joint coins make known.
    """

    honest: Server
    who: ClientId
    took: Took
    coin: bytes = b""
    thresholds: np.ndarray = field(default_factory=lambda: np.zeros((2, 0)))

    def step(self, mail: Mail) -> Mail:
        """What the honest server says, with its steps tampered with."""
        honest, now = self.honest, self.honest.now
        other = "server/1" if isinstance(honest, FirstServer) else "server"
        if not self.coin and other in mail:
            self._prepare(mail[other])
        out = honest.step(mail)
        machine = honest.machine
        if machine is not None and "failed" in machine.public and self.who not in self.took:
            place = machine.positions.index(now.plan.cohort.index(self.who))
            bits = machine.public["failed"].reshape(-1, machine.n)[:, place]
            below = np.stack([bits[: now.rows], bits[now.rows : 2 * now.rows]]).astype(bool)
            coins = projected(now, machine.n, self.coin).numpy().astype(np.float64)
            found = between(coins, self.thresholds, below, now.longest)
            self.took[self.who] = torch.from_numpy(found / now.scale)
        return out

    def _prepare(self, body: Buffer) -> None:
        honest, now = self.honest, self.honest.now
        if isinstance(honest, FirstServer):
            held, rest = wire.read_bit_set(now.read(body, HELD)[1], now.plan.n)
            members = held & honest.bodies.keys()
            self.coin = coin_of(now, honest.half, bytes(rest[:SEED_SIZE]))
        else:
            keys, content = now.read(body, MASKED)
            members, _, head, _ = open_masked(now, honest.identity, keys, content)
            self.coin = coin_of(now, head[:SEED_SIZE], honest.half or b"")
        draw = np.random.default_rng(0)
        self.thresholds = np.rint(draw.normal(0, 0.4, (2, now.rows)) * now.longest)
        at = sorted(members).index(now.plan.cohort.index(self.who))
        shift = ShiftMargins(at, self.thresholds)
        honest.recipe = tampered(honest.recipe, lambda steps: after(steps, Ranges, shift))


def between(
    coins: np.ndarray, thresholds: np.ndarray, past: np.ndarray, longest: float
) -> np.ndarray:
    """A vector [d] of norm at most ``longest`` whose projections lie where the bits say: the first
    row of ``past`` tells that one is below its threshold, the second that it is above.

    The mean of all such vectors, sampled by hit-and-run (Smith 1984) from one that is found by
    projections onto violated half-spaces (Agmon 1954).
    """
    sides = np.concatenate([np.where(past[0], 1.0, -1.0), np.where(past[1], -1.0, 1.0)])
    planes = np.concatenate([coins, coins]) * sides[:, None]
    limits = np.concatenate([thresholds[0], thresholds[1]]) * sides
    norms = np.maximum((planes**2).sum(axis=1), 1.0)
    draw, total = np.random.default_rng(1), np.zeros(coins.shape[1])
    x = total.copy()
    for _ in range(_STEPS // 4):
        over = (planes @ x - limits) / np.sqrt(norms)
        worst = int(over.argmax())
        if over[worst] <= 0:
            break
        x -= planes[worst] * (1.1 * over[worst] / np.sqrt(norms[worst]))
        x *= min(1.0, longest / max(float(np.linalg.norm(x)), 1e-9))
    for _ in range(_STEPS):
        way = draw.normal(size=len(x))
        way /= np.linalg.norm(way)
        slopes, rooms = planes @ way, limits - planes @ x
        along, turn = float(x @ way), longest**2 - float(x @ x)
        reach = np.sqrt(max(along**2 + turn, 0.0))
        ahead, behind = slopes > 1e-9, slopes < -1e-9
        high = min((rooms[ahead] / slopes[ahead]).min(initial=np.inf), reach - along)
        low = max((rooms[behind] / slopes[behind]).max(initial=-np.inf), -reach - along)
        x = x + way * draw.uniform(low, high) if low < high else x
        total += x
    return total / _STEPS


def reads_margins() -> Liars:
    """One server as `MarginReader`."""
    took: Took = {}

    def enter(plan: RoundPlan, honest: Cast) -> Cast:
        who = victim(plan, honest)
        return {w: MarginReader(server_of(party), who, took) for w, party in honest.items()}

    return Liars(enter=enter, took=lambda published: took)
