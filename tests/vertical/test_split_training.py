"""Split training is joint training; parties take no message that is not this batch's, and a
sentence says what went wrong.
"""

import dataclasses

import pytest
import torch

from privfl.core import ConfigError, DataCorrupt, Faults, RoundFailed, Seeds
from privfl.data import Holding, aligned, dealt_columns
from privfl.vertical import (
    Batch,
    VerticalLinear,
    VerticalMLP,
    VerticalTraining,
    mean_loss,
    train_vertically,
)
from privfl.vertical.message import closed
from privfl.vertical.training import batches

NAMES = ("a", "b=x", "b=y", "log(1+c)", "d", "e")
COLUMNS = {"host/0": ["b", "c"], "host/1": ["e"]}


def table(n=40, classes=2, seed=0):
    coins = torch.Generator().manual_seed(seed)
    x = torch.randn(n, len(NAMES), generator=coins)
    y = (x @ torch.randn(len(NAMES), classes, generator=coins)).argmax(dim=1)
    return dealt_columns(x, NAMES, COLUMNS, "guest"), y


def jointly(holdings, y, classes, model, training, seed):
    """What one owner of all columns trains, from the same weights on the same batches."""
    seeds = Seeds(seed)
    parts = {party: held.x.shape[1] for party, held in holdings.items()}
    network = model(parts, classes, seed=seeds.derive("vertical weights") % (1 << 32))
    modules = [*network.bottoms.values(), network.top]
    optimiser = training.optimiser([p for module in modules for p in module.parameters()])
    for _, batch in batches(len(y), training, seeds):
        logits = network.logits({who: held.x[batch.rows] for who, held in holdings.items()})
        optimiser.zero_grad()
        mean_loss(logits, y[batch.rows]).backward()
        optimiser.step()
    return network.logits({who: held.x for who, held in holdings.items()})


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("model", [VerticalLinear(), VerticalMLP(cut=3, hidden=5)])
@pytest.mark.parametrize(
    "training",
    [
        VerticalTraining(optimizer="adam", lr=0.05, epochs=6, batch_size=16),
        VerticalTraining(optimizer="sgd", lr=0.5, momentum=0.9, weight_decay=0.01, batch_size=7),
    ],
)
def test_split_training_is_joint_training(model, training, classes):
    holdings, y = table(classes=classes)
    run = train_vertically(holdings, y, classes, model, training, seed=3)
    alone = jointly(holdings, y, classes, model, training, seed=3)
    assert (run.logits(torch.arange(40)) - alone).abs().max() <= 1e-6 * alone.abs().max()
    other = jointly(holdings, y, classes, model, training, seed=4)
    assert (run.logits(torch.arange(40)) - other).abs().max() > 1e-3


def test_rows_are_aligned_by_their_ids_and_only_those_that_all_have():
    a = Holding(torch.tensor([5, 1, 3]), torch.tensor([[5.0], [1.0], [3.0]]), ("a",))
    b = Holding(torch.tensor([3, 4, 5]), torch.tensor([[30.0], [40.0], [50.0]]), ("b",))
    held = aligned({"host/0": b, "guest": a})
    assert held["guest"].x[:, 0].tolist() == [3, 5]
    assert held["host/0"].x[:, 0].tolist() == [30, 50]
    labels = torch.tensor([50, 10, 30])[a.places(held["guest"].ids)]
    assert labels.tolist() == [30, 50], "labels follow the alignment"
    with pytest.raises(ConfigError, match="no sample has id 4"):
        a.places(b.ids)
    with pytest.raises(ConfigError, match="no sample is held by all"):
        aligned({"host/0": b, "guest": a.take(torch.tensor([1]))})
    with pytest.raises(ConfigError, match="no sample is held by all"):
        aligned({})
    with pytest.raises(DataCorrupt, match="twice"):
        a.take(torch.tensor([0, 0]))
    with pytest.raises(ConfigError, match="not the guest's: align them"):
        train_vertically(
            {"host/0": b, "guest": a}, torch.tensor([0, 1]), 2, VerticalLinear(), VerticalTraining()
        )


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"host/0": ["bb"]}, "did you mean 'b'"),
        ({"host/0": ["b"], "host/1": ["b"]}, "it is one party's"),
        ({"host/0": []}, "host/0 has no column"),
        ({"host/0": ["a", "b", "c", "d", "e"]}, "guest has no column"),
    ],
)
def test_columns_that_cannot_be_dealt_are_refused(columns, why):
    with pytest.raises(ConfigError, match=why):
        dealt_columns(torch.zeros(2, len(NAMES)), NAMES, columns, "guest")


