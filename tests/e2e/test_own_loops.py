"""The layer in other people's loops: their names of clients, their shapes of updates, their weights
and drop-outs.
"""

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from privfl import PrivateAggregation
from privfl.aggregators import FLTrust, Krum
from privfl.core import BadUpdate, ConfigError, RoundFailed, RoundPlan, UnsupportedModel
from privfl.crypto import BFV, AdditiveSharing, OneTimeRLWE, Plain, SecAgg
from privfl.dp import Clip, Gaussian, LocalGaussian
from privfl.hybrid import BucketedSecAgg, TwoServer
from privfl.wrapper.names import Names

NAMES: list[Any] = ["St. Mary", -7, ("ward", 2), 3, None, 2.5, b"\x00", 1 << 40]
CHANNELS = [
    Plain(),
    SecAgg(),
    SecAgg(mode="active"),
    AdditiveSharing(),
    BFV(),
    OneTimeRLWE(),
    BucketedSecAgg(size=2),
    TwoServer(),
]


def ones(names, d=6):
    return {name: torch.full((d,), 0.01 * place) for place, name in enumerate(names)}


# ---- names


@pytest.mark.parametrize("mail", ["bare", "signed"])
@pytest.mark.parametrize("channel", CHANNELS, ids=lambda channel: type(channel).__name__)
def test_clients_have_any_names_over_every_channel_and_are_reported_by_them(channel, mail):
    layer = PrivateAggregation(bound=Clip(1.0), channel=channel, mail=mail)
    mean, receipt = layer.aggregate(ones(NAMES))
    assert sorted(map(repr, receipt.survivors)) == sorted(map(repr, NAMES))
    assert mean.tolist() == pytest.approx([0.035] * 6, abs=1e-3)


def test_numbers_stand_for_names_in_the_ledger_and_are_the_same_in_every_process():
    one, other = Names(), Names()
    for name in NAMES:
        one.number(name)
    for name in reversed(NAMES):
        other.number(name)
    assert one.known == other.known
    assert one.number(3) == 3
    assert one.number(3.0) == 3
    assert one.number("St. Mary") == 3720562412133200, "as it was written in ledgers before"


def test_a_ledger_that_two_layers_keep_charges_the_same_client_in_both(tmp_path):
    def layer():
        return PrivateAggregation(
            bound=Clip(1.0), mechanism=LocalGaussian(4.0), ledger_file=tmp_path / "ledger.jsonl"
        )

    _, once = layer().aggregate(ones(["a", "b"]))
    again = layer()
    _, twice = again.aggregate(ones(["c", "a"]))
    assert twice.epsilon > 1.2 * once.epsilon, "a has paid for two rounds"
    fresh = layer()
    assert fresh.ledger == again.ledger


def test_names_that_end_with_the_process_are_refused_where_the_ledger_does_not(tmp_path):
    mine = object()
    updates = {mine: torch.ones(3), "b": torch.ones(3)}
    _, receipt = PrivateAggregation().aggregate(updates)
    assert set(receipt.survivors) == {mine, "b"}
    with pytest.raises(ConfigError, match="give a string or a number in its place"):
        PrivateAggregation(ledger_file=tmp_path / "ledger.jsonl").aggregate(updates)


def test_a_client_whose_name_is_missing_in_a_table_is_refused():
    with pytest.raises(BadUpdate, match="not equal to itself"):
        PrivateAggregation().aggregate({float("nan"): torch.ones(3)})


def test_words_on_what_went_wrong_have_names_and_no_numbers():
    layer = PrivateAggregation(bound=Clip(1.0), channel=SecAgg(threshold=3))
    with pytest.raises(RoundFailed) as failed:
        layer.aggregate(ones(["a", "b"]), dropped=["c", "d"])
    assert not any(str(number) in str(failed.value) for number in layer.clients.values())
    with pytest.raises(BadUpdate, match="client 'b'"):
        PrivateAggregation().aggregate({"a": torch.ones(2), "b": torch.tensor([1.0, np.nan])})


# ---- shapes


class Layer(NamedTuple):
    weight: torch.Tensor
    bias: np.ndarray


SHAPES: dict[str, Any] = {
    "state_dict": nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)).state_dict(),
    "list of arrays": [np.ones((2, 3), np.float32), np.ones(4, np.float32)],
    "tuple": (torch.ones(2, 2), torch.ones(1)),
    "nested": {"a": {"w": torch.ones(2), "b": [np.ones((1, 2), np.float32)]}, "c": torch.ones(())},
    "named tuple": Layer(torch.ones(2, 1), np.ones(2, np.float32)),
    "half": {"w": torch.ones(3, dtype=torch.float16), "v": torch.ones(2, dtype=torch.bfloat16)},
    "numbers": {"w": np.ones(2, np.float32), "b": np.float32(1.0)},
    "big-endian": [np.ones(3, ">f4")],
}


