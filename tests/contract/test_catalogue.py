"""Everything in the catalogue runs: rules, seats and channels by their config names, in one short
federation each.
"""

import inspect

import pytest
import torch

from privfl import Federation, catalog
from privfl.core import Bounded, ConfigError, NotVisible, RoundPlan, Rows, Total
from privfl.engine import Session

BASE = {
    "data": {"name": "digits", "clients": 7, "root": 40},
    "model": {"name": "mlp", "hidden": [8]},
    "training": {"name": "sgd", "lr": 0.3, "weighting": "uniform", "steps": 4, "batch_size": 16},
    "rounds": 2,
    "executor": "sequential",
    "audit": {"keep": "none"},
}
NEEDS = {"crfl": {"rounds": 2}}
SMALL = {"paillier": {"key_bits": 512, "insecure_for_tests": True}}


@pytest.mark.parametrize("name", sorted(catalog.AGGREGATORS))
def test_every_rule_runs_from_a_config(name):
    run = Federation.from_config({**BASE, "aggregator": name}).run()
    assert torch.isfinite(run.parameters).all()
    assert not run.history[1].incidents


@pytest.mark.parametrize("name", sorted(catalog.DEFENCES))
def test_every_defence_beside_the_rule_runs_from_a_config(name):
    run = Federation.from_config(
        {**BASE, "defences": [{"name": name, **NEEDS.get(name, {})}]}
    ).run()
    assert torch.isfinite(run.parameters).all()
    assert not run.history[1].incidents


@pytest.mark.parametrize("name", sorted(set(catalog.CHANNELS) - set(catalog.HYBRIDS)))
def test_every_channel_gives_the_clipped_mean_and_shows_what_it_says(name):
    """The server's own decoding agrees with what its party opened, and a secret channel shows
    single updates to nobody on the wire.
    """
    channel = catalog.build("channel", catalog.CHANNELS, {"name": name, **SMALL.get(name, {})})
    deltas = {client: torch.linspace(-0.1, 0.1, 50) * (client + 1) for client in range(3)}
    plan = RoundPlan(0, tuple(deltas), d=50, l2=2.0, session=b"test")
    session = Session(channel)
    session.enrol(deltas)
    outcome = session.play(
        plan, {c: Bounded(c, delta, 2.0) for c, delta in deltas.items()}, keep_bodies=True
    )
    assert outcome.opened is not None, outcome.aborts
    what = outcome.opened.what
    mean = what.values.mean(dim=0) if isinstance(what, Rows) else what.mean()
    assert torch.allclose(mean, torch.linspace(-0.2, 0.2, 50), atol=1e-3)
    assert set(outcome.opened.survivors) == {0, 1, 2}
    assert channel.kind.opens == ("rows" if isinstance(what, Rows) else "total")
    seen = channel.decode(outcome.received({"server"}), {"server": session.members["server"]})
    everything = channel.decode(outcome.received(session.members), {})
    if channel.kind.opens == "rows":
        assert isinstance(seen, Rows)
        assert isinstance(everything, Rows)
    else:
        assert not isinstance(seen, Rows)
        if isinstance(seen, Total):
            assert torch.allclose(seen.mean(), mean, atol=1e-5)
        assert not isinstance(everything, Rows), (
            "an outsider who taps every wire reads single updates"
        )


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name, kind in catalog.CHANNELS.items()
        if kind.kind.opens == "total" and not kind.kind.runs
    ),
)
def test_integer_channels_refuse_a_run_without_a_clip_and_rules_that_read_rows(name):
    with pytest.raises(ConfigError, match="clip"):
        Federation.from_config({**BASE, "channel": name})
    with pytest.raises(ConfigError, match=r"reads individual updates.*--compat"):
        Federation.from_config(
            {**BASE, "channel": name, "aggregator": "krum", "bound": {"name": "clip", "l2": 1.0}}
        )


def test_a_single_update_cannot_be_reached_from_a_view_that_hides_it():
    run = Federation.from_config(
        {
            **BASE,
            "channel": "secagg",
            "bound": {"name": "clip", "l2": 2.0},
            "audit": {"keep": "all"},
        }
    ).run()
    view = run.view("server", 1)
    assert view.total.count == 7
    with pytest.raises(NotVisible, match="only their sum"):
        _ = view.rows
    with pytest.raises(NotVisible):
        _ = run.view("outsider", 1).rows
    with pytest.raises(NotVisible, match="nothing"):
        _ = run.view("client(3)", 1).total


def test_a_rule_with_too_many_liars_for_the_cohort_is_refused_before_training():
    with pytest.raises(ConfigError, match="Krum"):
        Federation.from_config({**BASE, "aggregator": {"name": "krum", "f": 4}})


def test_every_rule_in_the_face_has_a_name_in_the_catalogue():
    from privfl import aggregators

    named = {maker for table in (catalog.AGGREGATORS, catalog.DEFENCES) for maker in table.values()}
    seats = ("before", "after", "at_client")
    for name in aggregators.__all__:
        kind = getattr(aggregators, name)
        if (
            inspect.isclass(kind)
            and not inspect.isabstract(kind)
            and not getattr(kind, "_is_protocol", False)
        ):
            acts = any(hasattr(kind, seat) for seat in seats) or (
                hasattr(kind, "sensitivity") and not name.startswith("ToleratesByzantine")
            )
            assert not acts or kind in named, f"{name} is in no table of the catalogue"


@pytest.mark.parametrize("what", sorted(catalog.SEAMS))
def test_every_name_describes_itself(what):
    for row in catalog.describe(what):
        assert row["is"], row


def test_a_client_that_skips_its_clip_gets_through_a_sum_and_the_report_says_so():
    config = {
        **BASE,
        "bound": {"name": "clip", "l2": 0.2},
        "attacks": [{"name": "skip_clip", "clients": [0], "scale": 1000.0}],
    }
    hidden = Federation.from_config({**config, "channel": "secagg"})
    assert hidden.run().state.last.norm() > 0.2, "no mean of clipped updates is that long"
    said = hidden.scenario.facts["channel"]
    assert "if it skips its clip (nobody sees a single input): can shift the result" in said
    shown = Federation.from_config(config).run()
    assert shown.state.last.norm() <= 0.2
    assert any("over the bound" in what for what in shown.history[0].incidents)
