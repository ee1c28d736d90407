"""The page of dependencies names every library that the package asks for, and no other."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def named(requirement):
    return re.split(r"[\s<>=!~\[;]", requirement)[0]


def test_the_page_names_what_the_package_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "dependencies.md").read_text()
    base, extras = page.split("| extra |")
    rows = re.findall(r"^\| ([\w.-]+) \|", base, re.MULTILINE)
    assert rows[2:] == [named(one) for one in project["dependencies"]]
    told = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", extras, re.MULTILINE))
    assert told.keys() == project["optional-dependencies"].keys()
    for extra, libraries in project["optional-dependencies"].items():
        there = {named(one) for one in libraries}
        assert there <= set(told[extra].split(", "))
