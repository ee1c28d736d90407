"""What packages add by entry points, and any class by ``module:Class``: built, listed and refused
as what privfl brings. Each test is one process of its own, with packages in a folder on its path:
a fork of one that has loaded privfl and has looked for no packages yet.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULES = '''
from dataclasses import dataclass
from privfl.aggregators import RowRule, Verdict

@dataclass(frozen=True, slots=True)
class Midrange(RowRule):
    """The middle between the least and the greatest value (no paper)."""

    scale: float = 1.0

    def max_byzantine(self, n):
        return 0

    def _decide(self, rows, lost):
        low, high = rows.values.amin(dim=0), rows.values.amax(dim=0)
        return Verdict((low + high) / 2 * self.scale)

class Nothing:
    """No rule."""

NUMBER = 3
'''
CONFIG = """{
    "data": {"name": "digits", "clients": 4},
    "training": {"name": "sgd", "steps": 1},
    "rounds": 1, "executor": "sequential", "audit": {"keep": "none"}, "aggregator": AGGREGATOR
}"""


@pytest.fixture
def package(tmp_path):
    """A folder like one that pip installs into, with a package of some entry points."""

    def made(name="stranger", **groups):
        (tmp_path / f"{name}.py").write_text(RULES)
        info = tmp_path / f"{name}-0.3.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.3\n")
        lines = []
        for group, entries in groups.items():
            lines += [f"[privfl.{group}]", *(f"{key} = {value}" for key, value in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines))
        return tmp_path

    return made


FORKS = """
import json, os, sys
from privfl import Federation, catalog
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, file in ((1, asked["out"]), (2, asked["err"])):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.path.insert(1, asked["path"])
        exec(asked["code"], {"__name__": "__main__"})
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def python():
    """Plays code in a process that finds a folder's packages: its exit code, and what it said."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", FORKS], env=env, **pipes) as forks:

        def played(path, code):
            out, err = path / "out.txt", path / "err.txt"
            asked = {"path": str(path), "code": code, "out": str(out), "err": str(err)}
            print(json.dumps(asked), file=forks.stdin, flush=True)
            code = int(forks.stdout.readline())
            return code, out.read_text().strip(), err.read_text().strip()

        yield played
        forks.stdin.close()


@pytest.fixture
def trained(python):
    return lambda path, *aggregators, asks="None": runs(python, path, *aggregators, asks=asks)


def runs(python, path, *aggregators, asks="None"):
    """What became of a run with each of them, and the value of an expression after that."""
    configs = ",".join(CONFIG.replace("AGGREGATOR", json.dumps(one)) for one in aggregators)
    code = f"""
import json
from privfl import Federation, catalog
from privfl.core import ConfigError
said = []
for config in [{configs}]:
    try:
        built = Federation.from_config(config)
        built.run()
        said.append(str(built.scenario.aggregator))
    except ConfigError as error:
        said.append("refused: " + str(error))
