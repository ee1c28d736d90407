"""Clients, the server and the key holder between rounds."""

from __future__ import annotations

import numpy as np
import torch

from privfl.aggregators import FLTrust
from privfl.core import (
    BadUpdate,
    Bounded,
    ConfigError,
    Context,
    KeepsSecrets,
    Party,
    RoundPlan,
    Rows,
    Vector,
    norm,
)
from privfl.hybrid.encrypted_cosine.client import CosineClientRound
from privfl.hybrid.encrypted_cosine.holder import HolderRound
from privfl.hybrid.encrypted_cosine.keys import CosineIntroduction, CosineKeyMaking, Ring
from privfl.hybrid.encrypted_cosine.parameters import CosineSettings, unit_vector
from privfl.hybrid.encrypted_cosine.server import CosineServerRound, Memory
from privfl.hybrid.encrypted_cosine.weighing import Trust


class CosineClient(KeepsSecrets):
    """A client between rounds: its identity and the public key."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring

    def set_up(self) -> Party:
        """Say hello, take the key."""
        return CosineIntroduction(self.ring)

    def enter(self, plan: RoundPlan, update: Bounded) -> Party:
        """Encrypt one update."""
        return CosineClientRound(self.ring, plan, update)


class CosineServer(KeepsSecrets):
    """The server between rounds: its identity, the public key, the reference of the coming round,
    the last aggregate.
    """

    def __init__(self, settings: CosineSettings, ring: Ring) -> None:
        self.settings, self.ring, self.memory = settings, ring, Memory()
        self.root: Vector | None = None
        self.seen: Vector | None = None

    def set_up(self) -> Party:
        """Say hello, take the public key."""
        self.memory.previous = self.root = self.seen = None
        return CosineIntroduction(self.ring)

    def inform(self, context: Context) -> None:
        """Ask the rule for its public reference; or keep how the model moved, in case the last
        aggregate is not at hand.

        Raises:
            BadUpdate: the reference is not a finite vector of the model's length.
        """
        settings, rule = self.settings, self.settings.rule
        if settings.remembers:
            if (
                self.memory.previous is None
                and self.seen is not None
                and bool((context.parameters != self.seen).any())
            ):
                self.memory.previous = context.parameters - self.seen
            self.seen = context.parameters.clone()
            return
        d = len(context.parameters)
        found = (
            rule.root(context)
            if isinstance(rule, FLTrust)
            else rule.reference(Rows(torch.empty(0, d), torch.empty(0), ()), context)
        )
        if found.shape != (d,) or not norm(found) < float("inf"):
            raise BadUpdate(
                f"{type(rule).__name__}: the reference is no finite vector of {d} values."
            )
        self.root = found.detach().cpu()

    def enter(self, plan: RoundPlan) -> CosineServerRound:
        """Weigh and sum one round.

        Raises:
            ConfigError: another part than the update, no reference, or one that reads a single
                coordinate of every client.
        """
        settings = self.settings
        if plan.part != "delta":
            raise ConfigError(
                f"encrypted_cosine compares updates with a reference, and '{plan.part}' is none:"
                " train without extra vectors."
            )
        vector = self.memory.previous if settings.remembers else self.root
        if vector is None and not settings.remembers:
            raise ConfigError(
                f"encrypted_cosine: {type(settings.rule).__name__} needs the model for its"
                " reference: tell the server by inform(context)."
            )
        if vector is not None and len(vector) != plan.d:
            raise ConfigError(
                f"encrypted_cosine: a reference of {len(vector)} values for updates of {plan.d}."
            )
        return CosineServerRound(
            self.ring,
            plan,
            Trust.of(settings.rule),
            self.memory,
            self._reference(vector),
            self._length(plan),
        )

    def _reference(self, vector: Vector | None) -> np.ndarray | None:
        if vector is None:
            return None
        values = vector.numpy().astype(np.float64)
        if self.settings.similarity == "pearson":
            values = values - values.mean()
        integers = unit_vector(values, self.settings.setting.unit)
        if len(integers) > 1 and np.count_nonzero(integers) == 1:
            raise ConfigError(
                "encrypted_cosine: a reference with a single coordinate reads that coordinate of"
                " every client; take another."
            )
        return integers

    def _length(self, plan: RoundPlan) -> float:
        rule = self.settings.rule
        if isinstance(rule, FLTrust) and not self.settings.remembers and self.root is not None:
            return min(norm(self.root), rule.root_l2)
        if not plan.l2 < float("inf"):
            raise ConfigError(
                "encrypted_cosine gives every row the length of the bound, so updates need one: set"
                " bound to a clip."
            )
        return plan.l2


class KeyHolder(KeepsSecrets):
    """The key holder between rounds. ``ring.queries`` counts the numbers that it ever gave away."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring

    def set_up(self) -> Party:
        """Make the key."""
        return CosineKeyMaking(self.ring)

    def enter(self, plan: RoundPlan) -> Party:
        """Answer one round."""
        return HolderRound(self.ring, plan)
