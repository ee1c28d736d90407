"""Shakespeare's plays as Karpathy (2015) cut them, one client for each speaking role (as in McMahan
et al. 2017, LEAF).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from privfl.core import DataCorrupt, Dataset, require
from privfl.data import files
from privfl.data.split import Split

_TRAIN_SHARE = 0.8
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*|[^a-z\s]")
UNKNOWN = "<unknown>"
"""What stands for a word that the dictionary does not have; its place is 0."""


@dataclass(frozen=True, slots=True)
class Shakespeare:
    """Next-character prediction on 1,115,394 characters, 65 different ones, spoken by 309 roles.
    Attribute ``role``, with names.

    Samples are windows of ``length`` characters that do not overlap: x [n, length] int64 positions
    in ``Split.vocabulary``, y [n, length] the characters that follow each. A window never crosses
    from one role to another; a role's speeches follow each other, a line break between them, and
    what is left over at the end of a part is dropped. The first 80 % of each role's characters are
    for training, the last 20 % for testing. Only roles with at least ``min_characters`` take part
    (141 of 309 with 1,000), and role names repeat between plays, so a role is not always one
    character.

    With ``unit`` "word" the same of words in small letters and of marks, one a token: the
    dictionary (``Split.class_names``) holds `UNKNOWN` and the ``words`` - 1 tokens that are most
    frequent in the training parts, the more frequent first (equals in order of the alphabet). Line
    breaks are left out.

    Raises:
        ConfigError: ``length`` is under 1, ``min_characters`` under 0, ``words`` under 2, or no
            role is left.
        DataMissing: the file is not on this machine.
        DataCorrupt: a speech has no role.
    """

    length: int = 80
    min_characters: int = 1000
    unit: Literal["character", "word"] = "character"
    words: int = 5000

    def __post_init__(self) -> None:
        require.at_least(1, length=self.length)
        require.at_least(2, words=self.words)
        require.at_least(0, min_characters=self.min_characters)

    def __call__(self, folder: Path | None = None) -> Split:
        """Load it from a data folder, or from the usual one."""
        path = files.find("shakespeare", "tinyshakespeare/input.txt", folder)
        text = files.read_text(path)
        spoken = {
            role: lines
            for role, lines in speeches(text, path).items()
            if sum(map(len, lines)) >= self.min_characters
        }
        require.at_least(
            1, **{f"the number of roles with {self.min_characters} characters": len(spoken)}
        )
        roles = tuple(sorted(spoken))
        said = ["\n".join(spoken[role]) for role in roles]
        if self.unit == "word":
            parted = [tokens(one) for one in said]
            symbols = dictionary(map(_first, parted), self.words)
            place = {word: i for i, word in enumerate(symbols)}
            lines = [np.array([place.get(w, 0) for w in one], np.int64) for one in parted]
        else:
            symbols = tuple(sorted(set(text)))
            lines = [_codes(one, symbols) for one in said]
        train = self._windows([_first(line) for line in lines], roles, len(symbols))
        test = self._windows([line[len(_first(line)) :] for line in lines], roles, len(symbols))
        return Split(
            name="shakespeare",
            train=train,
            test=test,
            kind="text",
            shape=(self.length,),
            classes=len(symbols),
            class_names=symbols,
            vocabulary="" if self.unit == "word" else "".join(symbols),
            natural="role",
            fitted=("the dictionary of its words",) if self.unit == "word" else None,
            about=(
                f"{train.n:,} + {test.n:,} windows of {self.length} {self.unit}s, {len(roles)}"
                " roles."
            ),
        )

    def _windows(
        self, lines: list[npt.NDArray[np.int64]], roles: tuple[str, ...], classes: int
    ) -> Dataset:
        counts = [max(len(line) - 1, 0) // self.length for line in lines]
        x = np.concatenate(
            [line[: count * self.length] for line, count in zip(lines, counts, strict=True)]
        )
        y = np.concatenate(
            [line[1 : count * self.length + 1] for line, count in zip(lines, counts, strict=True)]
        )
        said_by = torch.repeat_interleave(torch.arange(len(roles)), torch.tensor(counts))
        shape = (-1, self.length)
        return Dataset(
            torch.from_numpy(x).view(shape),
            torch.from_numpy(y).view(shape),
            classes,
            {"role": said_by},
            {"role": roles},
        )


def speeches(text: str, path: Path) -> dict[str, list[str]]:
    r"""What each role says, speech by speech: speeches are parted by blank lines and begin with a
    line ``ROLE:``.

    Raises:
        DataCorrupt: a speech begins without a role.

    >>> speeches("All:\nSpeak, speak.\n\nA:\nYes.\n\nAll:\nResolved.\n", Path("input.txt"))
    {'All': ['Speak, speak.', 'Resolved.'], 'A': ['Yes.']}
    """
    spoken: dict[str, list[str]] = {}
    for block in text.split("\n\n"):
        head, _, body = block.strip("\n").partition("\n")
        if not head.endswith(":"):
            raise DataCorrupt(
                f"{path}: a speech begins with '{head[:40]}', which names no role: delete it and"
                " fetch it again."
            )
        spoken.setdefault(head[:-1], []).append(body)
    return spoken


def tokens(text: str) -> list[str]:
    """The words of a text in small letters, and its marks.

    >>> tokens("O Romeo, 'tis I: who's there?")
    ['o', 'romeo', ',', "'", 'tis', 'i', ':', "who's", 'there', '?']
    """
    return _WORD.findall(text.lower())


def dictionary(texts: Iterable[Sequence[str]], size: int) -> tuple[str, ...]:
    """`UNKNOWN` and the tokens that are most frequent in all texts, ``size`` in all at most, the
    more frequent first and equals in order of the alphabet.

    >>> dictionary([["b", "a", "c"], ["c", "b"]], 3)
    ('<unknown>', 'b', 'c')
    """
    counts = Counter(token for text in texts for token in text)
    ranked = sorted(counts, key=lambda token: (-counts[token], token))
    return (UNKNOWN, *ranked[: size - 1])


_Said = TypeVar("_Said", list[str], npt.NDArray[np.int64])


def _first(said: _Said) -> _Said:
    """The part of a role's symbols that is for training."""
    return said[: int(_TRAIN_SHARE * len(said))]


def _codes(text: str, vocabulary: Sequence[str]) -> npt.NDArray[np.int64]:
    symbols = np.array(vocabulary).view(np.uint32)
    return np.searchsorted(symbols, np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32))
