"""What a lying server tries on decryptors, and what a careless owner does with key files: each
attack, and that it fails.
"""

import contextlib
import copy
import os
import pickle
import warnings
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from privfl.core import (
    Abort,
    Bounded,
    ConfigError,
    RoundPlan,
    SecretsStay,
    client_party,
    drive,
    drive_all,
)
from privfl.crypto import BFV, MultiPartyRLWE, Paillier
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.he import keyfile
from privfl.crypto.he.boxes import letter, seal, unsealed
from privfl.crypto.he.client import posted
from privfl.crypto.he.decryption_policy import CIPHERTEXT, SUM, forwarded, opened_answer, request
from privfl.crypto.he.lattice import frames
from privfl.crypto.he.lattice.bfv import BfvScheme
from privfl.crypto.he.lattice.keys import LatticePublic, LatticeSecret
from privfl.crypto.he.mprlwe.keys import JointPublic, TernaryPart, from_bytes, partial, to_bytes
from privfl.crypto.he.mprlwe.ring import LIMBS, N
from privfl.crypto.he.paillier import from_phe
from privfl.crypto.he.wire import Refused, SignedMessage, pack, unpack
from privfl.crypto.primitives import Identity

SMALL = {"key_bits": 512, "insecure_for_tests": True}
CHANNELS = {
    "paillier": Paillier(min_clients=3, **SMALL),
    "paillier-threshold": Paillier(keys="threshold", min_clients=3, **SMALL),
    "bfv": BFV(min_clients=3),
    "mp-rlwe": MultiPartyRLWE(min_clients=3),
}


class Attack:
    """A session of some clients, and what its server holds after collecting a round's
    ciphertexts.
    """

    def __init__(self, channel, d=20, n=4):
        self.channel, self.d, self.n = channel, d, n
        self.members = dict(Enrolled.fresh(channel, range(n)).members)
        drive_all({who: member.set_up() for who, member in self.members.items()})
        self.number = 0

    def plan(self, number=None, **changes):
        return replace(
            RoundPlan(
                self.number if number is None else number,
                tuple(range(self.n)),
                self.d,
                l2=1.0,
                session=b"s",
            ),
            **changes,
        )

    def ciphertext(self, client, plan):
        party = self.members[client_party(client)].enter(
            plan, Bounded(client, torch.full((self.d,), 0.1), 1.0)
        )
        who, keys = client_party(client), self.members["server"].ring.identity
        return SignedMessage.read(letter(keys, party.step({})["server"], who))

    def to_server(self, who, plan, parts):
        """Such parts as a client's ciphertext, signed and sealed as it is."""
        return posted(self.members[who].ring, plan, parts)

    def fresh(self):
        """The next round, with everybody's ciphertexts."""
        self.number += 1
        plan = self.plan()
        return plan, [self.ciphertext(i, plan) for i in range(self.n)]

    def decryptor(self, plan):
        party = self.members["decryptor/0"].enter(plan)
        party.step({})
        return party

    def request(self, messages):
        """What the server sends a decryptor."""
        if isinstance(self.channel, MultiPartyRLWE):
            held = bytes(sorted(self.members["decryptor/0"].held))
            return pack([pack([held]), forwarded(messages, left_out=[0])])
        return request(self.members["server"].ring, "decryptor/0", messages)

    def ask(self, plan, messages):
        return self.decryptor(plan).step({"server": self.request(messages)})


@pytest.fixture(scope="module")
def sessions():
    return {name: Attack(channel) for name, channel in CHANNELS.items()}


@pytest.fixture(params=CHANNELS)
def attack(request, sessions):
    return sessions[request.param]


def test_an_honest_bundle_is_answered(attack):
    plan, messages = attack.fresh()
    assert set(attack.ask(plan, messages)) == {"server"}
    plan, messages = attack.fresh()
    assert set(attack.ask(plan, messages[:3])) == {"server"}


def test_a_sum_of_too_few_stays_closed(attack):
    plan, messages = attack.fresh()
    with pytest.raises(Abort, match=r"sum of 2.*fewer than 3") as refusal:
        attack.ask(plan, messages[:2])
    assert refusal.value.blamed == "server"


