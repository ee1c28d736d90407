"""What a node does not do, whoever asks."""

import hashlib
import sys

import pytest

from privfl.config import load
from privfl.core import ConfigError, RoundFailed
from privfl.crypto.primitives import Directory, Identity
from privfl.engine import read_ledger
from privfl.federation import Federation
from privfl.flower.mail import Envelope, read
from privfl.flower.policy import Policy
from privfl.flower.server import federation_over

ALL = {"channels": ["plain", "secagg"], "training": ["sgd"], "quorum": 1, "repeatable": True}
STRICTER = {
    "channels": ({"channels": ["secagg"]}, {}, "'plain' is not in policy.channels"),
    "training": ({"training": ["fedprox"]}, {}, "'sgd' is not in policy.training"),
    "quorum": ({"quorum": 2}, {}, "policy.quorum is 2"),
    "l2": ({"l2": 0.5}, {}, "the bound is 1, and policy.l2 is 0.5"),
    "repeatable": ({"repeatable": False}, {}, "policy.repeatable does not allow it"),
    "no noise": ({"epsilon": 3.0}, {}, "nothing in the run adds noise"),
    "epsilon": (
        {"epsilon": 0.01},
        {"mechanism": {"name": "gaussian", "noise_multiplier": 1.0}},
        "and the budget is 0.01: nothing of it was sent",
    ),
    "code": ({}, {"defences": ["spy_on_a_node:Spy"]}, "the run names the code 'spy_on_a_node:Spy'"),
}


def untouched():
    raise AssertionError("the node looked at its data")


