"""What a coalition can compute from its mail, its shares and its keys, really computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from privfl.core import ConfigError, Member, PartyId, PartyKeys, Received, Rows, Total
from privfl.crypto.he.boxes import unsealed
from privfl.crypto.he.mprlwe.ring import N
from privfl.crypto.he.onetime import dealing, message, pad
from privfl.crypto.he.onetime.members import OneTimeClient, OneTimeDecryptor, OneTimeServer
from privfl.crypto.he.onetime.message import CONTRIBUTION, DEALT, SHARE, id_of, ids_in
from privfl.crypto.he.onetime.parameters import OneTimeSettings
from privfl.crypto.he.view import messages_in, rows_of
from privfl.crypto.he.wire import Refused, SignedMessage

Shares = dict[int, dealing.Values]


def opened(
    settings: OneTimeSettings, received: Received, members: Mapping[PartyId, Member]
) -> Rows | Total | None:
    """Every row of which the coalition has enough shares, for the server, to which contributions
    are sealed; the sum, for the server alone; nothing, for anybody else.
    """
    draws = [m.draw for m in members.values() if isinstance(m, OneTimeServer | OneTimeClient)]
    settings = draws[0].settings(settings) if draws else settings
    whole: dict[PartyId, SignedMessage] = {}
    shares: dict[PartyId, Shares] = {}
    answers: dict[PartyId, SignedMessage] = {}
    holders = {
        settings.decryptors.index(who): member
        for who, member in members.items()
        if isinstance(member, OneTimeDecryptor | OneTimeClient) and who in settings.decryptors
    }
    for sent in messages_in(received, ()):
        if sent.kind == SHARE:
            answers[sent.sender] = sent
        if sent.kind != DEALT:
            continue
        if sent.parts[CONTRIBUTION] is not None:
            whole[sent.sender] = sent
        for index, member in holders.items():
            try:
                found = _share(settings, sent, index, member)
            except (Refused, ValueError):
                continue
            shares.setdefault(sent.sender, {})[1 + index] = found
    server = next((m for m in members.values() if isinstance(m, OneTimeServer)), None)
    if server is None:
        return None
    rows = {
        who: row
        for who, sent in whole.items()
        if (row := summed(settings, server.identity, [sent], shares.get(who, {}))) is not None
    }
    return rows_of(rows) if rows else _sum(settings, server, list(answers.values()), whole)


def _share(
    settings: OneTimeSettings,
    sent: SignedMessage,
    index: int,
    member: OneTimeDecryptor | OneTimeClient,
) -> dealing.Values:
    who, dealt = settings.decryptors[index], (settings.holders, settings.threshold)
    return message.share_in(sent, index, dealt, who, member.identity, member.memory.occasion)[:N]


def summed(
    settings: OneTimeSettings, server: PartyKeys, sent: list[SignedMessage], shares: Shares
) -> Total | None:
    """The sum of these messages from shares of the sum of their keys, where there are enough."""
    if len(shares) < settings.threshold or not sent:
        return None
    some = dict(list(shares.items())[: settings.threshold])
    short, topic = dealing.centred(dealing.interpolated(some, 0)), sent[0].topic
    try:
        plan = topic.plan()
        count = len(sent)
        layout = replace(settings.layout(plan), reach=settings.reach(count))
        total = pad.empty(layout)
        for m in sent:
            pad.add(total, message.contribution_in(m, server, layout.size))
        digits = pad.unmasked(total, short, topic, layout)
        if digits is None:
            return None
        numbers = pad.integers(digits, count, settings.code.length(plan), layout)
        return settings.scheme.total(numbers, plan, count)
    except (Refused, ValueError, ConfigError):
        return None


def _sum(
    settings: OneTimeSettings,
    server: OneTimeServer,
    answers: list[SignedMessage],
    whole: Mapping[PartyId, SignedMessage],
) -> Total | None:
    """The sum that the decryptors' answers to the server open."""
    shares: dict[frozenset[bytes], Shares] = {}
    for said in answers:
        try:
            ids, box = said.whole()
            purpose = message.answer_purpose(said.topic, said.sender)
            plain = unsealed(server.identity, box, purpose)
            point = 1 + settings.decryptors.index(said.sender)
            shares.setdefault(ids_in(ids), {})[point] = dealing.from_bytes(plain, (N,))
        except (Refused, ValueError):
            continue
    for names, some in shares.items():
        chosen = [m for m in whole.values() if id_of(m) in names]
        found = summed(settings, server.identity, chosen, some)
        if found is not None:
            return found
    return None
