"""The glossary names what is there."""

import importlib
import re
from pathlib import Path

import pytest

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"
ROWS = [
    [cell.strip() for cell in line.strip("|\n ").split("|")]
    for line in GLOSSARY.read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and not line.startswith(("| term ", "| ---"))
]


def resolve(path):
    """The module or the thing in a module that a dotted path names."""
    parts = path.split(".")
    thing = importlib.import_module(parts[0])
    for i, name in enumerate(parts[1:], start=2):
        try:
            thing = getattr(thing, name)
        except AttributeError:
            thing = importlib.import_module(".".join(parts[:i]))
    return thing


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_term_says_what_it_means_and_names_a_place_that_exists(row):
    term, meaning, where = row
    paths = re.findall(r"`(privfl[\w.]*)`", where)
    assert term
    assert meaning
    assert paths
    assert where == ", ".join(f"`{path}`" for path in paths)
    for path in paths:
        resolve(path)


def test_a_path_that_is_not_there_is_found():
    with pytest.raises(ImportError):
        resolve("privfl.core.NoSuchThing")


def test_no_term_is_explained_twice():
    terms = [term for row in ROWS for term in row[0].split(", ")]
    assert len(ROWS) > 60
    assert len(set(terms)) == len(terms)
