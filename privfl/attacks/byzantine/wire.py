"""Attacks on the wire: clients whose own code breaks the protocol instead of the mathematics."""

from __future__ import annotations

from dataclasses import dataclass

from privfl.core import (
    Bounded,
    BoundPoison,
    ClientId,
    Mail,
    Party,
    PartyPoison,
    RoundPlan,
    Vector,
    require,
)


@dataclass(frozen=True, slots=True)
class SkipClip(BoundPoison):
    """Hand the channel ``scale`` times the update as it was before the bound, while claiming that
    it is bounded.

    This is what a modified client can always do. A server that reads rows sees the norm and refuses
    it by name; under a channel that hides rows nothing stops it (Bonawitz et al. 2017, section 7.1:
    secure aggregation alone gives no input validation), which is why malicious-client settings need
    proofs of norm or a rule inside the protocol. The `UpdatePoison` attacks, by contrast, are
    clipped.

    Seat: the client's own party. Knows its own update.

    >>> import torch
    >>> SkipClip(scale=10.0).poison_bounded(
    ...     Bounded(1, torch.tensor([1.0]), l2=1.0), torch.tensor([3.0])
    ... ).delta
    tensor([30.])
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        require.positive(scale=self.scale)

    def poison_bounded(self, honest: Bounded, unbounded: Vector) -> Bounded:
        """The unbounded update [d], claimed to be bounded."""
        return Bounded.claimed(honest.client, unbounded * self.scale, honest.l2, honest.weight)


@dataclass(frozen=True, slots=True)
class Withhold(PartyPoison):
    """Take part honestly for ``after`` exchanges of the protocol and say nothing from then on.

    A channel that cannot stand dropouts at every stage loses the round; one that can must not
    reveal more for it (Bonawitz et al. 2017, section 4).

    Seat: the client's party. Knows nothing.

    >>> class Echo:
    ...     def step(self, mail):
    ...         return {"server": b"here"}
    >>> silent = Withhold(after=1).poison_party(Echo(), None, 3)
    >>> silent.step({}), silent.step({"server": b"and?"})
    ({'server': b'here'}, {})
    """

    after: int = 0

    def __post_init__(self) -> None:
        require.at_least(0, after=self.after)

    def poison_party(self, honest: Party, plan: RoundPlan, client: ClientId) -> Party:
        """The honest party, silenced."""
        return _Silenced(honest, self.after)


@dataclass(slots=True)
class _Silenced:
    honest: Party
    left: int

    def step(self, mail: Mail) -> Mail:
        if self.left == 0:
            return {}
        self.left -= 1
        return self.honest.step(mail)
