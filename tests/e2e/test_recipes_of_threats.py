"""Every recipe runs as it stands, and its page's card says what the docs say of it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "examples" / "recipes").glob("*.yaml"))
SAID = {
    "honest_server": ("every update", "epsilon 8"),
    "curious_server": ("only the sum", "can read a single update (server)", "epsilon 16"),
    "lying_clients": ("every update", "none: nothing bounds"),
    "lying_server": ("only the sum", "can shift the result (server)"),
    "all_of_it": ("server with server/1", "nothing beyond its own bounded contribution"),
}


def test_every_recipe_is_in_the_docs_and_all_that_are_said_are_there():
    told = re.findall(r"`(\w+)\.yaml`", (ROOT / "docs" / "recipes.md").read_text())
    assert sorted(set(told)) == RECIPES == sorted(SAID)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_and_its_card_says_what_the_docs_say(name, privfl, tmp_path):
    config = ROOT / "examples" / "recipes" / f"{name}.yaml"
    out = tmp_path / "run"
    done = privfl("run", config, "--set", "rounds=1", "--out", out)
    assert done.returncode == 0, done.stderr
    page = (out / "report.html").read_text()
    card = page[page.index('<div class="card">') : page.index("</dl>")]
    for words in SAID[name]:
        asked = re.fullmatch(r"epsilon (\d+)", words)
        if asked is None:
            assert words in card
        else:
            spent = re.search(r"epsilon ([\d.]+) at delta", card)
            assert float(spent[1]) <= float(asked[1]) + 0.01
