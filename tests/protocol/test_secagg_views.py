"""A liar among the clients does not blind who looks: what its server opened is what the server's
mail is decoded to, and what a coalition reads it reads.
"""

import pytest
import torch

from privfl.core import Bounded, Faults, RoundPlan, Rows, Total, client_party, drive
from privfl.crypto import SecAgg
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.secagg.stage import Kind

N, D = 7, 5
WAYS = {
    "another tag": lambda b: b[:12] + bytes(16) + b[28:],
    "a false byte": lambda b: b[:-3] + bytes([b[-3] ^ 255]) + b[-2:],
    "a byte more": lambda b: b + b"x",
    "cut": lambda b: b[: len(b) // 2],
    "no field element": lambda b: b[:60] + b"\xff" * (len(b) - 60),
    "another's place": lambda b: b[:8] + (4).to_bytes(4, "little") + b[12:],
    "another ring": lambda b: b[:5] + b"\x10" + b[6:],
}
STAGES = (Kind.ADVERTISE, Kind.SHARES, Kind.MASKED, Kind.CONSISTENCY, Kind.UNMASK)


def run(settings, spoil, liar="client/0"):
    channel = SecAgg(corrupt=0.0, forward_secrecy=False, **settings)
    plan = RoundPlan(0, tuple(range(N)), d=D, l2=1.0, session=b"views")
    everybody = Enrolled.fresh(channel, plan.cohort)
    parties = {
        client_party(c): m.enter(plan, Bounded(c, torch.full((D,), 0.05 * (c + 1)), 1.0))
        for c, m in everybody.clients.items()
    }
    outcome = drive(
        everybody.server.enter(plan), parties, Faults(malformed={liar: spoil}), keep_bodies=True
    )
    return channel, everybody, outcome


@pytest.mark.parametrize("settings", [{"graph": "complete"}, {"mode": "active", "graph": 4}])
@pytest.mark.parametrize("kind", [*STAGES, None], ids=[*(k.name for k in STAGES), "always"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("liar", ["client/0", "client/6"])
def test_what_was_opened_is_what_the_servers_mail_decodes_to(settings, kind, way, liar):
    def spoil(body):
        body = bytes(body)
        return WAYS[way](body) if kind is None or body[4] == kind else body

    channel, everybody, outcome = run(settings, spoil, liar)
    seen = channel.decode(outcome.received({"server"}), {"server": everybody.server})
    if outcome.opened is None:
        assert seen is None
        return
    assert isinstance(seen, Total)
    assert torch.equal(seen.value, outcome.opened.what.value)
    assert seen.count == outcome.opened.what.count


@pytest.mark.parametrize("way", WAYS)
def test_a_coalition_reads_rows_through_a_liars_mail(way):
    channel, everybody, outcome = run({"graph": "complete"}, lambda b: WAYS[way](bytes(b)))
    who = ["server", *(client_party(c) for c in range(1, 6))]
    members = {w: everybody.members[w] for w in who}
    seen = channel.decode(outcome.received(who), members)
    assert isinstance(seen, Rows)
    assert 6 in seen.ids
    assert torch.allclose(seen.values[seen.ids.index(6)], torch.full((D,), 0.35), atol=1e-3)
