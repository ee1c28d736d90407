"""Whether a run folder is what its transcript says: the first round and file in which a byte was
changed, cut, put elsewhere or taken out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from privfl.core import ConfigError, DataCorrupt
from privfl.engine import checkpoint
from privfl.engine.chain import TRANSCRIPT, BrokenChain, Link, content_of, read_chain
from privfl.engine.files import LOCK
from privfl.engine.folder import (
    CHECKPOINT,
    JOURNAL,
    LOG,
    SUMMARY,
    SUMMARY_DRAFT,
    holds_run,
)
from privfl.engine.journal import head_file, last_heads

PROMISE = (
    "This shows order, and not honesty: whoever wrote the lines may have lied in each, and whoever"
    " can write to the folder can write all of it anew, or cut its end off in every file. A head"
    " that was published before shows both (--head)."
)


@dataclass(frozen=True, slots=True)
class Break:
    """Where a folder is not what its transcript says: a file, the round in which it first differs
    (None: of no single round, or before the first), and what is wrong there.
    """

    file: str
    round: int | None
    what: str

    def __str__(self) -> str:
        where = "" if self.round is None else f"round {self.round}, "
        return f"{where}{self.file}: {self.what}"


@dataclass(frozen=True, slots=True)
class Verified:
    """What a transcript says: its ``head``, ``lines``, ``rounds`` that count, whether the run
    ``ended``, all ``breaks``, the first one first, files that it does not cover
    (``uncovered``), and ``notes`` on what nobody can tell.
    """

    head: str
    lines: int
    rounds: int
    ended: bool
    breaks: tuple[Break, ...]
    uncovered: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.breaks


def verify(run: Path, head: str | None = None) -> Verified:
    """Check a run folder against its transcript, and that against a ``head`` that was published.

    Covered are ``fingerprint.json``, ``config.yaml``, ``README.md``, ``rounds.jsonl``,
    ``ledger.jsonl`` and its head, the checkpoints, and of a run that has ended ``ledger.json``,
    ``summary.json``, ``model.safetensors`` and ``public/`` as it was then. Pages and records that
    are drawn later are not. The newest checkpoint of a run that has not ended, and the lines that
    it logged and charged last, are covered by no line yet: of the checkpoint its own hashes are
    checked, which find damage and no more. What a kill between two writes leaves is in ``notes``.

    Without a published ``head`` a transcript whose end was cut off together with what it covers
    there is a shorter run, and one that was written anew is another run: nobody can tell. With one
    both are found. Lines that came after it are counted.

    Raises:
        ConfigError: there is no run in the folder, or ``head`` is no SHA-256 in hex.

    >>> verify(Path("no such folder"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    privfl.core.errors.ConfigError: 'no such folder' holds no run. ...
    """
    if not holds_run(run):
        raise ConfigError(
            f"'{run}' holds no run. A transcript is in what 'privfl run' leaves, and in nothing"
            " that 'privfl gossip' or 'privfl vertical' leaves."
        )
    wanted = None if head is None else head.strip().lower()
    if wanted is not None and (len(wanted) != 64 or set(wanted) - set("0123456789abcdef")):
        raise ConfigError(f"head is a SHA-256 of 64 hex digits, and is '{head}'.")
    breaks: list[Break] = []
    notes: list[str] = []
    links: tuple[Link, ...] = ()
    try:
        links = read_chain(run / TRANSCRIPT)
    except BrokenChain as broken:
        links = broken.links
        if broken.cut:  # and what comes after it in other files shows who did not stop there
            notes.append(f"{TRANSCRIPT}: {broken}: the run goes on, or was killed there.")
        else:
            breaks.append(Break(TRANSCRIPT, _next_round(links), str(broken)))
    torn = bool(breaks)
    began = [n for n in (LOG, JOURNAL, CHECKPOINT, SUMMARY) if (run / n).exists()]
    if not links and not torn and began:
        breaks.append(Break(TRANSCRIPT, None, f"is not there, or empty, and {began[0]} is there"))
        torn = True
    elif not links and not torn:
        notes.append(f"There is no {TRANSCRIPT} yet: the run begins, or was killed before it had.")
    count = _Counting(links)
    breaks += [*count.breaks, *_grown(run, count, notes), *_whole(run, count, notes)]
    breaks += _journal(run, count, notes)
    if torn:
        notes = [f"Nothing that comes after line {len(links)} of {TRANSCRIPT} can be checked."]
    else:
        breaks += [*_steps(run, links, count, notes), *_tail(run, links, count)]
    if wanted is not None:
        breaks += _published(links, wanted, notes)
    covered = {path for link in links for path in link.covers} | {TRANSCRIPT, LOCK}
    covered.add(head_file(run / JOURNAL).name)
    files = sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file())
    uncovered = tuple(one for one in files if one not in covered)
    breaks.sort(key=lambda one: -1 if one.round is None else one.round)
    return Verified(
        links[-1].head if links else "",
        len(links),
        len(count.rounds),
        count.end is not None,
        tuple(dict.fromkeys(breaks)),
        uncovered,
        tuple(notes),
    )


class _Counting:
    """What counts of a transcript's lines: a run that went on from a checkpoint took the rounds
    after it back, and played them again.
    """

    def __init__(self, links: Sequence[Link]) -> None:
        self.rounds: list[Link] = []
        self.starts: list[Link] = []
        self.end: Link | None = None
        self.breaks: list[Break] = []
        for link in links:
            self._count(link)

    def _count(self, link: Link) -> None:
        if link.kind == "round":
            if link.round != len(self.rounds) or self.end is not None:
                self._wrong(link, f"line {link.line} is of round {link.round}")
            self.rounds.append(link)
            return
        if link.kind == "resume":
            if link.round > len(self.rounds):
                self._wrong(link, f"line {link.line} goes on with round {link.round}")
            del self.rounds[link.round :]
            self.starts = [start for start in self.starts if start.round <= link.round]
            self.end = None
        if link.kind == "begin" and link.line != 1:
            self._wrong(link, f"line {link.line} begins a run in another one")
        known = self.rounds[-1] if self.rounds else next(iter(self.starts), None)
        if link.kind == "end":
            self.end = link
        else:
            self.starts.append(link)
        if known is not None and known.model != link.model:
            self._wrong(link, f"line {link.line} has another model than the round before it")

    def _wrong(self, link: Link, what: str) -> None:
        n = len(self.rounds)
        self.breaks.append(Break(TRANSCRIPT, n, f"{what}, where round {n} comes"))

    @property
    def standing(self) -> list[Link]:
        """The lines whose files are still as they say, in order."""
        end = [] if self.end is None else [self.end]
        return sorted([*self.starts, *self.rounds, *end], key=lambda link: link.line)


def _next_round(links: Sequence[Link]) -> int | None:
    """The round that a line after these is of, or would be the end after."""
    return len(_Counting(links).rounds) if links else None


def _grown(run: Path, count: _Counting, notes: list[str]) -> Iterator[Break]:
    """Files that only grow, up to each line."""
    for name in (LOG, JOURNAL):
        content = content_of(run / name)
        hashed, at = hashlib.sha256(), 0
        for link in count.standing:
            told = link.covers.get(name)
            if told is None:
                continue
            length = int(told["bytes"])
            hashed.update(content[at:length])
            at = length
            if len(content) < length or hashed.hexdigest() != told["sha256"]:
                short = len(content) < length
                what = f"{len(content):,} of {length:,} bytes are there" if short else "was changed"
                yield Break(name, link.round if link.kind == "round" else None, what)
                break
        else:
            beyond = len(content) - at
            if beyond and count.end is not None:
                what = f"{beyond:,} bytes were added after the run had ended"
                yield Break(name, None, what)
            elif beyond:
                notes.append(
                    f"{name}: its last {beyond:,} bytes are covered by no line: the run goes on, or"
                    " was killed there."
                )


def _whole(run: Path, count: _Counting, notes: list[str]) -> Iterator[Break]:
    """Files that are written once. The summary has its name once the end is chained."""
    told: dict[str, tuple[Link, str]] = {}
    for link in count.standing:
        for name, one in link.covers.items():
            if "bytes" not in one and not name.startswith(f"{CHECKPOINT}/"):
                told[name] = (link, str(one["sha256"]))
    for name, (link, sha256) in told.items():
        draft = run / SUMMARY_DRAFT
        if name == SUMMARY and not (run / SUMMARY).exists() and _sha256(draft) == sha256:
            notes.append(f"{SUMMARY} is still {SUMMARY_DRAFT}: the run was killed as it ended.")
            continue
        yield from _compared(run, name, sha256, link.round if link.kind == "round" else None)


def _compared(run: Path, name: str, sha256: str, round: int | None) -> Iterator[Break]:
    path = run / name
    if not path.is_file():
        yield Break(name, round, "is not there")
    elif _sha256(path) != sha256:
        yield Break(name, round, "was changed")


def _sha256(path: Path) -> str:
    """Of a file, whatever its size; "" where it cannot be read."""
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _steps(run: Path, links: Sequence[Link], count: _Counting, notes: list[str]) -> Iterator[Break]:
    """The checkpoints: those that lines cover, and the newest by its own hashes."""
    told = {
        name: str(one["sha256"])
        for link in links
        for name, one in link.covers.items()
        if name.startswith(f"{CHECKPOINT}/")
    }
    ends = links[-2:] if [link.kind for link in links[-2:]] == ["round", "end"] else links[-1:]
    newest = {name for link in ends for name in link.covers if name in told}
    kept = {path.name for path in (run / CHECKPOINT).glob("step-*")}
    for name, sha256 in told.items():
        step = name.split("/")[1]
        if step in kept or name in newest:
            yield from _compared(run, name, sha256, _of_step(step))
    covered = {name.split("/")[1] for name in told}
    heads = {link.head for link in links}
    for step in sorted(kept - covered):
        name = f"{CHECKPOINT}/{step}"
        try:
            about = checkpoint.about_of(run / name)
        except DataCorrupt as error:
            yield Break(name, _of_step(step), str(error))
            continue
        if about.get("chain") not in heads:
            what = f"was written after a line that is not in {TRANSCRIPT}: its end was cut off"
            yield Break(name, _of_step(step), what)
        elif count.end is not None:
            yield Break(name, _of_step(step), "was put there after the run had ended")
        else:
            notes.append(
                f"{name} is covered by no line yet: its own hashes are right, which says nothing"
                " against who changed both."
            )


def _of_step(step: str) -> int | None:
    """The round whose state a checkpoint is; None of the one before the first round."""
    number = step.removeprefix("step-")
    return int(number) - 1 if number.isascii() and number.isdigit() and int(number) else None


def _journal(run: Path, count: _Counting, notes: list[str]) -> Iterator[Break]:
    """The head beside the ledger, which is written after the line that it is of."""
    beside = head_file(run / JOURNAL)
    last, before = last_heads(content_of(run / JOURNAL))
    if beside.exists() or last:
        found = content_of(beside)
        if found == before.encode() and count.end is None:
            notes.append(f"{beside.name} is a line behind: the run goes on, or was killed there.")
        elif found != last.encode():
            yield Break(beside.name, None, f"is not the hash of the last line of {JOURNAL}")


def _tail(run: Path, links: Sequence[Link], count: _Counting) -> Iterator[Break]:
    """What shows that lines at the end are missing."""
    if not links:
        return
    n = len(count.rounds)
    if count.end is None and (run / SUMMARY).exists():
        what = f"ends after {n} rounds without an end, and {SUMMARY} is there: its end was cut off"
        yield Break(TRANSCRIPT, n, what)
    logged = content_of(run / LOG).count(b"\n")
    if logged > n + 1:
        what = f"ends after {n} rounds, and {LOG} has {logged}: its end was cut off"
        yield Break(TRANSCRIPT, n, what)


def _published(links: Sequence[Link], head: str, notes: list[str]) -> Iterator[Break]:
    at = next((link for link in links if link.head == head), None)
    if at is None:
        what = (
            "does not hold the head that was published: its end was cut off before that, or all of"
            " it was written anew"
        )
        yield Break(TRANSCRIPT, None, what)
        return
    after = len(links) - at.line
    notes.append(f"The published head is that of line {at.line}; {after} lines came after it.")
