"""All that hangs on Flower 1.41, public and internal: its grid as a wire, a resident node that
speaks the Fleet API itself, registration of nodes, and runs.

A stock SuperNode fetches the app from the SuperLink and runs it; the node here fetches none: it
takes bytes, and gives bytes back. Flower is imported where it is used, so that this module can be
without it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from privfl.config import load
from privfl.core import ConfigError, PartyId, PrivflError
from privfl.crypto.primitives import Directory, Identity, private_file
from privfl.flower.wire import Patience

LOG = logging.getLogger("privfl.network")
POLL, IDLE, BUSY = 0.1, 0.5, 20.0
"""Seconds from one look for mail to the next, so many seconds after an envelope, and later."""
LARGE = 1 << 20
"""Bodies of so many bytes travel as an array, which Flower sends in chunks."""
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
_APP = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "privfl-net"
version = "1.0.0"
description = "A privfl run over nodes that fetch no code"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41,<1.42"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "privfl"
fab-format-version = 1
flwr-version-target = "1.41.0"

[tool.flwr.app.components]
serverapp = "privfl_net.server_app:app"
clientapp = "privfl_net.client_app:app"

[tool.flwr.app.config]
config = ""
home = ""
out = ""
resume = false
joining = 120.0
training = 600.0
mail = 60.0
""",
    "LICENSE": "Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0\n",
    "privfl_net/__init__.py": "",
    "privfl_net/server_app.py": (
        "from privfl.flower.superlink import server_app\n\napp = server_app()\n"
    ),
    "privfl_net/client_app.py": (
        "from privfl.flower.client_app import client_app\n\napp = client_app()\n"
    ),
}
"""The app that is started on the SuperLink: a line that names the installed server, and one for the
SuperNodes of Flower (`flower.client_app`). Resident nodes never fetch it.
"""


def require_flower() -> None:
    """Refuse to go on without Flower.

    Raises:
        ConfigError: it is not installed here, or another version.
    """
    try:
        import flwr
    except ImportError:
        raise ConfigError(
            "Flower is not installed here: pip install 'privfl[flower]' in an environment of its"
            " own (Flower 1.41 needs older libraries than privfl has otherwise)."
        ) from None
    if not str(flwr.__version__).startswith("1.41."):
        raise ConfigError(f"this speaks Flower 1.41, and {flwr.__version__} is installed.")


# ---- bodies


def _content(raw: bytes) -> Any:
    from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

    if len(raw) < LARGE:
        return RecordDict({"mail": ConfigRecord({"body": raw})})
    array = Array(dtype="uint8", shape=(len(raw),), stype="raw", data=raw)
    return RecordDict({"mail": ArrayRecord({"body": array})})


def _body(content: Any) -> bytes:
    """The bytes in a message; none where it holds something else."""
    from flwr.app import ArrayRecord, ConfigRecord

    record = content.get("mail") if content is not None else None
    if isinstance(record, ConfigRecord) and isinstance(record.get("body"), bytes):
        return bytes(record["body"])
    if isinstance(record, ArrayRecord) and "body" in record:
        return bytes(record["body"].data)
    return b""


# ---- the server's side


class GridWire:
    """A `carrier.Wire` over the grid of a ServerApp. Which node is whose says the key by which it
    was registered; who answers is proved by the envelope, and not by this.
    """

    def __init__(self, grid: Any, keys: Mapping[bytes, PartyId]) -> None:
        self.grid, self.keys = grid, keys
        self._nodes: dict[PartyId, int] = {}
        self._asked: dict[str, tuple[PartyId, float]] = {}

    def send(self, envelopes: Mapping[PartyId, bytes], seconds: float) -> None:
        """Push each envelope; one for a node that is not registered is lost."""
        from flwr.app import Message

        if not envelopes.keys() <= self._nodes.keys():
            found = {_der(info.public_key): int(info.node_id) for info in self.grid.get_nodes()}
            self._nodes = {who: found[key] for key, who in self.keys.items() if key in found}
        there = [who for who in envelopes if who in self._nodes]
        for who in envelopes.keys() - self._nodes.keys():
            LOG.warning("%s is not there", who)
        ttl = max(seconds, 1.0)
        messages = [
            Message(_content(envelopes[who]), self._nodes[who], "query", ttl=ttl) for who in there
        ]
        pushed = self.grid.push_messages(messages) if messages else ()
        for who, key in zip(there, pushed, strict=False):
            if key is not None:
                self._asked[key] = who, time.monotonic() + seconds + 60

    def collect(self, seconds: float) -> Sequence[tuple[PartyId, bytes]]:
        """Pull until something has come, or the time is over."""
        until = time.monotonic() + seconds
        while True:
            answers = self._pulled()
            if answers or time.monotonic() >= until:
                return answers
            time.sleep(min(POLL / 2, max(until - time.monotonic(), 0.0)))

    def _pulled(self) -> list[tuple[PartyId, bytes]]:
        now = time.monotonic()
        self._asked = {key: one for key, one in self._asked.items() if one[1] > now}
        if not self._asked:
            return []
        answers = []
        for message in _pulled_from(self.grid, list(self._asked)):
            asked = self._asked.pop(message.metadata.reply_to_message_id, None)
            if asked is not None and not message.has_error():
                answers.append((asked[0], _body(message.content)))
        return answers


