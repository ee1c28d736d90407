"""Other machines reach the Fleet interface of a SuperLink, and nothing that starts code there."""

import asyncio

import pytest

from privfl.flower.gate import NodeGate


def answered(path, client, kind="http"):
    said = []

    async def app(scope, receive, send):
        said.append("served")

    async def send(event):
        said.append(event.get("status", event.get("body")))

    scope = {"type": kind, "path": path, "client": client, "server": ("10.0.0.5", 9092)}
    asyncio.run(NodeGate(app)(scope, None, send))
    return said


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/runtime/pull-task-input",
        "/v1/fleet/../control/start-run",
        "/docs",
        "",
    ],
)
@pytest.mark.parametrize("client", [("10.0.0.9", 4000), None, ("unix", 0)])
def test_another_machine_starts_no_run_and_registers_no_node(path, client):
    assert answered(path, client)[0] == 403
    assert answered(path, client, "websocket") == []


def test_nodes_and_the_machine_itself_are_served():
    assert answered("/v1/fleet/pull-messages", ("10.0.0.9", 4000)) == ["served"]
    for own in ("127.0.0.1", "::1", "10.0.0.5"):
        assert answered("/v1/control/start-run", (own, 4000)) == ["served"]
