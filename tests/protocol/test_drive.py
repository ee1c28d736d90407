"""The driver carries mail, and survives what goes wrong on the way."""

from dataclasses import dataclass, field

import pytest
import torch

from privfl.core import Abort, Bounded, Faults, Mail, Opened, RoundPlan, Total, drive
from privfl.crypto import Plain
from privfl.crypto.enrolled import Enrolled


@dataclass
class Sender:
    says: bytes = b"x"

    def step(self, mail: Mail) -> Mail:
        return {} if mail else {"server": self.says}


@dataclass
class Collector:
    exchanges: list[dict[str, bytes]] = field(default_factory=list)
    result: Opened[Total] | None = None

    def step(self, mail: Mail) -> Mail:
        if mail:
            self.exchanges.append({who: bytes(body) for who, body in mail.items()})
        return {}


def scene(faults=Faults(), **kwargs):
    server = Collector()
    outcome = drive(server, {f"client/{i}": Sender(bytes([i])) for i in range(3)}, faults, **kwargs)
    return server.exchanges, outcome


def test_everybody_speaks_once_and_every_byte_is_counted():
    exchanges, outcome = scene()
    assert exchanges == [{"client/0": b"\0", "client/1": b"\1", "client/2": b"\2"}]
    assert outcome.bytes_sent() == 3
    assert outcome.bytes_sent("client/1") == 1
    assert outcome.exchanges == 1


def test_a_silent_party_is_not_heard_from_that_exchange_on():
    exchanges, outcome = scene(Faults(silent_from={"client/1": 0}))
    assert exchanges == [{"client/0": b"\0", "client/2": b"\2"}]
    assert outcome.bytes_sent() == 2


def test_late_mail_arrives_in_a_later_exchange():
    exchanges, _ = scene(Faults(late={"client/1": 2}))
    assert exchanges == [{"client/0": b"\0", "client/2": b"\2"}, {"client/1": b"\1"}]


def test_duplicated_mail_arrives_twice():
    exchanges, _ = scene(Faults(duplicated={"client/2"}))
    assert exchanges[1] == {"client/2": b"\2"}


def test_malformed_mail_is_changed_on_the_way():
    exchanges, _ = scene(Faults(malformed={"client/0": lambda body: b"garbage"}))
    assert exchanges[0]["client/0"] == b"garbage"


def test_an_abort_ends_one_party_and_names_whom_it_blames():
    class Quitter:
        def step(self, mail: Mail) -> Mail:
            raise Abort("no key", blamed="server")

    outcome = drive(Collector(), {"client/0": Quitter(), "client/1": Sender()})
    assert outcome.aborts["client/0"].blamed == "server"
    assert outcome.bytes_sent() == 1


def test_an_honest_party_that_crashes_is_shown_and_a_liar_that_crashes_is_blamed():
    class Broken:
        def step(self, mail: Mail) -> Mail:
            raise KeyError("oops")

    with pytest.raises(KeyError):
        drive(Collector(), {"client/0": Broken()})
    outcome = drive(
        Collector(), {"client/0": Sender()}, Faults(byzantine={"client/0": lambda honest: Broken()})
    )
    assert outcome.aborts["client/0"].blamed == "client/0"


def test_writing_to_somebody_who_takes_no_part_ends_the_writer():
    @dataclass
    class Lost:
        def step(self, mail: Mail) -> Mail:
            return {"nobody": b"x"}

    assert "nobody" in str(drive(Collector(), {"client/0": Lost()}).aborts["client/0"])


def test_parties_that_never_stop_talking_are_stopped():
    class Echo:
        def step(self, mail: Mail) -> Mail:
            return {"server": b"."}

    class EchoServer(Collector):
        def step(self, mail: Mail) -> Mail:
            return {"client/0": b"."} if mail else {}

    with pytest.raises(Abort, match="still talking"):
        drive(EchoServer(), {"client/0": Echo()})


def test_bodies_are_kept_only_on_demand():
    _, without = scene()
    _, kept = scene(keep_bodies=True)
    assert all(message.body is None for message in without.messages)
    assert kept.received({"server"}) == {
        "server": [{"client/0": b"\0", "client/1": b"\1", "client/2": b"\2"}]
    }
    assert without.received({"server"}) == {"server": []}


class Name(str):
    """A party's name that counts how often somebody looks it up."""

    looked_up = 0

    def __hash__(self):
        Name.looked_up += 1
        return super().__hash__()


class Stack(list):
    """A list that counts how many entries a search of it walks past."""

    walked = 0

    def __contains__(self, item):
        Stack.walked += len(self)
        return super().__contains__(item)


def plain_round(n):
    """Look-ups of the parties' names, and list entries walked past, in a plain round of n
    clients.
    """
    plan = RoundPlan(0, tuple(range(n)), d=2, l2=1.0)
    everybody = Enrolled.fresh(Plain(), range(n), keyed=False)
    clients = {
        Name(f"client/{c}"): everybody.clients[c].enter(plan, Bounded(c, torch.ones(2) / 2, l2=1.0))
        for c in range(n)
    }
    server = everybody.server.enter(plan)
    server.ids = Stack()
    Name.looked_up = Stack.walked = 0
    assert drive(server, clients).opened.what.n == n
    return Name.looked_up, Stack.walked


def test_a_plain_rounds_work_grows_with_the_number_of_clients_and_not_with_its_square():
    few, many = plain_round(50), plain_round(400)
    assert many[0] <= 8 * few[0] + 100
    assert many[1] <= 8 * few[1] + 100


class Chatters:
    """A party that answers whatever it is told."""

    def __init__(self, honest=None):
        self.honest = honest

    def step(self, mail):
        return dict.fromkeys(mail, b"and?") if mail else {"client/1": b"hello"}


def test_liars_that_talk_without_end_do_not_end_the_run_and_honest_parties_that_do_are_shown():
    parties = {"client/0": Sender(), "client/1": Chatters(), "client/2": Chatters()}
    faults = Faults(byzantine={"client/1": Chatters, "client/2": Chatters})
    server = Collector()
    outcome = drive(server, parties, faults)
    assert set(outcome.aborts) == {"client/1", "client/2"}
    assert server.exchanges == [{"client/0": b"x"}]
    with pytest.raises(Abort, match="still talking"):
        drive(Collector(), parties)
