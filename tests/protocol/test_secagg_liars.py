"""One client that lies about shares ends no round that the others could finish, and nobody else is
blamed for it.
"""

import numpy as np
import pytest
import torch

from privfl.audit.protocol.clients import AnswersWrongly, DealsWrongly, flipped
from privfl.core import Bounded, Faults, RoundPlan, client_party, drive
from privfl.crypto import SecAgg
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.sharing import shamir
from privfl.crypto.sharing.decoding import decoded, value

N, D, LIAR = 12, 6, 5
SETTINGS = [
    {"graph": "complete"},
    {"graph": "complete", "mode": "active"},
    {"graph": 8},
    {"graph": 10, "mode": "active"},
]


def run(lie, settings, silent=None):
    channel = SecAgg(corrupt=0.0, **settings)
    plan = RoundPlan(0, tuple(range(N)), d=D, l2=1.0, session=b"liars")
    everybody = Enrolled.fresh(channel, plan.cohort)
    parties = {
        client_party(c): m.enter(plan, Bounded(c, torch.full((D,), 0.1), 1.0))
        for c, m in everybody.clients.items()
    }
    faults = Faults(byzantine={client_party(LIAR): lie}, silent_from=silent or {})
    return drive(everybody.server.enter(plan), parties, faults), channel


def accused(outcome):
    blamed = {abort.blamed for abort in outcome.aborts.values() if abort.blamed}
    return blamed | set(outcome.opened.excluded if outcome.opened else ())


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("which", ["seed", "key"])
def test_a_share_outside_of_the_field_costs_its_dealer_and_nobody_else(settings, which):
    too_large = (2**256 - 1).to_bytes(32, "little")

    def change(holder, plain):
        return too_large + plain[32:] if which == "seed" else plain[:32] + too_large

    outcome, _ = run(lambda honest: DealsWrongly(honest, change), settings)
    assert accused(outcome) <= {client_party(LIAR)}
    if outcome.opened is None:
        assert outcome.aborts["server"].who == (client_party(LIAR),)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("gone", [False, True])
def test_a_few_wrong_shares_are_corrected_and_their_dealer_is_convicted(settings, gone):
    """Whether the mask seed is opened or, where the dealer drops out, its key."""
    chosen = []

    def change(holder, plain):
        if len(chosen) < 1 + (settings["graph"] == "complete") and holder not in chosen:
            chosen.append(holder)
        return flipped(plain[:32]) + flipped(plain[32:]) if holder in chosen else plain

    silent = {client_party(LIAR): 4} if gone else {}
    outcome, _ = run(lambda honest: DealsWrongly(honest, change), settings, silent)
    assert outcome.opened is not None, {k: str(v) for k, v in outcome.aborts.items()}
    expected = [c for c in range(N) if not gone or c != LIAR]
    assert outcome.opened.survivors == tuple(expected)
    assert torch.allclose(outcome.opened.what.mean(), torch.full((D,), 0.1), atol=1e-3)
    assert accused(outcome) <= {client_party(LIAR)}


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_wrong_share_in_the_middle_of_the_list_convicts_its_holder_and_ends_nothing(settings):
    def change(seeds, keys):
        return {p: flipped(share) if p != LIAR else share for p, share in seeds.items()}, keys

    outcome, _ = run(lambda honest: AnswersWrongly(honest, change), settings)
    assert outcome.opened.survivors == tuple(range(N))
    assert torch.allclose(outcome.opened.what.mean(), torch.full((D,), 0.1), atol=1e-3)
    assert accused(outcome) == {client_party(LIAR)}
    assert "another share" in outcome.opened.excluded[client_party(LIAR)]


@pytest.mark.parametrize("settings", SETTINGS[2:3])
def test_shares_of_clients_that_dealt_it_none_are_refused(settings):
    held = []

    def change(seeds, keys):
        held.extend(seeds)
        strangers = [p for p in range(N) if p not in seeds]
        return seeds | {p: shamir.to_bytes(7) for p in strangers}, keys

    outcome, _ = run(lambda honest: AnswersWrongly(honest, change), settings)
    assert set(held) != set(range(N))
    assert outcome.opened.survivors == tuple(range(N))
    assert torch.allclose(outcome.opened.what.mean(), torch.full((D,), 0.1), atol=1e-3)
    assert accused(outcome) == {client_party(LIAR)}


def test_the_decoder_corrects_half_of_the_redundancy_and_says_when_it_cannot():
    rng = np.random.default_rng(0)
    for _ in range(60):
        t, m = int(rng.integers(1, 9)), int(rng.integers(9, 20))
        shares = shamir.split(12345, range(1, m + 1), t)
        wrong = rng.permutation(range(1, m + 1))[: int(rng.integers(0, (m - t) // 2 + 1))]
        spoiled = {x: (y + 1 + x) % shamir.P if x in wrong else y for x, y in shares.items()}
        found = decoded(spoiled, t)
        assert found is not None
        assert [x for x in spoiled if value(found, x) != spoiled[x]] == sorted(wrong.tolist())
        assert value(found, 0) == 12345
    random = {x: shamir.random_element() for x in range(1, 12)}
    assert decoded(random, 4) is None
