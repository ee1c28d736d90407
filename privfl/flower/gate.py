"""A SuperLink of which other machines reach the Fleet interface alone.

Flower serves three interfaces on one port. By the control interface whoever reaches it starts an
app, which is code that then runs on the SuperLink's machine, beside the server's keys; it asks for
no password, and node authentication is no part of it. Nodes need none of that: what another machine
asks for is answered under the Fleet interface's path, and refused elsewhere.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
FLEET = "/v1/fleet/"


class NodeGate:
    """An ASGI app around another one; see the module.

    >>> own = {"client": ("10.0.0.5", 4000), "server": ("10.0.0.5", 9092)}
    >>> other = {**own, "client": ("10.0.0.9", 4000)}
    >>> paths = ("/v1/fleet/pull-messages", "/v1/control/start-run")
    >>> [NodeGate.admits({"path": path, **who}) for who in (own, other) for path in paths]
    [True, True, True, False]
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on what is admitted; another request ends here (403), another connection at once."""
        if scope["type"] == "lifespan" or self.admits(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"for this machine alone"})

    @staticmethod
    def admits(scope: Scope) -> bool:
        """Whether a request comes from this machine itself, or asks the Fleet interface."""
        path, client, server = scope.get("path", ""), scope.get("client"), scope.get("server")
        if path.startswith(FLEET) and ".." not in path:
            return True
        if not client or not server:
            return False
        try:
            address = ipaddress.ip_address(client[0])
        except ValueError:
            return False
        return address.is_loopback or client[0] == server[0]


def main() -> None:
    """Flower's own command, with the gate in front of all that it serves."""
    from flwr.superlink import main as superlink
    from flwr.superlink.cli.flower_superlink import flower_superlink

    made = superlink.create_app

    def gated(*args: Any, **given: Any) -> Any:
        app = made(*args, **given)
        app.add_middleware(NodeGate)  # the last to be added is the first to be asked
        return app

    superlink.create_app = gated
    sys.exit(flower_superlink())


if __name__ == "__main__":
    main()
