"""Who can read what: rules and channels, compared by the types that they state."""

from __future__ import annotations

import typing
from functools import cache
from typing import Any, Literal, TypeAlias

from privfl.core import Rows, Total

Reads: TypeAlias = Literal["rows", "total", "either"]


def rule_reads_channel(rule: Any, channel: Any) -> bool:
    """Whether a rule can read what a channel opens: rows or a sum, and rows with names where it
    asks for names.
    """
    reads, opens = rule_reads(rule), opens_to(channel)
    return reads in ("either", opens) and not (reads_ids(rule) and hasattr(channel, "rows"))


def reads_ids(rule: Any) -> bool:
    """Whether a rule needs to know whose row is whose."""
    return bool(getattr(rule, "reads_ids", False))


def hosts(channel: Any) -> tuple[type, ...]:
    """The rules that a channel's own servers can run on data that nobody reads, from the type of
    its field ``rule``.

    >>> from privfl.crypto import SecAgg
    >>> hosts(SecAgg())
    ()
    """
    return _hosts(channel if isinstance(channel, type) else type(channel))


@cache
def _hosts(kind: Any) -> tuple[type, ...]:
    if not hasattr(kind, "__dataclass_fields__") or "rule" not in kind.__dataclass_fields__:
        return ()
    hint = typing.get_type_hints(kind)["rule"]
    return tuple(typing.get_args(hint)) or (hint,)


def unreadable(rule: Any, channel: Any) -> str:
    """Why a rule cannot read what a channel opens."""
    if hasattr(channel, "rows") and opens_to(channel) != "total":
        return (
            f"{name_of(rule)} needs to know whose row is whose, and the rows of {name_of(channel)}"
            " are anonymous."
        )
    return f"{name_of(rule)} reads individual updates, and {name_of(channel)} opens only their sum."


def rule_reads(rule: Any) -> Reads:
    """What a rule reads, from the type of its argument.

    >>> from privfl.aggregators import Mean
    >>> rule_reads(Mean())
    'either'
    """
    return _rule_reads(rule if isinstance(rule, type) else type(rule))


@cache
def _rule_reads(kind: Any) -> Reads:
    method = kind.step if hasattr(kind, "init") else kind.__call__
    return _reads(typing.get_type_hints(method).get("opened"))


def opens_to(channel: Any) -> Reads:
    """What a channel opens to its server, from the types of its server's parties.

    >>> from privfl.crypto import Plain
    >>> opens_to(Plain())
    'rows'
    """
    return _opens_to(channel if isinstance(channel, type) else type(channel))


@cache
def _opens_to(kind: Any) -> Reads:
    member = typing.get_type_hints(kind.server)["return"]
    opened = typing.get_args(member)
    if not opened:
        party = typing.get_type_hints(member.enter)["return"]
        opened = typing.get_args(party)
        if not opened:
            result = party.result.fget if isinstance(vars(party).get("result"), property) else None
            hint = (
                typing.get_type_hints(result)["return"]
                if result
                else typing.get_type_hints(party)["result"]
            )
            opened = tuple(inner for arm in typing.get_args(hint) for inner in typing.get_args(arm))
    return _reads(opened[0])


def _reads(hint: Any) -> Reads:
    arms = set(typing.get_args(hint)) or {hint}
    if {Rows, Total} <= arms:
        return "either"
    return "total" if Total in arms else "rows"


def name_of(part: Any) -> str:
    """A part's class, for messages."""
    return type(part).__name__
