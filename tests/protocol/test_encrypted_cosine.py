"""Encrypted similarity: the plaintext rules' results on unit vectors, views that are computed,
rounds that go on without whoever fails.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from privfl.aggregators import CosineFilter, FLTrust, Mean
from privfl.core import (
    Abort,
    BadUpdate,
    Bounded,
    Channel,
    ConfigError,
    Context,
    Faults,
    InformedServer,
    Moves,
    Neighbours,
    RoundPlan,
    Rows,
    SecretsStay,
    StateKey,
    Total,
    client_party,
    drive,
    drive_all,
    seal_state,
    unseal_state,
)
from privfl.crypto.enrolled import Enrolled
from privfl.hybrid import EncryptedCosine
from privfl.hybrid.encrypted_cosine import previous_aggregate
from privfl.hybrid.encrypted_cosine.mail import Note

N, D = 6, 5000
G0 = 0.05 * torch.randn(D, generator=torch.Generator().manual_seed(1))
FLTRUST = FLTrust(root=lambda context: G0)


class Resting:
    """A party that is put to rest after every exchange and woken before the next."""

    def __init__(self, party, lent=None):
        self.kind, self.key, self.lent = type(party), StateKey(), lent
        self.sealed = seal_state(party, self.key)

    def step(self, mail):
        party = unseal_state(self.sealed, self.key, self.kind, lent=self.lent)
        out = party.step(mail)
        self.sealed = seal_state(party, self.key)
        return out

    @property
    def result(self):
        return unseal_state(self.sealed, self.key, self.kind, lent=self.lent).result


class Scene:
    """The members of a channel for six clients, set up; two of them point away from the root
    update.
    """

    def __init__(self, channel, setup_faults=Faults(), seed=2):
        self.channel, self.number = channel, 10
        self.all = Enrolled.fresh(channel, range(N))
        self.members = dict(self.all.members)
        self.setup = drive_all(
            {who: member.set_up() for who, member in self.members.items()},
            setup_faults,
            keep_bodies=True,
        )
        noise = torch.randn(N, D, generator=torch.Generator().manual_seed(seed))
        rows = G0 / G0.norm() * torch.tensor([1.0, 1.0, 1.0, 0.5, -1.0, -0.3])[
            :, None
        ] + noise / math.sqrt(D)
        self.rows = (
            rows
            * torch.tensor([0.9, 0.1, 0.5, 0.4, 0.6, 0.2])[:, None]
            / rows.norm(dim=1, keepdim=True)
        )

    def plan(self, **changes):
        return replace(
            RoundPlan(self.number, tuple(range(N)), D, l2=1.0, session=b"test"), **changes
        )

    def context(self, parameters=None):
        return Context(
            self.plan(), torch.zeros(D) if parameters is None else parameters, torch.Generator()
        )

    def play(self, faults=Faults(), wrap=lambda party: party, present=range(N)):
        self.number += 1
        plan = self.plan()
        self.members["server"].inform(self.context())
        parties = {
            client_party(i): wrap(
                self.members[client_party(i)].enter(plan, Bounded(i, self.rows[i], 1.0))
            )
            for i in present
        }
        parties["key_holder"] = wrap(self.members["key_holder"].enter(plan))
        return drive(wrap(self.members["server"].enter(plan)), parties, faults, keep_bodies=True)

    def quantised(self, length=1.0):
        """What clients send, by its definition: unit vectors times 2^14, rounded."""
        exact = self.rows.double().numpy()
        rounded = np.rint(exact / np.linalg.norm(exact, axis=1, keepdims=True) * (1 << 14))
        return torch.from_numpy((rounded / (1 << 14) * length).astype(np.float32))

    def expected(self, rule, who, length=1.0):
        return rule.step(Rows.of(self.quantised(length)[list(who)]), None, self.context())[0]

    def view(self, outcome, *who):
        return self.channel.decode(outcome.received(who), {w: self.members[w] for w in who})


def near(found, expected):
    return (found - expected).norm() <= 1e-4 * expected.norm()


@pytest.fixture(scope="module")
def fltrust():
    return Scene(EncryptedCosine(rule=FLTRUST))


@pytest.fixture(scope="module")
def exact():
    return Scene(EncryptedCosine(rule=FLTRUST, norms="exact"))


def test_fltrust_under_encryption_is_fltrust_on_the_quantised_unit_vectors(fltrust):
    outcome = fltrust.play()
    assert not outcome.aborts
    opened = outcome.opened
    assert near(Mean()(opened.what), fltrust.expected(FLTRUST, range(N)))
    plain = torch.nn.functional.cosine_similarity(fltrust.quantised(), G0[None])
    assert (opened.disclosed["cosine"] - plain).abs().max() < 1e-4
    assert (
        (opened.disclosed["weight"] > 0).tolist()
        == (plain > 0).tolist()
        == [True, True, True, True, False, False]
    )
    assert (opened.what.count, opened.survivors, opened.excluded) == (4, tuple(range(N)), {})


def test_exact_norms_give_the_same_result_and_the_true_lengths(exact):
    opened = exact.play().opened
    assert near(opened.what.mean(), exact.expected(FLTRUST, range(N)))
    assert (opened.disclosed["norm"] - exact.quantised().norm(dim=1)).abs().max() < 1e-4


@pytest.mark.parametrize("length", [0.01, 100.0])
def test_fltrust_with_a_fixed_denominator_and_a_clipped_root(length):
    rule = FLTrust(root=lambda context: G0 * length, fixed=True, root_l2=1.5)
    scene = Scene(EncryptedCosine(rule=rule))
    opened = scene.play(present=range(5)).opened
    assert near(opened.what.mean(), scene.expected(rule, range(5)))


def test_the_cosine_filter_averages_the_rows_that_point_with_the_reference():
    rule = CosineFilter(threshold=0.5, reference=lambda rows, context: G0)
    scene = Scene(EncryptedCosine(rule=rule))
    opened = scene.play().opened
    assert (opened.disclosed["weight"] > 0).tolist() == [True, True, True, False, False, False]
    assert near(opened.what.mean(), scene.expected(rule, range(N)))
    assert opened.what.weight == opened.what.count == 3


def test_pearson_is_the_correlation_that_numpy_computes():
    global_shift = Scene(EncryptedCosine(rule=FLTRUST, similarity="pearson"))
    global_shift.rows = (
        global_shift.rows + 0.004
    )  # a mean that plain cosine would mistake for similarity
    opened = global_shift.play().opened
    plain = [np.corrcoef(row, G0.numpy())[0, 1] for row in global_shift.quantised().numpy()]
    assert np.abs(opened.disclosed["cosine"].numpy() - plain).max() < 1e-4
    assert (opened.disclosed["sum"] - global_shift.quantised().sum(dim=1)).abs().max() < 1e-2
    weights = np.maximum(plain, 0)
    expected = (weights @ global_shift.quantised().numpy()) * float(G0.norm()) / weights.sum()
    assert near(opened.what.mean(), torch.from_numpy(expected).float())


def test_the_last_aggregate_is_the_next_rounds_reference():
    rule = CosineFilter(reference=previous_aggregate)
    scene = Scene(EncryptedCosine(rule=rule))
    first = scene.play().opened
    assert "cosine" not in first.disclosed  # nothing to compare with yet: everybody counts alike
    assert first.what.count == N
    second = scene.play().opened
    against_first = CosineFilter(reference=lambda rows, context: first.what.mean())
    assert near(second.what.mean(), scene.expected(against_first, range(N)))
    assert second.what.count == 5  # client/5 had its own share in what it is compared with


def test_a_server_that_forgot_the_last_aggregate_takes_how_the_model_moved():
    channel = EncryptedCosine(rule=CosineFilter(), reference="previous")
    server = Enrolled.fresh(channel, ()).server
    scene = Scene(channel)
    server.inform(scene.context(torch.zeros(D)))
    server.inform(scene.context(G0))
    assert torch.equal(server.memory.previous, G0)


def test_parties_rest_between_exchanges(fltrust):
    opened = fltrust.play(wrap=lambda party: Resting(party, fltrust.all.directory)).opened
    assert near(opened.what.mean(), fltrust.expected(FLTRUST, range(N)))


def test_long_and_short_updates_count_alike(fltrust):
    before = fltrust.play().opened.what.mean()
    kept, fltrust.rows = (
        fltrust.rows,
        fltrust.rows * torch.tensor([0.1, 5.0, 1.0, 0.5, 1.0, 1.0])[:, None],
    )
    fltrust.rows = fltrust.rows.clamp(max=1.0)
    try:
        after = fltrust.play().opened.what.mean()
    finally:
        fltrust.rows = kept
    assert near(after, before)


def test_a_zero_update_is_never_trusted_and_harms_nobody(exact):
    kept, exact.rows = exact.rows, exact.rows.clone()
    exact.rows[0] = 0
    try:
        opened = exact.play().opened
    finally:
        exact.rows = kept
    assert opened.disclosed["weight"][0] == 0
    assert "client/0" not in opened.excluded
    assert near(opened.what.mean(), exact.expected(FLTRUST, range(1, N)))


def test_where_nobody_is_trusted_the_model_stays():
    scene = Scene(
        EncryptedCosine(rule=CosineFilter(threshold=1.0, reference=lambda rows, context: G0))
    )
    outcome = scene.play()
    assert not outcome.opened.what.mean().any()
    assert outcome.opened.what.count == N
    assert scene.members[
        "key_holder"
    ].ring.done  # the questions were answered; no sum was asked for
    assert len(scene.members["key_holder"].ring.done) == 1


def test_one_trusted_client_is_not_opened():
    scene = Scene(
        EncryptedCosine(
            rule=CosineFilter(threshold=0.5, reference=lambda rows, context: G0), min_clients=4
        )
    )
    outcome = scene.play()
    assert outcome.opened is None
    assert "3 of 6 clients are trusted, and sums of fewer than 4 stay closed" in str(
        outcome.aborts["server"]
    )


# who reads what


def test_the_server_reads_the_sum_the_key_holder_nothing_and_both_everything(fltrust):
    outcome = fltrust.play()
    server = fltrust.view(outcome, "server")
    assert isinstance(server, Total)
    assert torch.equal(server.value, outcome.opened.what.value)
    assert server.weight == outcome.opened.what.weight
    assert fltrust.view(outcome, "key_holder") is None
    assert fltrust.view(outcome, "client/0") is None
    assert fltrust.view(outcome, "key_holder", "client/0", "client/1") is None
    both = fltrust.view(outcome, "server", "key_holder")
    assert isinstance(both, Rows)
    assert both.ids == tuple(range(N))
    assert (both.values - fltrust.quantised()).abs().max() < 1e-4
    assert fltrust.channel.able.key_holders(range(N)) == ("key_holder",)


def test_what_leaks_is_named(fltrust, exact):
    outcome = fltrust.play()
    assert set(outcome.opened.disclosed) == {"client", "norm", "projection", "weight", "cosine"}
    assert outcome.opened.disclosed["projection"].shape == (N, 16)
    assert set(exact.play().opened.disclosed) == {
        "client",
        "norm",
        "projection",
        "weight",
        "cosine",
    }


def test_the_questions_have_one_size_whatever_the_updates_are(fltrust):
    sizes = []
    for scale in (1.0, -0.001):
        kept, fltrust.rows = fltrust.rows, fltrust.rows * scale
        outcome = fltrust.play()
        fltrust.rows = kept
        sizes.append(
            next(message.size for message in outcome.messages if message.receiver == "key_holder")
        )
    assert sizes[0] == sizes[1]


def test_secrets_do_not_print_or_pickle(fltrust):
    for who in ("key_holder", "server", "client/0"):
        assert repr(fltrust.members[who]).endswith("holds secrets>")
        with pytest.raises(SecretsStay):
            torch.save(fltrust.members[who], "/dev/null")
    note = Note(b"seed" * 8, 1.0, 2, 3)
    assert repr(note) == "<Note: holds secrets>"
    with pytest.raises(SecretsStay):
        torch.save(note, "/dev/null")
    assert "holds secrets" in repr(fltrust.members["key_holder"].ring.secret)


def test_the_description_says_who_must_not_collude(fltrust):
    assert "Single updates are read by server with key_holder." in fltrust.channel.describe()


def test_it_is_a_channel_with_an_informed_server():
    channel: Channel[Total] = EncryptedCosine()
    assert isinstance(Enrolled.fresh(channel, ()).server, InformedServer)


# who drops, garbles, comes late


@pytest.mark.parametrize("exchange", range(5))
def test_a_client_that_drops_out_is_in_the_sum_exactly_if_it_had_sent(fltrust, exchange):
    outcome = fltrust.play(Faults(silent_from={"client/1": exchange}))
    who = range(N) if exchange else [0, 2, 3, 4, 5]
    assert outcome.opened.survivors == tuple(who)
    assert near(outcome.opened.what.mean(), fltrust.expected(FLTRUST, who))


def test_too_few_clients_open_nothing(fltrust):
    outcome = fltrust.play(Faults(silent_from={client_party(i): 0 for i in range(1, N)}))
    assert outcome.opened is None
    assert "1 of 6 clients sent a usable ciphertext" in str(outcome.aborts["server"])


def cut(body):
    return bytes(body)[:-100]


def flip(body):
    garbled = bytearray(body)
    garbled[len(garbled) // 2] ^= 1
    return garbled


@pytest.mark.parametrize(
    "garble",
    [cut, flip, lambda body: b"", lambda body: b"x" * 500],
    ids=["cut", "flipped", "empty", "noise"],
)
def test_a_garbled_ciphertext_excludes_its_sender_by_name(fltrust, garble):
    outcome = fltrust.play(Faults(malformed={"client/2": garble}))
    assert set(outcome.opened.excluded) == {"client/2"}
    assert near(outcome.opened.what.mean(), fltrust.expected(FLTRUST, [0, 1, 3, 4, 5]))


def test_a_late_client_is_excluded_by_name(fltrust):
    outcome = fltrust.play(Faults(late={"client/2": 1}))
    assert outcome.opened.excluded == {
        "client/2": "the message came after the ciphertexts were closed"
    }
    assert near(outcome.opened.what.mean(), fltrust.expected(FLTRUST, [0, 1, 3, 4, 5]))


@pytest.mark.parametrize(
    "who",
    [{"client/0", "client/1"}, {"server"}, {"key_holder"}, {"server", "key_holder", "client/2"}],
)
def test_mail_that_the_post_brings_twice_counts_once(fltrust, who):
    outcome = fltrust.play(Faults(duplicated=who))
    assert not outcome.aborts
    assert near(outcome.opened.what.mean(), fltrust.expected(FLTRUST, range(N)))
    assert not outcome.opened.excluded


def test_a_client_without_a_finite_update_sends_nothing(fltrust):
    plan = fltrust.plan(number=999)
    party = fltrust.members["client/0"].enter(
        plan, Bounded.claimed(0, torch.full((D,), math.nan), 1.0)
    )
    with pytest.raises(Abort, match="no finite update") as abort:
        party.step({})
    assert abort.value.blamed == "client/0"


@pytest.mark.parametrize("exchange", [0, 2, 3, 4])
def test_silence_between_the_servers_names_both_and_convicts_neither(fltrust, exchange):
    outcome = fltrust.play(Faults(silent_from={"key_holder": exchange}))
    assert outcome.opened is None
    assert outcome.aborts["server"].blamed is None
    assert "key_holder did not answer server" in str(outcome.aborts["server"])


class Mute:
    """Whoever stands around a party and carries none of what it writes to one other."""

    def __init__(self, party, to):
        self.party, self.to = party, to

    def step(self, mail):
        return {to: body for to, body in self.party.step(mail).items() if to != self.to}


@pytest.mark.parametrize(("around", "to"), [("server", "key_holder"), ("key_holder", "server")])
def test_a_relay_that_swallows_mail_brings_blame_on_no_honest_party(fltrust, around, to):
    outcome = fltrust.play(Faults(relayed={around: lambda party: Mute(party, to)}))
    assert outcome.opened is None
    assert outcome.aborts
    assert [abort.blamed for abort in outcome.aborts.values()] == [None]


@pytest.mark.parametrize("garble", [cut, flip, lambda body: b""], ids=["cut", "flipped", "empty"])
@pytest.mark.parametrize("who", ["key_holder", "server"])
def test_garbled_mail_between_the_servers_ends_the_round_with_blame(fltrust, who, garble):
    outcome = fltrust.play(Faults(malformed={who: garble}))
    assert outcome.opened is None
    other = "server" if who == "key_holder" else "key_holder"
    assert outcome.aborts[other].blamed == who


def test_a_party_without_a_key_says_so():
    scene = Scene(EncryptedCosine(rule=FLTRUST), Faults(silent_from={"key_holder": 0}))
    outcome = scene.play()
    assert outcome.opened is None
    assert outcome.aborts["client/0"].blamed is None
    assert "no answer of key_holder reached client/0" in str(outcome.aborts["client/0"])


def test_a_client_that_missed_the_set_up_is_left_out():
    scene = Scene(EncryptedCosine(rule=FLTRUST), Faults(silent_from={"client/3": 0}))
    outcome = scene.play()
    assert outcome.opened.survivors == (0, 1, 2, 4, 5)
    assert outcome.aborts["client/3"].blamed is None


# what is refused before it starts


def test_the_filters_default_reference_is_refused_with_the_way_out():
    with pytest.raises(
        ConfigError,
        match=(
            r"median of the rows, which nobody here can read: set channel\.reference to 'previous'"
        ),
    ):
        EncryptedCosine(rule=CosineFilter())
    assert EncryptedCosine(rule=CosineFilter(), reference="previous").remembers
    with pytest.raises(ConfigError, match="bound=2: leave it out"):
        EncryptedCosine(rule=CosineFilter(bound=2.0), reference="previous")


@pytest.mark.parametrize(
    "wrong", [{"projections": 0}, {"projections": 65}, {"min_clients": 1}, {"plain_bits": 40}]
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        EncryptedCosine(**wrong)


def test_a_round_without_a_reference_is_refused():
    server = Enrolled.fresh(EncryptedCosine(rule=FLTRUST), ()).server
    with pytest.raises(ConfigError, match="FLTrust needs the model"):
        server.enter(RoundPlan(0, (0, 1), D, l2=1.0))


def test_a_root_update_that_is_not_finite_is_refused():
    server = Enrolled.fresh(
        EncryptedCosine(rule=FLTrust(root=lambda context: torch.full((D,), math.inf))), ()
    ).server
    with pytest.raises(BadUpdate, match="no finite vector"):
        server.inform(Context(RoundPlan(0, (0, 1), D, l2=1.0), torch.zeros(D), torch.Generator()))


def test_extra_vectors_and_unbounded_rows_are_refused(fltrust):
    with pytest.raises(ConfigError, match="train without extra vectors"):
        fltrust.members["server"].enter(fltrust.plan(part="control"))
    with pytest.raises(ConfigError, match="set bound to a clip"):
        Enrolled.fresh(EncryptedCosine(), ()).server.enter(RoundPlan(0, (0, 1), D, l2=math.inf))


def test_the_previous_aggregate_is_no_reference_elsewhere(fltrust):
    with pytest.raises(BadUpdate, match="encrypted_cosine"):
        CosineFilter(reference=previous_aggregate).step(
            Rows.of([[1.0], [1.0]]), None, fltrust.context()
        )


def test_rows_are_as_long_as_the_norm_check_lets_them_be():
    replaced = Neighbours("client", "replace_one")
    bounded = Moves.of_one_row().bounded(2.0, replaced)
    moves = EncryptedCosine(norms="projections").able.encodes.stage(D).stability(bounded, replaced)
    assert 3.2 < moves.longest < 3.6
    assert moves.total == math.inf
    exact = EncryptedCosine(rule=CosineFilter(), reference="previous", norms="exact")
    assert exact.able.encodes.stage(D).stability(bounded, replaced).longest < 2.01
