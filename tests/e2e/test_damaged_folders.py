"""A run folder that somebody damaged is told of in one sentence, by every command that reads it."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from privfl.cli.rows import result_row
from privfl.config import load
from privfl.core import ConfigError
from privfl.federation import Federation
from privfl.report import read_records, read_run, write_report


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    config = {"rounds": 2, "data": {"name": "digits", "clients": 3}}
    Federation.from_config(config).run(folder)
    return folder


@pytest.fixture
def run(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.mark.parametrize("name", ["summary.json", "rounds.jsonl", "config.yaml"])
@pytest.mark.parametrize(
    "content",
    [b"garbage\0\xff\n{}", b"[]\n[]", b"{}\n{}", b"null\nnull", b"{" * 100_000 + b"\n{}"],
    ids=["bytes", "lists", "empty", "null", "deep"],
)
def test_a_file_of_other_content_is_named(run, name, content):
    (run / name).write_bytes(content)
    with pytest.raises(ConfigError, match=name):
        read_run(run)


def test_a_last_line_that_a_kill_cut_is_left_out_and_any_other_is_named(run):
    log = run / "rounds.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + lines[1][:40])
    assert len(read_records(run)[0]) == 1
    log.write_bytes(lines[0][:40] + b"\n" + lines[1])
    with pytest.raises(ConfigError, match="line 1 is no round"):
        read_records(run)


def _places(held, path=()):
    inside = held.items() if isinstance(held, dict) else enumerate(held[:1])
    for key, value in inside:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from _places(value, (*path, key))


def _without(held, path):
    changed = json.loads(json.dumps(held))
    at = changed
    for key in path[:-1]:
        at = at[key]
    del at[path[-1]]
    return changed


def test_whatever_is_missing_from_a_summary_is_told_or_not_needed(run):
    summary = json.loads((run / "summary.json").read_text())
    told = []
    for path in _places(summary):
        (run / "summary.json").write_text(json.dumps(_without(summary, path)))
        try:
            result_row(run, as_json=False)
        except ConfigError as error:
            told.append(str(error))
    assert len(told) >= 8  # what a row shows
    assert all("is damaged" in one for one in told)


@pytest.mark.parametrize("path", [("facts",), ("guarantees", "channel", "leaks")])
def test_a_page_of_a_damaged_summary_is_not_written(run, path):
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(_without(summary, path)))
    with pytest.raises(ConfigError, match="is damaged"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_a_page_of_a_damaged_config_is_not_written(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "attacks": "x"}))
    with pytest.raises(ConfigError, match="is damaged"):
        write_report(run)


def test_a_config_that_is_no_text_is_told_with_the_place(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"rounds: 2 # caf\xe9\n")
    with pytest.raises(ConfigError, match=r"byte 15 is no text in UTF-8"):
        load(tmp_path / "c.yaml")
