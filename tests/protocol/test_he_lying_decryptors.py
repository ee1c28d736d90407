"""Decryptors under a split Paillier key that send what is not their part: any enough proven parts
open the sum, and whoever lied is named.
"""

import json
from pathlib import Path

import phe
import pytest

from benchmarks.he.lying_decryptors import LIES, Session, played
from privfl.core import ConfigError, RoundPlan
from privfl.crypto import Paillier
from privfl.crypto.he.paillier import PaillierShare, from_phe, from_primes
from privfl.crypto.he.paillier.safe_primes import is_safe
from privfl.crypto.he.paillier.threshold import combine, proven, split
from privfl.crypto.he.wire import Refused

SAFE = json.loads(
    (Path(__file__).parents[1] / "vectors" / "homomorphic_encryption.json").read_text()
)["safe_primes"]


@pytest.fixture(scope="module")
def sessions():
    return {setting: Session(*setting) for setting in ((3, 2), (3, 3), (5, 3))}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
@pytest.mark.parametrize("who", ["decryptor/0", "decryptor/2"])
def test_one_of_three_that_lies_is_named_and_the_others_open_the_sum(sessions, lie, who):
    session, liars = sessions[3, 2], {who: lie}
    assert session.right(session.play(liars), liars)


def test_liars_in_any_number_that_leaves_enough_are_named():
    right, faults = played(25)
    assert faults == []
    assert right == 25


@pytest.mark.parametrize("setting", [(3, 2), (5, 3)])
def test_more_liars_than_can_be_spared_end_the_round_and_one_of_them_is_blamed(sessions, setting):
    holders, threshold = setting
    liars = {f"decryptor/{i}": LIES["random numbers"] for i in range(holders - threshold + 1)}
    outcome = sessions[setting].play(liars)
    assert outcome.opened is None
    assert outcome.aborts["server"].blamed in liars
    assert all(who in str(outcome.aborts["server"]) for who in liars)


def test_where_all_are_needed_one_liar_ends_the_round_and_is_blamed(sessions):
    outcome = sessions[3, 3].play({"decryptor/1": LIES["a constant more"]})
    assert outcome.opened is None
    assert outcome.aborts["server"].blamed == "decryptor/1"


class TestKeysOfTheDefaultLength:
    """Fixed safe primes of 1536 bits, so that nobody waits for fresh ones."""

    secret = from_primes(int(SAFE["p"], 16), int(SAFE["q"], 16), 16)

    def test_parts_are_proved_for_their_ciphertexts_round_and_holder_alone(self):
        public, shares = split(self.secret, 3, 2)
        plan = RoundPlan(4, (0, 1), d=1, l2=1.0, session=b"s")
        slots = public.slots(plan)
        total = public.blinded(slots.pack(__import__("numpy").array([3, -4])), [1])
        total = public.add([total, public.blinded([0], public.fresh_blinding(1))], plan)
        parts = [share.partial(total, plan) for share in shares]
        for index, part in enumerate(parts, start=1):
            proven(public, total, part, index, plan)
        assert combine(public, parts[1:], plan, 1, 2).tolist() == [3, -4]
        other = public.add([total, public.blinded([0], public.fresh_blinding(1))], plan)
        later = RoundPlan(5, (0, 1), d=1, l2=1.0, session=b"s")
        for part, ciphertext, index, when in (
            (parts[0], other, 1, plan),
            (parts[0], total, 1, later),
            (parts[0], total, 2, plan),
            ((parts[1][0], parts[0][1], parts[0][2]), total, 2, plan),
            ((parts[0][0], parts[1][1], parts[0][2]), total, 1, plan),
            ((parts[0][0], parts[0][1], parts[1][2]), total, 1, plan),
        ):
            with pytest.raises(Refused):
                proven(public, ciphertext, part, index, when)

    def test_a_share_that_is_not_the_one_that_the_key_names_is_refused(self):
        _, shares = split(self.secret, 3, 2)
        right, wrong = shares[0], shares[1].value
        assert PaillierShare.from_bytes(right.to_bytes()).value == right.value
        right.value = wrong
        with pytest.raises(Refused, match="does not fit"):
            PaillierShare.from_bytes(right.to_bytes())

    def test_the_primes_are_safe(self):
        assert is_safe(self.secret.p)
        assert is_safe(self.secret.q)


def test_keys_of_other_primes_are_not_split():
    """python-paillier's, and our own that are not made for it."""
    for secret in (
        from_phe(phe.generate_paillier_keypair(n_length=512)[1]),
        Paillier(key_bits=512, insecure_for_tests=True).scheme.generate()[1],
    ):
        with pytest.raises(ConfigError, match="no safe primes"):
            split(secret, 3, 2)


def test_a_key_without_checks_of_its_shares_is_none_of_a_split_channel():
    channel = Paillier(keys="threshold", key_bits=512, insecure_for_tests=True)
    bare, secret = channel.scheme.generate()
    with pytest.raises(Refused, match="checks"):
        channel.scheme.public(bare.to_bytes())
    whole = split(secret, 3, 2)[0]
    assert channel.scheme.public(whole.to_bytes()).key_id == whole.key_id
    with pytest.raises(Refused, match="checks"):
        Paillier(key_bits=512, insecure_for_tests=True).scheme.public(whole.to_bytes())


def test_the_dealer_is_named():
    said = Paillier(keys="threshold").describe()
    assert "Dealer with server, if it keeps the key" in said or "a dealer that forgets" in said
    assert any("dealer" in line for line in Paillier(keys="threshold").able.warnings)