def _pulled_from(grid: Any, names: list[str]) -> list[Any]:
    """The replies to messages of these names, as `HttpGrid.pull_messages` pulls them: but it waits
    a second where it sees a reply before what is in it, and this does not.
    """
    from flwr.common.serde import message_from_proto
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
    from flwr.proto.runtime_pb2 import PullAppMessagesRequest
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
    from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
    from flwr.supercore.inflatable.inflatable_utils import (
        ObjectPullError,
        inflate_object_from_contents,
        pull_objects,
    )

    client, node, run = grid._runtime_client, grid.node, grid.run.run_id
    came = client.PullMessages(PullAppMessagesRequest(message_ids=names))
    found: list[Any] = []
    for told, tree in zip(came.messages_list, came.message_object_trees, strict=True):
        if told.HasField("error"):
            found.append(message_from_proto(told))
            continue
        name = told.metadata.message_id
        pull = make_pull_object_fn_protobuf(
            pull_object_protobuf=client.PullObject, node=node, run_id=run
        )
        try:
            contents = pull_objects(
                [one.object_id for one in iterate_object_tree(tree)],
                pull_object_fn=pull,
                initial_backoff=0.05,
            )
        except ObjectPullError as lost:
            LOG.warning("a reply is lost: %s", lost)
            continue
        client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=node, run_id=run, message_object_id=name)
        )
        found.append(inflate_object_from_contents(name, contents))
    return found


def _der(pem: bytes) -> bytes:
    """A public key in one form, however it was written."""
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError:
        return pem
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def nodes_of(home: Path) -> dict[bytes, PartyId]:
    """The parties by the keys of their nodes, as `setup.set_up` noted them."""
    told = json.loads((home / "nodes.json").read_text(encoding="utf-8"))
    return {_der(str(pem).encode()): who for who, pem in told.items()}


def server_app() -> Any:
    """The ServerApp that plays a run over the grid."""
    from flwr.serverapp import ServerApp

    def main(grid: Any, context: Any) -> None:
        told = context.run_config
        play(GridWire(grid, nodes_of(Path(told["home"]))), told)

    app: Any = ServerApp()
    app.main()(main)
    return app


def play(wire: GridWire, told: Mapping[str, Any]) -> None:
    """A run as it was asked for: its config, the server's folder, and where it goes."""
    from privfl.flower.server import federation_over
    from privfl.report import config_in, write_report

    home, out, resume = Path(told["home"]), Path(told["out"]), bool(told["resume"])
    config = load(config_in(out) if resume else json.loads(str(told["config"])))
    identity = Identity.read(home / "identity")
    directory = Directory.read(home / "directory.json")
    patience = Patience(float(told["joining"]), float(told["training"]), float(told["mail"]))
    federation = federation_over(config, wire, identity, directory, patience=patience)

    def said(record: Any, rounds: int) -> None:
        LOG.info("round %d of %d: %s", record.round + 1, rounds, "; ".join(record.incidents))

    federation.run(out, resume=resume, progress=said)
    write_report(out)


# ---- a resident node


def serve(
    address: str,
    ca: Path,
    key: Path,
    answer: Callable[[bytes], bytes],
    stop: threading.Event | None = None,
) -> None:
    """Answer envelopes until told to stop; whenever the SuperLink is away, try again.

    Args:
        address: host and port of the SuperLink.
        ca: the certificate by which it is known.
        key: the private key by which it knows this node.
        answer: from envelope to envelope (`party.NodeParty.answer`).
        stop: set when it is over.
    """
    stopped = stop or threading.Event()
    while not stopped.is_set():
        try:
            _serve(address, ca, key, answer, stopped)
        except Exception as lost:
            LOG.warning("the SuperLink at %s is away: %r", address, lost)
            stopped.wait(1.0)


def _serve(
    address: str, ca: Path, key: Path, answer: Callable[[bytes], bytes], stop: threading.Event
) -> None:
    import httpx
    from cryptography.hazmat.primitives import serialization
    from flwr.supercore.retry import http_retry
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.supernode import fleet_http_connection as fleet

    # Flower ends the process where a SuperLink is away or does not know the node yet: by a thread
    # that exits, and by a signal to itself. A resident node tries again instead.
    fleet.flwr_exit = _raised
    fleet.signal = http_retry.signal = SimpleNamespace(SIGINT=0)  # signal 0 does nothing
    private: Any = serialization.load_ssh_private_key(private_file.read(key), None)
    with fleet.http_request_response(
        address,
        False,
        root_certificates=ca.read_bytes(),
        authentication_keys=(private, private.public_key()),
        max_retries=2,
    ) as (node, receive, send, _, _, pull, push, confirm):
        LOG.info("connected to %s", address)
        TaskIdentity.node_id, TaskIdentity.task_id = node, 0
        last = time.monotonic()
        while not stop.is_set():
            try:
                came = receive()
            except httpx.TransportError:  # it may be back, and still know this node
                stop.wait(IDLE)
                continue
            if came is None:
                stop.wait(POLL if time.monotonic() - last < BUSY else IDLE)
                continue
            last = time.monotonic()
            try:
                _answered(came, answer, send, pull, push, confirm)
            except Exception as lost:  # a run that ended meanwhile, say: there will be others
                LOG.warning("an envelope is lost: %s: %s", type(lost).__name__, lost)


