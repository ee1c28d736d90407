"""What travels of a message: to a resident node one object, and one back."""

from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
)
from flwr.supercore.task_identity import TaskIdentity

from privfl.flower.internals import Fleet, pulled_from
from privfl.flower.records import content_of, envelope_in

LARGE = bytes(range(256)) * (12 << 12)  # Flower cuts it into pieces


@pytest.fixture(autouse=True)
def identity():
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1


def asked(envelope=b"question"):
    """A message as a node is told of it, with its objects by name."""
    message = Message(content_of(envelope), 7, "query")
    message.metadata.__dict__["_message_id"] = message.object_id
    objects = {name: one.deflate() for name, one in get_all_nested_objects(message).items()}
    return message, objects


class Link:
    """What a SuperLink does with replies, and what it was asked for."""

    def __init__(self):
        self.replies, self.objects, self.confirmed = [], {}, []
        self.pulled, self.pushed = 0, 0

    def fleet(self, objects):
        def pull(run, name):
            self.pulled += 1
            return objects[name]

        def send(reply, tree, seconds):
            self.replies.append((message_to_proto(reply), tree))
            return {tree.object_id} | {one.object_id for one in tree.children}, "session"

        def push(run, session, name, raw):
            self.pushed += 1
            assert get_object_id(raw) == name  # a SuperLink takes nothing else
            self.objects[name] = raw

        return Fleet(lambda: None, send, pull, push)

    def grid(self):
        def pulled(request):
            messages, trees = zip(*self.replies, strict=True)
            return PullAppMessagesResponse(messages_list=messages, message_object_trees=trees)

        def pull(request):
            raw = self.objects[request.object_id]
            return PullObjectResponse(object_found=True, object_available=True, object_content=raw)

        client = SimpleNamespace(
            PullMessages=pulled,
            PullObject=pull,
            ConfirmMessageReceived=lambda one: self.confirmed.append(one.message_object_id),
        )
        return SimpleNamespace(_runtime_client=client, node=None, run=SimpleNamespace(run_id=1))


def answer_with(link, question, said):
    message, objects = question
    heard = []

    def content(came):
        heard.append(envelope_in(came))
        return content_of(said)

    link.fleet(objects).answer((message, get_object_tree(message)), content)
    return heard


def test_a_question_and_its_answer_are_one_object_each():
    link, question = Link(), asked()
    assert answer_with(link, question, b"answer") == [b"question"]
    assert (link.pulled, link.pushed) == (1, 1)
    (reply,) = pulled_from(link.grid(), ["any"])
    assert envelope_in(reply.content) == b"answer"
    assert reply.metadata.reply_to_message_id == question[0].metadata.message_id
    assert set(link.confirmed) == {question[0].metadata.message_id, *link.objects}


def test_the_same_answer_to_two_questions_is_two_objects():
    link = Link()
    for envelope in (b"one", b"other"):
        answer_with(link, asked(envelope), b"")
    assert len(link.objects) == 2
    assert [envelope_in(reply.content) for reply in pulled_from(link.grid(), ["any"])] == [b""] * 2


def test_an_envelope_in_pieces_arrives():
    link = Link()
    assert answer_with(link, asked(LARGE), b"answer") == [LARGE]


def test_a_stock_nodes_reply_is_read_as_well():
    link, (message, _) = Link(), asked()
    reply = Message(content_of(b"stock"), reply_to=message)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    link.objects = {name: one.deflate() for name, one in get_all_nested_objects(reply).items()}
    told = Message(RecordDict(), reply_to=message)
    link.replies = [(message_to_proto(told), get_object_tree(reply))]
    link.replies[0][0].metadata.message_id = reply.object_id
    (found,) = pulled_from(link.grid(), ["any"])
    assert envelope_in(found.content) == b"stock"


GARBLED = {
    "no record": b"Array  0\x00",
    "a record of noise": b"ConfigRecord  4\x00\xff\xff\xff\xff",
    "an unknown kind": b"Spy  0\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("what", GARBLED)
def test_a_reply_that_cannot_be_read_is_lost_and_the_others_are_not(what):
    link = Link()
    answer_with(link, asked(b"one"), b"answer")
    name = get_object_id(GARBLED[what])
    told = message_to_proto(Message(RecordDict(), reply_to=asked(b"other")[0]))
    told.metadata.message_id = name
    link.replies.insert(0, (told, ObjectTree(object_id=name)))
    link.objects[name] = GARBLED[what]
    found = pulled_from(link.grid(), ["any"])
    assert [envelope_in(reply.content) for reply in found] == [b"answer"]


def test_a_message_of_several_records_is_no_question():
    message = Message(RecordDict({"a": ConfigRecord({}), "b": ConfigRecord({"c": 1})}), 7, "query")
    message.metadata.__dict__["_message_id"] = message.object_id
    link = Link()
    with pytest.raises(ValueError, match="a message holds 2 records"):
        answer_with(link, (message, {}), b"")
    assert not link.replies
