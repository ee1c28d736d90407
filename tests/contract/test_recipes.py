"""CONTRIBUTING's recipes, carried out from its own code blocks on a copy of the repository: what
they add is found by the checks, the listing, the table of rules and channels, a config and the
pages, without a test that was touched.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("privfl", "benchmarks", "docs", "tests", "pyproject.toml")
LOOKED_AT = ("test_catalogue_conforms", "test_catalogue", "test_faces", "test_guarantees")
MOST = 40
"""Lines that a part may take, as people count them: those with something in them."""


@dataclass(frozen=True)
class Block:
    recipe: str
    language: str
    text: str

    @property
    def place(self):
        """The file, the line that it goes by (None: it is the file), and whether that line goes."""
        found = re.match(r"# ([\w/.]+)(?:, (after|in place of): (.+))?\n", self.text)
        return found and (found[1], found[3], found[2] == "in place of")

    @property
    def body(self):
        return self.text.split("\n", 1)[1]


def blocks():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    page = page[page.index("## Recipes") :]
    for section in page.split("\n### ")[1:]:
        recipe = section.split("\n", 1)[0]
        for language, text in re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL):
            yield Block(recipe, language, text)


def carry_out(block, root):
    if block.language == "sh":
        command = block.text.replace("python ", f"{sys.executable} ")
        subprocess.run(  # noqa: S602
            command, shell=True, check=True, cwd=root, env=environment(root)
        )
        return None
    name, anchor, instead = block.place
    path = root / name
    if anchor is None:
        assert not path.exists(), name
        path.write_text(block.body)
        return path
    lines = path.read_text().split("\n")
    (at,) = (i for i, line in enumerate(lines) if line.strip().startswith(anchor.strip()))
    lines[at + (not instead) : at + 1] = block.body.rstrip("\n").split("\n")
    path.write_text("\n".join(lines))
    return path


def environment(root):
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def run(root, *command):
    return subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env=environment(root),
        capture_output=True,
        text=True,
        check=False,
    )


COMMANDS = """
import contextlib, io, json, runpy, sys
from privfl.cli import main
told = []
for program, *words in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), 0
    sys.argv = [program, *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if program == "privfl":
                main()
            else:
                runpy.run_module(program, run_name="__main__")
        except SystemExit as done:
            code = done.code or 0
    told.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(told))
"""
ASKED = (
    "privfl list --page",
    "privfl list --compat --json",
    "privfl describe aggregators midmean",
    "privfl describe aggregators midmeen",
    "privfl run config.yaml --out ran",
    "privfl report ran",
    "benchmarks.medians --quick --json",
)
CONFIG = """
data: {name: rings, clients: 8, spread: 0.2}
model: {name: two_layers, width: 8}
training: {name: sgd, lr: 0.3, steps: 2}
channel: nameless
aggregator: midmean
bound: {name: clip, l2: 1.0}
mechanism: none
attacks: [{name: delayed, clients: 1}]
rounds: 2
executor: sequential
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The repository with every recipe carried out, and the files that this changed."""
    root = tmp_path_factory.mktemp("clone")
    for name in COPIED:
        there = ROOT / name
        if there.is_dir():
            # what is compiled goes along, and is taken where its source is still that old
            ignored = shutil.ignore_patterns("figures")
            shutil.copytree(there, root / name, ignore=ignored)
        else:
            shutil.copy(there, root / name)
    changed = {carry_out(block, root) for block in blocks() if block.language != "sh"}
    # a page that several recipes have made holds what all of them add
    for block in {block.text: block for block in blocks() if block.language == "sh"}.values():
        carry_out(block, root)
    return root, sorted(changed)


@pytest.fixture(scope="module")
def answers(copy):
    """What each command of the copy answers: its exit code, and what it printed. One process plays
    them, for most of its time is the start.
    """
    root, _ = copy
    (root / "config.yaml").write_text(CONFIG)
    done = run(root, "-c", COMMANDS, json.dumps([command.split() for command in ASKED]))
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(ASKED, json.loads(done.stdout), strict=True))


def test_there_is_a_recipe_for_everything_that_people_add():
    said = {block.recipe for block in blocks()}
    assert said == {
        "A rule",
        "A channel",
        "An attack",
        "A data set",
        "A model",
        "A mechanism",
        "A benchmark",
        "A verb of the command line",
        "A section of the report",
    }


@pytest.mark.parametrize("recipe", sorted({block.recipe for block in blocks()}))
def test_a_part_takes_few_lines_and_no_test(recipe):
    mine = [b for b in blocks() if b.recipe == recipe and b.language == "python"]
    written = [line for b in mine for line in b.body.split("\n") if line.strip()]
    imports = re.findall(r"^from [^\n]*import \([^)]*\)", "\n".join(written), re.MULTILINE)
    assert len(written) - sum(text.count("\n") for text in imports) < MOST
    assert not [b.place for b in mine if b.place[0].startswith("tests/")]


def test_what_was_added_conforms_and_fits_where_everything_else_does(copy):
    root, _ = copy
    added = ("Midmean", "Nameless", "Delayed", "Rings", "two_layers", "TwoDraws")
    names = ("midmean", "nameless", "delayed", "rings", "two_draws", "faces")
    done = run(
        root,
        *("-m", "pytest", "-rp", "-k", " or ".join((*added, *names))),
        *(f"tests/contract/{name}.py" for name in LOOKED_AT),
    )
    assert done.returncode == 0, done.stdout[-3000:]
    passed = [line for line in done.stdout.split("\n") if line.startswith("PASSED ")]
    for name in added:
        assert len([line for line in passed if f"conforms[{name}: " in line]) >= 3, name


def test_what_was_added_is_listed_and_in_the_table_and_on_the_pages(copy, answers):
    root, _ = copy
    (_, page, _), (_, compat, _), (_, shown, _), (code, _, refused) = (
        answers[command] for command in ASKED[:4]
    )
    for name in ("midmean", "nameless", "delayed", "rings", "two_layers", "two_draws"):
        assert f"| {name} | " in page, name
    assert '"rule": "midmean"' in compat
    assert '"channel": "nameless"' in compat
    promised = (root / "docs" / "guarantees.md").read_text()
    assert "nameless" in promised
    assert "two_draws" in promised
    assert "middle half" in shown
    assert code == 2
    assert "did you mean 'midmean'" in refused


def test_what_was_added_runs_from_a_config_and_is_in_the_report(copy, answers):
    root, _ = copy
    for command in ("privfl run config.yaml --out ran", "privfl report ran"):
        code, _, wrong = answers[command]
        assert code == 0, wrong[-2000:]
    (page,) = (root / "ran").rglob("*.html")
    assert "Fewest updates counted in round" in page.read_text()


def test_a_benchmark_is_found_and_prints_its_rows(answers):
    code, rows, wrong = answers["benchmarks.medians --quick --json"]
    assert code == 0, wrong[-2000:]
    assert '"peer": "torch"' in rows


def test_recipes_are_written_as_the_house_writes(copy):
    root, changed = copy
    ruff = shutil.which(
        "ruff", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    for arguments in (("check",), ("format", "--check")):
        done = subprocess.run(
            [ruff, *arguments, *map(str, changed)],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
