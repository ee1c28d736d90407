"""Private rounds of an app as Flower's template makes it: a mod, a grid, and nothing else of it
changes.
"""

import copy
import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import strategy as flowers

from privfl.aggregators import Krum
from privfl.core import BadUpdate, ConfigError
from privfl.crypto import BFV, AdditiveSharing, Plain, SecAgg
from privfl.dp import Clip, DistributedSkellam, Gaussian, LocalGaussian
from privfl.engine import Journal
from privfl.flower.layer import read_keys
from privfl.flower.mail import read
from privfl.flower.private import PrivateGrid, PrivateLayer, make_keys, private
from privfl.hybrid import TwoServer
from privfl.wrapper.spent import spent_of
from tests.flower.in_process import InProcess
from tests.flower.pytorch_app import Net, client_app, template_train

ROOT = Path(__file__).parents[2]
CLIENTS = 4
SECAGG = SecAgg(mode="active", bits=20)
logging.getLogger("flwr").setLevel(logging.ERROR)


def initial():
    torch.manual_seed(0)
    return ArrayRecord(Net().state_dict())


def start(strategy, grid, rounds=2, timeout=5.0):
    config = ConfigRecord({"lr": 0.3})
    got = strategy.start(
        grid=grid, initial_arrays=initial(), num_rounds=rounds, train_config=config, timeout=timeout
    )
    return {name: array.numpy() for name, array in got.arrays.items()}


def nodes_of(layer, folder, clients=CLIENTS, app=client_app, **given):
    """A node for each client, and for each helper."""
    keys = make_keys(folder, layer.channel, clients)
    mod = private(layer, str(folder / "{keys}"), drop=("train_loss",), **given)
    parties = [who for who in keys if who != "server"]
    return {
        100 + i: (app(mod), {"partition-id": i, "keys": who.replace("/", "-")})
        for i, who in enumerate(parties)
    }


def privately(strategy, layer, folder, rounds=2, tap=lambda *_: True, timeout=5.0, **given):
    grid = InProcess(nodes_of(layer, folder), tap)
    given = {"patience": 5.0, **given}
    private_grid = PrivateGrid(grid, strategy, layer, folder / "server", **given)
    return start(strategy, private_grid, rounds, timeout), private_grid


def openly(strategy, rounds=2, clients=CLIENTS):
    nodes = {100 + i: (client_app(), {"partition-id": i}) for i in range(clients)}
    return start(strategy, InProcess(nodes), rounds)


def apart(one, other):
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def fedavg(**given):
    return flowers.FedAvg(fraction_evaluate=0.0, **given)


LAYER = PrivateLayer(SECAGG, Clip(2.0), max_weight=64.0)


# ---- the same result


