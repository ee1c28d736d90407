"""Docstrings as mkdocstrings is to read them: doctests are blocks of code."""

from __future__ import annotations

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^( *)>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)
"""A doctest: from its first prompt to the next empty line."""


def fenced(text: str) -> str:
    """The same text with a fence around each doctest."""
    return DOCTEST.sub(lambda block: f"{block[1]}```pycon\n{block[0]}\n{block[1]}```", text)


class FencedDoctests(griffe.Extension):
    """Fences the doctests of every object that is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Once its members are known."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
