"""What a part is and may do is declared: no name of a field, a method, an argument or a catalogue
entry changes anything, and declarations agree with types and with what really happens.
"""

import ast
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import privfl
from privfl import Federation, PrivateAggregation, catalog
from privfl.aggregators import After, Krum, Mean, Median, RowRule, Verdict
from privfl.attacks import SignFlip
from privfl.core import (
    Able,
    ConfigError,
    Context,
    NotVisible,
    Oracle,
    RoundPlan,
    Rows,
    Rule,
)
from privfl.crypto import BFV, Plain, SecAgg
from privfl.data import load
from privfl.dp import Clip, Gaussian, LocalGaussian
from privfl.engine import Attacker, Poisson, check_scenario, forward_of
from privfl.training import LocalSGD

SEEDED = torch.Generator().manual_seed(0)
BASE = {
    "data": {"name": "digits", "clients": 6, "root": 40},
    "model": {"name": "mlp", "hidden": [8]},
    "training": {"name": "sgd", "lr": 0.3, "steps": 3, "batch_size": 16},
    "rounds": 2,
    "executor": "sequential",
    "audit": {"keep": "all"},
}


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def federation(digits, **parts):
    torch.manual_seed(0)
    clients = [digits.train.take(range(i, 900, 6)) for i in range(6)]
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    return Federation(model, clients, digits.test, rounds=2, executor="sequential", **parts)


# ---- names that mean nothing


@dataclass(frozen=True)
class UnluckyChannel(Plain):
    """The plain channel, with the name of every ability there is."""

    rule: Rule[Rows] = field(default_factory=lambda: Krum(f=1))
    releases: int = 0
    told: tuple[str, ...] = ()
    hosts: int = 3
    groups: int = 2
    noise: str = "loud"

    def rows(self, contributions):
        raise AssertionError("rows was taken for a grouping")

    def max_byzantine(self, n):
        raise AssertionError("max_byzantine was taken for a grouping")

    def noise_event(self, plan, survivors=None, colluders=0):
        raise AssertionError("noise_event was taken for noise")

    def key_holders(self, cohort):
        raise AssertionError("key_holders was taken for keys")

    def error(self, plan):
        raise AssertionError("error was taken for noise of the scheme's own")

    def warnings(self):
        raise AssertionError("warnings was taken for limits")

    def inform(self, context):
        raise AssertionError("inform was taken for an informed server")


def test_a_channel_whose_fields_are_called_like_abilities_is_the_plain_channel(digits):
    unlucky = federation(digits, channel=UnluckyChannel(), aggregator=Median()).run()
    plain = federation(digits, channel=Plain(), aggregator=Median()).run()
    assert torch.equal(unlucky.parameters, plain.parameters)
    assert unlucky.summary["warnings"] == plain.summary["warnings"]
    assert unlucky.history[0].fired == plain.history[0].fired
    assert unlucky.view("server", 0).rows.n == 6
    with pytest.raises(NotVisible, match="nobody holds a decryption key"):
        unlucky.view("key_holder", 0)


def test_the_wrapper_takes_no_field_for_an_ability():
    updates = {client: torch.tensor([float(client), 1.0]) for client in range(4)}
    unlucky = PrivateAggregation(channel=UnluckyChannel())
    mean, receipt = unlucky.aggregate(updates)
    assert mean.tolist() == [1.5, 1.0]
    assert receipt.server_reads == "every update"
    assert unlucky.parts.rule.weighted is False


@dataclass(frozen=True, slots=True)
class QuietRule(RowRule):
    """A median whose settings are called like a run's functions and like a mean's denominator."""

    loss: float = 0.5
    root: int = 1
    denominator: float = 7.0

    def max_byzantine(self, n):
        return 0

    def _decide(self, rows, lost):
        return Verdict(rows.values.median(dim=0).values * (self.loss / 0.5) * self.root)


@dataclass(frozen=True, slots=True)
class Asking(RowRule):
    """A median that asks for a validation loss by another name than any class here."""

    needs: ClassVar = {"scorer": Oracle.LOSS}

    scorer: object
    scale: float = 1.0

    def max_byzantine(self, n):
        return 0

    def _decide(self, rows, lost):
        return Verdict(rows.values.median(dim=0).values * self.scale)


