"""The command is there at once, and knows what people ask it by other words."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from privfl import __version__, catalog
from privfl.cli import (
    app,
    auditing,
    comparing,
    dealing,
    demo,
    gossiping,
    inferring,
    inspecting,
    listing,
    native,
    running,
    screen,
    sweeping,
    verifying,
    vertical,
)
from privfl.gossip import config as gossip_config
from privfl.vertical import config as vertical_config

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numpy", "scipy", "matplotlib", "pandas", "opacus")


@pytest.mark.parametrize("words", ["['--help']", "['--version']", "[]"])
def test_the_help_imports_nothing_heavy(words):
    script = (
        f"import sys; sys.argv = ['privfl', *{words}]\n"
        "from privfl.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("said", ["COMP_WORDS", "_TYPER_COMPLETE_ARGS"])
def test_bash_and_the_other_shells_complete_the_options_of_a_command(monkeypatch, said):
    """Each says in a variable of its own what it wants completed."""
    monkeypatch.delenv("COMP_WORDS", raising=False)
    monkeypatch.setenv(said, "privfl compare --o")
    words = app.words_to_complete()
    assert words == ["compare", "--o"]
    compare = get_command(app.made(words)).commands["compare"]
    assert "--out" in [option for one in compare.params for option in one.opts]


def test_importing_the_package_imports_nothing_heavy():
    script = f"import privfl, sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_command_is_said_to_be_what_it_says_it_is():
    real = {
        "run": running.run,
        "sweep": sweeping.sweep,
        "compare": comparing.compare,
        "audit": auditing.audit,
        "deal": dealing.deal,
        "gossip": gossiping.gossip,
        "infer": inferring.infer,
        "inspect": inspecting.inspect,
        "report": running.report,
        "verify": verifying.verify_run,
        "vertical": vertical.vertical,
        "native": native.native,
        "list": listing.show,
        "demo": demo.demo,
    }
    assert real.keys() | {"data", "net"} == app.COMMANDS.keys()
    for name, function in real.items():
        first = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
        assert first.startswith(app.COMMANDS[name][1].rstrip(".")), name


def test_the_version_is_told(privfl):
    assert privfl("--version").stdout == f"privfl {__version__}\n"


def test_a_list_that_was_shown_is_shown_again_word_for_word(privfl, monkeypatch):
    first = privfl("list", "samplers").stdout
    assert "poisson" in first
    monkeypatch.setattr(listing.catalog, "describe", lambda what: [])  # it is not asked again
    assert privfl("list", "samplers").stdout == first
    monkeypatch.setattr("privfl.cli.remembered._plugged", lambda: True)
    assert "poisson" not in privfl("list", "samplers").stdout, "plug-ins may change their words"


def test_the_keys_of_one_part_are_listed_by_its_name(privfl):
    (csv,) = json.loads(privfl("list", "keys", "csv", "--json").stdout)
    assert (csv["list"], csv["name"]) == ("datasets", "csv")
    assert "client_column" in csv["keys"]
    (krum,) = json.loads(privfl("list", "aggregators", "krum", "--json").stdout)
    assert krum["paper"].startswith("Damaskinos")
    rows = json.loads(privfl("list", "keys", "clip", "--json").stdout)
    assert {row["name"] for row in rows} == {"clip"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("keys", "cvs"), "unknown part 'cvs'; did you mean 'csv'?"),
        (("samplers", "krum"), "unknown part 'krum'. Known: all, "),
        (("ways", "gossip"), "'gossip' is one word too many: a part's name goes with one of keys,"),
        (("channels", "secagg", "--compat"), "with no --compat or --page"),
    ],
)
def test_a_part_that_no_list_has_is_refused_with_what_a_list_takes(privfl, words, said):
    done = privfl("list", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_a_list_that_fails_is_not_remembered(privfl):
    for _ in range(2):
        done = privfl("list", "aggregatorz")
        assert done.returncode == 2
        assert "aggregators" in done.stderr


@pytest.mark.parametrize(
    ("what", "table"),
    [("defences", catalog.DEFENCES), ("inference", catalog.INFERENCE)],
)
def test_parts_of_a_list_have_names_of_their_own(privfl, what, table):
    names = {row["name"] for row in json.loads(privfl("list", what, "--json").stdout)}
    assert names == set(table)


@pytest.mark.parametrize(
    ("room", "tables"),
    [
        ("gossip", {"graph": gossip_config.GRAPHS, "rule": gossip_config.RULES}),
        ("vertical", {"model": vertical_config.MODELS, "defence": vertical_config.DEFENCES}),
    ],
)
def test_rooms_beside_the_catalogue_are_listed_name_by_name(privfl, room, tables):
    rows = json.loads(privfl("list", room, "--json").stdout)
    for key, table in tables.items():
        assert {row["name"] for row in rows if row["key"] == key} == set(table)
    assert all(row["is"] for row in rows), "each says what it is"
    options = {row["name"]: row["options"] for row in rows}
    taken = {"regular": "degree, seed", "clipped": "delta", "label_response": "epsilon"}
    assert all(options[name] == keys for name, keys in taken.items() if name in options)
    first = {row["what"]: row["names"] for row in json.loads(privfl("list", "--json").stdout)}
    assert set(first[room].split(", ")) == {row["name"] for row in rows}


def test_what_trains_or_answers_otherwise_is_listed_with_its_command_and_its_page(privfl):
    rows = json.loads(privfl("list", "ways", "--json").stdout)
    named = {row["command"].split()[1] for row in rows if row["command"].startswith("privfl ")}
    assert {"gossip", "vertical", "infer", "net"} <= named <= app.COMMANDS.keys()
    assert "encrypted inference" in privfl("list").stdout
    whole = privfl("list", "--page").stdout
    for row in rows:
        assert (ROOT / row["page"]).is_file()
        assert f"| {row['command']} | {row['page']} |" in whole
        files = [word for word in row["command"].split() if word.startswith("examples/")]
        assert all((ROOT / name).is_file() for name in files)


def test_compat_shows_one_rule_or_one_channel(privfl):
    rows = json.loads(privfl("list", "--compat", "krum", "--json").stdout)
    assert {row["rule"] for row in rows} == {"krum"}
    assert {row["channel"] for row in rows} == set(catalog.CHANNELS.usable())
    shown = privfl("list", "--compat", "secagg").stdout
    assert "Where secagg works" in shown
    assert all(f"│ {word} " in shown for word in ("yes", "no"))
    assert "bucketed_secagg, two_server" in privfl("list", "--compat", "krum").stdout
    assert "did you mean 'krum'" in privfl("list", "--compat", "krumm").stderr


@pytest.mark.parametrize("what", ["aggregators", "channels", "datasets"])
def test_tables_fit_a_pipe(capsys, monkeypatch, what):
    monkeypatch.delenv("COLUMNS", raising=False)
    screen.table(what, catalog.describe(what), as_json=False)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


def test_the_help_of_a_list_into_a_pipe_ends_well(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "privfl.cli", "list", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert done.returncode == 0
    assert "Show what can be named in a config" in done.stdout
    assert not done.stderr
