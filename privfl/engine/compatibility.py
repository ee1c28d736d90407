"""Who can read what: rules and channels, compared by what they declare."""

from __future__ import annotations

from typing import Any, TypeAlias

from privfl.core import Channel, ChannelKind, ConfigError, Reads, Rule, RuleWithMemory

AnyRule: TypeAlias = Rule[Any] | RuleWithMemory[Any, Any]


def readable(reads: Reads, needs_ids: bool, kind: ChannelKind) -> bool:
    """Whether what a rule declares that it reads is opened: rows or a sum, and rows with names
    where it asks for names.

    >>> readable("rows", True, ChannelKind("rows", named=False))
    False
    """
    return reads in ("either", kind.opens) and (kind.named or not needs_ids)


def rule_reads_channel(rule: AnyRule, channel: Channel[Any]) -> bool:
    """Whether a rule can read what a channel opens.

    >>> from privfl.aggregators import Krum, Mean
    >>> from privfl.crypto import SecAgg
    >>> rule_reads_channel(Mean(), SecAgg()), rule_reads_channel(Krum(), SecAgg())
    (True, False)
    """
    return readable(rule.reads, rule.needs_ids, channel.kind)


def unreadable(rule: AnyRule, channel: Channel[Any]) -> str:
    """Why a rule cannot read what a channel opens."""
    if channel.kind.opens == "rows":
        return (
            f"{name_of(rule)} needs to know whose row is whose, and the rows of {name_of(channel)}"
            " are anonymous."
        )
    return f"{name_of(rule)} reads individual updates, and {name_of(channel)} opens only their sum."


def check_declared(part: object, seam: str, *names: str) -> None:
    """Refuse a part of somebody's own that leaves out what its seam declares.

    Raises:
        ConfigError: and what is missing.

    >>> check_declared(object(), "rule", "reads")
    Traceback (most recent call last):
    privfl.core.errors.ConfigError: object declares no reads, and every rule does: see privfl.core.
    """
    there = set(dir(part))
    missing = [name for name in names if name not in there]
    if missing:
        raise ConfigError(
            f"{name_of(part)} declares no {', '.join(missing)}, and every {seam} does: see"
            " privfl.core."
        )


def name_of(part: object) -> str:
    """A part's class, for messages."""
    return type(part).__name__
