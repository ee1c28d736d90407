"""What a coalition can compute from a round's wire and its own keys, really computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from privfl.core import (
    Buffer,
    ClientId,
    ConfigError,
    PartyId,
    PartyKeys,
    Received,
    Rows,
    Total,
    client_of,
)
from privfl.crypto.primitives import fields, open_one
from privfl.crypto.primitives.fields import Malformed
from privfl.crypto.sharing.parameters import SharingSettings
from privfl.crypto.sharing.pine.field64 import Field64, add, decode
from privfl.crypto.sharing.pine.parameters import (
    FORMAT,
    REPORT,
    SEEDS,
    SUM,
    PineParameters,
    parameters_of,
)
from privfl.crypto.sharing.pine.server import report_of
from privfl.crypto.sharing.pine.vdaf import HELPER, LEADER, NONCE
from privfl.crypto.sharing.view import mail_of, rows_of


@dataclass(frozen=True, slots=True)
class _Told:
    """A client's report to the first server: the round that it says, its place, its share."""

    tag: bytes
    now: PineParameters
    position: int
    contribution: Field64


def opened(
    settings: SharingSettings, received: Received, keys: Mapping[PartyId, PartyKeys]
) -> Rows | Total | None:
    """What a coalition can compute: rows from both servers' mail and server/1's keys, the total
    from the first server's mail alone (with the noise of server/1, where servers add noise).

    The round is what most clients say that it is; a message of another round, or that is none, is
    passed over.
    """
    said: Counter[bytes] = Counter()
    reports: dict[bytes, dict[ClientId, _Told]] = {}
    for who, body in mail_of(received, "server"):
        client = client_of(who)
        if client is None:
            continue
        try:
            told = _report(settings, body)
        except Malformed:
            continue
        said[told.tag] += 1
        reports.setdefault(told.tag, {}).setdefault(client, told)
    if not said:
        return None
    sent = reports[said.most_common(1)[0][0]]
    now = next(iter(sent.values())).now
    rows = _rows(now, sent, received, keys.get(now.other))
    return rows or _total(now, sent, received)


def _report(settings: SharingSettings, body: Buffer) -> _Told:
    kind, _, position, tag, content = FORMAT.read(body)
    if kind != REPORT:
        raise Malformed("no report")
    plan, rest = fields.read_facts(content)
    if position >= plan.n:
        raise Malformed("outside of the cohort")
    try:
        now = replace(parameters_of(settings, plan), tag=tag)  # read facts number the cohort anew
    except ConfigError as wrong:
        raise Malformed(str(wrong)) from None
    _, _, share = report_of(now, rest)
    return _Told(tag, now, position, now.pine.contribution(LEADER, share))


def _total(now: PineParameters, sent: Mapping[ClientId, _Told], received: Received) -> Total | None:
    tag = next(iter(sent.values())).tag
    by_place = {told.position: told.contribution for told in sent.values()}
    for who, body in mail_of(received, "server"):
        try:
            kind, _, _, _, content = FORMAT.read(body, tag)
            if who != now.other or kind != SUM:
                continue
            summed, packed = fields.read_bit_set(content, now.plan.n)
            total = decode(packed, now.length)
        except Malformed:
            continue
        if not summed or not summed <= by_place.keys():
            continue
        for position in summed:
            total = add(total, by_place[position])
        return now.code.decode(now.integers(total), now.plan, len(summed))
    return None


def _rows(
    now: PineParameters,
    sent: Mapping[ClientId, _Told],
    received: Received,
    keys: PartyKeys | None,
) -> Rows | None:
    if keys is None:
        return None
    size = NONCE + now.pine.public_size + now.pine.helper_size
    rows: dict[ClientId, Total] = {}
    for who, body in mail_of(received, now.other):
        client = client_of(who)
        if client is None or client not in sent or client in rows:
            continue
        told = sent[client]
        try:
            kind, _, position, _, content = FORMAT.read(body, told.tag)
            if kind != SEEDS or position != told.position:
                continue
            seeds = memoryview(open_one(content, size, keys, now.report_context(position)))
        except Malformed:
            continue
        own = now.pine.contribution(HELPER, report_of(now, seeds)[2])
        whole = now.integers(add(told.contribution, own))
        rows[client] = now.code.decode(whole, now.plan, 1)
    ordered = sorted(rows, key=lambda client: sent[client].position)
    return rows_of({client: rows[client] for client in ordered})