def test_an_argument_called_loss_is_a_key_like_any_other_and_the_run_does_not_fill_it(monkeypatch):
    monkeypatch.setitem(catalog.AGGREGATORS.built_in, "quiet", QuietRule)
    told = Federation.from_config({**BASE, "aggregator": {"name": "quiet", "loss": 0.25}})
    assert told.scenario.aggregator == QuietRule(loss=0.25)
    no_root = {"name": "digits", "clients": 6}
    untold = Federation.from_config({**BASE, "data": no_root, "aggregator": "quiet"})
    assert untold.scenario.aggregator == QuietRule()
    assert torch.isfinite(untold.run().parameters).all()
    (row,) = [row for row in catalog.describe("aggregators") if row["name"] == "krum"]
    assert row["keys"] == "f, m"


def test_what_a_rule_declares_that_it_needs_is_filled_whatever_its_argument_is_called(monkeypatch):
    monkeypatch.setitem(catalog.AGGREGATORS.built_in, "asking", Asking)
    asked = Federation.from_config({**BASE, "aggregator": {"name": "asking", "scale": 2.0}})
    rule, workload = asked.scenario.aggregator, asked.scenario.workload
    context = Context(RoundPlan(0, (0,), workload.model.d, 1.0), workload.model.read(), SEEDED)
    assert 0 < rule.scorer(workload.model.read(), context) < 10
    without_root = {**BASE, "data": {"name": "digits", "clients": 6}, "aggregator": "asking"}
    with pytest.raises(ConfigError, match="clean data at the server"):
        Federation.from_config(without_root)
    with pytest.raises(ConfigError, match="unknown key 'scorer'"):
        Federation.from_config({**BASE, "aggregator": {"name": "asking", "scorer": 1.0}})


def test_a_field_called_denominator_makes_no_mean_over_a_public_number(digits):
    noisy = {"bound": Clip(l2=1.0), "sampler": Poisson(rate=0.5), "mechanism": Gaussian(1.0)}
    with pytest.raises(ConfigError, match="public denominator"):
        federation(digits, aggregator=QuietRule(), training=uniform(), **noisy)
    quiet = federation(digits, aggregator=QuietRule()).scenario.pipeline()
    assert quiet.neighbours.relation == "replace_one"
    fixed = federation(
        digits, aggregator=Mean(weighted=False, denominator=3.0), training=uniform(), **noisy
    )
    assert fixed.scenario.pipeline().neighbours.relation == "add_remove"


def uniform():
    return LocalSGD(weighting="uniform")


@dataclass(frozen=True, slots=True)
class Late(After[None]):
    """A seat after the rule, with the methods of all the others."""

    def init(self):
        return

    def judge_after(self, released, state, context):
        return Verdict(released.vector * 0.5), None

    def judge_before(self, rows, state, context):
        raise AssertionError("it declares no seat before the rule")

    def before(self, rows, state, context):
        raise AssertionError("it declares no seat before the rule")

    def at_client(self, update, state, context):
        raise AssertionError("it declares no seat at the client")

    def init_client(self):
        raise AssertionError("it declares no seat at the client")


def test_a_defence_acts_where_it_declares_and_nowhere_else(digits):
    run = federation(digits, defences=[Late()], bound=Clip(l2=1.0), channel=SecAgg()).run()
    whole = federation(digits, bound=Clip(l2=1.0), channel=SecAgg()).run()
    start = federation(digits).scenario.workload.model.read()
    half, full = run.view("server", 0).after - start, whole.view("server", 0).after - start
    assert torch.allclose(half, full * 0.5, atol=1e-6)


@dataclass(frozen=True, slots=True)
class Chatty(SignFlip):
    """Sign flipping, with the methods of all other seats."""

    def poison_data(self, dataset, rng):
        raise AssertionError("it declares no seat at the data")

    def poison_training(self, knowledge):
        raise AssertionError("it declares no seat at the training")

    def poison_bounded(self, honest, unbounded):
        raise AssertionError("it declares no seat on the wire")

    def poison_party(self, honest, plan, client):
        raise AssertionError("it declares no seat in the party")

    def poison_broadcast(self, broadcast, client, rng):
        raise AssertionError("it declares no seat at the broadcast")

    def objective(self, loss, start):
        raise AssertionError("it declares no seat at the loss")

    def part(self, position, of):
        raise AssertionError("it does not declare itself divided")

    def among(self, n, f):
        raise AssertionError("it does not declare that it counts")

    def measure(self, module, test):
        raise AssertionError("it does not declare itself measured")