def scaled(value, by):
    if isinstance(value, dict):
        return type(value)((key, scaled(one, by)) for key, one in value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(scaled(one, by) for one in value))
    if isinstance(value, list | tuple):
        return type(value)(scaled(one, by) for one in value)
    if isinstance(value, np.ndarray | np.generic):
        return (
            (value * by).astype(value.dtype)[()]
            if value.ndim == 0
            else value * value.dtype.type(by)
        )
    return value * by


def leaves(value):
    if isinstance(value, dict):
        return [leaf for key, one in value.items() for leaf in [key, *leaves(one)]]
    if isinstance(value, list | tuple):
        return [type(value), *(leaf for one in value for leaf in leaves(one))]
    return [(type(value), value.shape, value.dtype, np.asarray(value.tolist()).round(3).tolist())]


@pytest.mark.parametrize("shape", SHAPES)
def test_updates_come_back_in_the_shape_and_type_that_they_had(shape):
    update = SHAPES[shape]
    layer = PrivateAggregation()
    mean, _ = layer.aggregate({i: scaled(update, by) for i, by in enumerate((0.5, 1.0, 1.5))})
    assert type(mean) is type(update)
    assert leaves(mean) == leaves(scaled(update, 1.0))
    again, _ = layer.aggregate({0: update}, dropped=[])
    assert leaves(again) == leaves(update)


def test_keys_in_another_order_are_the_same_update():
    mean, _ = PrivateAggregation().aggregate(
        {
            "a": OrderedDict(w=torch.tensor([1.0]), b=torch.tensor([2.0])),
            "b": OrderedDict(b=torch.tensor([4.0]), w=torch.tensor([3.0])),
        }
    )
    assert (float(mean["w"]), float(mean["b"])) == (2.0, 3.0)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"w": torch.ones(3, 2)}, "'w': a tensor of float32 with shape \\(2, 3\\) was expected"),
        ({"w": np.ones((2, 3), np.float32)}, "'w': a tensor .* this is an array"),
        ({"w": torch.ones(2, 3).double()}, "'w'.*float64"),
        ({"w": torch.ones(2, 3), "v": torch.ones(1)}, "'v': this client and the first"),
        ({}, "'w': this client and the first"),
        ([torch.ones(2, 3)], "a dict was expected"),
        (torch.ones(6), "a dict was expected"),
    ],
)
def test_an_update_of_another_shape_is_refused_with_client_and_place(other, words):
    with pytest.raises(BadUpdate, match=f"client 'b'.*{words}"):
        PrivateAggregation().aggregate({"a": {"w": torch.ones(2, 3)}, "b": other})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.ones(2, dtype=torch.int64), "whole numbers"),
        (np.array([True, False]), "whole numbers"),
        (np.arange(3, dtype=np.uint8), "whole numbers"),
        (torch.ones(2, dtype=torch.complex64), "no dense real numbers"),
        (np.array(["a"]), "no dense real numbers"),
        (torch.eye(2).to_sparse(), "no dense real numbers"),
        (torch.ones(2, dtype=torch.float64), "say float64='round'"),
        (np.ones(2), "say float64='round'"),
        (0.5, "say float64='round'"),
        ("text", "this is a str"),
        ({"running_mean": torch.ones(2)}, "bn.running_mean'.*normalisation"),
        ({}, "no values at all"),
    ],
)
def test_what_float32_does_not_hold_and_what_has_no_mean_is_refused_by_name(value, words):
    with pytest.raises(BadUpdate, match=f"client 'a'.*{words}"):
        PrivateAggregation().aggregate({"a": {"bn": value}})


def test_values_of_float64_are_rounded_where_that_is_said():
    exact = 1.0 + 2.0**-40
    mean, _ = PrivateAggregation(float64="round").aggregate({"a": [np.array([exact]), exact]})
    assert mean[0].dtype == np.float64
    assert type(mean[1]) is float
    assert (float(mean[0][0]), mean[1]) == (1.0, 1.0)


# ---- weights and drop-outs

WEIGHTS = {"a": 120, "b": 30.5, "c": 1, "d": 77}


