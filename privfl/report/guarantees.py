"""The guarantees of everything in the catalogue, as rows and as a page: made from the channels' and
mechanisms' own records.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from privfl import catalog
from privfl.aggregators import CosineFilter, FLTrust, Krum, Mean
from privfl.core import (
    Channel,
    Context,
    Guarantee,
    Liars,
    Mechanism,
    RingNoise,
    RoundPlan,
    Vector,
    WithMemory,
)
from privfl.dp import Schedule

Root: TypeAlias = Callable[[Context], Vector]
Settings: TypeAlias = Sequence[tuple[str, Mapping[str, Any]]]
SHOWN = 6
"""Clients of the cohort for which numbers are shown."""
_LIARS = ("server", "a client")


def _as_informed(context: Context) -> Vector:
    return context.parameters


def settings_of(name: str, root: Root = _as_informed) -> Settings:
    """The settings of a channel that change what it promises, in words and as arguments; the
    defaults alone where nothing is listed here. ``root`` makes FLTrust's root update.

    >>> [words for words, _ in settings_of("secagg")]
    ['semi_honest', 'active', 'keeps secrets', 'fidelity: ideal']
    """
    trust = FLTrust(root)
    along = CosineFilter(0.0, lambda rows, context: root(context))
    follows = {"security": "semi_honest"}
    listed: Mapping[str, Settings] = {
        "secagg": (
            ("semi_honest", {}),
            ("active", {"mode": "active"}),
            ("keeps secrets", {"forward_secrecy": False}),
            ("fidelity: ideal", {"fidelity": "ideal"}),
        ),
        "additive_sharing": (
            ("2 servers", {}),
            ("3 servers", {"servers": 3}),
            ("proof: pine", {"proof": "pine"}),
        ),
        "paillier": (
            ("keys: authority", {}),
            ("keys: threshold", {"keys": "threshold"}),
            ("keys: threshold, 3 of 3", {"keys": "threshold", "threshold": 3}),
            ("keys: shared", {"keys": "shared"}),
        ),
        "bfv": (
            ("keys: authority", {}),
            ("keys: authority, sums not verified", {"verify_sum": False}),
            ("keys: authority, min_clients: 3", {"min_clients": 3}),
            ("keys: shared", {"keys": "shared"}),
        ),
        "ckks": (("keys: authority", {}), ("keys: shared", {"keys": "shared"})),
        "one_time_rlwe": (
            ("2 of 3", {}),
            ("3 of 3", {"threshold": 3}),
            ("3 of 5, gaussian", {"holders": 5, "threshold": 3, "secrets": "gaussian"}),
            (
                "4 of 6 drawn clients",
                {"committee": "clients", "holders": 6, "threshold": 4, "min_clients": 4},
            ),
        ),
        "mp_rlwe": (
            ("2 of 3", {}),
            ("3 of 3", {"threshold": 3}),
            ("2 of 3, sums not verified", {"verify_sum": False}),
        ),
        "bucketed_secagg": (
            ("groups of 3", {}),
            ("groups of 2", {"size": 2}),
            ("groups of 3, threshold 0.6", {"threshold": 0.6}),
            ("groups of 3, active", {"mode": "active"}),
        ),
        "two_server": (
            ("mean", {}),
            ("krum, scores", {"rule": Krum(f=1, m=2), "reveal": "scores"}),
            ("krum, aggregate", {"rule": Krum(f=1, m=2), "reveal": "aggregate"}),
            ("cosine_filter, aggregate", {"rule": along, "reveal": "aggregate"}),
            ("fltrust, scores", {"rule": trust, "reveal": "scores"}),
            ("fltrust, aggregate", {"rule": trust, "reveal": "aggregate"}),
            ("mean, semi_honest", follows),
            ("mean, scores, semi_honest", {"rule": Mean(), "reveal": "scores", **follows}),
            ("krum, selection, semi_honest", {"rule": Krum(f=1, m=2), **follows}),
            (
                "krum, aggregate, semi_honest",
                {"rule": Krum(f=1, m=2), "reveal": "aggregate", **follows},
            ),
            ("fltrust, scores, semi_honest", {"rule": trust, "reveal": "scores", **follows}),
            ("fltrust, selection, semi_honest", {"rule": trust, **follows}),
            (
                "cosine_filter, aggregate, semi_honest",
                {"rule": along, "reveal": "aggregate", **follows},
            ),
        ),
        "sign_two_server": (
            ("aggregate", {"rule": trust}),
            ("scores", {"rule": trust, "reveal": "scores"}),
            ("aggregate, semi_honest", {"rule": trust, **follows}),
            ("scores, semi_honest", {"rule": trust, "reveal": "scores", **follows}),
        ),
        "encrypted_cosine": (("defaults", {}), ("fltrust", {"rule": trust})),
    }
    return listed.get(name, (("defaults", {}),))


def channels(root: Root = _as_informed) -> Iterator[tuple[str, str, Channel[Any]]]:
    """Every channel of the catalogue under each of its settings: name, settings, channel."""
    for name, maker in catalog.CHANNELS.items():
        for words, arguments in settings_of(name, root):
            yield name, words, maker(**arguments)


def default_guarantee(name: str) -> Guarantee[Liars]:
    """The guarantee of a channel under its first settings."""
    _, arguments = settings_of(name)[0]
    return catalog.CHANNELS[name](**arguments).guarantee


def short(name: str) -> dict[str, str]:
    """A channel's guarantee under its first settings, in a few columns."""
    said = default_guarantee(name)
    liars = said.liars()
    return {
        "single updates are read by": said.read_by(),
        "a lying server can": liars.get("server", "nothing"),
        "a lying helper can": "; ".join(
            f"{who}: {can}" for who, can in liars.items() if who not in _LIARS
        ),
        "a lying client can": liars.get("a client", "nothing"),
    }


