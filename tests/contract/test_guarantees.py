"""What channels and mechanisms promise is what their parties do: every lie of every record is told
through real parties and measured, every small coalition computes what it can, and all pages are
made from the records.
"""

import dataclasses
import html
from pathlib import Path

import pytest
import torch

from privfl import Federation, PrivateAggregation, catalog
from privfl.aggregators import FLTrust, Krum, Mean
from privfl.core import (
    OUTSIDER,
    POWERS,
    Coalition,
    Lie,
    NotVisible,
    Opened,
    RoundPlan,
    Rows,
    Some,
    client_party,
)
from privfl.crypto import BFV, AdditiveSharing, Paillier, Plain, SecAgg, lies
from privfl.dp import Clip
from privfl.dp.mechanisms import RandomisedResponse
from privfl.hybrid import BucketedSecAgg, TwoServer
from privfl.report import guarantees, write_report
from privfl.testing import (
    PlayedRound,
    check_guarantee,
    contributions,
    what_it_does,
    what_noise_is_left,
    who_reads,
)

SMALL = {
    "paillier": {"key_bits": 512, "insecure_for_tests": True},
    "encrypted_cosine": {"projections": 4},
}
MORE = {"plain": 4, "secagg": 4, "additive_sharing": 4, "chain": 4}
"""Up to how many parties a coalition has, where decoding is quick."""


def root(context):
    return contributions().together


def every_channel():
    for name in sorted(catalog.CHANNELS):
        for words, arguments in guarantees.settings_of(name, root):
            yield pytest.param(name, arguments, id=f"{name}: {words}")