def _raised(code: object, message: str | None = None, **_: object) -> None:
    raise ConnectionError(f"{message or code}")


def _answered(
    came: Any,
    answer: Callable[[bytes], bytes],
    send: Callable[..., Any],
    pull: Callable[[int, str], bytes],
    push: Callable[..., None],
    confirm: Callable[[int, str], None],
) -> None:
    from flwr.app import Message
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_tree,
        iterate_object_tree,
        no_object_id_recompute,
    )
    from flwr.supercore.inflatable.inflatable_utils import (
        inflate_object_from_contents,
        pull_objects,
        push_objects,
    )
    from flwr.supercore.task_identity import TaskIdentity

    message, tree = came
    run, name = message.metadata.run_id, message.metadata.message_id
    contents = pull_objects(
        [one.object_id for one in iterate_object_tree(tree)],
        pull_object_fn=lambda one: pull(run, one),
        initial_backoff=0.05,  # a message can be seen before what is in it
    )
    confirm(run, name)
    asked: Any = inflate_object_from_contents(name, contents)
    asked.metadata.__dict__["_message_id"] = name
    began = time.monotonic()
    body = answer(_body(asked.content))
    TaskIdentity.run_id = run
    reply = Message(_content(body), reply_to=asked)
    with no_object_id_recompute():
        reply.metadata.__dict__["_message_id"] = reply.object_id
        objects = get_all_nested_objects(reply)
        wanted, session = send(reply, get_object_tree(reply), time.monotonic() - began)
        push_objects(
            objects,
            push_object_fn=lambda one, content: push(run, session, one, content),
            object_ids_to_push=wanted,
        )


# ---- registration and runs


@contextmanager
def control(address: str, ca: Path) -> Iterator[Any]:
    """The SuperLink's control interface."""
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor

    client = ControlHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=ca.read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )
    try:
        yield client
    finally:
        client.close()


def register(address: str, ca: Path, keys: Sequence[bytes]) -> None:
    """Tell the SuperLink the keys [PEM] of its nodes; those that it knows stay known."""
    from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest

    with control(address, ca) as client:
        known = {_der(info.public_key) for info in client.ListNodes(ListNodesRequest()).nodes_info}
        for key in keys:
            if _der(key) not in known:
                client.RegisterNode(RegisterNodeRequest(public_key=key))


def start_run(address: str, ca: Path, told: Mapping[str, Any]) -> int:
    """Start the server's app with these settings; the run's number at the SuperLink.

    Raises:
        PrivflError: the SuperLink does not start it.
    """
    import hashlib

    from flwr.cli.build import build_fab_from_files
    from flwr.common.serde import fab_to_proto, user_config_to_proto
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.supercore.fab import Fab

    content, _ = build_fab_from_files({name: text.encode() for name, text in _APP.items()})
    fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
    request = StartRunRequest(
        fab=fab_to_proto(fab), override_config=user_config_to_proto(dict(told)), federation=""
    )
    with control(address, ca) as client:
        started = client.StartRun(request)
    if not started.HasField("run_id"):
        raise PrivflError("the SuperLink did not start the run; its log says why.")
    return int(started.run_id)


def ended(address: str, ca: Path, run: int) -> str | None:
    """How a run ended: "" well, else why not; None while it goes on."""
    from flwr.proto.control_pb2 import ListRunsRequest

    with control(address, ca) as client:
        found = client.ListRuns(ListRunsRequest(run_id=run)).run_dict
    status = found[run].status
    if status.status != "finished":
        return None
    if status.sub_status == "completed":
        return ""
    return str(status.details or status.sub_status)


def superlink_command(home: Path, host: str, port: int) -> list[str]:
    """The command that runs a SuperLink in the server's folder, with TLS and node authentication;
    it listens on this machine alone where nodes reach it by 127.0.0.1. It has no database: what
    travels would stay in it, and a run goes on without. From other machines it answers nodes alone
    (`flower.gate`).
    """
    local = host in ("127.0.0.1", "localhost")
    return [
        *(sys.executable, "-m", "privfl.flower.gate"),
        *("--host", "127.0.0.1" if local else "0.0.0.0"),  # noqa: S104
        *("--port", str(port)),
        *("--ssl-ca-certfile", str(home / "ca.crt")),
        *("--ssl-certfile", str(home / "server.crt")),
        *("--ssl-keyfile", str(home / "server.key")),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]


def environment(home: Path) -> dict[str, str]:
    """The variables that Flower's processes run with: what it keeps is kept in ``home``."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return {**os.environ, **QUIET, "FLWR_HOME": str(home / "flwr"), "PATH": path}
