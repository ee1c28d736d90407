"""The scored suite finds nothing in active mode, and finds in semi-honest mode what that mode does
not promise; random rounds are exact, and blame nobody but the liar.
"""

import pytest

from privfl.audit.protocol.fuzz import counted, honest, with_a_liar
from privfl.audit.protocol.suite import attacks
from privfl.crypto import SecAgg


@pytest.mark.parametrize(
    ("n", "settings"),
    [(3, {}), (8, {}), (20, {"graph": "complete"}), (20, {"graph": 16, "corrupt": 0.05})],
)
def test_no_attack_of_the_suite_breaks_active_mode(n, settings):
    scored = list(attacks(SecAgg(mode="active", **settings), n))
    assert [found.attack for found in scored if found.broken] == []
    assert scored[0].leaked == f"a sum of {n}"
    refused = {found.attack for found in scored if found.refused_by != "nobody"}
    assert "server: two survivor sets" in refused
    assert "server: two sets of who shared keys" in refused
    assert "server: the same round twice" in refused
    assert "server: models that differ" in refused


def test_the_suite_finds_what_semi_honest_mode_does_not_promise():
    broken = {
        found.attack for found in attacks(SecAgg(graph="complete", corrupt=0.2), 20) if found.broken
    }
    assert "server: the same round twice" in broken
    assert "server: a living client listed dead, to others" not in broken


def test_random_honest_rounds_with_drop_outs_are_exact_or_refused():
    assert counted(honest, range(40)).keys() <= {"opened", "refused"}


def test_random_rounds_with_a_liar_blame_nobody_else():
    assert counted(with_a_liar, range(60)).keys() <= {"opened", "refused"}
