"""What is used of Flower 1.41 that its documentation does not promise, in one file (and in `gate`,
which stands in front of a SuperLink): the Fleet API of nodes, how objects travel, the control API.

Flower is imported where it is used, so that this module can be without it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from privfl.core import ConfigError
from privfl.crypto.primitives import private_file
from privfl.flower.records import NAME

LOG = logging.getLogger("privfl.network")
NODES = ("flwr.app", "flwr.supernode.fleet_http_connection")
"""What a node imports of Flower, for who starts many of them."""
_SMALL = 1 << 16
"""Bytes up to which what is asked of a node is in the message itself: who is handed a message and
loses the connection meanwhile is not handed it again.
"""
_SOON = 0.1
"""Seconds: a message can be seen before what is in it, and Flower would wait for a second."""


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


# ---- the server's side


def pushed_to(grid: Any, messages: Sequence[Any]) -> list[str | None]:
    """Push messages as `HttpGrid.push_messages` does; what is small is in the message itself as
    well, so that a resident node need not ask for it. The names of the messages, None where the
    SuperLink takes none.
    """
    from flwr.common.serde import message_to_proto
    from flwr.proto.runtime_pb2 import PushAppMessagesRequest
    from flwr.supercore.inflatable.inflatable_object import (
        get_all_nested_objects,
        get_object_tree,
        no_object_id_recompute,
    )
    from flwr.supercore.inflatable.inflatable_protobuf_utils import make_push_object_fn_protobuf
    from flwr.supercore.inflatable.inflatable_utils import push_objects

    client, told, trees, objects = grid._runtime_client, [], [], {}
    with no_object_id_recompute():
        for message in messages:
            message.metadata.__dict__["_message_id"] = message.object_id
            proto = message_to_proto(message)
            if proto.ByteSize() > _SMALL:
                proto.content.Clear()
            told.append(proto)
            trees.append(get_object_tree(message))
            objects.update(get_all_nested_objects(message))
        done = client.PushMessages(
            PushAppMessagesRequest(messages_list=told, message_object_trees=trees)
        )
        push = make_push_object_fn_protobuf(
            push_object_protobuf=client.PushObject,
            node=grid.node,
            run_id=grid.run.run_id,
            session_id=done.session_id,
        )
        push_objects(objects, push_object_fn=push, object_ids_to_push=set(done.objects_to_push))
    return [name or None for name in done.message_ids]


def pulled_from(grid: Any, names: Sequence[str]) -> list[Any]:
    """The replies to messages of these names, as `HttpGrid.pull_messages` pulls them: but it waits
    a second where it sees a reply before what is in it, and this does not.
    """
    from flwr.common.serde import message_from_proto
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
    from flwr.proto.runtime_pb2 import PullAppMessagesRequest
    from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
    from flwr.supercore.inflatable.inflatable_utils import ObjectPullError

    client, node, run = grid._runtime_client, grid.node, grid.run.run_id
    came = client.PullMessages(PullAppMessagesRequest(message_ids=list(names)))
    found: list[Any] = []
    for told, tree in zip(came.messages_list, came.message_object_trees, strict=True):
        asked = told.metadata.reply_to_message_id  # a resident node leaves it to us to confirm it
        client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=node, run_id=run, message_object_id=asked)
        )
        if told.HasField("error"):
            found.append(message_from_proto(told))
            continue
        name = told.metadata.message_id
        pull = make_pull_object_fn_protobuf(
            pull_object_protobuf=client.PullObject, node=node, run_id=run
        )
        try:
            inflated = None if told.content.items else _inflating(name, tree, pull)
        except ObjectPullError as lost:
            LOG.warning("a reply is lost: %s", lost)
            continue
        client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=node, run_id=run, message_object_id=name)
        )
        try:
            found.append(
                message_from_proto(told) if inflated is None else _with_content(told, inflated())
            )
        except Exception as error:  # what a node made of its bytes ends no run of the others
            LOG.warning("a reply cannot be read: %s: %s", type(error).__name__, error)
    return found


def _with_content(told: Any, inflated: Any) -> Any:
    """A reply: what was pulled is a message, or the one record of a message that was told of."""
    from flwr.app import Message, RecordDict
    from flwr.common.serde import message_from_proto

    if isinstance(inflated, Message):
        return inflated
    reply = message_from_proto(told)
    reply.content = RecordDict({NAME: inflated})
    return reply


def went_away(message: Any) -> bool:
    """Whether a reply is the SuperLink's word that the node was away when it was asked for one,
    which does not tell whether the message had reached it.
    """
    from flwr.common.constant import ErrorCode

    return bool(message.has_error() and message.error.code == ErrorCode.NODE_UNAVAILABLE)


def _inflating(name: str, tree: Any, pull: Callable[[str], bytes]) -> Callable[[], Any]:
    """Pull all that a message holds; what makes the message of it."""
    from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
    from flwr.supercore.inflatable.inflatable_utils import (
        inflate_object_from_contents,
        pull_objects,
    )

    contents = pull_objects(
        [one.object_id for one in iterate_object_tree(tree)],
        pull_object_fn=pull,
        initial_backoff=_SOON,
    )
    return lambda: inflate_object_from_contents(name, contents)


# ---- a node


@dataclass(frozen=True)
class Fleet:
    """A node's connection to its SuperLink."""

    receive: Callable[[], tuple[Any, Any] | None]
    send: Callable[..., Any]
    pull: Callable[[int, str], bytes]
    push: Callable[..., None]

    def answer(self, came: tuple[Any, Any], content: Callable[[Any], Any]) -> None:
        """Take a message, and send the reply whose content is made of its own.

        Every object is a request in each direction, of a kilobyte beside its bytes, so a reply that
        Flower would not cut into pieces is in the message itself. Otherwise only the record in a
        message is asked for, and pushed. That the message came is confirmed by who takes the reply.
        """
        from flwr.app import ConfigRecord, Message, RecordDict
        from flwr.supercore.inflatable.inflatable_object import (
            get_all_nested_objects,
            get_object_tree,
            no_object_id_recompute,
        )
        from flwr.supercore.inflatable.inflatable_utils import push_objects
        from flwr.supercore.task_identity import TaskIdentity

        message, tree = came
        run, name = message.metadata.run_id, message.metadata.message_id
        asked = message.content if message.has_content() else RecordDict()
        held = [record for part in tree.children for record in part.children]
        if len(asked or held) != 1:
            raise ValueError(f"a message holds {len(asked or held)} records, and one can be read.")
        if not asked:
            inflated = _inflating(held[0].object_id, held[0], lambda one: self.pull(run, one))
            asked = RecordDict({NAME: inflated()})
        began = time.monotonic()
        said = content(asked)
        record = said[NAME]
        whole = isinstance(record, ConfigRecord)
        if whole:
            record["to"] = name[:16]  # Flower names what travels by its bytes: no two are the same
        TaskIdentity.run_id = run
        reply: Any = Message(said, reply_to=message)
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = record.object_id
            objects = get_all_nested_objects(record)
            tree = get_object_tree(record)
            if not whole:
                reply.content = RecordDict()
            wanted, session = self.send(reply, tree, time.monotonic() - began)
            push_objects(
                objects,
                push_object_fn=lambda one, raw: self.push(run, session, one, raw),
                object_ids_to_push=set() if whole else wanted,
            )


