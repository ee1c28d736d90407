"""A server of active secure aggregation that withholds what it should pass on, or asks again."""

import pytest
import torch

from privfl.audit.protocol.servers import EditsLetters
from privfl.core import Bounded, RoundPlan, client_party, drive
from privfl.crypto import SecAgg
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.primitives import fields
from privfl.crypto.secagg import StageAbort, wire
from privfl.crypto.secagg.stage import Kind


def scene(n, **settings):
    channel = SecAgg(mode="active", corrupt=0.0, **settings)
    plan = RoundPlan(0, tuple(range(n)), d=4, l2=1.0, session=b"withheld")
    everybody = Enrolled.fresh(channel, plan.cohort)
    parties = {
        client_party(c): m.enter(plan, Bounded(c, torch.full((4,), 0.1), 1.0))
        for c, m in everybody.clients.items()
    }
    return channel, plan, everybody, parties


@pytest.mark.parametrize("withheld", [[3], [3, 4]])
def test_a_box_of_a_client_whose_keys_were_withheld_ends_its_receiver_by_name(withheld):
    n, victim = 7, "client/1"
    _, plan, everybody, parties = scene(n, graph="complete")

    def edit(to, kind, body):
        if kind is not Kind.KEYS or to != victim:
            return body
        rows, _ = fields.read_table(memoryview(body)[fields.HEADER :], 32, n)
        shown = {p: row for p, row in rows.items() if p not in withheld}
        return body[: fields.HEADER] + fields.table(shown)

    outcome = drive(EditsLetters(everybody.server.enter(plan), edit), parties)
    assert isinstance(outcome.aborts[victim], StageAbort)
    assert outcome.aborts[victim].blamed == "server"
    assert outcome.opened.survivors == tuple(c for c in range(n) if c != 1)


def test_a_client_that_is_called_again_draws_no_other_share_holders():
    """Of two draws a server would take the one in which more of its friends are."""
    channel, plan, _, parties = scene(14, graph=8)
    now, party = channel.parameters(plan), parties["client/0"]
    assert now.chosen
    first = bytes(party.step({})["server"])
    drawn = party.drawn
    again = party.step({"server": wire.write(Kind.CALL, now.ring, 0, now.tag)})["server"]
    assert party.drawn == drawn
    assert bytes(again) == first
