"""``privfl net``: the same runs over a network."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from privfl.cli.rows import result_row
from privfl.cli.running import Json, Settings, end_diverged, fresh
from privfl.cli.screen import say, table
from privfl.config import load
from privfl.core import ConfigError
from privfl.flower import local, setup, superlink
from privfl.flower.internals import require_flower
from privfl.flower.node import run_node
from privfl.flower.wire import Patience

app = typer.Typer(no_args_is_help=True, help="The same runs over a network, over Flower with TLS.")
Joining = Annotated[float, typer.Option(help="Seconds for nodes to start in.")]
Training = Annotated[float, typer.Option(help="Seconds for nodes to train in.")]
Mail = Annotated[float, typer.Option(help="Seconds for nodes to answer in.")]
Home = Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of the server.")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    clients: Annotated[int, typer.Option(help="How many clients.")] = 3,
    helpers: Annotated[str, typer.Option(help="Helpers, as in server/1,dealer.")] = "",
    host: Annotated[str, typer.Option(help="Where nodes reach the SuperLink.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Its port.")] = 9092,
) -> None:
    """Make keys, certificates, the directory and a policy for each party of a federation."""
    named = [name.strip() for name in helpers.split(",") if name.strip()]
    for path in setup.set_up(folder, clients, named, host, port):
        say(f"privfl: {path} goes to the machine of {path.name}")
    say("privfl: read each node.yaml: its data, and its policy")


@app.command()
def server(folder: Home) -> None:
    """Run the SuperLink of a federation, and tell it the keys of its nodes."""
    require_flower()
    home = _home(folder)
    command = superlink.superlink_command(home, *local.address_of(home))
    process = subprocess.Popen(command, env=superlink.environment(home))
    signal.signal(signal.SIGTERM, _told_to_end)
    try:
        local.wait_for(home)
        say(f"privfl: the SuperLink listens on port {local.address_of(home)[1]}")
        process.wait()
    except _ToldToEnd:
        pass
    finally:
        process.terminate()
        process.wait()


@app.command()
def node(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of one node.")],
) -> None:
    """Run one node: it takes part in what its policy allows, and runs no code of the SuperLink."""
    require_flower()
    run_node(folder)


@app.command()
def run(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG.yaml", help="As privfl run has it.")
    ] = None,
    at: Annotated[Path, typer.Option(help="The folder of the server.")] = Path("fed"),
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", help="A new folder for the run.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    joining: Joining = 120.0,
    training: Training = 600.0,
    mail: Mail = 60.0,
    as_json: Json = False,
) -> None:
    """Play a config over a federation whose SuperLink and nodes are running."""
    require_flower()
    patience = Patience(joining, training, mail)
    if resume is not None:
        if config is not None or out is not None or settings:
            raise ConfigError("--resume takes everything from the run folder: leave the rest out.")
        local.play(_home(at), None, resume, resume=True, patience=patience)
        folder = resume
    elif config is None:
        raise ConfigError("give a CONFIG.yaml, or --resume with a run folder.")
    else:
        folder = out or fresh(config.stem)
        local.play(_home(at), load(config, settings or ()), folder, patience=patience)
    _shown(folder, as_json)


@app.command("local")
def on_this_machine(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="As privfl run has it.")],
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option("--out", help="A new folder for the run.")] = None,
    at: Annotated[
        Path | None,
        typer.Option(help="A new folder for the federation; it is forgotten unless said."),
    ] = None,
    joining: Joining = 120.0,
    training: Training = 600.0,
    mail: Mail = 60.0,
    as_json: Json = False,
) -> None:
    """Play a config over a whole federation on this machine: a SuperLink with TLS and node
    authentication, and a process for each client and helper.
    """
    require_flower()
    settled, folder = load(config, settings or ()), out or fresh(config.stem)
    with tempfile.TemporaryDirectory(prefix="privfl-net-") as name:
        home = at or Path(name) / "fed"
        nodes = local.made(settled, home)
        with _running(home, nodes):
            local.wait_for(home / "server")
            say(f"privfl: {len(nodes)} nodes on this machine, each a process of its own")
            patience = Patience(joining, training, mail)
            local.play(home / "server", settled, folder, patience=patience)
    _shown(folder, as_json)


class _ToldToEnd(BaseException):
    """A signal asks for the end. No error and no exit: what waits for a SuperLink catches these and
    tries again.
    """


def _told_to_end(number: int, frame: object) -> None:
    raise _ToldToEnd


@contextmanager
def _running(home: Path, nodes: Sequence[str]) -> Iterator[None]:
    """All processes of a federation, until what is in it ends or a signal asks for that: nobody
    stays behind.

    Raises:
        typer.Exit: a signal asked for it.
    """
    processes, asked = local.LocalProcesses(home), list[int]()
    kinds = (signal.SIGTERM, signal.SIGHUP)
    before = {one: signal.getsignal(one) for one in kinds}
    heard = [one for one in kinds if before[one] is not signal.SIG_IGN]  # as nohup has it

    def note(number: int, frame: object) -> None:
        asked.append(number)

    def end(number: int, frame: object) -> None:
        asked.append(number)
        raise _ToldToEnd

    try:
        try:
            _handle(heard, note)  # whoever is being started is known before all are ended
            processes.start("server", "server")
            for one in nodes:
                processes.start(one, "node")
            _handle(heard, end)
            if not asked:
                yield
        finally:
            _handle(heard, signal.SIG_IGN)
    except _ToldToEnd:
        pass
    finally:
        processes.end()
        for kind in heard:
            signal.signal(kind, before[kind])
    if asked:
        raise typer.Exit(128 + asked[0])


def _handle(kinds: Sequence[signal.Signals], how: Callable[..., None] | signal.Handlers) -> None:
    for one in kinds:
        signal.signal(one, how)


def _home(folder: Path) -> Path:
    """The server's own folder, of this or of the federation's."""
    for path in (folder, folder / "server"):
        if (path / "server.yaml").exists():
            return path
    raise ConfigError(f"'{folder}' is no server's folder: make a federation by 'privfl net init'.")


def _shown(folder: Path, as_json: bool) -> None:
    table("Result", [result_row(folder, as_json)], as_json)
    say(f"privfl: the run is in {folder}, its report in {folder / 'report.html'}")
    end_diverged(folder)