print(json.dumps([*said, {asks}]))
"""
    rc, out, err = python(path, code)
    assert rc == 0, err
    return json.loads(out)


def test_an_entry_point_is_a_name_like_any_other(package, trained):
    path = package(rules={"midrange": "stranger:Midrange"})
    built, misspelt, ((row,), compat) = trained(
        path,
        {"name": "midrange", "scale": 0.5},
        {"name": "midrange", "skale": 0.5},
        asks="[[r for r in catalog.describe('aggregators') if r['name'] == 'midrange'],"
        " [r for r in catalog.compatibility() if r['rule'] == 'midrange']]",
    )
    assert built == "Midrange(scale=0.5)"
    assert "did you mean 'scale'" in misspelt
    assert row["from"] == "stranger 0.3"
    assert row["keys"] == "scale"
    assert row["is"].startswith("The middle between")
    assert {r["channel"]: r["verdict"] for r in compat}["plain"] == "works"
    assert {r["channel"]: r["verdict"] for r in compat}["secagg"] == "through"
    assert all("midrange from stranger 0.3" in r["from"] for r in compat)


BROKEN = {
    "absent": ("stranger:Absent", "cannot be loaded: AttributeError"),
    "nowhere": ("nowhere:Rule", "cannot be loaded: ModuleNotFoundError"),
    "nothing": ("stranger:Nothing", "declares no seats, reads"),
    "number": ("stranger:NUMBER", "is no class or function: it is of type int"),
}


def test_entry_points_that_are_no_rules_are_refused_by_name_and_leave_the_others(package, trained):
    entries = {name: entry for name, (entry, _) in BROKEN.items()}
    path = package(rules={**entries, "midrange": "stranger:Midrange"})
    *refused, works, misspelt, listed = trained(
        path,
        *BROKEN,
        "midrange",
        "krumm",
        asks="{r['name']: r['is'] for r in catalog.describe('aggregators')}",
    )
    for (name, (_, says)), words in zip(BROKEN.items(), refused, strict=True):
        assert words.startswith(f"refused: plug-in '{name}' (privfl.rules: ")
        assert "of package stranger 0.3" in words
        assert says in words
        assert f"plug-in '{name}'" in listed[name]
    assert works == "Midrange(scale=1.0)"
    assert "did you mean 'krum'" in misspelt


def test_a_class_is_named_by_its_module_and_what_is_not_there_or_no_rule_is_refused_in_words(
    package, trained
):
    wrong = {
        "nowhere:Rule": "the module 'nowhere' cannot be imported: ModuleNotFoundError",
        "stranger:Absent": "the module 'stranger' has no 'Absent'.",
        "stranger:Midrang": "the module 'stranger' has no 'Midrang'; did you mean 'Midrange'?",
        "stranger:Midrange.Inner": "'Midrange' has no 'Inner'.",
        "stranger:Nothing": "declares no seats, reads",
    }
    path = package()
    built, *refused, _ = trained(path, {"name": "stranger:Midrange", "scale": 2.0}, *wrong)
    assert built == "Midrange(scale=2.0)"
    for says, said in zip(wrong.values(), refused, strict=True):
        assert says in said
        assert str(path) not in said, "where this machine keeps the module is nobody's business"


def test_a_plug_in_cannot_take_a_name_that_is_taken(package, trained):
    package(rules={"krum": "stranger:Midrange"})
    package("other", rules={"krum": "other:Midrange"})
    package("third", rules={"mine": "third:Midrange"})
    path = package("fourth", rules={"mine": "fourth:Midrange"})
    ours, twice, works, _ = trained(path, "krum", "mine", "median")
    assert "has the name of a part of privfl" in ours
    assert "two plug-ins are called 'mine'" in twice
    assert works == "Median()"


def test_an_attack_on_views_is_plugged_in_by_a_group_of_its_own(package, python):
    path = package(inference_attacks={"mine": "privfl.attacks:LossThreshold"})
    package("broken", inference_attacks={"no_attack": "broken:Midrange"})
    rc, out, err = python(
        path,
        "import json; from privfl import catalog;"
        "print(json.dumps([r for r in catalog.describe('attacks')"
        " if r['name'] in ('mine', 'no_attack')]))",
    )
    assert rc == 0, err
    mine, refused = json.loads(out)
    assert (mine["from"], mine["family"], mine["seat"]) == ("stranger 0.3", "membership", "view")
    assert "declares no family, infer" in refused["is"]


def test_a_mechanism_of_a_module_is_told_from_noise_on_integers(package, python):
    path = package()
    rc, out, err = python(
        path,
        "from privfl import catalog;"
        "print(catalog.RING_NOISE.holds('privfl.dp:Gaussian'),"
        " catalog.RING_NOISE.holds('privfl.dp:DistributedSkellam'))",
    )
    assert (rc, out) == (0, "False True"), err