def away(error: BaseException) -> bool:
    """Whether a SuperLink is away and may be back; otherwise it does not know this node."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return bool(error.response.status_code >= 500)
    return isinstance(error, httpx.TransportError)


@contextmanager
def fleet(address: str, ca: Path, key: Path) -> Iterator[Fleet]:
    """A node's connection, until what is in it ends. The number under which the SuperLink knows
    the node is noted beside its key: it takes no node for started that it still takes for running,
    for a minute after that one was killed, unless it is told that it ended.

    Raises:
        ConnectionError: the SuperLink is away, or does not know the node yet.
    """
    from cryptography.hazmat.primitives import serialization
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.supernode import fleet_http_connection as flowers
    from flwr.supernode.fleet_http_client import FleetHttpClient

    # Flower ends the process where a SuperLink is away or does not know the node yet: by a thread
    # that exits, and by a signal to itself after a sleep of seconds. A resident node tries again.
    flowers.flwr_exit = _raised
    flowers.signal = SimpleNamespace(SIGINT=0)  # signal 0 does nothing
    flowers.make_simple_http_retry_invoker = _patient
    flowers.remove_content_from_message = lambda one: one  # `answer` says what is in a message
    flowers.FleetHttpClient = _brief(FleetHttpClient)
    private: Any = serialization.load_ssh_private_key(private_file.read(key), None)
    keys, certificates = (private, private.public_key()), ca.read_bytes()
    noted = key.with_name("node.id")
    try:
        connection = flowers.http_request_response(
            address, False, root_certificates=certificates, authentication_keys=keys
        )
        node, receive, send, _, _, pull, push, _ = connection.__enter__()
    except ConnectionError:
        _ended(address, certificates, keys, noted)
        raise
    try:
        noted.write_text(str(node), encoding="ascii")
        TaskIdentity.node_id, TaskIdentity.task_id = node, 0
        yield Fleet(receive, send, pull, push)
    finally:
        connection.__exit__(None, None, None)


def _raised(code: object, message: str | None = None, **_: object) -> None:
    raise ConnectionError(f"{message or code}")


def _brief(client: Any) -> Any:
    """Flower's client without the headers of its HTTP library that nothing asks for, which it says
    with each request.
    """

    class Brief(client):  # type: ignore[misc]
        def __init__(self, *args: Any, **given: Any) -> None:
            super().__init__(*args, **given)
            self._client.headers.clear()

    return Brief


def _patient() -> Any:
    """What calls the SuperLink again where it does not answer: three times in all, soon."""
    import httpx
    from flwr.supercore.retry import RetryInvoker, exponential

    return RetryInvoker(
        lambda: exponential(0.2, max_delay=2),
        (httpx.TransportError, httpx.HTTPStatusError),
        max_tries=3,
        max_time=None,
        should_giveup=lambda error: not away(error),
    )


def _ended(address: str, certificates: bytes, keys: tuple[Any, Any], noted: Path) -> None:
    """Tell the SuperLink that the node ended which it may still take for running."""
    import httpx
    from flwr.proto.fleet_pb2 import DeactivateNodeRequest
    from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    told = noted.read_text(encoding="ascii").strip() if noted.exists() else ""
    if not told.isdecimal():
        return
    own = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(*keys),
    ]
    try:
        with FleetHttpClient.from_server_address(
            address, False, certificates, interceptors=own
        ) as client:
            client.DeactivateNode(DeactivateNodeRequest(node_id=int(told)))
    except (httpx.HTTPError, RuntimeError) as refused:
        LOG.debug("the SuperLink knows no node %s: %r", told, refused)


# ---- the control interface


@dataclass(frozen=True)
class Control:
    """The control interface of a SuperLink."""

    client: Any

    def keys(self) -> list[bytes]:
        """The public keys [PEM] of the nodes that it knows."""
        from flwr.proto.control_pb2 import ListNodesRequest

        return [info.public_key for info in self.client.ListNodes(ListNodesRequest()).nodes_info]

    def register(self, key: bytes) -> None:
        """Tell it the key [PEM] of a node."""
        from flwr.proto.control_pb2 import RegisterNodeRequest

        self.client.RegisterNode(RegisterNodeRequest(public_key=key))

    def start(self, app: Mapping[str, str], settings: Mapping[str, Any]) -> int | None:
        """Start an app, by its files; the number of the run, if there is one."""
        import hashlib

        from flwr.cli.build import build_fab_from_files
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        content, _ = build_fab_from_files({name: text.encode() for name, text in app.items()})
        request = StartRunRequest(
            fab=fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {})),
            override_config=user_config_to_proto(dict(settings)),
            federation="",
        )
        started = self.client.StartRun(request)
        return int(started.run_id) if started.HasField("run_id") else None

    def ended(self, run: int) -> str | None:
        """How a run ended: "" well, else why not; None while it goes on."""
        from flwr.proto.control_pb2 import ListRunsRequest

        status = self.client.ListRuns(ListRunsRequest(run_id=run)).run_dict[run].status
        if status.status != "finished":
            return None
        if status.sub_status == "completed":
            return ""
        return str(status.details or status.sub_status)


@contextmanager
def control(address: str, ca: Path) -> Iterator[Control]:
    """The control interface of the SuperLink at an address, which is known by a certificate."""
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor

    client = ControlHttpClient.from_server_address(
        server_address=address,
        insecure=False,
        root_certificates=ca.read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )
    try:
        yield Control(client)
    finally:
        client.close()
