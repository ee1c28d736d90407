"""What an attack claims. Whether it is true only the scorer can tell: nothing here has seen the
ground truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from privfl.core import ClientId


@dataclass(frozen=True, slots=True)
class Result:
    """An attack's answer: who attacked, whom it looked through, and notes in words and numbers."""

    attack: str
    adversary: str
    notes: Mapping[str, float | int | str] = field(default_factory=dict, kw_only=True)

    def __str__(self) -> str:
        noted = "; ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self.notes.items()
        )
        return f"{self.attack} by {self.adversary}: {self.claim()}{'; ' + noted if noted else ''}"

    def claim(self) -> str:
        """What is claimed, in words."""
        return "nothing"


@dataclass(frozen=True, slots=True)
class NotApplicable(Result):
    """The view holds nothing for the attack: ``theorem`` is the sentence that proves it from the
    view. It says nothing about success: it never ran.

    >>> str(NotApplicable("DLG", "server", "it reads only a sum."))
    'DLG by server: not applicable: it reads only a sum.'
    """

    reason: str
    theorem: str = ""

    def claim(self) -> str:
        """Why it does not apply."""
        return f"not applicable: {self.reason}"

    __str__ = Result.__str__


@dataclass(frozen=True, slots=True)
class NotFound(NotApplicable):
    """The attack has no answer, and nothing proves that there is none: it lacked something, or came
    to its limit, as ``reason`` says. Another attack, or the same one with more effort, may find
    what it did not.

    >>> str(NotFound("LinearLeakage", "server", "the first layer is a convolution."))
    'LinearLeakage by server: not found: the first layer is a convolution.'
    """

    def claim(self) -> str:
        """What it lacked, or where its limit is."""
        return f"not found: {self.reason}"

    __str__ = Result.__str__


@dataclass(frozen=True, slots=True)
class Reconstruction(Result):
    """Samples [n, ...] in the model's units with labels [n], in no particular order; ``mismatch``
    is the objective at the end.
    """

    samples: Tensor
    labels: Int[Tensor, " n"]
    mismatch: float = float("nan")

    def claim(self) -> str:
        """How many samples."""
        return (
            f"{len(self.samples)} samples of shape {tuple(self.samples.shape[1:])}, mismatch"
            f" {self.mismatch:.3g}"
        )

    __str__ = Result.__str__


@dataclass(frozen=True, slots=True)
class Records(Reconstruction):
    """Records of a table [n, columns], one category each, and how sure each column is [n, columns],
    from 0 to 1.
    """

    confidence: Tensor | None = None

    __str__ = Result.__str__


@dataclass(frozen=True, slots=True)
class Representatives(Result):
    """What a model takes for a class: samples [n, ...] in the model's units with the class of each
    [n]. They are a property of the class, and are not claimed to be anybody's samples: a game that
    asks for reconstructions takes none.
    """

    samples: Tensor
    labels: Int[Tensor, " n"]

    def claim(self) -> str:
        """How many, and what they are."""
        classes = ", ".join(str(label) for label in sorted(set(self.labels.tolist())))
        return (
            f"{len(self.samples)} representatives of class {classes}: what the model takes for it,"
            " and no member's sample"
        )

    __str__ = Result.__str__


@dataclass(frozen=True, slots=True)
class Counts(Result):
    """How many samples of each class [C] a batch held."""

    counts: Int[Tensor, " C"]

    def claim(self) -> str:
        """The counts."""
        return f"label counts {self.counts.tolist()}"

    __str__ = Result.__str__


@dataclass(frozen=True, slots=True)
class Tokens(Result):
    """The tokens [k] that a batch of text held, as a set."""

    tokens: Int[Tensor, " k"]

    def claim(self) -> str:
        """How many."""
        return f"{len(self.tokens)} tokens"

    __str__ = Result.__str__


@dataclass(frozen=True, slots=True)
class Sequences(Result):
    """The sequences [n, T] that a batch of text held, token by token, in no particular order; -1
    where a token is not known.
    """

    sequences: Int[Tensor, "n T"]

    def claim(self) -> str:
        """How many, and how many of them whole."""
        whole = int((self.sequences >= 0).all(dim=1).sum())
        return f"{len(self.sequences)} sequences of {self.sequences.shape[1]} tokens, {whole} whole"

    __str__ = Result.__str__


@dataclass(frozen=True, slots=True)
class Scores(Result):
    """One number for each candidate [n]: the greater, the likelier a member (or the likelier it has
    the property).
    """

    scores: Float[Tensor, " n"]

    def claim(self) -> str:
        """How many candidates were scored."""
        return f"scores of {len(self.scores)} candidates"

    __str__ = Result.__str__


@dataclass(frozen=True, slots=True)
class ClientScores(Result):
    """A number for each client and candidate [k, n]: the greater, the likelier it is a sample of
    that client's.
    """

    scores: Float[Tensor, "k n"]
    clients: tuple[ClientId, ...]

    def claim(self) -> str:
        """How many candidates were scored against how many clients."""
        return f"scores of {self.scores.shape[1]} candidates against {len(self.clients)} clients"

    __str__ = Result.__str__


@dataclass(frozen=True, slots=True)
class PropertyScores(Result):
    """A number for each round and client [rounds, k]: the greater, the likelier its data has the
    property. Client None is the sum.
    """

    scores: Float[Tensor, "rounds k"]
    clients: tuple[ClientId | None, ...]
    rounds: tuple[int, ...]

    def claim(self) -> str:
        """How many updates were scored."""
        return f"scores of {len(self.rounds)} rounds x {len(self.clients)} contributors"

    __str__ = Result.__str__


@dataclass(frozen=True, slots=True)
class ByRow(Result):
    """An attack's answer to each row of a view, beside the clients who may be in that row."""

    answers: tuple[tuple[tuple[ClientId, ...], Result], ...]

    def claim(self) -> str:
        """How many rows were attacked, and how many had an answer."""
        told = sum(not isinstance(answer, NotApplicable) for _, answer in self.answers)
        return f"answers for {told} of {len(self.answers)} rows"

    __str__ = Result.__str__
