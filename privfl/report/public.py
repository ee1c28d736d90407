"""The page of a run that may be published: what is claimed, public facts, the recipe."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from privfl.report.page import document
from privfl.report.privacy import follows
from privfl.report.tables import table

_COVERED = (
    "The statement below covers this page and the folder that it lies in. It shows no accuracy, no"
    " loss and no count of who took part: these are computed from data without noise, or tell"
    " cohorts. How many clients there are is in the recipe where a config says it."
)


def public_page(statement: Mapping[str, Any], recipe: str) -> str:
    """One self-contained HTML page, made of ``public/`` and of nothing else: its statement and its
    recipe.
    """
    say = html.escape
    parts = ["<h1>What may be published</h1>", f'<div class="soft">{say(_COVERED)}</div>']
    parts += [f'<div class="warn">{say(line)}</div>' for line in statement["warnings"]]
    parts.append("<h2>Privacy</h2>")
    for line in statement["privacy"]:
        parts += [f"<p>{say(line['claim'])}</p>", follows(line)]
    facts = {
        "rounds": statement["rounds"],
        "parameters": f"{statement['parameters']:,}",
        **statement["facts"],
    }
    rows = "".join(
        f"<tr><th>{say(name)}</th><td>{say(str(value))}</td></tr>" for name, value in facts.items()
    )
    parts += [f"<h2>What ran</h2>{table(rows)}", f"<h2>Recipe</h2><pre>{say(recipe)}</pre>"]
    return document("What may be published", parts)