def mechanisms() -> Iterator[tuple[str, Mechanism | RingNoise | WithMemory]]:
    """Every mechanism of the catalogue, with a noise multiplier (or an epsilon) of one."""
    for name, maker in catalog.SEAMS["mechanisms"].items():
        hints, required = catalog.fields_of(maker)
        part = {key: "constant" if hints[key] is Schedule else 1.0 for key in required}
        yield name, catalog.build("mechanism", {name: maker}, {"name": name, **part})


def page() -> str:
    """``docs/guarantees.md``: what every channel and every mechanism promises."""
    plan = RoundPlan(0, tuple(range(SHOWN)), d=1, l2=1.0)
    parts = [_HEAD, _table(channel_rows()), _LIES]
    for name, words, channel in channels():
        said = channel.guarantee
        parts.append(f"### `{name}`, {words}\n")
        parts.append(_sentences(said, plan))
        parts.append(_table([_linked(line) for line in said.told()]))
    parts.append("## Mechanisms\n")
    parts.append(_table(list(_mechanism_rows())))
    return "\n".join(parts)


def channel_rows() -> list[dict[str, str]]:
    """One row for each channel and setting: who reads, and the most that one liar can do."""
    rows = []
    for name, words, channel in channels():
        said = channel.guarantee
        liars = said.liars()
        others = [f"{who}: {can}" for who, can in liars.items() if who not in _LIARS]
        rows.append(
            {
                "channel": f"`{name}`, {words}",
                "single updates are read by": said.read_by(),
                "a lying server": liars.get("server", "nothing"),
                "a lying helper": "; ".join(others) or "-",
                "a lying client": liars.get("a client", "nothing"),
            }
        )
    return rows


def _mechanism_rows() -> Iterator[dict[str, str]]:
    for name, mechanism in mechanisms():
        said = mechanism.guarantee
        yield {
            "mechanism": f"`{name}`",
            "who sees what without noise": f"{said.read_by()} ({said.hidden})",
            "who may lie": "; ".join(
                f"{lie.who.describe()} {lie.does}: {lie.can}" for lie in said.lies
            ),
            "assumes": "; ".join(said.assumes),
        }


def _linked(line: Mapping[str, str]) -> dict[str, str]:
    return {"who": line["who"], "what it does": line["does"], "what comes of it": line["can"]}


def _sentences(said: Guarantee[Liars], plan: RoundPlan) -> str:
    settings = "; ".join(f"{name}: {value}" for name, value in said.settings(plan.n).items())
    lines = [f"With a cohort of {plan.n}: {settings}." if settings else ""]
    lines.append(f"The server reads {said.server_reads()}.")
    lines.append(f"Leaks: {'; '.join(said.leaks)}.")
    lines.append(f"Assumes: {'; '.join(said.assumes)}.")
    if said.fidelity == "ideal":
        lines.insert(0, "**Ideal: no cryptography runs.**")
    return "\n".join(_filled(line) for line in lines if line) + "\n"


def _filled(line: str) -> str:
    return textwrap.fill(line, 100, break_long_words=False, break_on_hyphens=False)


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    head = list(rows[0])
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    lines += [f"| {' | '.join(row[name] for name in head)} |" for row in rows]
    return "\n".join(lines) + "\n"


_HEAD = """# Guarantees

Who may collude, who may lie, and what comes of it. This page is made from the records that the
channels and mechanisms themselves hold (`channel.guarantee`); a test plays every lie on it through
the real parties and measures it, and compares who reads single updates with what every small
coalition can compute from its own mail and keys. `privfl list guarantees --page` prints the page.

What a lie can do, from least to most:

- **nothing**: the liar's own contribution, within its bound, aside
- **abort**: end the round
- **choose** whose contributions count
- **shift** the result by what nobody contributed
- **read** a single update

Whoever taps the wires to the server stands in for it in the second column. Every server can
publish another result than it opened; columns give the most that ONE lying party can do, and what
it can do with others stands below.

## Channels
"""
_LIES = """## Every lie
"""
