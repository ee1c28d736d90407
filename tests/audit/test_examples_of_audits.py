"""The examples of audits of text and of generators, as they stand but smaller."""

from pathlib import Path

import pytest

from privfl import Federation
from privfl.audit import audit, card, named_attacks
from privfl.config import load

EXAMPLES = Path(__file__).parents[2] / "examples"


def line_of(name, asset, overrides, **smaller):
    """The card's line of an asset, under the first layer of an example."""
    config = load(EXAMPLES / name, overrides)
    base = {key: told for key, told in config.model_dump().items() if key != "audit"}
    layer = next(iter(config.audit.layers.values()))
    report = audit(
        Federation.from_config({**base, **layer, "audit": {"keep": "all"}}),
        adversaries=config.audit.adversaries,
        attacks=named_attacks([{**attack, **smaller} for attack in config.audit.attacks]),
        held_out=config.audit.held_out,
        lies=None,
    )
    return report, {line.asset: line for line in card(report)}[asset]


def test_generators_have_a_line_of_the_card():
    report, line = line_of("audit-generators.yaml", "representatives", ["rounds=2"], steps=5)
    assert set(line.figures) == {"right", "auc"}
    assert not [one for one in report.findings if one.reason.startswith("it failed")]
    assert [one.attack for one in report.findings][:2] == ["ClientGAN (passive)", "ServerGAN (sum)"]


@pytest.mark.needs("shakespeare")
def test_text_is_read_exactly_and_by_matching():
    report, line = line_of("audit-text.yaml", "text", ["data.clients=2"])
    assert line.attack == "DAGER (client)"
    assert line.figures["whole"].value == 1.0
    lamp = report.findings[1]
    assert lamp.value.value > lamp.baseline.value