@pytest.mark.parametrize(
    "channel",
    [BFV(), Paillier(**SMALL), Paillier(keys="threshold", **SMALL), MultiPartyRLWE()],
    ids=["bfv", "paillier", "paillier-threshold", "mp-rlwe"],
)
def test_a_server_and_one_friend_do_not_subtract_their_way_to_a_victim(channel):
    """As a channel is set by itself: the sum of a victim and a friend, less the friend's update, is
    the victim's.
    """
    attack = Attack(channel, n=10)
    plan, messages = attack.fresh()
    for few in (2, 5):
        with pytest.raises(Abort, match=rf"sum of {few}.*fewer than 6"):
            attack.ask(plan, messages[:few])
    assert attack.ask(plan, messages[:6])


def test_one_ciphertext_three_times_is_no_sum_of_three(attack):
    plan, messages = attack.fresh()
    with pytest.raises(Abort, match="twice"):
        attack.ask(plan, [messages[0]] * 3)


def test_one_ciphertext_dressed_up_under_other_names_is_recognised(attack):
    plan, messages = attack.fresh()
    dressed = [messages[0], *(replace(messages[0], sender=f"client/{i}") for i in (1, 2))]
    with pytest.raises(Abort, match="client/1: the signature is not the sender's"):
        attack.ask(plan, dressed)


def test_ciphertexts_that_the_server_makes_and_signs_itself_are_refused(attack):
    plan, messages = attack.fresh()
    me = attack.members["server"].ring.identity
    public = attack.members["server"].ring.public
    zeros = public.encrypt(np.zeros(attack.d + 1, dtype=np.int64), plan)
    topic = attack.members["server"].ring.topic(plan)
    forged = [SignedMessage.signed(me, CIPHERTEXT, topic, f"client/{i}", zeros) for i in (1, 2)]
    with pytest.raises(Abort, match="signature"):
        attack.ask(plan, [messages[0], *forged])


def test_a_new_name_for_the_server_is_not_in_the_cohort(attack):
    plan, messages = attack.fresh()
    ring = attack.members["decryptor/0"].ring
    mallory = Identity.fresh("client/99")
    ring.roster["client/99"] = mallory.hello
    topic = ring.topic(plan)
    zeros = ring.public.encrypt(np.zeros(attack.d + 1, dtype=np.int64), plan)
    with pytest.raises(Abort, match="client/99 is not in the cohort"):
        attack.ask(
            plan,
            [*messages[:3], SignedMessage.signed(mallory, CIPHERTEXT, topic, "client/99", zeros)],
        )


def test_a_replay_of_an_old_round_is_refused(attack):
    _, old = attack.fresh()
    plan, messages = attack.fresh()
    with pytest.raises(Abort, match="for round"):
        attack.ask(plan, [old[0], *messages[1:]])


def test_a_round_is_opened_once_even_for_another_subset(attack):
    plan, messages = attack.fresh()
    attack.ask(plan, messages)
    with pytest.raises(Abort, match="already opened"):
        attack.ask(plan, messages[:3])


@pytest.mark.parametrize(
    "change",
    [
        {"session": b"other"},
        {"part": "aux"},
        {"cohort": (0, 1, 2)},
        {"l2": 2.0},
        {"max_weight": 5.0},
    ],
    ids=lambda c: next(iter(c)),
)
def test_ciphertexts_are_bound_to_all_facts_of_their_round(attack, change):
    plan, messages = attack.fresh()
    with pytest.raises(Abort, match=r"another session, part, cohort or bound|not in the cohort"):
        attack.ask(replace(plan, **change), messages)


def test_ciphertexts_under_a_foreign_key_are_refused(attack):
    plan, messages = attack.fresh()
    other = Attack(attack.channel)
    other.members["client/0"].ring.identity = attack.members["client/0"].ring.identity
    with pytest.raises(Abort, match="foreign key"):
        attack.ask(plan, [other.ciphertext(0, plan), *messages[1:]])


