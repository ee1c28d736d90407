"""What whoever carries the envelopes may do to them. Each is a tap (`inprocess.InProcess`): it is
handed the node, whether it is an answer, and the bytes; what it returns arrives, None is lost.

A relay knows what is public: the directory, and every envelope that it carries. It has keys of its
own under everybody's name, and parties of ours to use them with. Where it works on the machine of
the server it has the server's keys as well (``servers``), and writes into the server's envelopes.
"""

import os
from dataclasses import replace

from privfl.crypto.primitives import Directory, Identity
from privfl.flower.disk import NodeDisk
from privfl.flower.mail import BadEnvelope, _parsed
from privfl.flower.party import NodeParty
from privfl.flower.policy import Policy

ANYTHING = Policy(
    channels=["plain", "secagg", "additive_sharing", "two_server", "bfv", "one_time_rlwe"],
    training=["sgd"],
    quorum=1,
    repeatable=True,
)


LETTER = 8 + 64
"""What a letter to the server has before its body: its number and signature."""


def label(raw):
    """What an envelope says of itself, to somebody without any key; None where it is none."""
    try:
        return _parsed(memoryview(raw))
    except BadEnvelope:
        return None


class Impostor:
    """Speaks in the names of some parties, by parties and keys of its own: of a helper in the key
    set-up, so that what helpers may open is sealed to it; or of all clients but one, so that the
    sum is this one's update and updates that it knows.
    """

    def __init__(self, names, directory, folder, own, servers=None):
        self.names, self.servers = tuple(names), servers
        self.keys = {who: Identity.fresh(who) for who in self.names}
        self.believed = Directory.of({who: key.public for who, key in self.keys.items()})
        for who in directory.parties:
            if who not in self.keys:
                (signing,), (sealing,) = directory.keys(who), directory.boxes(who)
                self.believed.enrol(who, signing=signing, sealing=sealing)
        self.parties = {
            who: NodeParty(
                key, self.believed, ANYTHING, NodeDisk(folder / who.replace("/", "-")), own(who)
            )
            for who, key in self.keys.items()
        }
        self.letters, self.asked = {}, {}

    def __call__(self, who, back, raw):
        if not back:
            self.asked[who] = raw
            return self.slipped(who, raw) if self.servers else raw
        if who not in self.names:
            return raw
        said = self.parties[who].answer(self.asked[who])
        found = label(said)
        for name, body in found.bodies.items():
            self.letters[who, name.removeprefix("to/")] = bytes(body)
        return raw if self.servers else said

    def slipped(self, who, raw):
        """The server's envelope with letters of the impostors in the place of the honest ones'."""
        found, bodies = label(raw), {}
        for name, body in found.bodies.items():
            bodies[name] = self.letters.pop((name.removeprefix("to/"), who), body)
        return replace(found, bodies=bodies).write(self.servers)


class Replays:
    """In the place of a party's envelope, or its answer, number ``at``: the one before."""

    def __init__(self, who, at, back):
        self.who, self.at, self.back = who, at, back
        self.kept = []

    def __call__(self, who, back, raw):
        if (who, back) != (self.who, self.back):
            return raw
        self.kept.append(raw)
        return self.kept[-2] if len(self.kept) == self.at + 1 else raw


class Swaps:
    """Two parties get each other's mail from ``at`` on; with the server's keys, each the letters of
    the other in an envelope of its own.
    """

    def __init__(self, one, other, at, servers=None):
        self.other, self.at, self.servers = {one: other, other: one}, at, servers
        self.last, self.count = {}, dict.fromkeys((one, other), -1)

    def __call__(self, who, back, raw):
        if back or who not in self.other:
            return raw
        self.count[who] += 1
        other, self.last[who] = self.last.get(self.other[who]), raw
        if self.count[who] < self.at or other is None:
            return raw
        if self.servers is None:
            return other
        return replace(label(raw), bodies=label(other).bodies).write(self.servers)


class Drops:
    """A party's envelope number ``at`` is lost, or its answer."""

    def __init__(self, who, at, back):
        self.who, self.at, self.back, self.count = who, at, back, -1

    def __call__(self, who, back, raw):
        if (who, back) != (self.who, self.back):
            return raw
        self.count += 1
        return None if self.count == self.at else raw


class Delays:
    """A party's answer number ``at`` is kept, and comes in the place of the next one."""

    def __init__(self, who, at):
        self.who, self.at, self.count, self.kept = who, at, -1, None

    def __call__(self, who, back, raw):
        if (who, back) != (self.who, True):
            return raw
        self.count += 1
        if self.count == self.at:
            self.kept = raw
            return None
        return self.kept if self.count == self.at + 1 else raw


class Twice:
    """A party is handed its envelope number ``at`` twice, and its second answer arrives."""

    def __init__(self, who, at, node):
        self.who, self.at, self.node, self.count, self.asked = who, at, node, -1, b""

    def __call__(self, who, back, raw):
        if who != self.who:
            return raw
        if not back:
            self.count, self.asked = self.count + 1, raw
            return raw
        return self.node(self.asked) if self.count == self.at else raw


class Signals:
    """A process gets a signal as its envelope number ``at`` is handed over: kill -9, SIGSTOP."""

    def __init__(self, who, at, pid, number):
        self.who, self.at, self.pid, self.number, self.count = who, at, pid, number, -1

    def __call__(self, who, back, raw):
        if who == self.who and not back:
            self.count += 1
            if self.count == self.at:
                os.killpg(self.pid, self.number)
        return raw


def read_by_relay(exchanges):
    """What is to be read, without any key, of a round's envelopes (those of each exchange, in a
    list): the letters to the server without their signatures, by exchange; and how many bytes of
    letters to others there are.
    """
    mail, others, playing = [], 0, False
    for exchange in exchanges:
        found = {}
        for one in map(label, exchange):
            playing = playing or one.kind == "order"
            if playing and one.receiver == "server":
                for name, body in one.bodies.items():
                    if name == "to/server":
                        found[one.sender] = bytes(body)[LETTER:]
                    else:
                        others += len(body)
        if found:
            mail.append(found)
    return {"server": mail}, others
