"""Threat models by letter: what an adversary sees, what it knows, and whether it only looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from privfl.attacks import Forward, Knowledge
from privfl.core import Adversary, Rows, Total, View, client_of

Sight: TypeAlias = Literal["release", "sum", "rows of groups", "rows without names", "rows"]
SIGHTS: tuple[Sight, ...] = ("release", "sum", "rows of groups", "rows without names", "rows")
"""What can be seen of updates, from least to most: two models in a row, a sum, means of groups,
single updates, single updates with the names of their clients.
"""
Letter: TypeAlias = Literal["A", "C", "D", "E", "F", "G", "H"]
_MEANS: Mapping[Letter, str] = {
    "A": "the view alone",
    "C": "the training recipe",
    "D": "the training recipe and samples of the same sources",
    "E": "the training recipe, samples of the same sources and facts about the clients' own data",
    "F": "the training recipe",
    "G": "the training recipe and samples of the same sources",
    "H": "the training recipe and samples of the same sources, and chooses who takes part",
}
_SEEN: Mapping[Sight, str] = {
    "release": "released models",
    "sum": "a sum",
    "rows of groups": "means of groups",
    "rows without names": "single updates without names",
    "rows": "single updates",
}


@dataclass(frozen=True, slots=True)
class ThreatModel:
    """An adversary as what it sees x what it knows x how it acts.

    ``letter`` is that of the table of Carletti et al. (USENIX Security 2025): A the view alone, C
    with the training recipe, D with surrogate samples, E with facts about the clients' data; F, G
    and H the same as C, D and G with active manipulation and with the choice of who takes part.
    (Their B is not told apart from C.) ``disclosed`` names what the protocol leaks to it, ``own``
    is how many clients belong to it.

    >>> print(ThreatModel("D", "sum", own=1))
    D, passive: sees a sum and the updates of 1 client of its own
    """

    letter: Letter
    sees: Sight
    disclosed: tuple[str, ...] = ()
    own: int = 0
    active: bool = False

    def __str__(self) -> str:
        return f"{self.letter}, {self.acts}: sees {self.sight}"

    @property
    def sight(self) -> str:
        """What it sees, in words."""
        parts = [_SEEN[self.sees], *(f"'{name}'" for name in self.disclosed)]
        if self.own:
            parts.append(f"the updates of {self.own} client{'s' * (self.own > 1)} of its own")
        return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

    @property
    def sentence(self) -> str:
        """The whole model as the end of a sentence.

        >>> ThreatModel("D", "sum").sentence
        'sees a sum, knows the training recipe and samples of the same sources, and only looks'
        """
        acts = "deviates from the protocol" if self.active else "only looks"
        return f"sees {self.sight}, knows {self.knows}, and {acts}"

    @property
    def acting(self) -> ThreatModel:
        """The same adversary where it deviates from the protocol.

        >>> ThreatModel("D", "rows").acting.letter
        'G'
        """
        letter: Letter = "F" if self.letter in ("A", "C") else "G"
        return replace(self, letter="H" if self.letter == "H" else letter, active=True)

    @property
    def acts(self) -> str:
        """Whether it deviates from the protocol: active, or passive."""
        return "active" if self.active else "passive"

    @property
    def knows(self) -> str:
        """What the letter stands for, in words."""
        return _MEANS[self.letter]


def threat_model(
    views: Sequence[View], knows: Knowledge, *, active: bool = False, chooses: bool = False
) -> ThreatModel:
    """The threat model of somebody with these views (one or more, of rounds in order) and this
    knowledge, read off both.

    Args:
        active: it deviates from the protocol; ``chooses``: it also picks who takes part.
    """
    view = views[0]
    letter: Letter = "A"
    if knows.forward is not None or isinstance(view.facts.get("forward"), Forward):
        letter = "C"
        if knows.auxiliary is not None:
            letter = "D"
        if letter == "D" and (knows.labels is not None or knows.samples is not None):
            letter = "E"
    if active:
        letter = "F" if letter in ("A", "C") else "H" if chooses else "G"
    mine = {client_of(party) for party in Adversary.parse(view.adversary).parties} - {None}
    return ThreatModel(letter, _sight(view), tuple(sorted(view.disclosed)), len(mine), active)


def _sight(view: View) -> Sight:
    seen = view.opened.get("delta")
    if isinstance(seen, Total):
        return "sum"
    if not isinstance(seen, Rows):
        return "release"
    if seen.ids is not None:
        return "rows"
    return "rows without names" if seen.n == view.plan.n else "rows of groups"