def test_a_flipped_bit_is_noticed_and_its_client_named(attack):
    plan, messages = attack.fresh()
    last = len(messages[2].parts) - 1
    part = bytearray(messages[2].parts[last])
    part[len(part) // 2] ^= 4
    broken = replace(messages[2], parts=(*messages[2].parts[:last], bytes(part)))
    with pytest.raises(Abort, match="client/2: the content is not what was signed"):
        attack.ask(plan, [*messages[:2], broken])


@pytest.mark.parametrize(
    "body", [b"", b"x", b"\xff" * 40, pack([b"x"] * 3), pack([b""])], ids=range(5)
)
def test_garbage_from_the_server_is_an_abort_that_blames_it(attack, body):
    plan, _ = attack.fresh()
    with pytest.raises(Abort) as refusal:
        attack.decryptor(plan).step({"server": body})
    assert refusal.value.blamed == "server"


def test_a_decryptor_is_asked_for_a_piece_once_and_only_for_its_own(sessions):
    attack = sessions["mp-rlwe"]
    plan, messages = attack.fresh()
    held = sorted(attack.members["decryptor/0"].held)
    body = forwarded(messages, left_out=[0])
    party = attack.decryptor(plan)
    party.step({"server": pack([pack([bytes(held[:1])]), body])})
    party.step({"server": pack([pack([bytes(held[1:])]), b""])})
    for groups in ([bytes(held[:1])], [bytes([2, 2])], [bytes([0])], [b""], [bytes([9])]):
        with pytest.raises(Abort):
            party.step({"server": pack([pack(groups), b""])})
    with pytest.raises(Abort):
        attack.decryptor(attack.fresh()[0]).step({"server": pack([pack([bytes(held)]), b""])})


def test_without_verified_sums_the_server_takes_a_decryptors_key_and_with_them_it_does_not():
    """The attack that `describe` warns of: c1 = 2^94 through a decryptor shows its pieces through
    any smudging.
    """
    chosen = np.zeros((LIMBS, 1, N), dtype=np.uint32)
    chosen[2, 0, 0] = 1 << 30
    for verify in (False, True):
        attack = Attack(MultiPartyRLWE(verify_sum=verify))
        plan, _ = attack.fresh()
        ring = attack.members["server"].ring
        topic = ring.topic(plan)
        lie = SignedMessage.signed(
            ring.identity, SUM, topic, "server", ((4).to_bytes(4, "little"), to_bytes(chosen))
        ).to_bytes()
        held = attack.members["decryptor/0"].held
        request = pack([pack([bytes(sorted(held))]), lie])
        if verify:
            with pytest.raises(Abort):
                attack.decryptor(plan).step({"server": request})
            continue
        answer = SignedMessage.read(attack.decryptor(plan).step({"server": request})["server"])
        part = opened_answer(answer, ring)[1][1]
        top = from_bytes(part, 1)[2, 0].view(np.int32)
        taken = np.rint(top / 2.0**30).astype(int)
        secret = sum(piece.coefficients.astype(int) for piece in held.values())
        assert ((taken - secret) % 4 == 0).all()


def test_a_sum_that_is_not_verified_is_still_refused_when_it_says_too_few_or_is_not_the_servers():
    attack = Attack(BFV(verify_sum=False, min_clients=3))
    plan, messages = attack.fresh()
    ring = attack.members["server"].ring
    topic = ring.topic(plan)
    part = messages[0].whole()[0]
    for count, identity in ((2, ring.identity), (9, ring.identity), (4, Identity.fresh("server"))):
        lie = SignedMessage.signed(
            identity, SUM, topic, "server", (count.to_bytes(4, "little"), bytes(part))
        ).to_bytes()
        with pytest.raises(Abort):
            attack.decryptor(plan).step({"server": lie})
    lie = SignedMessage.signed(
        ring.identity, SUM, topic, "server", ((4).to_bytes(4, "little"), bytes(part))
    ).to_bytes()
    assert attack.decryptor(plan).step(
        {"server": lie}
    )  # and this is what "the server could forge" means


def test_a_ciphertext_that_is_signed_but_malformed_excludes_its_client():
    for name, channel in {
        "bfv": BFV(),
        "unverified": BFV(verify_sum=False),
        "shared": BFV(keys="shared"),
        "paillier": Paillier(**SMALL),
        "mp-rlwe": MultiPartyRLWE(),
    }.items():
        attack = Attack(channel)
        plan = attack.plan(1)
        parties = {
            f"client/{i}": (
                attack.members[f"client/{i}"].enter(
                    plan, Bounded(i, torch.full((attack.d,), 0.1), 1.0)
                )
            )
            for i in range(4)
        }
        junk = attack.to_server("client/1", plan, (b"\xff" * 99,))

        class Liar:
            def step(self, mail, junk=junk):
                return {} if mail else {"server": junk}

        parties["client/1"] = Liar()
        parties |= {who: attack.members[who].enter(plan) for who in channel.helpers}
        outcome = drive(attack.members["server"].enter(plan), parties)
        assert outcome.opened.survivors == (0, 2, 3), name
        assert "client/1" in outcome.opened.excluded


def test_a_well_packed_ciphertext_of_junk_excludes_its_client_and_not_the_round():
    attack = Attack(BFV())
    plan = attack.plan(1)
    others = {
        i: attack.members[f"client/{i}"].enter(plan, Bounded(i, torch.full((attack.d,), 0.1), 1.0))
        for i in (0, 2, 3)
    }
    junk = attack.to_server("client/1", plan, (pack([b"\xff" * 99]),))

    class Liar:
        def step(self, mail):
            return {} if mail else {"server": junk}

    parties = {"client/1": Liar(), **{f"client/{i}": party for i, party in others.items()}}
    parties["decryptor/0"] = attack.members["decryptor/0"].enter(plan)
    outcome = drive(attack.members["server"].enter(plan), parties)
    assert outcome.opened.survivors == (0, 2, 3)
    assert "not a lattice ciphertext" in outcome.opened.excluded["client/1"]


class FlatKey(BfvScheme):
    """Its maker hands out a public key of zeros: ciphertexts are the updates themselves."""

    def generate(self):
        public, secret = BfvScheme.generate(self)
        flat = LatticePublic(self.lattice, bytes(len(public.public)))
        return flat, LatticeSecret(flat, secret.secret, self.encryption)


class LongKey(BfvScheme):
    """Its maker hands out a secret key that is not ternary."""

    def generate(self):
        public, secret = BfvScheme.generate(self)
        code = frames.residues(self.lattice, key=True)
        words = np.full_like(code.unpacked(secret.secret, 1), 12_345_678_901)
        return public, LatticeSecret(public, code.packed(words), self.encryption)


@pytest.mark.parametrize(
    ("evil", "settings", "why"),
    [
        (FlatKey, {}, "hides nothing"),
        (FlatKey, {"bits": 24, "max_clients": 1000}, "hides nothing"),  # encrypted by SEAL
        (LongKey, {"keys": "shared", "encryption": "symmetric"}, "not all -1, 0 or 1"),
    ],
)
def test_nobody_encrypts_under_a_key_that_hides_nothing_and_its_maker_is_blamed(
    evil, settings, why
):
    """What clients would send convicts them at the server, and lies open there."""
    channel = BFV(min_clients=2, **settings)
    members, maker = dict(Enrolled.fresh(channel, range(3)).members), channel.arrangement.maker
    honest = channel.scheme
    members[maker].ring.scheme = evil(*(getattr(honest, f.name) for f in fields(honest)))
    drive_all({who: member.set_up() for who, member in members.items()})
    plan = RoundPlan(1, (0, 1, 2), 20, l2=1.0, session=b"s")
    rows = {client_party(i): Bounded(i, torch.full((20,), 0.1), 1.0) for i in range(3)}
    parties = {who: members[who].enter(plan, row) for who, row in rows.items()}
    parties |= {who: members[who].enter(plan) for who in channel.helpers}
    outcome = drive(members["server"].enter(plan), parties)
    assert outcome.opened is None
    assert {outcome.aborts[who].blamed for who in rows} == {maker}
    assert all(why in str(outcome.aborts[who]) for who in rows)


def test_secret_keys_refuse_to_be_pickled_copied_or_printed(attack):
    for member in attack.members.values():
        held = [
            member.ring.secret,
            member.ring.share,
            member.ring.identity,
            member.ring,
            *getattr(member, "held", {}).values(),
        ]
        for secret in (item for item in held if item is not None):
            assert repr(secret).endswith("holds secrets>")
            for leak in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(SecretsStay):
                    leak(secret)


def test_a_public_key_alone_carries_no_secret(attack):
    ring = attack.members["client/0"].ring
    assert ring.secret is None
    assert ring.share is None
    again = ring.scheme.public(ring.public.to_bytes())
    assert again.key_id == ring.public.key_id
    for index in range(0, 60, 7):
        broken = bytearray(ring.public.to_bytes())
        broken[index] ^= 0x55
        with contextlib.suppress(Refused):
            assert ring.scheme.public(bytes(broken)).key_id != ring.public.key_id


def test_key_files_are_for_their_owner_alone(tmp_path):
    path = tmp_path / "key"
    old = os.umask(0)
    try:
        keyfile.write(path, b"bfv", b"secret")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert keyfile.read(path, b"bfv") == b"secret"
    with pytest.raises(ConfigError, match="never overwritten"):
        keyfile.write(path, b"bfv", b"other")
    with pytest.raises(ConfigError, match="no ckks key"):
        keyfile.read(path, b"ckks")
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600"):
            keyfile.read(path, b"bfv")
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(ConfigError, match="a link"):
        keyfile.read(link, b"bfv")


def test_key_files_that_cannot_be_used_say_so_in_one_sentence(tmp_path):
    """A folder in their place, a folder that is not there, a file that was cut short or changed, a
    pipe that nobody writes to.
    """
    whole = tmp_path / "key"
    BFV(key_file=str(whole)).scheme.generate()
    body = whole.read_bytes()
    (tmp_path / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, content in {
        "short": body[:-1],
        "head": body[:20],
        "empty": b"",
        "changed": body[:-40] + b"\xff" * 40,
        "folder": None,
        "pipe": None,
        "none/key": None,
    }.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
            path.chmod(0o600)
        with pytest.raises(ConfigError, match="key file"):
            BFV(key_file=str(path)).scheme.generate()


@pytest.mark.parametrize(
    "make",
    [lambda f: BFV(key_file=f), lambda f: Paillier(key_file=f, **SMALL)],
    ids=["bfv", "paillier"],
)
def test_a_key_file_gives_the_same_key_again(tmp_path, make):
    channel = make(str(tmp_path / "key"))
    first, second = (channel.scheme.generate()[0] for _ in range(2))
    assert first.key_id == second.key_id
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_key_file_of_other_parameters_does_not_fit(tmp_path):
    path = str(tmp_path / "key")
    BFV(key_file=path).scheme.generate()
    with pytest.raises(ConfigError, match="does not fit"):
        BFV(bits=24, key_file=path).scheme.generate()
    path = str(tmp_path / "other")
    Paillier(key_file=path, **SMALL).scheme.generate()
    for changes in ({"bits": 12}, {"key_bits": 1024}):
        with pytest.raises(ConfigError, match="does not fit"):
            Paillier(key_file=path, **{**SMALL, **changes}).scheme.generate()


def test_a_key_of_phe_becomes_a_key_file(tmp_path):
    import phe

    path = tmp_path / "key"
    keyfile.write(
        path, b"paillier", from_phe(phe.generate_paillier_keypair(n_length=512)[1]).to_bytes()
    )
    attack = Attack(Paillier(key_file=str(path), **SMALL))
    plan, messages = attack.fresh()
    assert attack.ask(plan, messages)


def test_short_paillier_keys_are_refused_and_2048_bits_warn():
    with pytest.raises(ConfigError, match="at least 2048"):
        Paillier(key_bits=1024)
    with pytest.warns(UserWarning, match="under 128-bit security"):
        Paillier(key_bits=2048)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Paillier()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: BFV(encryption="seeded"), "keys='shared'"),
        (lambda: BFV(bits=31, max_clients=1 << 40), "no parameter set"),
        (lambda: Paillier(keys="threshold", holders=3, threshold=4), "threshold <= holders"),
        (lambda: Paillier(exponent_bits=100), "exponent_bits"),
        (lambda: Paillier(keys="threshold", key_file="key"), "key_file"),
        (lambda: MultiPartyRLWE(holders=6), "holders"),
        (lambda: MultiPartyRLWE(smudge_bits=95), "smudge_bits"),
        (lambda: BFV(min_clients=0), "min_clients"),
    ],
)
def test_impossible_settings_say_what_and_the_way_out(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_sealed_boxes_open_for_their_receiver_and_purpose_alone():
    me, other = Identity.fresh("client/1"), Identity.fresh("client/2")
    box = seal(me.hello[32:], b"piece", b"purpose")
    assert unsealed(me, box, b"purpose") == b"piece"
    for who, what, purpose in (
        (other, box, b"purpose"),
        (me, box, b"other"),
        (me, box[:-1] + bytes([box[-1] ^ 1]), b"purpose"),
        (me, b"short", b"purpose"),
    ):
        with pytest.raises(Refused):
            unsealed(who, what, purpose)


def test_lists_of_messages_refuse_every_wrong_length():
    good = pack([b"one", b"two"])
    assert [bytes(item) for item in unpack(good)] == [b"one", b"two"]
    for bad in (good[:-1], good + b"x", b"", good[:7], b"\xff" * 12):
        with pytest.raises(Refused):
            unpack(bad)


class TestTheKeyCeremony:
    """Whoever lies while the joint key is made is named, and there is no key."""

    def play(self, poison, liar="decryptor/1", **channel):
        from privfl.core import Faults

        made = MultiPartyRLWE(**channel)
        members = Enrolled.fresh(made, range(2)).members
        parties = {who: member.set_up() for who, member in members.items()}
        outcome = drive_all(parties, Faults(byzantine={liar: poison}))
        return members, outcome

    def test_other_coins_than_committed_are_noticed(self):
        def poison(honest):
            change = honest._reveal_coins

            def lie():
                honest.coins = bytes(32)
                return change()

            honest._reveal_coins = lie
            return honest

        members, outcome = self.play(poison)
        assert outcome.aborts["decryptor/0"].blamed == "decryptor/1"
        assert "other coins" in str(outcome.aborts["decryptor/0"])
        assert members["client/0"].ring.public is None

    def test_a_rogue_key_chosen_after_seeing_the_others_is_noticed(self):
        def poison(honest):
            change = honest._reveal_contributions

            def lie():
                for number in honest.mine:
                    honest.mine[number] = TernaryPart().public(bytes(32))
                return change()

            honest._reveal_contributions = lie
            return honest

        _, outcome = self.play(poison, threshold=3)
        assert "another part of the key than it had committed to" in str(
            outcome.aborts["decryptor/0"]
        )
        assert outcome.aborts["decryptor/0"].blamed == "decryptor/1"

    def test_a_piece_that_does_not_belong_to_its_contribution_is_noticed(self):
        def poison(honest):
            change = honest._make_pieces

            def lie():
                real, Other = TernaryPart.public, TernaryPart()
                TernaryPart.public = lambda piece, seed: real(Other, seed)
                try:
                    return change()
                finally:
                    TernaryPart.public = real

            honest._make_pieces = lie
            return honest

        _, outcome = self.play(poison, liar="decryptor/0")
        assert any(
            "does not belong" in str(abort) and abort.blamed == "decryptor/0"
            for abort in outcome.aborts.values()
        )

    def test_a_decryptor_that_names_another_key_is_blamed_by_clients(self):
        def poison(honest):
            change = honest._announcement
            honest._announcement = lambda: change().replace(honest.ring.key().key_id, bytes(16))
            return honest

        members, outcome = self.play(poison)
        assert outcome.aborts["client/0"].blamed == "decryptor/1"
        assert members["client/0"].ring.public is None

    def test_a_missing_decryptor_means_no_key(self):
        from privfl.core import Faults

        made = MultiPartyRLWE()
        members = Enrolled.fresh(made, [0]).members
        drive_all(
            {who: member.set_up() for who, member in members.items()},
            Faults(silent_from={"decryptor/2": 1}),
        )
        assert all(member.ring.public is None for member in members.values())


def test_a_part_of_an_honest_decryption_does_not_correlate_with_the_key():
    piece = TernaryPart()
    plan = RoundPlan(0, (0, 1), d=10, l2=1.0)
    key = JointPublic(bytes(32), piece.public(bytes(32)), 16)
    c1 = key.encrypt(np.zeros(11, dtype=np.int64), plan)[1]
    top = from_bytes(partial([piece], c1, 1, 67), 1)[2, 0].view(np.int32) / 2.0**31
    assert abs(np.corrcoef(top, piece.coefficients)[0, 1]) < 0.1
