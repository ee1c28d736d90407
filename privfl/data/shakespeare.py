"""Shakespeare's plays as Karpathy (2015) cut them, one client for each speaking role (as in McMahan
et al. 2017, LEAF).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from privfl.core import DataCorrupt, Dataset, require
from privfl.data import files
from privfl.data.split import Split

_TRAIN_SHARE = 0.8


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

    Raises:
        ConfigError: ``length`` is under 1, ``min_characters`` under 0, or no role is left.
        DataMissing: the file is not on this machine.
        DataCorrupt: a speech has no role.
    """

    length: int = 80
    min_characters: int = 1000

    def __post_init__(self) -> None:
        require.at_least(1, length=self.length)
        require.at_least(0, min_characters=self.min_characters)

    def __call__(self, folder: Path | None = None) -> Split:
        """Load it from a data folder, or from the usual one."""
        path = files.find("shakespeare", "tinyshakespeare/input.txt", folder)
        text = files.read_text(path)
        vocabulary = "".join(sorted(set(text)))
        spoken = {
            role: lines
            for role, lines in speeches(text, path).items()
            if sum(map(len, lines)) >= self.min_characters
        }
        require.at_least(
            1, **{f"the number of roles with {self.min_characters} characters": len(spoken)}
        )
        roles = tuple(sorted(spoken))
        lines = [_codes("\n".join(spoken[role]), vocabulary) for role in roles]
        cuts = [int(_TRAIN_SHARE * len(line)) for line in lines]
        train = self._windows(
            [line[:cut] for line, cut in zip(lines, cuts, strict=True)], roles, vocabulary
        )
        test = self._windows(
            [line[cut:] for line, cut in zip(lines, cuts, strict=True)], roles, vocabulary
        )
        return Split(
            name="shakespeare",
            train=train,
            test=test,
            kind="text",
            shape=(self.length,),
            classes=len(vocabulary),
            class_names=tuple(vocabulary),
            vocabulary=vocabulary,
            natural="role",
            about=(
                f"{train.n:,} + {test.n:,} windows of {self.length} characters, {len(roles)} roles."
            ),
        )

    def _windows(
        self, lines: list[npt.NDArray[np.int64]], roles: tuple[str, ...], vocabulary: str
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
            len(vocabulary),
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


def _codes(text: str, vocabulary: str) -> npt.NDArray[np.int64]:
    symbols = np.array(list(vocabulary)).view(np.uint32)
    return np.searchsorted(symbols, np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32))
