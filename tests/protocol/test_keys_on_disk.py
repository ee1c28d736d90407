"""One party on one machine: made alone from its own key file and the directory's file, asleep
between all messages, it plays what the simulator plays with everybody in one process.
"""

import pytest
import torch

from privfl import catalog
from privfl.aggregators import FLTrust
from privfl.core import (
    Bounded,
    ConfigError,
    Context,
    PrivflError,
    RoundPlan,
    Rows,
    StateKey,
    client_of,
    drive,
    drive_all,
    seal_state,
    unseal_state,
)
from privfl.crypto import SecAgg
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.post import Post, round_scene, set_up_scene
from privfl.crypto.primitives import Directory, Identity
from privfl.engine import Session

D, N = 64, 4
CHEAP = {"paillier": {"key_bits": 512, "insecure_for_tests": True}, "bucketed_secagg": {"size": 2}}
ROUNDED = {"ckks", "encrypted_cosine"}
"""Whose results carry noise of the scheme's own: equal to their precision, and not bit for bit."""


def signs(seed):
    return torch.randn(D, generator=torch.Generator().manual_seed(seed)).sign() / D**0.5


ROOT = signs(0)
UPDATES = {i: 0.6 * ROOT + 0.3 * signs(i + 1) for i in range(N)}


def root(context):
    return ROOT


def channel_of(name):
    if name == "secagg, active":
        return SecAgg(mode="active", corrupt=0.0, carry=True)
    maker = catalog.CHANNELS[name]
    needs = {"rule": FLTrust(root)} if "rule" in catalog.fields_of(maker)[1] else {}
    return catalog.build("channel", catalog.CHANNELS, {"name": name, **CHEAP.get(name, {})}, needs)


NAMES = [*sorted(catalog.CHANNELS), "secagg, active"]
KEYED = [name for name in NAMES if name not in ("plain", "secagg", "bucketed_secagg")]


def plan_of(number):
    return RoundPlan(number, tuple(range(N)), d=D, l2=1.0, session=b"a session of its own")


def file_of(folder, who):
    return folder / who.replace("/", "-")


def directory_of(folder):
    return Directory.read(folder / "directory.json")


def enter_in_directory(folder, *names):
    """What an operator does: make the key files, and write the public halves down for everybody."""
    known = directory_of(folder) if (folder / "directory.json").exists() else Directory()
    for who in names:
        me = Identity.fresh(who)
        me.write(file_of(folder, who))
        known.enrol(who, signing=me.public.signing, sealing=me.public.box)
    known.write(folder / "directory.json")


class Machine:
    """One party's machine. Between messages there is nothing on it but two files, the key of this
    machine and sealed bytes.
    """

    def __init__(self, channel, who, folder):
        self.who, self.folder, self.key, self.heard = who, folder, StateKey(), None
        me, known = Identity.read(file_of(folder, who)), directory_of(folder)
        client = client_of(who)
        if who == "server":
            member = channel.server(me, known)
        elif client is None:
            member = channel.helper(who, me, known)
        else:
            member = channel.client(client, me, known)
        self._rest(member, None)

    def _rest(self, member, post):
        self.asleep = seal_state((member, post), self.key)

    def _awake(self):
        return unseal_state(self.asleep, self.key, tuple, lent=directory_of(self.folder))

    def begin(self, scene, make):
        member, _ = self._awake()
        me = Identity.read(file_of(self.folder, self.who))
        self._rest(member, Post(me, directory_of(self.folder), scene, make(member)))

    def step(self, mail):
        member, post = self._awake()
        out = post.step({who: bytes(body) for who, body in mail.items()})
        self._rest(member, post)
        return {to: bytes(body) for to, body in out.items()}

    @property
    def post(self):
        return self._awake()[1]


def play(machines, number, channel):
    plan = plan_of(number)

    def enter(who):
        def entered(member):
            client = client_of(who)
            if client is not None:
                return member.enter(plan, Bounded(client, UPDATES[client], 1.0))
            if who == "server" and channel.able.informed:
                member.inform(Context(plan, torch.zeros(D), torch.Generator().manual_seed(number)))
            return member.enter(plan)

        return entered

    for who, machine in machines.items():
        machine.begin(round_scene([plan]), enter(who))
    outcome = drive_all(machines)
    assert not outcome.aborts
    assert all(machine.post.refused == [] for machine in machines.values())
    return machines["server"].post.inner.result


def vector_of(opened):
    what = opened.what
    return what.values if isinstance(what, Rows) else what.mean()