def trained(**more):
    holdings, y = table()
    training = VerticalTraining(epochs=1, batch_size=40)
    return train_vertically(holdings, y, 2, VerticalMLP(cut=3), training, **more)


HOSTILE = {
    "cut short": (lambda body: bytes(body)[:5], "cut short"),
    "one number less": (lambda body: bytes(body)[:-4], "another length"),
    "one number more": (lambda body: bytes(body) + bytes(4), "another length"),
    "NaN": (lambda body: bytes(body)[:-4] + b"\0\0\xc0\x7f", "not finite"),
    "infinity": (lambda body: bytes(body)[:-4] + b"\0\0\x80\x7f", "not finite"),
    "another version": (lambda body: bytes(body)[:4] + b"\x02" + bytes(body)[5:], "version"),
    "a kind that is none": (lambda body: bytes(body)[:5] + b"\x09" + bytes(body)[6:], "version"),
    "the other kind": (
        lambda body: bytes(body)[:5] + bytes([1 - bytes(body)[5]]) + bytes(body)[6:],
        "were due",
    ),
    "another shape": (
        lambda body: bytes(body)[:8] + b"\x03\0\0\0" + bytes(body)[12:],
        "numbers where",
    ),
    "another batch": (
        lambda body: closed(
            Batch(b"", 9, torch.arange(40), True), "activations", torch.ones(40, 3)
        ),
        "another batch|were due",
    ),
    "nothing": (lambda body: b"", "cut short"),
}


@pytest.mark.parametrize("sender", ["host/1", "guest"])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_message_that_is_not_this_batchs_ends_it_with_a_sentence(sender, case):
    change, why = HOSTILE[case]
    with pytest.raises(RoundFailed, match=why) as failed:
        trained(faults=Faults(malformed={sender: change}))
    assert sender.removesuffix("/1") in str(failed.value)


def test_a_host_that_says_nothing_is_waited_for_and_said():
    with pytest.raises(RoundFailed, match="waited for a host in vain"):
        trained(faults=Faults(silent_from={"host/1": 0}))


def test_a_host_whose_gradients_never_come_is_said():
    class OneOnly:
        """A guest that answers the first host alone."""

        def __init__(self, party):
            self.party = party

        def step(self, mail):
            return {who: body for who, body in self.party.step(mail).items() if who == "host/0"}

    with pytest.raises(RoundFailed, match="host/1 waited for the guest in vain"):
        trained(faults=Faults(byzantine={"guest": OneOnly}))


def test_activations_that_no_loss_can_be_taken_of_are_not_blamed_on_the_guest():
    def giant(body):
        return bytes(body)[:32] + b"\xff\xff\x7f\x7f" * 40

    holdings, y = table()
    with pytest.raises(RoundFailed, match="ended at guest: its logits are not finite"):
        train_vertically(
            holdings,
            y,
            2,
            VerticalLinear(),
            VerticalTraining(epochs=1, batch_size=40),
            faults=Faults(malformed={"host/0": giant, "host/1": giant}),
        )


def test_a_guest_whose_columns_or_steps_are_not_finite_does_not_end_with_a_network():
    holdings, y = table()
    alone = {"guest": dataclasses.replace(holdings["guest"], x=holdings["guest"].x * torch.nan)}
    with pytest.raises(RoundFailed, match="not finite"):
        train_vertically(alone, y, 2, VerticalLinear(), VerticalTraining(epochs=1))


@pytest.mark.parametrize("shift", [1, -1])
def test_labels_that_are_no_classes_are_refused(shift):
    holdings, y = table()
    with pytest.raises(ConfigError, match="whole numbers from 0 to classes - 1"):
        train_vertically(holdings, y + shift, 2, VerticalLinear(), VerticalTraining(epochs=1))


@pytest.mark.parametrize(
    "change", [{"momentum": 0.9}, {"lr": float("inf")}, {"weight_decay": float("inf")}]
)
def test_a_training_that_would_be_another_than_it_says_is_refused(change):
    with pytest.raises(ConfigError):
        VerticalTraining(**change)


def test_a_doubled_message_trains_once():
    doubled = trained(faults=Faults(duplicated=["guest", "host/0"]))
    assert torch.equal(doubled.logits(torch.arange(40)), trained().logits(torch.arange(40)))


def test_a_batch_without_rows_is_none():
    with pytest.raises(ConfigError, match="at least one row"):
        Batch(b"", 0, torch.arange(0), training=True)
