"""One-time-pad RLWE whose decryptors are drawn among the clients: three exchanges a round,
drop-outs, liars among the drawn, a coin that the server does not steer.
"""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from privfl.core import (
    Bounded,
    ConfigError,
    Faults,
    RoundPlan,
    Rows,
    Total,
    client_party,
    drive,
    drive_all,
)
from privfl.crypto import OneTimeRLWE
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.he.onetime import committee, opening
from privfl.crypto.he.onetime.dealing import value_at
from privfl.crypto.he.onetime.lies import AnswersAnother, TurnsDown, encrypts_under_another_key
from privfl.crypto.he.onetime.parameters import P

D = 20


class Scene:
    """Clients that drew decryptors among themselves."""

    def __init__(self, n=6, faults=Faults(), lying_server=None, **settings):
        given = {"holders": 5, "threshold": 3, "corrupt": 0.0, **settings}
        self.channel = OneTimeRLWE(committee="clients", **given)
        self.n = n
        self.all = Enrolled.fresh(self.channel, range(n))
        parties = {who: member.set_up() for who, member in self.all.members.items()}
        if lying_server is not None:
            parties["server"] = lying_server(parties["server"])
        self.drawing = drive_all(parties, faults)
        self.drawn = self.all.server.draw.drawn
        rows = torch.randn(n, D, generator=torch.Generator().manual_seed(1))
        self.rows = 0.9 * rows / rows.norm(dim=1, keepdim=True)

    def play(self, faults=Faults(), number=0):
        plan = RoundPlan(number, tuple(range(self.n)), D, 1.0, session=b"drawn")
        parties = {
            client_party(c): m.enter(plan, Bounded(c, self.rows[c], 1.0))
            for c, m in self.all.clients.items()
        }
        return drive(self.all.server.enter(plan), parties, faults, keep_bodies=True)

    def opened_exactly(self, outcome, survivors):
        if outcome.opened is None or outcome.opened.survivors != tuple(survivors):
            return False
        exact = self.rows[list(survivors)].sum(0)
        return bool((outcome.opened.what.value - exact).abs().max() < 1e-3)


@pytest.fixture(scope="module")
def scene():
    return Scene()


def test_a_round_is_three_exchanges_and_who_is_not_drawn_speaks_once(scene):
    outcome = scene.play(number=1)
    assert scene.opened_exactly(outcome, range(6))
    assert len(scene.drawn) == 5
    spoke = {who: [m.exchange for m in outcome.messages if m.sender == who] for who in scene.drawn}
    assert all(len(at) == 3 for at in spoke.values())
    (other,) = {client_party(c) for c in range(6)} - {*scene.drawn}
    assert len([m for m in outcome.messages if m.sender == other]) == 1
    assert all(member.draw.drawn == scene.drawn for member in scene.all.clients.values())


@pytest.mark.parametrize("late", [1, 2, 3, 4, 5])
def test_drawn_clients_may_leave_at_any_time_as_long_as_a_threshold_stays(scene, late):
    gone = scene.drawn[:2]
    outcome = scene.play(Faults(silent_from=dict.fromkeys(gone, late)), number=10 + late)
    assert scene.opened_exactly(outcome, range(6))


def test_without_a_threshold_of_the_drawn_nothing_opens(scene):
    gone = scene.drawn[:3]
    outcome = scene.play(Faults(silent_from=dict.fromkeys(gone, 2)), number=20)
    assert outcome.opened is None
    assert "2 of 5 decryptors" in str(outcome.aborts["server"])


def test_a_client_that_never_came_is_left_out_whether_it_was_drawn_or_not(scene):
    outcome = scene.play(Faults(silent_from={scene.drawn[0]: 0}), number=21)
    assert scene.opened_exactly(outcome, [c for c in range(6) if client_party(c) != scene.drawn[0]])


def test_a_drawn_client_that_answers_another_sum_is_named_and_moves_nothing(scene):
    liar = scene.drawn[1]
    outcome = scene.play(Faults(byzantine={liar: AnswersAnother}), number=30)
    assert scene.opened_exactly(outcome, range(6))
    assert "its sum of shares is off the polynomial" in outcome.opened.excluded[liar]
    assert set(outcome.opened.excluded) == {liar}


def test_a_drawn_client_that_turns_dealings_down_shuts_nobody_out(scene):
    outcome = scene.play(Faults(byzantine={scene.drawn[2]: TurnsDown}), number=31)
    assert scene.opened_exactly(outcome, range(6))


def test_a_contribution_that_does_not_fit_its_dealing_ends_the_round_and_names_nobody(scene):
    liar = {client_party(0): encrypts_under_another_key}
    outcome = scene.play(Faults(byzantine=liar), number=32)
    assert outcome.opened is None
    assert outcome.aborts["server"].blamed is None