@pytest.mark.parametrize(
    "channel",
    [SecAgg(), SecAgg(bits=24), AdditiveSharing(), OneTimeRLWE()],
    ids=lambda channel: type(channel).__name__,
)
def test_the_weighted_mean_of_a_hidden_sum_is_the_plain_one_to_the_error_that_is_said(channel):
    rng = torch.Generator().manual_seed(3)
    updates = {name: torch.randn(50, generator=rng) / 10 for name in WEIGHTS}
    plain, _ = PrivateAggregation(bound=Clip(1.0)).aggregate(updates, weights=WEIGHTS)
    by_hand = sum(w * updates[name].double() for name, w in WEIGHTS.items()) / sum(WEIGHTS.values())
    assert torch.allclose(plain.double(), by_hand, atol=1e-6)
    hidden, receipt = PrivateAggregation(bound=Clip(1.0), channel=channel).aggregate(
        updates, weights=WEIGHTS
    )
    plan = RoundPlan(0, tuple(range(4)), 50, 1.0, 120.0)
    rounded = sum(w * channel.able.rounds_off(plan, w) for w in WEIGHTS.values())
    total = sum(WEIGHTS.values())
    of_weights = 4 * 120.0 * 2.0 ** -(channel.bits - 1)  # each is off by so much
    allowed = (rounded + of_weights * float(plain.abs().max())) / (total - of_weights)
    assert float((hidden - plain).abs().max()) <= allowed
    assert receipt.server_reads.startswith("only the sum")


def test_a_weight_counts_up_to_the_public_bound_on_it():
    updates = {"a": torch.zeros(2), "b": torch.ones(2)}
    mean, _ = PrivateAggregation(max_weight=30.0).aggregate(updates, weights={"a": 10, "b": 1e9})
    assert mean.tolist() == [0.75, 0.75]


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "3", True, None])
def test_what_is_no_weight_is_refused_with_its_client(weight):
    with pytest.raises(BadUpdate, match="client 'b'"):
        PrivateAggregation().aggregate(ones("ab"), weights={"a": 1, "b": weight})


def test_weights_that_would_be_left_out_of_account_are_refused():
    with pytest.raises(BadUpdate, match="client 'b' has an update and no weight"):
        PrivateAggregation().aggregate(ones("ab"), weights={"a": 1})
    for parts in ({"rule": Krum(1)}, {"channel": TwoServer(), "bound": Clip(1.0)}):
        with pytest.raises(ConfigError, match="weights"):
            PrivateAggregation(**parts).aggregate(
                ones("abcdef"), weights=dict.fromkeys("abcdef", 2)
            )


def test_a_weight_of_nobody_in_the_round_is_refused_and_one_of_who_dropped_out_is_not():
    """A misspelt name would else leave a client's weight out of account, or count a stranger."""
    layer = PrivateAggregation()
    weights = {"a": 1, "b": 3, "Charite": 9}
    with pytest.raises(BadUpdate, match="client 'Charite' has a weight and sent no update"):
        layer.aggregate(ones("ab"), weights=weights, dropped=["Charité"])
    assert set(layer.clients) == {"a", "b", "Charité"}
    mean, receipt = layer.aggregate(ones("ab"), weights=weights, dropped=["Charite"])
    assert mean.tolist() == pytest.approx([0.0075] * 6)
    assert receipt.dropped == ("Charite",)


@pytest.mark.parametrize("channel", CHANNELS[:5], ids=lambda channel: type(channel).__name__)
def test_those_who_drop_out_are_named_and_the_mean_is_of_the_others(channel):
    layer = PrivateAggregation(bound=Clip(1.0), channel=channel)
    mean, receipt = layer.aggregate(
        ones("abcd"), dropped=["late"], weights=dict.fromkeys("abcd", 2)
    )
    assert receipt.dropped == ("late",)
    assert sorted(receipt.survivors) == list("abcd")
    assert mean.tolist() == pytest.approx([0.015] * 6, abs=1e-3)


def test_nobody_drops_out_and_sends_an_update():
    with pytest.raises(BadUpdate, match="client 'a' is named in dropped, and sent"):
        PrivateAggregation().aggregate(ones("ab"), dropped=["a"])
    with pytest.raises(BadUpdate, match="names several"):
        PrivateAggregation().aggregate(ones("ab"), dropped="c")
    with pytest.raises(RoundFailed, match="opened nothing"):
        PrivateAggregation().aggregate({}, torch.zeros(3), dropped=["a"])


# ---- the model


def test_a_rule_inside_a_channel_reads_the_model_that_clients_started_from():
    seen = []

    def root(context):
        seen.append(context.parameters.clone())
        return torch.ones(6)

    layer = PrivateAggregation(bound=Clip(1.0), channel=TwoServer(FLTrust(root)))
    with pytest.raises(ConfigError, match="give model="):
        layer.aggregate(ones("abc"))
    layer.aggregate(ones("abc"), model=torch.arange(6.0))
    assert seen[0].tolist() == list(range(6))


