r"""A node for honest servers alone: a ClientApp that Flower's own SuperNode runs, for whoever has
such nodes already. `node` and ``privfl net node`` are the ones that hold against a SuperLink.

    flower-supernode --superlink HOST:PORT --root-certificates FOLDER/ca.crt \
      --auth-supernode-private-key FOLDER/node.key --node-config 'home="FOLDER"'

It answers what a resident node answers, from the same folder, under the same policy: every message
wakes the party up from the disk, and puts it to rest there.

What it does not promise. A SuperNode fetches its app from the SuperLink and runs it, as whoever
started it. This module is what the app of an honest server names; a SuperLink that ships another
app reads the folder (keys, directory, policy, memories) and the data, and then NO channel, mail or
policy keeps anything from it. So all that a channel's guarantee says of a lying server or relay is
lost here, and what is left is what it says of one that follows the protocol, and of those who tap
the wire, of other clients and of the readers of the model. Nor does it remember, from one message
to the next, the noise that rounds share: its own ledger charges each round by itself, which is
never too little.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from privfl.core import ConfigError
from privfl.flower.internals import require_flower
from privfl.flower.node import party_in
from privfl.flower.records import content_of, envelope_in


def client_app(home: Path | str | None = None) -> Any:
    """A `flwr.clientapp.ClientApp` that is the party of one node's folder; see the module.

    Args:
        home: that folder; what it is left out, the key ``home`` of the node's config says.

    Raises:
        ConfigError: Flower is not installed; (of the app) no folder is named, or it is no node's.

    Source: the messages are those of Flower 1.41 (Beutel et al. 2020).

    >>> type(client_app("fed/client-0")).__name__
    'ClientApp'
    """
    require_flower()
    from flwr.app import Message
    from flwr.clientapp import ClientApp

    def answer(message: Any, context: Any) -> Any:
        named = context.node_config.get("home") if home is None else home
        if not named:
            raise ConfigError(
                "the node's config does not say where its folder is: start it with --node-config"
                " 'home=\"FOLDER\"'."
            )
        _, party = party_in(Path(str(named)), asleep=True)
        said = party.answer(envelope_in(message.content) or b"")
        return Message(content_of(said), reply_to=message)

    app: Any = ClientApp()
    app.query()(answer)
    return app