@pytest.mark.parametrize(("name", "arguments"), list(every_channel()))
def test_a_channel_does_what_its_record_says_no_more_and_no_less(name, arguments):
    channel = catalog.CHANNELS[name](**arguments, **SMALL.get(name, {}))
    assert check_guarantee(channel, most=MORE.get(name, 2)) == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("secagg", {}),
        ("secagg", {"mode": "active"}),
        ("secagg", {"fidelity": "ideal"}),
        ("additive_sharing", {}),
        ("chain", {}),
        ("two_server", {"rule": Mean(weighted=False)}),
        ("two_server", {"rule": Mean(weighted=False), "security": "semi_honest"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_where_a_round_needs_everybody_its_record_says_that_leaving_one_out_ends_it(
    name, arguments
):
    channel = catalog.CHANNELS[name](**arguments, threshold=1.0)
    assert check_guarantee(channel, most=1) == []
    garbage = [lie for lie in channel.guarantee.lies if "sends garbage" in lie.does]
    assert [lie.can for lie in garbage] == ["abort"]


def hides(name):
    kind = catalog.CHANNELS[name].kind
    return kind.opens == "total" or kind.groups


@pytest.mark.parametrize("name", sorted(catalog.CHANNELS))
def test_every_record_says_what_the_server_and_a_client_can_do_by_lying(name):
    said = guarantees.default_guarantee(name)
    assert {"server", "a client"} <= said.liars().keys()
    assert said.leaks
    assert said.assumes
    assert said.settings(20).keys() >= ({"quorum"} if hides(name) else set())
    assert (
        said.describe() in catalog.CHANNELS[name](**guarantees.settings_of(name)[0][1]).describe()
    )


MECHANISMS = [*guarantees.mechanisms(), ("randomised_response", RandomisedResponse(1.0))]


@pytest.mark.parametrize(("name", "mechanism"), MECHANISMS, ids=[name for name, _ in MECHANISMS])
def test_a_mechanism_does_what_its_record_says(name, mechanism):
    said = mechanism.guarantee
    assert said.lies
    for lie in said.lies:
        assert what_noise_is_left(mechanism, lie) == lie.can, lie.describe()


# ---- the measure itself


def told(who, can, how):
    return Lie(who, can, "does something", how)


def moved(step):
    """What a server publishes when it does this to the opened rows."""

    def publish(opened):
        what = opened.what
        return Opened(Rows(step(what.values), what.weights, what.ids), opened.survivors)

    return lambda: lies.Liars(publish=publish)


@pytest.mark.parametrize(
    ("step", "power"),
    [
        (lambda rows: rows, "nothing"),
        (
            lambda rows: rows * torch.tensor([[1.0], [1.0], [0.0], [0.0], [0.0], [0.0]]) * 3,
            "choose",
        ),
        (lambda rows: rows * torch.tensor([[6.0], [0.0], [0.0], [0.0], [0.0], [0.0]]), "read"),
        (lambda rows: -rows, "shift"),
        (lambda rows: 3 * rows, "shift"),
        (lambda rows: rows + 0.2 * torch.eye(10)[0], "shift"),
    ],
    ids=["as it is", "two of them", "one of them", "the negative", "three times", "a constant"],
)
def test_the_measure_tells_powers_apart(step, power):
    assert what_it_does(Plain(), told(Coalition.of("server"), power, moved(step))) == power


@pytest.mark.parametrize("times", [-1.0, 0.5, 1.02])
def test_a_clients_own_contribution_within_its_bound_is_no_power(times):
    def other(honest):
        return dataclasses.replace(honest, delta=times * honest.delta)

    lie = told(Coalition.of("client/2"), "nothing", lambda: lies.Liars(update=other))
    assert what_it_does(SecAgg(), lie) == "nothing"
    assert what_it_does(Plain(), lie) == "nothing"


def test_an_understated_lie_and_an_overstated_one_are_both_found():
    class Wrong(Plain):
        __slots__ = ()
        power = "nothing"

        @property
        def guarantee(self):
            record = Plain().guarantee
            changed = [dataclasses.replace(lie, can=self.power) for lie in record.lies[:1]]
            return dataclasses.replace(record, lies=tuple(changed))

    for power in POWERS:
        Wrong.power = power
        found = check_guarantee(Wrong(), most=1)
        assert (found == []) == (power == "shift"), found


def test_a_coalition_that_the_record_forgets_or_invents_is_found():
    class Wrong(AdditiveSharing):
        __slots__ = ()
        readers = ()

        @property
        def guarantee(self):
            return dataclasses.replace(
                AdditiveSharing.guarantee.fget(self), reads=self.readers, lies=()
            )

    for readers, right in (
        ((), False),
        ((Coalition.of("server", "server/1"),), True),
        ((Coalition.of("server"),), False),
        ((Coalition.of("server", "server/1"), Coalition.of("client/3")), False),
    ):
        Wrong.readers = readers
        assert (check_guarantee(Wrong(), most=2) == []) == right


def test_what_liars_have_computed_counts_as_read_only_if_it_is_somebody_elses():
    held = contributions()

    def claims(client, vector):
        return lambda: lies.Liars(took=lambda published: {client: vector})

    own, other = held.rows[0], held.rows[3]
    for client, vector, power in ((0, own, "nothing"), (3, other, "read"), (3, -other, "nothing")):
        lie = told(Coalition.of("client/0"), power, claims(client, vector))
        assert what_it_does(SecAgg(), lie) == power


# ---- claims about lying parties that were made and do not hold


def test_a_server_that_lies_reads_through_semi_honest_masks_and_not_through_active_ones():
    """`privfl.crypto.secagg` was said to bring sums "past a lying server", in any mode."""
    assert SecAgg().guarantee.liars()["server"] == "read"
    assert SecAgg(mode="active").guarantee.liars()["server"] == "shift"


@pytest.mark.parametrize(
    ("size", "colluding", "read"), [(3, 1, 0), (3, 2, 1), (5, 2, 0), (5, 3, 2), (5, 4, 1)]
)
def test_over_half_of_a_group_reads_the_rest_of_it_and_not_only_all_others(size, colluding, read):
    """A group was said to protect its members "unless the server colludes with all the others"."""
    n = 2 * size
    held = contributions(n, n + 4)
    channel = BucketedSecAgg(size=size, threshold=None)
    played = PlayedRound.play(channel, held)
    group = channel.groups(played.plan)[0]
    who = {"server", *map(client_party, group[:colluding])}
    assert len(played.rows_of(who)) == read
    assert played.rows_of(who) == channel.guarantee.victims(who, played.plan)
    whole = PlayedRound.play(BucketedSecAgg(size=size), held)
    assert len(whole.rows_of(who)) == (colluding == size - 1)


@pytest.mark.parametrize(
    "channel",
    [
        AdditiveSharing(),
        BFV(),
        Paillier(keys="threshold", **SMALL["paillier"]),
        SecAgg(mode="active"),
    ],
    ids=["additive_sharing", "bfv", "paillier threshold", "secagg active"],
)
def test_a_server_and_all_but_one_of_a_quorum_read_that_one(channel):
    """Any clients together with such a server were said to learn the sum and nothing else."""
    (lie,) = [lie for lie in channel.guarantee.lies if lie.does == "shuts out all others but one"][
        :1
    ]
    assert what_it_does(channel, lie) == "read"


@pytest.mark.parametrize(("threshold", "power"), [(2, "nothing"), (3, "abort")])
def test_a_wrong_part_of_a_threshold_decryption_is_left_out_by_name(threshold, power):
    """It once moved the sum unnoticed: parts had no proofs."""
    channel = Paillier(keys="threshold", threshold=threshold, **SMALL["paillier"])
    (lie,) = [lie for lie in channel.guarantee.lies if "moves its part" in lie.does]
    played = PlayedRound.play(
        channel, contributions(), lie.how(), lie.who.example(RoundPlan(0, tuple(range(6)), 10, 1.0))
    )
    if power == "nothing":
        assert list(played.published.excluded) == ["decryptor/0"]
    else:
        assert played.outcome.aborts["server"].blamed == "decryptor/0"
    assert what_it_does(channel, lie) == lie.can == power


@pytest.mark.parametrize("who", ["server", "server/1"])
def test_a_lying_one_of_two_servers_reads_where_weights_are_any_number_and_nowhere_else(who):
    """It was said to shift the result unnoticed, and to read nothing."""
    trusting = TwoServer(FLTrust(root), reveal="scores", security="semi_honest")
    assert trusting.guarantee.liars()[who] == "read"
    for rule in (Mean(), Krum(f=1, m=2)):
        assert TwoServer(rule, security="semi_honest").guarantee.liars()[who] != "read"


def test_a_dealer_that_keeps_the_key_reads_with_the_server():
    """It was said to be trusted, and not with what."""
    channel = BFV(keys="shared")
    (lie,) = [lie for lie in channel.guarantee.lies if "dealer" in lie.who.parties]
    assert what_it_does(channel, lie) == "read"


# ---- the record's own arithmetic


def test_a_tap_on_the_wires_stands_in_for_the_server():
    channel = AdditiveSharing()
    (said, met), (alone, _) = who_reads(channel, [{OUTSIDER, "server/1"}, {OUTSIDER}])
    assert said == met == frozenset(range(6))
    assert alone == frozenset()


def test_the_least_coalition_of_a_cohort_is_one_and_nobody_can_leave_it():
    plan = RoundPlan(0, tuple(range(6)), d=4, l2=1.0)
    for channel in (SecAgg(), BFV(keys="shared"), AdditiveSharing(servers=3), BucketedSecAgg()):
        for coalition in channel.guarantee.reads:
            who = coalition.example(plan)
            assert coalition.victims(who, plan)
            assert all(not coalition.victims(who - {party}, plan) for party in who)


def test_some_of_others_are_counted_without_the_victim_itself():
    three = Coalition.of(some=Some.others(lambda n: 3, "three"))
    plan = RoundPlan(0, (0, 1, 2, 3), d=1, l2=1.0)
    assert three.victims({"client/0", "client/1"}, plan) == frozenset()
    assert three.victims({"client/0", "client/1", "client/3"}, plan) == {2}
    assert three.victims({client_party(i) for i in range(4)}, plan) == frozenset()


# ---- everything that is said is made from the records

BASE = {
    "data": {"name": "digits", "clients": 7},
    "model": {"name": "softmax"},
    "training": {"name": "sgd", "lr": 0.3, "steps": 2, "batch_size": 16},
    "bound": {"name": "clip", "l2": 1.0},
    "rounds": 2,
    "executor": "sequential",
}


def test_the_page_in_the_docs_is_the_one_that_the_records_make():
    page = Path(__file__).parents[2] / "docs" / "guarantees.md"
    assert page.read_text() == guarantees.page(), (
        "print it anew: python -m privfl.cli list guarantees --page > docs/guarantees.md"
    )


def test_a_report_says_who_can_do_what_with_fidelity_mode_quorum_and_threshold(tmp_path):
    out = tmp_path / "run"
    run = Federation.from_config({**BASE, "channel": "secagg"}).run(out)
    said = run.summary["guarantees"]["channel"]
    assert said["fidelity"] == "real"
    assert said["settings"]["mode"] == "semi_honest"
    assert said["settings"]["quorum"].startswith("4 clients")
    assert said["settings"]["threshold"].startswith("4 of a client's 7 shares")
    page = write_report(out).read_text()
    for line in said["who can do what"]:
        assert line["does"].replace("'", "&#x27;") in page
    assert "IDEAL" not in page


def test_an_ideal_run_says_so_everywhere_and_shows_no_measured_cost(tmp_path):
    from privfl.report import read_run

    out = tmp_path / "run"
    ideal = {"name": "secagg", "fidelity": "ideal"}
    run = Federation.from_config({**BASE, "channel": ideal}).run(out)
    assert run.summary["bytes_sent"] is None
    assert run.summary["guarantees"]["channel"]["fidelity"] == "ideal"
    assert run.summary["facts"]["channel"].count("IDEAL") == 1
    for record in read_run(out)[1]:
        assert record.bytes_sent is None
        assert not {"channel", "key set-up"} & record.seconds.keys()
    page = write_report(out).read_text()
    assert "ideal: not measured" in page
    assert "IDEAL: no cryptography ran" in page


def test_a_receipt_says_who_reads_who_may_lie_and_what_was_real():
    updates = {i: torch.full((4,), 0.1) for i in range(5)}
    _, real = PrivateAggregation(bound=Clip(1.0), channel=SecAgg()).aggregate(updates)
    assert (real.fidelity, real.server_reads) == ("real", "only the sum of 5 updates")
    holders = "server with 3 of the 4 clients that share keys with a client"
    assert real.read_by == "nobody"
    assert real.liars == {"server": "read", "a client": "shift"}
    keeping = PrivateAggregation(bound=Clip(1.0), channel=SecAgg(forward_secrecy=False))
    _, kept = keeping.aggregate(updates)
    assert kept.read_by == holders
    assert real.settings["mode"] == "semi_honest"
    assert real.settings["quorum"].startswith("3 clients")
    assert real.settings["corrupt"].startswith("10%")
    assert real.bytes_sent > 0
    _, ideal = PrivateAggregation(bound=Clip(1.0), channel=SecAgg(fidelity="ideal")).aggregate(
        updates
    )
    assert ideal.fidelity == "ideal"
    assert {*real.settings} - {*ideal.settings} == {"privacy fails"}
    assert SecAgg(fidelity="ideal").describe().startswith("NO SECURE AGGREGATION RAN")
    assert ideal.bytes_sent is ideal.exchanges is ideal.seconds is None


def test_a_report_says_how_many_must_collude_and_in_a_round_of_how_many(tmp_path):
    out = tmp_path / "run"
    channel = {"name": "secagg", "forward_secrecy": False}
    run = Federation.from_config({**BASE, "channel": channel}).run(out)
    (reader,) = (
        line["who"]
        for line in run.summary["guarantees"]["channel"]["who can do what"]
        if line["does"] == "follows the protocol, and looks"
    )
    assert "t of the k" not in reader
    threshold = run.summary["guarantees"]["channel"]["settings"]["threshold"]
    assert reader.startswith(f"server with {threshold.split()[0]} of the ")
    page = write_report(out).read_text()
    assert reader in page
    assert f"in a round of {run.summary['guarantees']['channel']['cohort']}" in page


@pytest.mark.parametrize("name", [*catalog.CHANNELS])
def test_signed_mail_takes_forged_mail_from_what_is_assumed(name):
    _, arguments = guarantees.settings_of(name)[0]
    bare = catalog.CHANNELS[name](**arguments).guarantee
    assert any("nobody forges" in assumed for assumed in bare.assumes)
    signed = bare.signed()
    assert not any("nobody forges" in assumed for assumed in signed.assumes)
    assert any("true keys" in assumed for assumed in signed.assumes)
    assert (signed.reads, signed.lies, signed.leaks) == (bare.reads, bare.lies, bare.leaks)


@pytest.mark.parametrize(
    ("mail", "assumed", "not_assumed"),
    [
        ("bare", "nobody forges on its way", "everybody&#x27;s true keys"),
        ("signed", "everybody&#x27;s true keys", "nobody forges on its way"),
    ],
)
def test_a_report_assumes_of_the_mail_what_this_run_needs(tmp_path, mail, assumed, not_assumed):
    run = Federation.from_config({**BASE, "channel": "secagg", "mail": mail}).run(tmp_path / "run")
    page = write_report(tmp_path / "run").read_text()
    assert assumed in page
    assert not_assumed not in page
    assert html.unescape(not_assumed) not in run.summary["facts"]["channel"]


def test_a_report_of_a_run_without_noise_says_that_nothing_is_claimed(tmp_path):
    Federation.from_config({**BASE, "channel": "plain"}).run(tmp_path / "bare")
    page = write_report(tmp_path / "bare").read_text()
    assert "No epsilon is claimed" in page
    assert "adds no noise" in page
    noisy = {**BASE, "mechanism": {"name": "gaussian", "noise_multiplier": 2.0}}
    Federation.from_config(noisy).run(tmp_path / "noisy")
    assert "No epsilon is claimed" not in write_report(tmp_path / "noisy").read_text()


def test_an_audits_adversaries_are_the_records_parties_and_least_coalitions():
    run = Federation.from_config({**BASE, "channel": "two_server", "audit": {"keep": "all"}}).run()
    transcript = run.transcripts[0]
    asked = transcript.channel.guarantee.adversaries(transcript.plan)
    assert frozenset({"dealer"}) in asked
    assert frozenset({"server", "server/1"}) in asked
    for who in asked:
        name = f"colluders({', '.join(sorted(who))})" if len(who) > 1 else min(who)
        reads = bool(transcript.channel.guarantee.victims(who, transcript.plan))
        view = run.view(name, 0)
        if reads:
            assert view.rows.n == 7
        else:
            with pytest.raises(NotVisible):
                _ = view.rows


def test_what_one_liar_gets_is_in_words_the_gravest_of_what_servers_and_helpers_can_do_alone():
    plan = RoundPlan(0, (3, 4, 5), d=4, l2=1.0)
    said = {
        "reads every update, without a lie": Plain(),
        "can read a single update (server)": SecAgg(),
        "can shift the result (server, server/1)": AdditiveSharing(),
        "can shift the result (server)": TwoServer(Krum(f=1, m=2), reveal="scores"),
        "can read a single update (server, server/1)": TwoServer(
            FLTrust(root), reveal="scores", security="semi_honest"
        ),
    }
    assert {words: channel.guarantee.one_liar(plan) for words, channel in said.items()} == {
        words: words for words in said
    }
    enforced = TwoServer(FLTrust(root), reveal="scores")
    assert "read" not in enforced.guarantee.one_liar(plan)
