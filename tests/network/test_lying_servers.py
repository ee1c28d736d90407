"""What a server or a relay gets who lies to nodes, and what a node gets that lies to the server."""

import time
from contextlib import suppress
from dataclasses import replace

import pytest

from privfl.config import load
from privfl.core import ConfigError, RoundFailed
from privfl.engine import read_ledger
from privfl.flower.heads import Terms
from privfl.flower.mail import Envelope, read
from privfl.flower.node import party_in
from privfl.flower.policy import Policy, PolicyRefused
from privfl.flower.setup import set_up
from privfl.flower.wire import Patience

MINE = {"channels": ["plain", "secagg"], "training": ["sgd", "scaffold"], "quorum": 1}


def asked(machines, node, kind, head, session=b"s" * 16, number=1, bodies=None):
    sent = Envelope(kind, "server", node.who, session, number, head, bodies or {})
    return read(node.answer(sent.write(machines.keys["server"])), "server", machines.directory)


def of_another_cohort(machines, cohort):
    """A server that names another cohort in its orders, and what it is answered: who, which kind of
    envelope, and why.
    """
    said = []

    def lies(who, back, raw):
        if back:
            found = read(raw, "server", machines.directory)
            said.append((who, found.kind, str(found.head.get("why"))))
            return raw
        found = read(raw, who, machines.directory)
        if found.kind != "order":
            return raw
        lie = replace(found, head={**found.head, "cohort": cohort})
        return lie.write(machines.keys["server"])

    return said, lies


@pytest.mark.parametrize(
    "name", ["spy-on-a-node:Spy", "\u00fcber:Spy", "a b:Spy", "spy:\u00c9t\u00e9"]
)
def test_no_spelling_of_foreign_code_gets_past_the_policy(name, base):
    policy = Policy(**MINE, repeatable=True)
    with pytest.raises(PolicyRefused, match=r"policy\.code"):
        policy.admit_config(load({**base, "defences": [name]}))


def test_the_largest_bound_holds_for_every_part_that_is_sent(make, base):
    config = {
        **base,
        "rounds": 1,
        "training": {"name": "scaffold", "steps": 2},
        "channel": "secagg",
        "bound": {"name": "clip", "l2": 1.0, "parts": {"control": 1000.0}},
    }
    strict = Policy(**MINE, repeatable=True, l2=1.0)
    run = make(3, policies={"client/1": strict}).federation(config).run()
    said = [what for what in run.history[0].incidents if what.startswith("client/1 refused: ")]
    assert said
    assert "policy.l2" in said[0]


def test_a_server_cannot_ask_how_many_samples_a_client_has(make, base):
    config, machines = {**base, "rounds": 1, "channel": "plain"}, make(3)
    told = []

    def lies(who, back, raw):
        if back or not who.startswith("client/"):
            return raw
        found = read(raw, who, machines.directory)
        if found.kind != "order":
            return raw
        lie = replace(found, head={**found.head, "claims": True})
        return lie.write(machines.keys["server"])

    def hears(who, back, raw):
        raw = lies(who, back, raw)
        if back:
            told.append(read(raw, "server", machines.directory).head.get("samples"))
        return raw

    with suppress(RoundFailed):
        machines.federation(config, hears).run()
    assert told
    assert set(told) == {None}


def test_a_cohort_of_strangers_is_refused(make, base):
    config, machines = {**base, "rounds": 1, "channel": "additive_sharing"}, make(3)
    said, strangers = of_another_cohort(machines, [0, 77, 78])
    with suppress(RoundFailed):
        machines.federation(config, strangers).run()
    assert ("client/0", "refusal") in {(who, kind) for who, kind, _ in said}


def test_a_server_does_not_choose_who_is_beside_whom(make, base):
    """In a chain who is beside whom decides who reads whom."""
    config, machines = {**base, "rounds": 1, "channel": "chain"}, make(3)
    said, reorders = of_another_cohort(machines, [0, 2, 1])
    with suppress(RoundFailed):
        machines.federation(config, reorders).run()
    refused = {who: why for who, kind, why in said if kind == "refusal"}
    assert refused.keys() == {"client/0", "client/1", "client/2"}
    assert all("not in the order of the run's clients" in why for why in refused.values())


def test_a_relay_that_repeats_old_answers_does_not_hold_a_round_beyond_its_deadline(make, base):
    machines, first = make(3), []
    federation = machines.federation({**base, "rounds": 1}, patience=Patience(1, 1, 1))
    wire = federation._carrier.wire
    honest, began = wire.collect, time.monotonic()

    def again(seconds):
        came = list(honest(seconds))
        first.extend(came[:1])
        if time.monotonic() > began + 20:
            raise AssertionError("the round goes on as long as the relay likes")
        return [(w, r) for w, r in came if w != "client/2"] or first[:1]

    wire.collect = again
    run = federation.run()
    assert run.history[0].survivors == 2


def test_a_client_that_gives_up_in_the_key_set_up_ends_no_run(make, base):
    machines = make(3)

    def gives_up(who, back, raw):
        if not back or who != "client/0":
            return raw
        found = read(raw, "server", machines.directory)
        lie = {**found.head, "aborts": {"": ["client/1 cheats", "client/1"]}}
        return replace(found, head=lie).write(machines.keys["client/0"])

    run = machines.federation({**base, "rounds": 1, "channel": "secagg"}, gives_up).run()
    assert run.history[0].survivors == 2
    said = [what for what in run.history[0].incidents if "cheats" in what]
    assert said
    assert all(what.startswith("client/0 ") for what in said)