def test_the_server_with_a_threshold_of_the_drawn_reads_everybody_and_with_one_less_the_sum(scene):
    outcome = scene.play(number=40)

    def read(*who):
        members = {w: scene.all.members[w] for w in ("server", *who)}
        return scene.channel.decode(outcome.received(members), members)

    assert isinstance(read(*scene.drawn[:3]), Rows)
    assert isinstance(read(*scene.drawn[:2]), Total)
    (other,) = {client_party(c) for c in range(6)} - {*scene.drawn}
    assert isinstance(read(other, *scene.drawn[:2]), Total)


def test_a_round_is_opened_once_and_a_new_session_has_another_draw(scene):
    assert scene.opened_exactly(scene.play(number=50), range(6))
    again = scene.play(number=50)
    assert again.opened is None
    other = Scene()
    assert other.all.server.draw.coin != scene.all.server.draw.coin


class ShowsOthers:
    """A server that shows what it likes in place of what clients committed to or showed."""

    def __init__(self, honest, change, at):
        self.honest, self.change, self.at, self.told = honest, change, at, 0

    def step(self, mail):
        out = self.honest.step(mail)
        if out:
            self.told += 1
            if self.told == self.at:
                return {to: self.change(to, committee.read(body)) for to, body in out.items()}
        return out


def swap(to, told):
    return committee.written({**told, next(who for who in told if who != to): bytes(32)})


def drop_one(to, told):
    return committee.written({who: b for who, b in told.items() if who in (to, "client/1")})


def stranger(to, told):
    return committee.written({**told, "client/99": bytes(32)})


@pytest.mark.parametrize(("change", "at"), [(swap, 2), (drop_one, 2), (stranger, 1), (stranger, 2)])
def test_a_server_that_shows_other_strings_than_were_committed_to_draws_nobody(change, at):
    lied = Scene(3, holders=3, threshold=2, lying_server=lambda s: ShowsOthers(s, change, at))
    assert not any(member.draw.drawn for member in lied.all.clients.values())
    assert lied.play().opened is None


def test_a_server_that_keeps_clients_from_the_draw_gets_no_contribution():
    """It would be left with those whom it has in its hand."""
    kept = Scene(
        6, holders=2, threshold=2, lying_server=lambda s: ShowsOthers(s, drop_one, 1),
        faults=Faults(silent_from={client_party(c): 0 for c in range(2, 6)}),
    )  # fmt: skip
    outcome = kept.play()
    assert outcome.opened is None
    assert "took no part in drawing the decryptors" in str(outcome.aborts["client/0"])


def test_draws_that_are_broken_off_too_often_are_begun_no_more():
    scene = Scene(3, holders=3, threshold=2, faults=Faults(silent_from={"client/0": 1}))
    member = scene.all.clients[1]
    assert not member.draw.drawn
    for _ in range(committee.TRIES + 1):
        party = member.set_up()
    (said,) = drive_all({"client/1": party, "server": scene.all.server.set_up()}).aborts.values()
    assert "broken off" in str(said)


def test_many_decryptors_are_corrected_by_a_decoder_and_liars_named():
    rng = np.random.default_rng(0)
    coefficients = rng.integers(0, P, (8, 64))
    coefficients[0] = rng.integers(0, 20, 64)
    answers = {x: value_at(coefficients, x) for x in range(1, 21)}
    for liar in (2, 5, 11):
        answers[liar] = rng.integers(0, P, 64)
    found = opening.solve(answers, 8, 1000, lambda short: bool((short == coefficients[0]).all()))
    assert found.liars == {2, 5, 11}
    accepted = {f"client/{i}": {b"1", b"2"} if i else {b"1"} for i in range(12)}
    assert opening.choose(accepted, 8).ids == {b"1", b"2"}


def test_what_cannot_be_drawn_is_refused():
    channel = OneTimeRLWE(committee="clients", holders=9, threshold=6)
    plan = RoundPlan(0, tuple(range(5)), D, 1.0)
    with pytest.raises(ConfigError, match="9 decryptors are drawn among the clients"):
        channel.layout(plan)
    with pytest.raises(ConfigError, match="committee is 'helpers' or 'clients'"):
        OneTimeRLWE(committee="neighbours")
    with pytest.raises(ConfigError, match="holders"):
        OneTimeRLWE(holders=10, threshold=6)


def test_the_figures_of_the_draw_are_said_and_fall_with_its_size():
    few = OneTimeRLWE(committee="clients", holders=5, threshold=4, corrupt=0.05)
    many = replace(few, holders=32, threshold=24)
    said = many.guarantee.record(1000)["settings"]["two sums open"]
    assert re.match(r"with probability 2\^-42", said)
    assert committee.chance(1000, 0.05, 5, 3) > -12
    assert few.guarantee.record(20)["settings"]["single updates are read"].startswith("never")