def test_an_attack_acts_where_it_declares_and_nowhere_else(digits):
    chatty, plain = (
        federation(digits, attackers=[Attacker("flip", attack, frozenset({0}))]).run()
        for attack in (Chatty(), SignFlip())
    )
    assert torch.equal(chatty.parameters, plain.parameters)
    assert chatty.history[-1].measures == {}


class LocalLookingGaussian(Gaussian):
    """Central noise with an unlucky name."""


def test_noise_is_local_where_its_mechanism_declares_it_and_not_by_its_name(digits, monkeypatch):
    work = federation(digits).scenario.workload
    central, local = (
        forward_of(work.model, work.loss, work.method, work.data, Clip(l2=0.5), mechanism)
        for mechanism in (LocalLookingGaussian(2.0), LocalGaussian(2.0))
    )
    assert central.local_noise == 0.0
    assert local.local_noise == 2.0  # multiplier 2 x the distance 1 of two clipped updates
    monkeypatch.setitem(catalog.MECHANISMS.built_in, "whisper", LocalGaussian)
    whisper = {"name": "whisper", "noise_multiplier": 0.1}
    config = {**BASE, "bound": {"name": "clip", "l2": 1.0}, "mechanism": whisper}
    scenario = Federation.from_config(config).scenario
    assert scenario.local_noise
    assert scenario.aggregator == Mean()  # a mean over a public number is for central noise


@dataclass(frozen=True, slots=True)
class Holder:
    """Something with a rule in a field of another name, and a field ``rule`` that is none."""

    decider: Rule[Rows] | None = None
    rule: str = "thumb"
    channel: int = 4


def test_a_field_is_a_part_by_its_type_and_not_by_its_name():
    part = {"name": "holder", "decider": {"name": "krum", "f": 2}, "rule": "krum", "channel": 5}
    built = catalog.build("holder", {"holder": Holder}, part)
    assert built == Holder(Krum(f=2), "krum", 5)


class Undeclared:
    """Somebody's rule that forgot its declarations."""

    def __call__(self, opened):
        return opened.values.mean(dim=0)

    def sensitivity(self, moves, neighbours):
        return 0.0


def test_a_rule_without_declarations_is_refused_in_a_sentence():
    scenario = Federation.from_config(BASE).scenario
    object.__setattr__(scenario, "aggregator", Undeclared())
    with pytest.raises(ConfigError, match="Undeclared declares no reads, needs_ids"):
        check_scenario(scenario)


def test_a_channel_that_declares_an_informed_server_and_has_none_is_refused(digits):
    class Claims(Plain):
        @property
        def able(self):
            return Able(informed=True)

    with pytest.raises(ConfigError, match=r"no inform\(context\)"):
        federation(digits, channel=Claims()).run()


def test_a_key_that_opens_few_sums_refuses_more_rounds(digits):
    class Few(BFV):
        @property
        def able(self):
            return Able(encodes=self.scheme, sums=1)

    with pytest.raises(ConfigError, match="2 rounds open 2 sums under one key"):
        federation(digits, channel=Few(), bound=Clip(l2=1.0)).run()


# ---- nothing else looks at names

FOREIGN = {
    "aggregators/network.py": "the functions of a compiled library, by ctypes",
    "attacks/inversion/held.py": "whatever a model or a loss of somebody's holds",
    "attacks/inversion/watched.py": "torch's own functions, by what torch calls them",
    "core/device.py": "torch's modules of devices, and switches that older ones lack",
    "core/field_values.py": "the fields of a dataclass, by dataclasses.fields",
    "core/native.py": "whether the operating system has users",
    "crypto/fixed_kernel.py": "the functions of a compiled library, by ctypes",
    "crypto/he/lattice/seal.py": "whether the operating system has memory files",
    "core/written_lstm.py": "torch's own names of an LSTM's weights",
    "dp/sgd/hooks.py": "what Opacus leaves on a parameter",
    "dp/sgd/lstm.py": "torch's own names of an LSTM's weights",
    "training/mappable.py": "hooks that torch keeps on a parameter",
}


def test_getattr_and_hasattr_are_for_objects_of_other_libraries():
    root = Path(privfl.__file__).parent
    found = set()
    for path in sorted(root.rglob("*.py")):
        text = path.read_text()
        if "getattr" not in text and "hasattr" not in text:
            continue  # nothing in it can be called by that name
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("getattr", "hasattr")
            ):
                found.add(str(path.relative_to(root)))
    assert found == set(FOREIGN)