@pytest.mark.parametrize("name", ["FedAvg", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi"])
def test_a_strategy_comes_to_what_it_comes_to_without_privacy(tmp_path, name):
    given = {"fraction_evaluate": 0.0}
    if name == "FedAvgM":
        given |= {"server_momentum": 0.9, "server_learning_rate": 0.5}
    made, grid = privately(getattr(flowers, name)(**given), LAYER, tmp_path)
    assert apart(made, openly(getattr(flowers, name)(**given))) < 2e-4
    assert [receipt.server_reads for receipt in grid.receipts] == ["only the sum of 4 updates"] * 2
    assert apart(made, {k: v.numpy() for k, v in initial().items()}) > 0.01


@pytest.mark.parametrize(
    "channel", [Plain(), AdditiveSharing(bits=20), BFV(bits=16)], ids=lambda one: type(one).__name__
)
def test_other_channels_do_too_with_their_helpers_as_nodes_of_their_own(tmp_path, channel):
    layer = PrivateLayer(channel, Clip(2.0), max_weight=64.0)
    made, _ = privately(fedavg(), layer, tmp_path)
    assert apart(made, openly(fedavg())) < 1e-3


def test_without_a_bound_on_weights_every_client_counts_alike(tmp_path):
    made, grid = privately(fedavg(), PrivateLayer(SECAGG, Clip(2.0)), tmp_path, rounds=1)
    assert apart(made, openly(fedavg(), rounds=1)) > 1e-4
    even, _ = privately(fedavg(), PrivateLayer(Plain(), Clip(2.0)), tmp_path / "even", rounds=1)
    assert apart(made, even) < 1e-4
    assert sorted(grid.receipts[0].survivors) == [0, 1, 2, 3]


def test_a_rule_of_two_servers_leaves_out_who_lies(tmp_path):
    def lying(mod):
        def turned(message, context, call_next):
            reply = call_next(message, context)
            if context.node_config["partition-id"] == 1:
                arrays = reply.content["arrays"].to_torch_state_dict()
                reply.content["arrays"] = ArrayRecord({k: -40 * v for k, v in arrays.items()})
            return reply

        return client_app(mod, turned)

    layer = PrivateLayer(TwoServer(rule=Krum(f=1, m=2), bits=20, security="semi_honest"), Clip(2.0))
    grid = InProcess(nodes_of(layer, tmp_path, clients=5, app=lying))
    strategy = fedavg()
    made = start(strategy, PrivateGrid(grid, strategy, layer, tmp_path / "server"), rounds=1)
    honest = openly(fedavg(), rounds=1, clients=5)
    assert apart(made, honest) < 0.05
    bare = PrivateLayer(SECAGG, Clip(2.0))
    grid = InProcess(nodes_of(bare, tmp_path / "bare", clients=5, app=lying))
    strategy = fedavg()
    moved = start(strategy, PrivateGrid(grid, strategy, bare, tmp_path / "bare/server"), rounds=1)
    assert apart(moved, honest) > 0.1


# ---- privacy


@pytest.mark.parametrize(
    ("parts", "against"),
    [
        ({"channel": SECAGG, "mechanism": Gaussian(2.0), "denominator": 4.0}, "model"),
        ({"channel": Plain(), "mechanism": LocalGaussian(4.0)}, "the server"),
        ({"channel": SecAgg(bits=20, noise=DistributedSkellam(2.0))}, "the server"),
    ],
    ids=["on the aggregate", "at the clients", "in shares"],
)
def test_noise_is_added_once_and_charged(tmp_path, parts, against):
    layer = PrivateLayer(bound=Clip(1e-3), delta=1e-2, **parts)
    made, grid = privately(fedavg(), layer, tmp_path, rounds=2)
    noise = np.concatenate([(made[k] - v.numpy()).reshape(-1) for k, v in initial().items()])
    deviation = {Gaussian: 2e-3 / 4, LocalGaussian: 2 * 4e-3 / 2}.get(type(layer.mechanism))
    if deviation is None:  # its shares are enough noise where only a quorum comes
        deviation = 2e-3 / 4 * (CLIENTS / layer.channel.fewest(CLIENTS)) ** 0.5
    assert noise.std() == pytest.approx(deviation * 2**0.5, rel=0.35)
    first, second = grid.receipts
    assert 0 < first.epsilon < second.epsilon < float("inf")
    assert against in second.statement
    assert len(grid.spending.ledger.charges) == 2
    for client in range(CLIENTS):  # on its own disk, and not on the server's word
        own = Journal(tmp_path / f"client-{client}" / "ledger.jsonl").ledger()
        assert len(own.charges) == 2
        spent, _, _ = spent_of(own, layer.delta)
        assert spent >= second.epsilon * 0.999


def test_lots_of_a_rule_follow_from_nothing_that_others_know(tmp_path, monkeypatch):
    layer, coins = PrivateLayer(TwoServer(Krum(f=1, m=2)), Clip(1.0)), []
    nodes = nodes_of(layer, tmp_path, clients=5)
    kind = type(layer.channel.server(*read_keys(tmp_path / "server")))
    informed = kind.inform

    def inform(member, context):
        coins.append(context.rng.get_state().numpy().tobytes())
        informed(member, context)

    monkeypatch.setattr(kind, "inform", inform)
    for _ in range(2):
        strategy = fedavg()
        start(strategy, PrivateGrid(InProcess(nodes), strategy, layer, tmp_path / "server"), 1)
    assert len(coins) == len(set(coins)) == 2


# ---- what is refused


@pytest.mark.parametrize(
    "strategy",
    [
        lambda: flowers.FedMedian(),
        lambda: flowers.FedTrimmedAvg(),
        lambda: flowers.Krum(num_malicious_nodes=1),
        lambda: flowers.DifferentialPrivacyServerSideFixedClipping(flowers.FedAvg(), 1.0, 1.0, 4),
        lambda: type("Mine", (flowers.FedAvg,), {})(),
    ],
    ids=["FedMedian", "FedTrimmedAvg", "Krum", "server-side DP", "a subclass"],
)
def test_a_strategy_that_may_read_more_than_the_mean_is_refused(tmp_path, strategy):
    make_keys(tmp_path, SECAGG, 2)
    with pytest.raises(ConfigError, match="more of clients' replies than their mean"):
        PrivateGrid(InProcess({}), strategy(), LAYER, tmp_path / "server")


def test_metrics_that_a_strategy_aggregates_its_own_way_are_refused(tmp_path):
    make_keys(tmp_path, SECAGG, 2)
    strategy = fedavg(train_metrics_aggr_fn=lambda replies, key: replies[0])
    with pytest.raises(ConfigError, match="train_metrics_aggr_fn"):
        PrivateGrid(InProcess({}), strategy, LAYER, tmp_path / "server")


def test_evaluation_passes_only_where_it_may(tmp_path):
    with pytest.raises(ConfigError, match="each client's own metrics"):
        privately(flowers.FedAvg(), LAYER, tmp_path, rounds=1)
    allowed, _ = privately(
        flowers.FedAvg(), LAYER, tmp_path / "b", rounds=1, evaluate="in the clear"
    )
    assert allowed.keys() == initial().keys()


def replying(change):
    """The template's app, whose reply a mod of its owner's changes first."""

    def app(mod):
        def changed(message, context, call_next):
            reply = call_next(message, context)
            change(reply.content)
            return reply

        return client_app(mod, changed)

    return app


def more_arrays(content):
    content["momentum"] = copy.deepcopy(content["arrays"])


def counting(content):
    content["arrays"] = ArrayRecord(
        {**content["arrays"].to_torch_state_dict(), "steps": torch.tensor(3)}
    )


def wholes(content):
    held = content["arrays"].to_torch_state_dict()
    content["arrays"] = ArrayRecord({k: (v * 10).long() for k, v in held.items()})


def more_metrics(content):
    content["metrics"]["own_accuracy"] = 0.9


def no_weight(content):
    del content["metrics"]["num-examples"]


def notes(content):
    content["notes"] = ConfigRecord({"said": "x"})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (more_arrays, "2 ArrayRecords"),
        (counting, "steps"),
        (wholes, "whole numbers"),
        (more_metrics, "own_accuracy"),
        (no_weight, "no 'num-examples'"),
        (notes, "notes"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_would_leave_beside_the_mean_is_refused_at_the_client(tmp_path, caplog, change, why):
    strategy, grid = fedavg(), InProcess(nodes_of(LAYER, tmp_path, app=replying(change)))
    with caplog.at_level("WARNING", "privfl.flower"):
        before = {k: v.numpy() for k, v in initial().items()}
        result = strategy.start(
            grid=PrivateGrid(grid, strategy, LAYER, tmp_path / "server"),
            initial_arrays=initial(),
            num_rounds=1,
            train_config=ConfigRecord({"lr": 0.1}),
        )
    assert not result.arrays or apart({k: v.numpy() for k, v in result.arrays.items()}, before) == 0
    assert why in caplog.text


def test_an_integer_buffer_of_the_model_is_refused_before_any_training(tmp_path):
    strategy = fedavg()
    grid = PrivateGrid(InProcess(nodes_of(LAYER, tmp_path)), strategy, LAYER, tmp_path / "server")
    counted = ArrayRecord({**Net().state_dict(), "norm.num_batches_tracked": torch.tensor(0)})
    with pytest.raises(BadUpdate, match=r"whole numbers|running statistics"):
        strategy.start(grid=grid, initial_arrays=counted, num_rounds=1)


def test_a_node_whose_config_does_not_name_its_keys_is_told_of_once(tmp_path, caplog):
    nodes = nodes_of(LAYER, tmp_path)
    nodes[100] = (nodes[100][0], {"partition-id": 0})
    grid = PrivateGrid(InProcess(nodes), fedavg(), LAYER, tmp_path / "server")
    with caplog.at_level("WARNING", "privfl.flower"):
        assert [sorted(grid.get_node_ids()) for _ in range(2)] == [[101, 102, 103]] * 2
    (said,) = [r.getMessage() for r in caplog.records if "who it is" in r.getMessage()]
    assert said.startswith("node 100 does not say who it is: ")
    assert "this node's config holds no 'keys': start it with --node-config 'keys=...'" in said


def test_a_node_does_not_train_for_a_server_that_plays_no_protocol(tmp_path):
    trained = []
    nodes = nodes_of(
        LAYER, tmp_path, app=lambda mod: client_app(mod, before=lambda context: trained.append(1))
    )
    grid = InProcess(nodes)
    question = RecordDict({"arrays": initial(), "config": ConfigRecord({"lr": 0.1})})
    [reply] = grid.send_and_receive([Message(question, dst_node_id=100, message_type="train")])
    assert "without PrivateGrid" in reply.error.reason
    assert not trained


# ---- a relay, and losses


def test_nothing_of_a_model_is_on_the_wire_but_masked(tmp_path):
    seen = []

    def tap(node, back, message, raw):
        if back:
            seen.append((node, message.content, raw))
        return True

    privately(fedavg(), LAYER, tmp_path, rounds=1, tap=tap)
    assert all(set(content) == {"privfl"} for _, content, _ in seen)
    assert not any(b"train_loss" in raw or b"num-examples" in raw for _, _, raw in seen)
    assert not any(b"\x80\x04\x95" in raw or b"\x80\x05\x95" in raw for _, _, raw in seen)


@pytest.mark.parametrize("lost_at", [2, 3, 4])
def test_a_node_that_falls_silent_is_out_and_the_sum_is_exact(tmp_path, lost_at):
    counts = {}

    def tap(node, back, message, raw):
        counts[node] = counts.get(node, 0) + (not back)
        return node != 103 or counts[node] <= lost_at

    made, grid = privately(fedavg(), LAYER, tmp_path, rounds=1, tap=tap, patience=0.3, timeout=0.3)
    came = grid.receipts[0].survivors
    assert set(came) >= {0, 1, 2}
    assert apart(made, openly(fedavg(), rounds=1, clients=len(came))) < 2e-4


def test_a_model_that_a_relay_put_in_the_place_of_the_servers_is_refused(tmp_path, caplog):
    trained = []

    def tap(node, back, message, raw):
        if not back and "arrays" in message.content and node == 101:
            other = {k: v + 1.0 for k, v in message.content["arrays"].to_torch_state_dict().items()}
            message.content["arrays"] = ArrayRecord(other)
        return True

    nodes = nodes_of(
        LAYER,
        tmp_path,
        app=lambda mod: client_app(
            mod, before=lambda context: trained.append(context.node_config["partition-id"])
        ),
    )
    strategy = fedavg()
    grid = PrivateGrid(InProcess(nodes, tap), strategy, LAYER, tmp_path / "server", patience=0.3)
    with caplog.at_level("WARNING", "privfl.flower"):
        start(strategy, grid, rounds=1)
    assert sorted(trained) == [0, 2, 3]
    assert sorted(grid.receipts[0].survivors) == [0, 2, 3]


@pytest.mark.parametrize("in_another_run", [False, True])
def test_what_a_relay_brings_again_is_not_played_again(tmp_path, in_another_run):
    held, answers, trained = [], [], []

    def tap(node, back, message, raw):
        if node == 101 and not back and "envelope" in message.content["privfl"]:
            held.append(copy.deepcopy(message))
        if node == 101 and back:
            answers.append(message)
        return True

    def app(mod):
        return client_app(mod, before=lambda context: trained.append(1))

    nodes = nodes_of(LAYER, tmp_path, app=app)
    wire, strategy = InProcess(nodes, tap), fedavg()
    start(strategy, PrivateGrid(wire, strategy, LAYER, tmp_path / "server"), rounds=1)
    assert len(trained) == 4
    if in_another_run:  # Flower's context begins empty
        wire = InProcess(nodes, tap)
    set_up, order = held[:2]
    wire.push_messages([order])
    wire.push_messages([set_up, order])
    assert len(trained) == 4
    _, directory = read_keys(tmp_path / "server")
    again = [read(one.content["privfl"]["envelope"], "server", directory) for one in answers[-3:]]
    assert [one.kind for one in again] == ["refusal"] * 3
    assert "was set up here before" in again[1].head["why"]


def test_a_cohort_smaller_than_a_nodes_quorum_is_refused_before_any_training(tmp_path, caplog):
    trained = []

    def app(mod):
        return client_app(mod, before=lambda context: trained.append(1))

    strict, strategy = replace(LAYER, quorum=5), fedavg()
    grid = InProcess(nodes_of(strict, tmp_path, app=app))
    with caplog.at_level("WARNING", "privfl.flower"):
        start(strategy, PrivateGrid(grid, strategy, LAYER, tmp_path / "server"), rounds=1)
    assert not trained
    assert "its quorum is 5" in caplog.text


def test_what_a_node_keeps_between_messages_is_sealed(tmp_path):
    grid = InProcess(nodes_of(LAYER, tmp_path))
    strategy = fedavg()
    start(strategy, PrivateGrid(grid, strategy, LAYER, tmp_path / "server"), rounds=1)
    for who, (_, context) in zip(range(CLIENTS), grid.nodes.values(), strict=True):
        sealed = context.state["privfl"]["sealed"]
        identity, _ = read_keys(tmp_path / f"client-{who}")
        assert identity.signing not in sealed
        assert identity.box not in sealed
        assert b"privfl.crypto" not in sealed


def test_the_lines_of_the_page_make_the_template_private(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "flower-apps.md").read_text(encoding="utf-8")
    layer, client, server = re.findall(r"```py\n(.*?)```", page, re.S)
    app, strategy = ClientApp(), fedavg()
    known = {"app": app, "strategy": strategy, "arrays": initial(), "trained": template_train}
    exec(layer, known)  # noqa: S102 - our own page
    exec(client.replace("    ...", "    return trained(msg, context)"), known)  # noqa: S102
    make_keys(Path("keys"), known["LAYER"].channel, CLIENTS)
    told = [{"partition-id": i, "party": f"client-{i}"} for i in range(CLIENTS)]
    known["grid"] = InProcess({100 + i: (app, config) for i, config in enumerate(told)})
    exec(server, known)  # noqa: S102
    assert [len(receipt.survivors) for receipt in known["private_grid"].receipts] == [CLIENTS] * 3
    made = {name: array.numpy() for name, array in known["result"].arrays.items()}
    assert apart(made, openly(fedavg(), rounds=3)) < 5e-3