@pytest.mark.parametrize("name", STRICTER)
def test_a_stricter_policy_refuses_before_training(name, make, base, tmp_path, monkeypatch):
    policy, changes, why = STRICTER[name]
    (tmp_path / "spy_on_a_node.py").write_text(
        "from privfl.aggregators import After\n"
        "class Spy(After):\n"
        "    def init(self): return None\n"
        "    def after(self, released, state, context): return released, state\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = {**base, **changes, "rounds": 1}
    mine = Policy(**{**ALL, **policy})
    machines = make(3, policies={"client/1": mine, "client/0": Policy(**ALL, code=["x:Y"])})
    if name == "code":  # nobody lists it
        machines.policies = dict.fromkeys(["client/0", "client/1", "client/2"], mine)
    nodes = machines.started(config)
    if name in ("channels", "training", "code"):
        nodes["client/1"].own = untouched
    if name == "code":
        refused(machines, config, nodes, why)
        return
    run = machines.federation(config, nodes=nodes).run()
    said = [what for what in run.history[0].incidents if what.startswith("client/1 refused: ")]
    assert len(said) == 1
    assert why in said[0]
    assert not list(machines.disks["client/1"].path.rglob("memory-*"))
    assert run.history[0].survivors == 2


def refused(machines, config, nodes, why):
    federation = machines.federation({**config, "defences": []}, nodes=nodes)
    terms = federation._carrier.terms
    federation._carrier.terms = type(terms)(load(config), terms.shape, terms.classes)
    with pytest.raises(RoundFailed, match=why):
        federation.run()
    sys.modules.pop("spy_on_a_node", None)


def test_code_is_not_imported_before_the_policy_lists_it(make, base, tmp_path, monkeypatch):
    (tmp_path / "runs_on_import.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    machines = make(1)
    node = machines.started(base)["client/0"]
    told = load(base).model_dump(mode="json")
    told |= {"data": {"clients": 1}, "mail": "signed", "executor": "sequential"}
    told |= {"aggregator": {"name": "runs_on_import:Rule"}, "audit": {"delta": 1e-5}}
    head = {"config": told, "shape": [64], "classes": 10}
    asked = Envelope("set up", "server", "client/0", b"s" * 16, 1, head)
    raw = node.answer(asked.write(machines.keys["server"]))
    answer = read(raw, "server", machines.directory)
    assert answer.kind == "refusal"
    assert answer.head["stage"] == "policy"
    assert "runs_on_import" not in sys.modules


def test_an_envelope_that_came_before_is_not_played_again(make, base):
    recorded = {}

    def recorder(who, back, raw):
        recorded.setdefault((who, back), []).append(raw)
        return raw

    machines = make(3)
    nodes = machines.started(base)
    machines.federation({**base, "channel": "secagg"}, recorder, nodes).run()
    memories = sorted(machines.disks["client/0"].path.rglob("memory-*"))
    written = [path.read_bytes() for path in memories]
    for raw in recorded["client/0", False]:
        answer = read(nodes["client/0"].answer(raw), "server", machines.directory)
        assert answer.kind == "refusal" or not answer.bodies
    assert [path.read_bytes() for path in memories] == written


def test_a_stranger_and_a_changed_envelope_are_not_answered(make, base):
    machines = make(1)
    node = machines.started(base)["client/0"]
    asked = Envelope("ping", "server", "client/0", bytes(16), 1)
    sealed = asked.write(machines.keys["server"])
    assert node.answer(sealed)
    for raw in (
        asked.write(Identity.fresh("server")),
        Envelope("ping", "client/1", "client/0", bytes(16), 1).write(machines.keys["dealer"]),
        Envelope("ping", "dealer", "client/0", bytes(16), 1).write(machines.keys["dealer"]),
        Envelope("ping", "server", "client/1", bytes(16), 1).write(machines.keys["server"]),
        sealed[:-1] + bytes([sealed[-1] ^ 1]),
        b"",
    ):
        assert node.answer(raw) == b""


def test_words_that_a_server_signs_never_crash_a_node(make, base):
    machines = make(1)
    node = machines.started(base)["client/0"]
    sane = {"config": {"data": {"clients": 1}}, "shape": [64], "classes": 10}
    for kind, head in (
        ("set up", {}),
        ("set up", {**sane, "config": {"data": {"clients": 10**9}}, "classes": -1}),
        ("set up", {**sane, "shape": [2**40]}),
        ("set up", {**sane, "config": {"data": {"name": "own:load", "clients": 1}}}),
        ("set up", {**sane, "config": {"data": {"clients": 1}, "start": "/etc"}}),
        ("set up", {**sane, "config": {"data": {"clients": 1}, "model": {"name": "none"}}}),
        ("order", {"number": 0}),
        ("mail", {}),
        ("answer", {}),
    ):
        session = hashlib.sha256(repr((kind, head)).encode()).digest()[:16]
        asked = Envelope(kind, "server", "client/0", session, 1, head)
        raw = node.answer(asked.write(machines.keys["server"]))
        assert read(raw, "server", machines.directory).kind == "refusal"


def test_noise_at_clients_is_charged_at_the_server_and_in_each_nodes_own_ledger(
    make, base, tmp_path
):
    gradient = {"name": "dp", "noise_multiplier": 1.0, "l2": 1.0}
    config = {**base, "rounds": 2, "audit": {"delta": 1e-4}}
    config["training"] = {**base["training"], "batch_size": 64, "gradient": gradient}
    machines = make(3)
    alone = Federation.from_config(config).run()
    apart = machines.federation(config).run(tmp_path / "run")
    assert apart.ledger == alone.ledger
    assert len(apart.ledger.charges) == 6
    for i in range(3):
        (path,) = machines.disks[f"client/{i}"].path.rglob("ledger.jsonl")
        own = read_ledger(path.parent)
        whose = f"sample of client {i}"
        assert own.charges == tuple(c for c in alone.ledger.charges if c.subject == whose)


def test_a_relay_that_answers_for_helpers_and_other_clients_is_noticed_and_opens_nothing(
    make, base
):
    machines, seen = make(3), []
    keys = {who: Identity.fresh(who) for who in machines.parties}

    def relay(who, back, raw):
        if not back or who == "client/0":
            return raw
        answer = read(raw, "server", machines.directory)
        seen.append(answer.kind)
        forged = Envelope(answer.kind, who, "server", answer.session, answer.number, answer.head)
        return forged.write(keys[who])

    federation = machines.federation({**base, "channel": "additive_sharing"}, relay)
    with pytest.raises(RoundFailed, match=r"an answer in the name of client/1: .* not signed"):
        federation.run()
    assert set(seen) == {"answer"}


def test_a_relay_that_puts_letters_into_envelopes_is_not_believed(make, base):
    machines = make(3)

    def relay(who, back, raw):
        if back or who != "client/0":
            return raw
        found = read(raw, who, machines.directory)
        if found.kind != "mail":
            return raw
        bodies = {**found.bodies, "to/client/1": b"forged"}
        own = Envelope("mail", "server", who, found.session, found.number, found.head, bodies)
        return own.write(machines.keys["client/1"])

    config = {**base, "channel": "secagg", "rounds": 1}
    run = machines.federation(config, relay).run()
    assert any("in the name of client/0" in what for what in run.history[0].incidents)
    assert run.history[0].survivors == 2


def test_the_server_refuses_what_needs_clients_data_here(make, base):
    for changes, why in (
        ({"attacks": ["sign_flip"]}, "played by the simulator"),
        ({"training": "sgd"}, "set max_weight"),
        ({"noise_seed": 3}, "noise_seed"),
        ({"data": {"name": "digits", "clients": 9}}, "the directory does not know client/3"),
    ):
        with pytest.raises(ConfigError, match=why):
            make(3).federation({**base, **changes}).run()


def test_keys_of_somebody_else_are_refused(make, base):
    machines = make(3)
    with pytest.raises(ConfigError, match="these are the keys of dealer"):
        federation_over(load(base), None, machines.keys["dealer"], Directory())


IN_SIMULATED_TIME = [
    {"name": "buffered", "k": 2, "concurrency": 3},
    {"name": "stale_synchronous", "k": 2, "slack": 1},
    {"name": "every_bucket", "buckets": 3, "concurrency": 3},
]


@pytest.mark.parametrize("pace", IN_SIMULATED_TIME, ids=lambda pace: pace["name"])
def test_a_pace_of_simulated_time_is_refused_before_anybody_is_asked(pace, make, base):
    asked = []

    def tap(who, back, raw):
        asked.append(who)
        return raw

    with pytest.raises(ConfigError, match="is played in simulated time, and these clients are on"):
        make(3).federation({**base, "pace": pace}, tap).run()
    assert not asked


def test_rates_that_a_seed_draws_are_refused_under_noise_before_anybody_is_asked(make, base):
    asked = []

    def tap(who, back, raw):
        asked.append(who)
        return raw

    config = {**base, "mechanism": {"name": "gaussian", "noise_multiplier": 1.0}}
    config["sampler"] = {"name": "personal_poisson", "rates": {"a": 0.3, "b": 0.6}}
    config["sampler"]["members"] = {"a": [0]}
    with pytest.raises(ConfigError, match="so a lower rate saves nothing"):
        make(3).federation(config, tap).run()
    assert not asked
