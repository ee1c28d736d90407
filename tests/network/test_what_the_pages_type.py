"""Every command, unit and container on the pages of the network, as an operator would copy it."""

import configparser
import importlib.metadata
import re
import shlex
from pathlib import Path, PurePosixPath

import pytest
import yaml
from typer.main import get_command

from privfl.cli import main
from privfl.cli.app import made

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("network", "deploy")}
PARTIES = {"server", "client-0", "client-1", "client-2", "server-1", "dealer"}


def blocks(page, kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGES[page], re.DOTALL)


def parsed(words):
    """The command that the words name, and its arguments, as the command line reads them."""
    name, *rest = words
    assert PurePosixPath(name).name == "privfl"
    command = get_command(made(rest))
    context = command.make_context("privfl", list(rest), resilient_parsing=True)
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, list(rest), parent=context)
    return name, context.params


def typed(page):
    """The lines of its shell blocks, and what is in its text as code, that begin with a command."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.split("#")[0].strip()
    prose = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose))


TYPED = sorted(
    {line for page in PAGES for line in typed(page) if re.match(r"privfl net \w+ \S", line)}
)


def test_the_command_is_an_entry_point_of_the_package():
    (found,) = importlib.metadata.entry_points(group="console_scripts", name="privfl")
    assert found.load() is main


@pytest.mark.parametrize("line", TYPED)
def test_a_line_of_the_pages_is_a_command(line):
    name, _ = parsed(shlex.split(line))
    assert name == line.split()[2]


@pytest.mark.parametrize("line", ["privfl net node", "privfl net node a --b", "privfl net spy a"])
def test_a_line_that_is_no_command_would_be_seen(line):
    with pytest.raises(Exception, match=r"Missing parameter|No such (option|command)"):
        parsed(shlex.split(line))


def test_the_pages_type_every_command_of_net():
    net = get_command(made(["net"])).commands["net"]
    assert set(net.commands) == {line.split()[2] for line in TYPED}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What the page's own line makes."""
    (line,) = [one for one in typed("deploy") if one.startswith("privfl net init ")]
    home = tmp_path_factory.mktemp("page")
    words = shlex.split(line)
    words[words.index("fed")] = str(home / "fed")
    get_command(made(words[1:]))(words[1:], standalone_mode=False)
    return {path.name: path for path in (home / "fed").iterdir()}


def test_the_page_names_the_folders_that_its_line_makes(folders):
    assert set(folders) == PARTIES
    for name in ("`server/`", "`client-0/`", "`server-1/`", "`dealer/`"):
        assert name in PAGES["deploy"]


def test_the_containers_start_a_node_on_its_folder_and_write_nowhere_else(folders):
    (block,) = blocks("deploy", "yaml")
    services = yaml.safe_load(block)["services"]
    assert list(services) == ["node"]
    for service in services.values():
        command, params = parsed(shlex.split(service["command"]))
        mounts = dict(one.split(":", 1) for one in service["volumes"])
        writable = {source: at for source, at in mounts.items() if not at.endswith(":ro")}
        ((source, at),) = writable.items()
        assert command == "node"
        assert str(params["folder"]) == at
        assert (folders[PurePosixPath(source).name] / "node.yaml").exists()
        environment = service["environment"]
        assert f"{environment['PRIVFL_DATA']}:ro" in mounts.values()
        assert environment["HOME"] in service["tmpfs"]
        assert service["read_only"] is True
        assert all(isinstance(value, str) for value in environment.values())


def test_the_units_start_a_node_and_a_server_on_folders_that_they_may_write(folders):
    (block,) = blocks("deploy", "ini")
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string(block)
    service = unit["Service"]
    other = re.findall(r"`(ExecStart|ReadWritePaths)=([^`]+)`", PAGES["deploy"])
    for kind, told in (("node", service), ("server", dict(other))):
        command, params = parsed(shlex.split(told["ExecStart"]))
        assert command == kind
        assert str(params["folder"]) in told["ReadWritePaths"].split()
        assert (folders[params["folder"].name] / f"{kind}.yaml").exists()
    assert set(dict(other)) == {"ExecStart", "ReadWritePaths"}