def test_a_module_is_the_model_and_one_with_running_statistics_is_refused_by_name():
    model = nn.Sequential(nn.Linear(3, 2), nn.GroupNorm(1, 2))
    flat = torch.zeros(sum(p.numel() for p in model.parameters()))
    named = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    PrivateAggregation().aggregate({"a": flat}, model=model)
    PrivateAggregation().aggregate({"a": named}, model=model)
    with pytest.raises(BadUpdate, match="11 parameters"):
        PrivateAggregation().aggregate({"a": torch.zeros(5)}, model=nn.Linear(10, 1))
    with pytest.raises(UnsupportedModel, match="layer '1' is a BatchNorm1d"):
        PrivateAggregation().aggregate(
            {"a": flat}, model=nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        )
    buffered = nn.BatchNorm1d(2).state_dict()
    with pytest.raises(BadUpdate, match="'running_mean'"):
        PrivateAggregation().aggregate({"a": buffered})


# ---- save and load


def saving(**parts):
    usual = {"bound": Clip(1.0), "mechanism": Gaussian(3.0), "relation": "replace_one"}
    return PrivateAggregation(**{**usual, **parts})


def test_a_layer_that_was_saved_goes_on_with_what_it_spent_and_whom_it_knows(tmp_path):
    one, never = saving(), saving()
    for _ in range(3):
        one.aggregate(ones(NAMES))
    one.save(tmp_path / "layer.json")
    other = saving()
    other.load(tmp_path / "layer.json")
    assert other.ledger == one.ledger
    assert other.clients == one.clients
    (_, after), (_, first) = other.aggregate(ones(NAMES)), never.aggregate(ones(NAMES))
    assert after.round == 3
    assert after.epsilon > 1.5 * first.epsilon
    with pytest.raises(ConfigError, match="before the first round"):
        other.load(tmp_path / "layer.json")


def test_noise_that_an_epsilon_asked_for_is_the_same_after_loading(tmp_path):
    asked = {"mechanism": Gaussian, "epsilon": 3.0, "rounds": 2}
    one = saving(**asked)
    one.aggregate(ones("ab"))
    one.save(tmp_path / "layer.json")
    other = saving(**asked)
    other.load(tmp_path / "layer.json")
    _, receipt = other.aggregate(ones("ab"))
    assert other.ledger.charges[0].event == other.ledger.charges[1].event
    assert 2.9 < receipt.epsilon <= 3.0


def test_a_try_that_failed_is_no_fresh_draw_after_loading(tmp_path):
    one = saving(channel=SecAgg(threshold=3))
    with pytest.raises(RoundFailed):
        one.aggregate(ones("ab"), dropped=["c", "d"])
    one.save(tmp_path / "layer.json")
    other = saving(channel=SecAgg(threshold=3))
    other.load(tmp_path / "layer.json")
    for layer in (one, other):
        layer.aggregate(ones("abcd"))
    assert other.ledger.charges == one.ledger.charges


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda text: text[: len(text) // 2], "was cut"),
        (lambda text: text.replace("noise_multiplier", "noise_multipliers", 1), "was changed"),
        (lambda text: "[]", "was cut"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, spoil, error):
    path = tmp_path / "layer.json"
    one = saving()
    one.aggregate(ones("ab"))
    one.save(path)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(Exception, match=error) as found:
        saving().load(path)
    assert type(found.value).__name__ == "DataCorrupt"


def test_a_layer_of_other_parts_or_without_its_ledger_does_not_load(tmp_path):
    path, ledger = tmp_path / "layer.json", tmp_path / "ledger.jsonl"
    one = saving(ledger_file=ledger)
    one.aggregate(ones("ab"))
    one.save(path)
    one.aggregate(ones("ab"))
    with pytest.raises(ConfigError, match=r"mechanism Gaussian.*noise_multiplier=3"):
        saving(mechanism=Gaussian(9.0)).load(path)
    with pytest.raises(ConfigError, match="does not hold all"):
        saving(ledger_file=tmp_path / "other.jsonl").load(path)
    with pytest.raises(ConfigError, match="cannot read"):
        saving().load(tmp_path / "none.json")
    again = saving(ledger_file=ledger)
    again.load(path)
    assert len(again.ledger.charges) == 2, "what was played after it was saved is spent too"


def test_no_key_is_in_a_saved_layer(tmp_path):
    one = saving(channel=SecAgg(), mechanism=None, mail="signed")
    one.aggregate(ones("ab"))
    one.save(tmp_path / "layer.json")
    text = (tmp_path / "layer.json").read_text()
    assert one._id.hex() not in text
    assert len(text) < 4000
