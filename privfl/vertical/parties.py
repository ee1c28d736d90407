"""The parties of one batch: hosts send activations and get gradients, a guest with the labels
computes the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

from privfl.core import Abort, Mail, PartyId
from privfl.crypto.he.wire import Refused
from privfl.vertical.message import Batch, closed, opened

GUEST: PartyId = "guest"
Cuts: TypeAlias = Mapping[PartyId, Float[Tensor, "B _"]]
"""Activations, or gradients of the loss by them, by party."""


class HostParty:
    """A host in one batch: activations go up; where the batch trains, gradients come down, and
    ``learn`` takes them. What others write it ignores.
    """

    def __init__(
        self,
        batch: Batch,
        activations: Float[Tensor, "B k"],
        learn: Callable[[Float[Tensor, "B k"]], None],
    ) -> None:
        self._batch, self._activations, self._learn = batch, activations, learn
        self._done = not batch.training

    @property
    def waits(self) -> bool:
        """Whether its answer has not come: its bottom did not learn."""
        return not self._done

    def step(self, mail: Mail) -> Mail:
        """Send, then take one answer."""
        if not mail:
            return {GUEST: closed(self._batch, "activations", self._activations)}
        if GUEST in mail and not self._done:
            width = self._activations.shape[1]
            try:
                gradients = opened(self._batch, "gradients", width, mail[GUEST])
            except Refused as why:
                raise Abort(f"no gradients from the guest: {why}", letter_of=GUEST) from None
            self._done = True
            self._learn(gradients)
        return {}


class GuestParty:
    """The guest in one batch: it waits for the activations of every host, and ``answer`` makes of
    them what goes down to each (nothing where the batch does not train).
    """

    def __init__(
        self,
        batch: Batch,
        widths: Mapping[PartyId, int],
        answer: Callable[[Cuts], Cuts],
    ) -> None:
        self._batch, self._widths, self._answer = batch, widths, answer
        self._held: dict[PartyId, Float[Tensor, "B _"]] = {}
        self._done = False

    def step(self, mail: Mail) -> Mail:
        """Collect, then answer once."""
        for host in self._widths.keys() & mail.keys() - self._held.keys():
            try:
                self._held[host] = opened(
                    self._batch, "activations", self._widths[host], mail[host]
                )
            except Refused as why:
                raise Abort(f"no activations from {host}: {why}", letter_of=host) from None
        if self._done or self._widths.keys() - self._held.keys():
            return {}
        self._done = True
        down = self._answer({host: self._held[host] for host in self._widths})
        return {host: closed(self._batch, "gradients", down[host]) for host in down}


def leaf(values: Float[Tensor, "B k"]) -> Float[Tensor, "B k"]:
    """The same numbers, as something that a gradient is taken by."""
    return values.detach().clone().requires_grad_(True)