@pytest.mark.parametrize("name", NAMES)
def test_parties_each_made_alone_from_its_own_key_file_play_what_the_simulator_plays(
    name, tmp_path
):
    """Client 3 enrols when the others have been made and are asleep: who slept on a copy of the
    directory would not know it.
    """
    channel = channel_of(name)
    first = [*(f"client/{i}" for i in range(N - 1)), *channel.helpers, "server"]
    enter_in_directory(tmp_path, *first)
    machines = {who: Machine(channel, who, tmp_path) for who in first}
    enter_in_directory(tmp_path, "client/3")
    machines["client/3"] = Machine(channel, "client/3", tmp_path)

    for machine in machines.values():
        machine.begin(set_up_scene(b"a set-up of its own"), lambda member: member.set_up())
    assert not drive_all(machines).aborts

    session = Session(channel, "signed")
    session.enrol(range(N))
    for number in range(2):
        session.inform(
            Context(plan_of(number), torch.zeros(D), torch.Generator().manual_seed(number))
        )
        bounded = {i: Bounded(i, row, 1.0) for i, row in UPDATES.items()}
        simulated = session.play(plan_of(number), bounded).opened
        alone = play(machines, number, channel)
        assert set(alone.survivors) == set(simulated.survivors) == set(range(N))
        assert alone.disclosed.keys() == simulated.disclosed.keys()
        if name in ROUNDED:
            assert torch.allclose(vector_of(alone), vector_of(simulated), atol=1e-3)
        else:
            assert torch.equal(vector_of(alone), vector_of(simulated))


def lent_to(member, directory):
    """Whether it holds this very directory, itself or on its key ring."""
    held = [*vars(member).values(), *vars(vars(member).get("ring", object)).values()]
    held += vars(vars(member).get("inside", object)).values()
    return any(thing is directory for thing in held)


@pytest.mark.parametrize("name", KEYED)
def test_nobody_wakes_without_the_directory_that_it_had_on_loan(name):
    everybody, key = Enrolled.fresh(channel_of(name), range(N)), StateKey()
    borrowers = 0
    for member in everybody.members.values():
        asleep = seal_state(member, key)
        assert all(identity.public.box not in asleep.body for identity in everybody.keys.values())
        awake = unseal_state(asleep, key, type(member), lent=everybody.directory)
        if lent_to(awake, everybody.directory):
            borrowers += 1
            with pytest.raises(PrivflError, match="hand in the one of now"):
                unseal_state(asleep, key, type(member))
    assert borrowers > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_channel_says_whether_its_members_use_keys(name):
    assert channel_of(name).able.keyed == (name in KEYED)


@pytest.mark.parametrize("name", NAMES)
def test_a_party_is_made_from_its_own_keys_and_under_a_name_that_the_channel_has(name):
    channel, known = channel_of(name), Directory()
    wrong = Identity.fresh("client/9")
    with pytest.raises(ConfigError, match="has no helper 'nobody'"):
        channel.helper("nobody", wrong, known)
    for who in channel.helpers:
        with pytest.raises(ConfigError, match=f"{who} cannot be made from the keys of client/9"):
            channel.helper(who, wrong, known)
    assert channel.client(9, wrong, known) is not None


@pytest.mark.parametrize("name", ["secagg, active", "bfv", "paillier", "mp_rlwe", "one_time_rlwe"])
def test_a_client_that_nobody_entered_in_the_directory_has_no_part_although_mail_is_bare(name):
    """Where clients sign what they send, the directory is the root of trust of the protocol."""
    channel = channel_of(name)
    keys = Enrolled.fresh(channel, range(N)).keys
    known = Directory.of({who: me.public for who, me in keys.items() if who != "client/2"})
    clients = {i: channel.client(i, keys[f"client/{i}"], known) for i in range(N)}
    helpers = {who: channel.helper(who, keys[who], known) for who in channel.helpers}
    server = channel.server(keys["server"], known)
    everybody = {**{f"client/{i}": m for i, m in clients.items()}, **helpers, "server": server}
    assert not drive_all({who: member.set_up() for who, member in everybody.items()}).aborts
    parties = {
        f"client/{i}": member.enter(plan_of(0), Bounded(i, UPDATES[i], 1.0))
        for i, member in clients.items()
    }
    parties |= {who: member.enter(plan_of(0)) for who, member in helpers.items()}
    assert drive(server.enter(plan_of(0)), parties).opened.survivors == (0, 1, 3)
