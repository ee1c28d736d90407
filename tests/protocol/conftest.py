"""What the protocol tests share."""

import pytest

from privfl.core import KeepsSecrets, StateKey, seal_state, unseal_state


class Restless(KeepsSecrets):
    """A party that is put to rest between all exchanges, as a network engine with a process per
    message does.
    """

    def __init__(self, party, lent=None):
        self.key, self.lent = StateKey(), lent
        self.kind = type(party)
        self.sealed = seal_state(party, self.key)

    def step(self, mail):
        party = unseal_state(self.sealed, self.key, self.kind, lent=self.lent)
        answer = {
            to: bytes(body)
            for to, body in party.step({who: bytes(body) for who, body in mail.items()}).items()
        }
        self.sealed = seal_state(party, self.key)
        return answer

    @property
    def result(self):
        return unseal_state(self.sealed, self.key, self.kind, lent=self.lent).result


@pytest.fixture
def restless():
    return Restless
