"""What trains or answers in a way of its own, and the names that its configs take: rooms above the
catalogue, which knows nothing of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from privfl.catalog import fields_of
from privfl.gossip.config import GRAPHS, RULES
from privfl.vertical.config import DEFENCES, MODELS

Rows = Sequence[Mapping[str, Any]]

WAYS: Rows = (
    {
        "what": "gossip",
        "is": "Training without a server: every node of a graph is the server of a run of its own.",
        "command": "privfl gossip examples/gossip.yaml",
        "page": "docs/gossip.md",
    },
    {
        "what": "vertical",
        "is": "One network over parties with different columns of the same people, and what each"
        " of them reads of the others.",
        "command": "privfl vertical examples/vertical_adult.yaml",
        "page": "docs/vertical.md",
    },
    {
        "what": "encrypted inference",
        "is": "Questions to a trained model about samples that its owner cannot read.",
        "command": "privfl infer RUN --samples 100",
        "page": "docs/encrypted-inference.md",
    },
    {
        "what": "votes of teachers",
        "is": "PATE: a student learns from noisy votes of models, each trained on one client's"
        " data.",
        "command": "python examples/pate.py",
        "page": "docs/privacy-accounting.md",
    },
    {
        "what": "network",
        "is": "A federated run between processes or machines, over Flower with TLS.",
        "command": "privfl net --help",
        "page": "docs/network.md",
    },
)
"""Ways to train and to ask beside `privfl run`: each with a command and its page."""

_KEYS: Mapping[str, Mapping[str, Mapping[str, Callable[..., object]]]] = {
    "gossip": {"graph": GRAPHS, "rule": RULES},
    "vertical": {"model": MODELS, "defence": DEFENCES},
}
_SUPPLIED = ("nodes", "source")
"""Arguments that come from the run: how many clients its data have, coins that nobody sees."""


def ways() -> Rows:
    """What there is beside `privfl run`."""
    return WAYS


def named_in(room: str) -> Rows:
    """One row for each name that a room's config takes, by the key that takes it.

    >>> [row["name"] for row in named_in("gossip") if row["key"] == "rule"]
    ['bridge', 'clipped', 'mean', 'ubar']
    """
    return [
        {
            "key": key,
            "name": name,
            "options": ", ".join(key for key in fields_of(maker, ())[0] if key not in _SUPPLIED),
            "is": (inspect.getdoc(maker) or "").split("\n\n")[0].replace("\n", " "),
        }
        for key, table in _KEYS[room].items()
        for name, maker in sorted(table.items())
    ]


def gossip() -> Rows:
    """What `graph` and `rule` take."""
    return named_in("gossip")


def vertical() -> Rows:
    """What `model` and `defence` take."""
    return named_in("vertical")


def page() -> str:
    """All of it as tables of Markdown, to stand below the catalogue's.

    >>> "| privfl gossip examples/gossip.yaml |" in page()
    True
    """
    tables = {"Beside privfl run": ways(), "Gossip": gossip(), "Vertical": vertical()}
    lines = []
    for title, rows in tables.items():
        names = list(rows[0])
        lines += ["", f"## {title}", "", f"| {' | '.join(names)} |", "| --- " * len(names) + "|"]
        for row in rows:
            lines.append("| " + " | ".join(str(row[n]).replace("|", "\\|") for n in names) + " |")
    return "\n".join(lines) + "\n"