@pytest.mark.parametrize("samples", [0, 1 << 47])
def test_a_client_that_lies_about_its_samples_ends_no_run(samples, make, base):
    gradient = {"name": "dp", "noise_multiplier": 1.0, "l2": 1.0}
    config = {**base, "rounds": 1, "audit": {"delta": 1e-4}}
    config["training"] = {**base["training"], "batch_size": 64, "gradient": gradient}
    machines = make(3)

    def lies(who, back, raw):
        if not back or who != "client/0":
            return raw
        found = read(raw, "server", machines.directory)
        if found.head.get("samples") is None:
            return raw
        lie = replace(found, head={**found.head, "samples": samples})
        return lie.write(machines.keys["client/0"])

    run = machines.federation(config, lies).run()
    assert run.history[0].survivors >= 2


def test_a_client_that_never_stops_talking_ends_no_run(make, base):
    machines = make(3)

    def talks(who, back, raw):
        if not back or who != "client/0":
            return raw
        found = read(raw, "server", machines.directory)
        chatter = {**found.bodies, "to/client/0": b"again"}
        return replace(found, bodies=chatter).write(machines.keys["client/0"])

    run = machines.federation({**base, "rounds": 1}, talks).run()
    assert run.history[0].survivors >= 2


def test_a_name_that_a_stranger_wrote_reaches_no_log_as_it_is(make, base, caplog):
    machines = make(1)
    node = machines.started(base)["client/0"]
    name = "x\nroot: all is well \x1b[2J"
    forged = Envelope("ping", name, "client/0", bytes(16), 1)
    assert node.answer(forged.write(machines.keys["server"])) == b""
    assert "\n" not in caplog.messages[-1]
    assert "\x1b" not in caplog.messages[-1]


def test_a_run_has_no_more_clients_than_the_directory_knows(make, base):
    machines = make(2)
    node = machines.started(base)["client/0"]
    told = Terms(load({**base, "channel": "plain"}), (1, 8, 8), 10).head()
    told["config"] |= {"data": {"clients": 3}}
    answer = asked(machines, node, "set up", told)
    assert answer.kind == "refusal"
    assert "directory" in answer.head["why"]


def test_clients_that_were_told_other_terms_do_not_open_a_sum_together(make, base):
    """Its own share of the noise protects nobody where the others were told to add none."""
    noise = {"name": "skellam", "noise_multiplier": 1.0}
    config = {**base, "rounds": 1, "mechanism": noise}
    config["channel"] = {"name": "secagg", "mode": "active"}
    machines = make(3)

    def lies(who, back, raw):
        if back or who == "client/0" or not who.startswith("client/"):
            return raw
        found = read(raw, who, machines.directory)
        if found.kind != "set up":
            return raw
        weak = {**noise, "noise_multiplier": 0.1}
        told = {**found.head["config"], "mechanism": weak}
        return replace(found, head={**found.head, "config": told}).write(machines.keys["server"])

    try:
        run = machines.federation(config, lies).run()
    except RoundFailed:
        return
    assert run.history[0].survivors == 0


def test_two_nodes_do_not_work_on_one_folder(tmp_path):

    set_up(tmp_path / "fed", 2, [], "127.0.0.1", 9092)
    _, party = party_in(tmp_path / "fed" / "client-0")
    with pytest.raises(ConfigError, match="another process"):
        party_in(tmp_path / "fed" / "client-0")
    assert party.who == "client/0"


@pytest.mark.parametrize(
    "name", ["..", "../mine", "server", "client/0", "client/7", "client-1", "a\nb", ""]
)
def test_a_helper_has_a_helpers_name(name, tmp_path):
    with pytest.raises(ConfigError, match="helper"):
        set_up(tmp_path / "deep" / "fed", 2, [name], "127.0.0.1", 9092)
    assert not (tmp_path / "deep").exists() or not any((tmp_path / "deep").rglob("identity"))


def test_a_channels_settings_can_be_asked_for(base):
    policy = Policy(
        channels=[{"name": "secagg", "mode": "active"}], training=["sgd"], repeatable=True
    )
    policy.admit_config(load({**base, "channel": {"name": "secagg", "mode": "active"}}))
    for weaker in ("plain", "secagg", {"name": "secagg", "mode": "semi_honest"}):
        with pytest.raises(PolicyRefused, match=r"policy\.channels"):
            policy.admit_config(load({**base, "channel": weaker}))


def test_a_client_counts_no_hidden_cohort_in_the_rounds_that_it_was_in(make, base):
    """It has no entry for rounds that it was not in, and the server draws who is."""
    config = {
        **base,
        "rounds": 4,
        "repeatable": False,
        "data": {"name": "digits", "clients": 6},
        "channel": "plain",
        "sampler": {"name": "poisson", "rate": 0.5},
        "mechanism": {"name": "gaussian", "noise_multiplier": 1.0},
        "threat": {"adversary": "model_recipients"},
    }
    machines = make(6)
    claimed = machines.federation(config).run().ledger.charges
    assert all(one.cohort_hidden for one in claimed)
    own = [
        one
        for i in range(6)
        for path in machines.disks[f"client/{i}"].path.rglob("ledger.jsonl")
        for one in read_ledger(path.parent).charges
    ]
    assert own
    assert not any(one.cohort_hidden for one in own)
