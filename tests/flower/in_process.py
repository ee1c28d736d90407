"""Flower's grid with its nodes in this process: every message and every reply goes through Flower's
own bytes, and each node keeps Flower's own context.
"""

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.supercore.task_identity import TaskIdentity

TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1  # as Flower's runtime does


def over_the_wire(message, src):
    """A message as the other side has it: of its content only what its bytes hold."""
    if message.has_content():
        raw = recorddict_to_proto(message.content).SerializeToString()
        proto = type(recorddict_to_proto(RecordDict()))()
        proto.ParseFromString(raw)
        message.content = recorddict_from_proto(proto)
    else:
        raw = b""
    message.metadata.__dict__["_src_node_id"] = src
    return raw


class InProcess:
    """Nodes by id: a ClientApp and a node config each. ``tap`` sees each message that travels, and
    its bytes; what it returns False for is lost.
    """

    def __init__(self, nodes, tap=lambda node, back, message, raw: True):
        self.nodes = {
            node: (app, Context(1, node, config, RecordDict(), {"local-epochs": 1}))
            for node, (app, config) in nodes.items()
        }
        self.tap, self.replies, self.sent = tap, {}, 0
        self.run = None

    def set_run(self, run):
        self.run = run

    def get_node_ids(self):
        return list(self.nodes)

    def push_messages(self, messages):
        ids = []
        for message in messages:
            self.sent += 1
            name, node = f"message {self.sent}", message.metadata.dst_node_id
            message.metadata.__dict__["_message_id"] = name
            raw = over_the_wire(message, 1)
            ids.append(name)
            if not self.tap(node, False, message, raw):
                continue
            app, context = self.nodes[node]
            try:
                reply = app(message, context)
            except Exception as error:  # what Flower's own runtime makes of it
                said = f"{type(error).__name__}: {error}"
                reply = Message(Error(code=2, reason=said), reply_to=message)
            raw = over_the_wire(reply, node)
            if self.tap(node, True, reply, raw):
                self.replies[name] = reply
        return ids

    def pull_messages(self, ids):
        return [self.replies.pop(name) for name in list(ids) if name in self.replies]

    def send_and_receive(self, messages, *, timeout=None):
        return self.pull_messages(self.push_messages(messages))
