"""What came of one exchange of a round with the nodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from privfl.core import Abort, Buffer, Carried, Mail, Message, Opener, PartyId, Refusal
from privfl.engine.notes import Notes
from privfl.flower.heads import Answer

O = TypeVar("O")
SERVER: PartyId = "server"


@dataclass
class Talk:
    """What came of one drive: messages, who gave up in which part, letters that were refused, and
    answers to the first questions.
    """

    messages: list[Message] = field(default_factory=list)
    aborts: dict[PartyId, dict[str, Abort]] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)
    answered: dict[PartyId, Answer] = field(default_factory=dict)


def so_far(notes: Notes) -> str:
    """What went wrong so far, in a word, for an error that ends the run."""
    said = "; ".join(incident.what for incident in notes.incidents[:3])
    return f"{said}. " if said else ""


def gave_up(
    aborts: Mapping[PartyId, Mapping[str, Abort]], part: str, own: Mapping[str, Abort]
) -> dict[PartyId, Abort]:
    """Who gave up in a part, or as a whole."""
    found = {
        who: told.get(part) or told[""]
        for who, told in aborts.items()
        if part in told or "" in told
    }
    return found | ({SERVER: own[part]} if part in own else {})


def carried(
    openers: Mapping[str, Opener[O]], aborts: Mapping[str, Mapping[PartyId, Abort]], talk: Talk
) -> Carried[O]:
    """What a round's protocol came to, by part."""
    opened = {part: opener.result for part, opener in openers.items()}
    return Carried(opened, aborts, tuple(talk.messages), {}, tuple(talk.refused))


def routed(
    said: Mapping[PartyId, Mail],
    order: Sequence[PartyId],
    lost: Collection[PartyId],
    talk: Talk,
) -> dict[PartyId, dict[PartyId, Buffer]]:
    """Letters by receiver, in the order in which parties are named."""
    arriving: dict[PartyId, dict[PartyId, Buffer]] = {}
    for sender in order:
        for to, body in said.get(sender, {}).items():
            if to not in order:
                strange = Abort(f"{sender} wrote to {to}, who takes no part", blamed=sender)
                talk.aborts.setdefault(sender, {})[""] = strange
            elif to not in lost:
                arriving.setdefault(to, {})[sender] = body
    return arriving
