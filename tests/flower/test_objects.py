"""What travels of a message: what is small in itself, and else one object."""

from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse, PushObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
)
from flwr.supercore.task_identity import TaskIdentity

from privfl.flower.grid_wire import GridWire
from privfl.flower.internals import Fleet, pulled_from, pushed_to
from privfl.flower.records import content_of, envelope_in

MIDDLE = bytes(1 << 17)  # an object, and one that Flower leaves whole
LARGE = bytes(range(256)) * (12 << 12)  # Flower cuts it into pieces


@pytest.fixture(autouse=True)
def identity():
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1


def asked(envelope=b"question"):
    """A message as a node is told of it: as it was pushed, with its tree and objects by name."""
    link = Link()
    pushed_to(link.grid(), [Message(content_of(envelope), 7, "query")])
    ((told, tree),) = link.asked
    return message_from_proto(told), tree, link.objects


class Link:
    """What a SuperLink does with replies, and what it was asked for."""

    def __init__(self):
        self.asked, self.replies, self.objects, self.confirmed = [], [], {}, []
        self.pulled, self.pushed, self.takes = 0, 0, True

    def fleet(self, objects):
        def pull(run, name):
            self.pulled += 1
            return objects[name]

        def send(reply, tree, seconds):
            self.replies.append((message_to_proto(reply), tree))
            return {one.object_id for one in iterate_object_tree(tree)}, "session"

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

        def pushed(request):
            self.asked += zip(request.messages_list, request.message_object_trees, strict=True)
            trees = request.message_object_trees
            wanted = [one.object_id for tree in trees for one in iterate_object_tree(tree)]
            names = [one.metadata.message_id for one in request.messages_list]
            names = [one if self.takes else "" for one in names]
            return PushAppMessagesResponse(message_ids=names, objects_to_push=wanted)

        def push(request):
            self.objects[request.object_id] = request.object_content
            return PushObjectResponse(stored=True)

        client = SimpleNamespace(
            PushMessages=pushed,
            PushObject=push,
            PullMessages=pulled,
            PullObject=pull,
            ConfirmMessageReceived=lambda one: self.confirmed.append(one.message_object_id),
        )
        nodes = [SimpleNamespace(public_key=b"key", node_id=7)]
        run = SimpleNamespace(run_id=1)
        return SimpleNamespace(_runtime_client=client, node=None, run=run, get_nodes=lambda: nodes)


def answer_with(link, question, said):
    message, tree, objects = question
    heard = []

    def content(came):
        heard.append(envelope_in(came))
        return content_of(said)

    link.fleet(objects).answer((message, tree), content)
    return heard


SIZES = {  # objects that are pulled and pushed
    "small": (b"question", b"answer", 0, 0),
    "an answer that Flower leaves whole": (b"question", MIDDLE, 0, 0),
    "a question too large to be lost": (MIDDLE, b"answer", 1, 0),
    "an answer in pieces": (b"question", LARGE, 0, 3),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_small_message_is_no_object_and_a_large_one_as_few_as_can_be(name):
    asks, says, pulled, pushed = SIZES[name]
    link, question = Link(), asked(asks)
    assert answer_with(link, question, says) == [asks]
    assert (link.pulled, link.pushed >= pushed, link.pushed > 0) == (pulled, True, pushed > 0)
    (reply,) = pulled_from(link.grid(), ["any"])
    assert envelope_in(reply.content) == says
    assert reply.metadata.reply_to_message_id == question[0].metadata.message_id
    told = link.replies[0][0].metadata.message_id
    assert set(link.confirmed) == {question[0].metadata.message_id, told}


def test_a_stock_node_can_ask_for_a_small_message_by_its_objects():
    message, tree, objects = asked()
    names = {one.object_id for one in iterate_object_tree(tree)}
    assert message.has_content()
    assert names == set(objects)
    assert message.metadata.message_id in names


def test_a_message_that_the_superlink_does_not_take_has_no_name():
    link, message = Link(), Message(content_of(b"question"), 7, "query")
    link.takes = False
    assert pushed_to(link.grid(), [message]) == [None]
    link.takes = True
    assert pushed_to(link.grid(), [message]) == [message.metadata.message_id]


def test_an_envelope_that_the_superlink_does_not_take_is_kept_until_it_does():
    link = Link()
    wire = GridWire(link.grid(), {b"key": "client/0"})
    counts = []
    for link.takes, envelopes in ((False, {"client/0": b"raw"}), (True, {}), (True, {})):
        wire.send(envelopes, 60.0)
        counts.append(len(link.asked))
    assert counts == [1, 2, 2]


def test_the_same_answer_to_two_questions_is_two_objects():
    link = Link()
    for envelope in (b"one", b"other"):
        answer_with(link, asked(envelope), b"")
    assert len({tree.object_id for _, tree in link.replies}) == 2
    assert [envelope_in(reply.content) for reply in pulled_from(link.grid(), ["any"])] == [b""] * 2


def test_an_envelope_in_pieces_arrives():
    link = Link()
    assert answer_with(link, asked(LARGE), b"answer") == [LARGE]


def test_a_stock_nodes_reply_is_read_as_well():
    link, (message, _, _) = Link(), asked()
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


def test_a_message_that_cannot_be_read_is_lost_and_the_others_are_not():
    link = Link()
    answer_with(link, asked(b"one"), b"answer")
    told = message_to_proto(Message(RecordDict(), reply_to=asked(b"other")[0]))
    told.metadata.message_id = get_object_id(b"")
    told.content.items.add(key="privfl").array_record.items.add(key="envelope")
    link.replies.insert(0, (told, ObjectTree(object_id=told.metadata.message_id)))
    found = [envelope_in(reply.content) for reply in pulled_from(link.grid(), ["any"])]
    assert b"answer" in found
    assert set(found) <= {b"answer", b"", None}


@pytest.mark.parametrize("size", [1, 1 << 17])
def test_a_message_of_several_records_is_no_question(size):
    before, link = Link(), Link()
    several = RecordDict({"a": ConfigRecord({}), "b": ConfigRecord({"c": bytes(size)})})
    pushed_to(before.grid(), [Message(several, 7, "query")])
    ((told, tree),) = before.asked
    with pytest.raises(ValueError, match="a message holds 2 records"):
        answer_with(link, (message_from_proto(told), tree, before.objects), b"")
    assert not link.replies
