"""The app of the benchmark of messages. Its server asks a resident node and a SuperNode of Flower
in turn, by the same wire, and notes the seconds; its client, for SuperNodes alone, answers with
what it was sent and imports nothing but Flower.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

TURNS = "turns"
STOCK = "stock"


def server_app() -> Any:
    from flwr.serverapp import ServerApp

    from privfl.crypto.primitives import Identity
    from privfl.flower.grid_wire import GridWire, nodes_of
    from privfl.flower.mail import Envelope

    def main(grid: Any, context: Any) -> None:
        told = context.run_config
        home, turns, asked = Path(told["home"]), int(told[TURNS]), int(told["asked"])
        keys = {key: who.replace("client/1", STOCK) for key, who in nodes_of(home).items()}
        wire = GridWire(grid, keys)
        identity = Identity.read(home / "identity")
        seconds: dict[str, list[float]] = {"client/0": [], STOCK: []}
        for turn in range(turns + 1):
            for who, found in seconds.items():
                for number in range(asked):
                    receiver = who if who != STOCK else "client/1"
                    ping = Envelope("ping", "server", receiver, bytes(16), number)
                    began = time.perf_counter()
                    wire.send({who: ping.write(identity)}, 120.0)
                    if not wire.collect(120.0):
                        raise RuntimeError(f"{who} did not answer")
                    if turn:  # the first turn warms both up
                        found.append(time.perf_counter() - began)
        Path(told["out"]).write_text(json.dumps(seconds), encoding="utf-8")

    app: Any = ServerApp()
    app.main()(main)
    return app


def client_app() -> Any:
    from flwr.app import Message
    from flwr.clientapp import ClientApp

    def answer(message: Any, context: Any) -> Any:
        return Message(message.content, reply_to=message)

    app: Any = ClientApp()
    app.query()(answer)
    return app
