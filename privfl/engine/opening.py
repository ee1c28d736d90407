"""How many contributions a round needs: of the channel, the seats before the rule, the rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from privfl.aggregators import ToleratesByzantine
from privfl.core import BeforeSeat, Channel, ConfigError, TooManyByzantine
from privfl.dp.opening import Opens
from privfl.dp.part_release import AnyRule
from privfl.engine.compatibility import name_of


def too_few(channel: Channel[Any], n: int) -> str:
    """Why a channel opens nothing of a cohort of n, whoever answers; "" where it can.

    >>> from privfl.crypto import Plain, SecAgg
    >>> too_few(SecAgg(), 1)
    'SecAgg opens no fewer than 2 contributions, and the cohort has 1.'
    >>> too_few(Plain(), 1)
    ''
    """
    try:
        fewest = channel.able.fewest(n)
    except ConfigError as refused:
        return str(refused)
    if n >= fewest:
        return ""
    return f"{name_of(channel)} opens no fewer than {fewest} contributions, and the cohort has {n}."


def opening(channel: Channel[Any], rule: AnyRule, seats: Sequence[BeforeSeat[Any]]) -> Opens:
    """Whether a round is released of whose cohort of n so many contributions m get through: the
    channel opens so many, and no seat and no rule, the channel's own included, refuses their rows.

    Nobody's round over a channel that needs nobody is noise alone, and is released.

    >>> from privfl.aggregators import Mean
    >>> from privfl.crypto import Plain, SecAgg
    >>> [opening(channel, Mean(), ())(1, 1) for channel in (Plain(), SecAgg())]
    [True, False]
    """
    able = channel.able
    deciding: tuple[object, ...] = (rule, able.hosts)
    rules = [one for one in deciding if isinstance(one, ToleratesByzantine)]

    def opens(n: int, m: int) -> bool:
        try:
            fewest = able.fewest(n)
        except ConfigError:  # no cohort of this size can be opened
            return False
        if m == 0 or m < fewest:
            return m == 0 and fewest <= 1
        rows = m if able.groups is None else able.groups.rows(m)
        try:
            for seat in seats:
                rows = seat.passes(rows)
            for one in rules:
                one.max_byzantine(rows)
        except (TooManyByzantine, ConfigError):
            return False
        return True

    return opens
