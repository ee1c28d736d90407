"""Whatever the page of coverage says is here, is."""

import importlib
import re
from pathlib import Path

import pytest

from privfl import catalog

PAGE = (Path(__file__).parents[2] / "docs" / "coverage.md").read_text()
MODULES = sorted(set(re.findall(r"`(privfl(?:\.\w+)+)`", PAGE)))
NAMED = sorted(set(re.findall(r"`(\w+)/(\w+)`", PAGE)))


@pytest.mark.parametrize(("seam", "name"), NAMED)
def test_what_is_said_to_be_here_can_be_named_in_a_config(seam, name):
    tables = [catalog.SEAMS[seam]]
    if seam == "attacks":
        tables.append(catalog.INFERENCE)
    if seam == "aggregators":
        tables.append(catalog.DEFENCES)
    assert any(name in table for table in tables)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_it_names_is_there_and_says_what_it_is(name):
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert (module.__doc__ or "").strip()


def test_the_page_names_modules():
    assert len(MODULES) > 1


def test_the_page_names_most_of_what_there_is():
    assert len(NAMED) > 100
