"""Attacks on views by name: every one is listed with its family and seat, and runs on a view
without any knowledge.
"""

import inspect

import pytest

from privfl import attacks, catalog
from privfl.attacks import Inference


def test_every_attack_on_a_view_has_a_name_in_the_catalogue():
    listed = {**catalog.ATTACKS, **catalog.INFERENCE}
    for name in attacks.__all__:
        kind = getattr(attacks, name)
        if inspect.isclass(kind) and issubclass(kind, Inference) and not inspect.isabstract(kind):
            assert kind in listed.values(), f"{name} is in no table of the catalogue"


@pytest.mark.parametrize("name", sorted(catalog.INFERENCE))
def test_attacks_on_views_are_listed_with_family_and_seat(name):
    (row,) = [row for row in catalog.describe("attacks") if row["name"] == name]
    assert row["family"] in ("membership", "property", "inversion")
    assert row["seat"] == "view"
    assert row["paper"], f"{name} names no source"
