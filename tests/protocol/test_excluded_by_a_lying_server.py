"""A second server says whom it excluded, and can name nobody who takes no part."""

import torch

from privfl.core import Bounded, Faults, RoundPlan
from privfl.crypto import AdditiveSharing
from privfl.engine import Session


class Names:
    """The second server, which excludes a party of its own making."""

    def __init__(self, honest):
        self.honest = honest

    def step(self, mail):
        out = self.honest.step(mail)
        return {to: bytes(body) + b"<b>nobody</b>\tit lies" for to, body in out.items()}


def test_a_server_that_excludes_somebody_who_takes_no_part_is_named_itself():
    session = Session(AdditiveSharing(bits=20), "signed")
    session.enrol(range(4))
    plan = RoundPlan(0, tuple(range(4)), 3, 1.0)
    updates = {c: Bounded(c, torch.ones(3) * 0.1, 1.0) for c in range(4)}
    outcome = session.play(plan, updates, Faults(byzantine={"server/1": Names}))
    assert outcome.opened is None
    [abort] = outcome.aborts.values()
    assert abort.blamed == "server/1"
    assert "takes no part" in str(abort)
