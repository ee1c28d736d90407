"""What the protocol tests share."""

import pytest

from privfl.core import KeepsSecrets, RestKey, sleep, wake


class Restless(KeepsSecrets):
    """A party that is put to rest between all exchanges, as a network engine with a process per message does."""

    def __init__(self, party):
        self.key = RestKey()
        self.kind = type(party)
        self.sealed = sleep(party, self.key)

    def step(self, mail):
        party = wake(self.sealed, self.key, self.kind)
        answer = {to: bytes(body) for to, body in party.step({who: bytes(body) for who, body in mail.items()}).items()}
        self.sealed = sleep(party, self.key)
        return answer

    @property
    def result(self):
        return wake(self.sealed, self.key, self.kind).result


@pytest.fixture
def restless():
    return Restless
