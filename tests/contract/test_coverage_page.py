"""Whatever the page of coverage says is here, is."""

import importlib
import re
from pathlib import Path

import pytest

from privfl import catalog

PAGE = (Path(__file__).parents[2] / "docs" / "coverage.md").read_text()
NAMED = sorted(set(re.findall(r"`(\w+)/(\w+)`", PAGE)))


@pytest.mark.parametrize(("seam", "name"), NAMED)
def test_what_is_said_to_be_here_can_be_named_in_a_config(seam, name):
    tables = [catalog.SEAMS[seam]]
    if seam == "attacks":
        tables.append(catalog.INFERENCE)
    if seam == "aggregators":
        tables.append(catalog.DEFENCES)
    assert any(name in table for table in tables)


def test_modules_that_it_names_are_there():
    for module in set(re.findall(r"`(privfl(?:\.\w+)+)`", PAGE)):
        importlib.import_module(module)


def test_the_page_names_most_of_what_there_is():
    assert len(NAMED) > 100
