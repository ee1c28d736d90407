"""A SuperLink that is a relay as bad as `tests.network.relays` has them: Flower's own, with all
that travels through it in the hands of a tap. It is a process of its own; what it is to do next it
reads from the file in ``HOSTILE_PLAN``, and what passes it keeps in the folder that is named there.

    python -m tests.flower.hostile --host ... (the flags of flower-superlink)
"""

import asyncio
import json
import os
import sys
from functools import partial
from pathlib import Path

from flwr.app import ConfigRecord
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse, PushObjectRequest
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree

from privfl.crypto.primitives import Directory, Identity
from privfl.flower.node import own_samples
from tests.network import relays

WAIT = 20.0


def honest(who, back, raw):
    return raw


def tap_of(plan):
    """The tap that a plan asks for, with what it needs to know."""
    given = {
        key: value for key, value in plan.items() if key not in ("relay", "folder", "record", "run")
    }
    if plan["relay"] == "Impostor":
        folder = Path(plan["folder"])
        given |= {
            "directory": Directory.read(Path(given.pop("server")) / "directory.json"),
            "folder": folder,
            "own": lambda who: partial(own_samples, {"name": "digits"}),
        }
        if "servers" in given:
            given["servers"] = Identity.read(Path(given["servers"]) / "identity")
    return vars(relays)[plan["relay"]](**given)


class Hostile:
    """An ASGI app around Flower's: messages on the way to a node, and answers to the server, go
    through the tap when they are pulled.
    """

    def __init__(self, app):
        self.app, self.at = app, Path(os.environ["HOSTILE_PLAN"])
        self.said, self.tap, self.kept = None, honest, 0
        self.objects, self.given, self.judged = {}, {}, {}

    async def __call__(self, scope, receive, send):
        path = scope.get("path", "")
        if scope["type"] != "http" or ("/v1/fleet/" not in path and "/v1/runtime/" not in path):
            await self.app(scope, receive, send)
            return
        body = await _whole(receive)
        if path.endswith("/push-object"):
            asked = PushObjectRequest.FromString(body)
            self.objects[asked.object_id] = asked.object_content
        answers = []

        async def hold(event):
            answers.append(event)

        await self.app(scope, _again(body), hold)
        start = answers[0]
        content = b"".join(event.get("body", b"") for event in answers[1:])
        if start["status"] == 200:
            content = await self.changed(path, body, content)
        headers = [(k, v) for k, v in start["headers"] if k.lower() != b"content-length"]
        headers.append((b"content-length", str(len(content)).encode()))
        await send({**start, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def changed(self, path, body, content):
        if path.endswith("/fleet/pull-messages"):
            return await self.pulled(PullMessagesResponse.FromString(content), back=False)
        if path.endswith("/runtime/pull-messages"):
            return await self.pulled(PullAppMessagesResponse.FromString(content), back=True)
        if path.endswith("/pull-object"):
            name = PullObjectRequest.FromString(body).object_id
            if name in self.given:
                return PullObjectResponse(
                    object_found=True, object_available=True, object_content=self.given[name]
                ).SerializeToString()
        return content

    async def pulled(self, told, *, back):
        """The messages without those that the tap loses; what it changed is handed out later."""
        kept = [
            (message, tree)
            for message, tree in zip(told.messages_list, told.message_object_trees, strict=True)
            if message.HasField("error") or await self.passes(message, tree, back=back)
        ]
        del told.messages_list[:], told.message_object_trees[:]
        told.messages_list.extend(message for message, _ in kept)
        told.message_object_trees.extend(tree for _, tree in kept)
        return told.SerializeToString()

    async def passes(self, message, tree, *, back):
        inside = [*_envelopes(message)]  # what is small is in the message itself
        for held in inside:
            found = relays.label(held.bytes)
            if found is None:
                continue
            arrived = self.tapped(found.sender if back else found.receiver, back, held.bytes)
            held.bytes = arrived or b""
            return arrived is not None
        if inside:  # the answer to an envelope that nobody could read
            return True
        names = [one.object_id for one in iterate_object_tree(tree)]
        if tree.object_id in self.judged:  # asked for once more
            return self.judged[tree.object_id]
        for _ in range(int(WAIT / 0.02)):
            if all(name in self.objects for name in names):
                break
            await asyncio.sleep(0.02)
        for name in names:
            content = self.objects.get(name, b"")
            if not content.startswith(b"ConfigRecord"):
                continue
            record = ConfigRecord.inflate(content)
            raw = record.get("envelope")
            found = relays.label(raw) if isinstance(raw, bytes) else None
            if found is None:
                continue
            arrived = self.tapped(found.sender if back else found.receiver, back, raw)
            if arrived is not None:
                self.given[name] = ConfigRecord({**record, "envelope": arrived}).deflate()
            self.judged[tree.object_id] = arrived is not None
            return arrived is not None
        return True

    def tapped(self, who, back, raw):
        said = self.at.read_text(encoding="utf-8")
        if said != self.said:
            plan = json.loads(said)
            self.tap = tap_of(plan) if plan.get("relay") else honest
            self.said, self.record, self.kept = said, plan.get("record"), 0
        if self.record:
            name = f"{self.kept:04d} {'from' if back else 'to'} {who.replace('/', '-')}"
            (Path(self.record) / name).write_bytes(raw)
            self.kept += 1
        return self.tap(who, back, raw)


def _envelopes(message):
    for record in message.content.items:
        for item in record.config_record.items:
            if item.key == "envelope":
                yield item.value


async def _whole(receive):
    body = b""
    while True:
        event = await receive()
        body += event.get("body", b"")
        if not event.get("more_body"):
            return body


def _again(body):
    sent = []

    async def receive():
        if sent:
            await asyncio.Event().wait()  # nothing more comes
        sent.append(True)
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def main():
    from flwr.superlink import main as superlink
    from flwr.superlink.cli.flower_superlink import flower_superlink

    made = superlink.create_app

    def taken_over(*args, **given):
        app = made(*args, **given)
        app.add_middleware(Hostile)
        return app

    superlink.create_app = taken_over
    sys.exit(flower_superlink())


if __name__ == "__main__":
    main()
