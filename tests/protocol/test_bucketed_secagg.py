"""Bucketed secure aggregation: group means and nothing else, through dropouts and liars, and rules
that then work.
"""

import itertools

import pytest
import torch

from privfl.aggregators import Median, TrimmedMean
from privfl.core import (
    Abort,
    Bounded,
    ConfigError,
    Faults,
    Moves,
    Neighbours,
    RoundPlan,
    Rows,
    client_party,
    drive,
)
from privfl.crypto import FixedPoint, lies
from privfl.crypto.enrolled import Enrolled
from privfl.crypto.primitives import fields
from privfl.dp import DistributedSkellam
from privfl.engine import Session
from privfl.hybrid import BucketedSecAgg
from privfl.hybrid.bucketed_secagg.coin import COINS, LIST, REVEAL, frame, tag_of

D = 40


def updates(n, seed=0, l2=1.0, d=D):
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=rng)
    rows = rows / rows.norm(dim=1, keepdim=True) * l2 * torch.rand(n, 1, generator=rng)
    return {
        client: Bounded(client, row, l2)
        for client, row in zip(range(10, 10 + n), rows, strict=True)
    }


def plan_for(sent, number=0, **more):
    d = len(next(iter(sent.values())).delta)
    return RoundPlan(number, tuple(sent), d, 1.0, session=b"s", **more)


def play(channel, sent, faults=None, **more):
    session = Session(channel)
    session.enrol(sent)
    plan = plan_for(sent, **more)
    return plan, session, session.play(plan, sent, faults or Faults(), keep_bodies=True)


def quantised(channel, plan, sent, group):
    """The group's mean on the integers that travel."""
    inner = channel.plan_of(plan, group, 0)
    code = FixedPoint(channel.bits)
    total = sum(code.encode(Bounded(c, sent[c].delta, 1.0), inner).astype("int64") for c in group)
    return code.decode(total, inner, len(group)).value / len(group)


@pytest.mark.parametrize(("n", "size"), [(4, 2), (7, 3), (12, 3), (11, 5), (20, 6)])
def test_the_server_reads_the_quantised_mean_of_every_group_bit_for_bit(n, size):
    channel, sent = BucketedSecAgg(size=size), updates(n)
    plan, _, outcome = play(channel, sent)
    opened = outcome.opened
    groups = channel.groups(plan)
    assert sorted(itertools.chain(*groups)) == sorted(sent)
    assert all(size <= len(group) < 2 * size for group in groups)
    assert opened.what.ids is None
    assert opened.survivors == tuple(sorted(sent))
    for row, weight, group in zip(opened.what.values, opened.what.weights, groups, strict=True):
        assert torch.equal(row, quantised(channel, plan, sent, group))
        assert weight == len(group)


def test_groups_change_every_round_and_are_the_same_for_every_part_of_one():
    channel, sent = BucketedSecAgg(size=3), updates(12)
    first, again = channel.groups(plan_for(sent)), channel.groups(plan_for(sent, number=1))
    assert set(map(frozenset, first)) != set(map(frozenset, again))
    assert channel.groups(plan_for(sent, part="control")) == first


def test_over_many_rounds_everybody_meets_everybody_about_equally_often():
    channel, sent, rounds = BucketedSecAgg(size=3), updates(9), 600
    met = dict.fromkeys(itertools.combinations(sorted(sent), 2), 0)
    for number in range(rounds):
        for group in channel.groups(plan_for(sent, number=number)):
            for pair in itertools.combinations(sorted(group), 2):
                met[pair] += 1
    expected = rounds * 2 / 8
    chi2 = sum((count - expected) ** 2 / expected for count in met.values())
    assert (
        chi2 < 75
    )  # 35 degrees of freedom, 1 - 1e-4 at 74; a fixed seedless hash gives one value for ever


def test_entering_the_same_round_twice_is_refused_because_regrouping_opens_updates():
    channel, sent = BucketedSecAgg(size=2), updates(4)
    member = Enrolled.fresh(channel, [10]).clients[10]
    member.enter(plan_for(sent), sent[10])
    with pytest.raises(Abort, match="entered before"):
        member.enter(plan_for(sent), sent[10])


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_client_that_leaves_costs_at_most_its_own_group(stage):
    channel, sent = BucketedSecAgg(size=3), updates(9)
    plan, _, outcome = play(channel, sent, Faults(silent_from={client_party(12): stage}))
    groups = channel.groups(plan)
    lonely = next(group for group in groups if 12 in group)
    others = [group for group in groups if group is not lonely]
    rows = dict(
        zip(outcome.opened.disclosed["groups"].tolist(), outcome.opened.what.values, strict=True)
    )
    for number, group in enumerate(groups):
        if group in others:
            assert torch.equal(rows[number], quantised(channel, plan, sent, group))
    left = [client for client in lonely if client != 12]
    here = groups.index(lonely)
    if here in rows:
        alone = torch.equal(rows[here], quantised(channel, plan, sent, left))
        assert alone or torch.equal(
            rows[here], quantised(channel, plan, sent, lonely)
        )  # it left after its vector was in


def test_a_group_of_two_that_loses_one_is_left_out_by_name_and_never_opens_the_other():
    channel, sent = BucketedSecAgg(size=2), updates(6)
    plan, _, outcome = play(channel, sent, Faults(silent_from={client_party(11): 2}))
    group = next(group for group in channel.groups(plan) if 11 in group)
    assert not set(group) & set(outcome.opened.survivors)
    for client in group:
        assert "group of clients" in outcome.opened.excluded[client_party(client)]
    assert outcome.opened.what.n == 2


def test_a_member_that_lies_about_its_weight_takes_its_group_out_and_is_seen():
    """Robust rules ignore weights; a group whose weights do not add up holds a liar, and its mean
    cannot be trusted.
    """
    channel, sent = BucketedSecAgg(size=3), updates(9)
    session = Session(channel)
    session.enrol(sent)
    plan = plan_for(sent)
    parties = {
        client_party(c): session.members[client_party(c)].enter(plan, update)
        for c, update in sent.items()
    }
    liar = parties[client_party(13)]
    liar.vector[len(sent[13].delta)] += 3 * FixedPoint(channel.bits).top
    outcome = drive(session.members["server"].enter(plan), parties)
    group = next(group for group in channel.groups(plan) if 13 in group)
    assert not set(group) & set(outcome.opened.survivors)
    assert "one of them lied" in outcome.opened.excluded[client_party(13)]


def test_garbled_mail_excludes_its_sender_by_name_and_spares_the_other_groups():
    channel, sent = BucketedSecAgg(size=3), updates(9)
    plan, _, outcome = play(
        channel, sent, Faults(malformed={client_party(14): lambda body: bytes(body)[:-5]})
    )
    assert client_party(14) in outcome.opened.excluded
    spared = [c for group in channel.groups(plan) if 14 not in group for c in group]
    assert set(spared) <= set(outcome.opened.survivors)


def test_a_cohort_too_small_for_two_groups_is_refused_in_words():
    sent = updates(5)
    with pytest.raises(ConfigError, match="no two groups of 3"):
        Enrolled.fresh(BucketedSecAgg(size=3), ()).server.enter(plan_for(sent))


def test_nobody_but_the_server_reads_group_means_and_the_server_reads_no_update():
    channel, sent = BucketedSecAgg(size=3), updates(9)
    _, session, outcome = play(channel, sent)
    seen = channel.decode(outcome.received({"server"}), {"server": session.members["server"]})
    assert isinstance(seen, Rows)
    assert seen.ids is None
    assert sorted(map(tuple, seen.values.tolist())) == sorted(
        map(tuple, outcome.opened.what.values.tolist())
    )
    assert (
        channel.decode(
            outcome.received({client_party(10)}),
            {client_party(10): session.members[client_party(10)]},
        )
        is None
    )


def test_two_clients_and_the_server_open_the_third_of_their_group_and_only_it():
    channel, sent = BucketedSecAgg(size=3), updates(9)
    plan, session, outcome = play(channel, sent)
    victim, *colluders = channel.groups(plan)[0]
    who = ["server", *map(client_party, colluders)]
    seen = channel.decode(outcome.received(who), {name: session.members[name] for name in who})
    assert seen.ids == (victim,)
    assert torch.allclose(seen.values[0], sent[victim].delta, atol=1e-3)


def test_the_server_view_depends_on_group_sums_alone():
    """Move mass from one member of a group to another: no sum changes, so nothing that the server
    opens may change.
    """
    channel, sent = BucketedSecAgg(size=3), updates(9, l2=0.5)
    plan, _, before = play(channel, sent)
    a, b, _ = channel.groups(plan)[1]
    shift = torch.zeros(D)
    shift[3] = 0.25
    code = FixedPoint(channel.bits)
    step = 1 / code.scale(plan)
    shift = (shift / step).round() * step
    grid = {c: (u.delta / step).round() * step for c, u in sent.items()}
    base = {c: Bounded(c, grid[c], 1.0) for c in sent}
    moved = {**base, a: Bounded(a, grid[a] + shift, 1.0), b: Bounded(b, grid[b] - shift, 1.0)}
    seen = [play(channel, mail)[2].opened.what.values for mail in (base, moved)]
    assert torch.allclose(*seen, atol=2e-7)
    assert before.opened is not None


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(f=2)], ids=["median", "trimmed mean"])
def test_liars_below_the_channels_breakdown_point_cannot_drag_the_rule_away(rule):
    n, size = 15, 3
    channel = BucketedSecAgg(size=size)
    honest = {
        c: Bounded(
            c,
            torch.full((D,), 0.1)
            + 0.01 * torch.randn(D, generator=torch.Generator().manual_seed(c)),
            1.0,
        )
        for c in range(n)
    }
    worst = 0.0
    for liars in itertools.islice(
        itertools.combinations(range(n), channel.buckets.max_byzantine(n)), 0, 105, 15
    ):
        sent = {**honest, **{c: Bounded(c, torch.full((D,), -0.15), 1.0) for c in liars}}
        worst = max(worst, float((rule(play(channel, sent)[2].opened.what) - 0.1).abs().max()))
    assert channel.buckets.max_byzantine(n) == 2
    assert worst < 0.03


def test_sensitivity_holds_for_random_and_worst_replaced_clients():
    """Trimmed mean over group means: no replacement of one client, dropouts in its group included,
    moves it farther than declared.
    """
    channel, n, rule = BucketedSecAgg(size=2), 10, TrimmedMean(f=1)
    replaced = Neighbours("client", "replace_one")
    moves = Moves.of_one_row(n).bounded(1.0, replaced)
    for stage in (channel.able.encodes.stage(D), channel.able.groups.stage()):
        moves = stage.stability(moves, replaced)
    declared = rule.sensitivity(moves, replaced)
    generator, worst = torch.Generator().manual_seed(5), 0.0
    for trial in range(12):
        sent = updates(n, seed=trial)
        direction = torch.randn(D, generator=generator)
        direction /= direction.norm() * 1.0001
        one, other = ({**sent, 10: Bounded(10, sign * direction, 1.0)} for sign in (1, -1))
        a, b = (rule(play(channel, mail)[2].opened.what) for mail in (one, other))
        worst = max(worst, float((a - b).norm()))
    assert declared / 4 < worst <= declared


def test_noise_inside_the_groups_is_accounted_for_one_group_of_the_fewest_clients():
    noisy = BucketedSecAgg(size=3, bits=20, noise=DistributedSkellam(noise_multiplier=1.0))
    sent = updates(9, d=1_000)  # a variance of 3,000 values is off by a fifth once in 10^14
    plan, _, outcome = play(noisy, sent)
    event = noisy.noise_event(plan, 9)
    clean = torch.stack([quantised(noisy, plan, sent, group) for group in noisy.groups(plan)])
    scale = FixedPoint(20).scale(plan)
    measured = float(((outcome.opened.what.values - clean) * 3 * scale).var())
    assert measured > 0.8 * event.parameters["variance"]
    assert scale < event.parameters["l2"] < 1.01 * scale, "of one client that sends zero instead"


def asleep(channel, sent, restless):
    """A round whose parties all sleep between exchanges: its plan, and what it opened."""
    session = Session(channel)
    session.enrol(sent)
    plan = plan_for(sent)
    parties = {
        client_party(c): restless(
            session.members[client_party(c)].enter(plan, u), session.directory
        )
        for c, u in sent.items()
    }
    server = restless(session.members["server"].enter(plan), session.directory)
    return plan, drive(server, parties).opened


def test_parties_that_sleep_between_exchanges_open_the_same(restless):
    channel, sent = BucketedSecAgg(size=2), updates(4)
    plan, opened = asleep(channel, sent, restless)
    for row, group in zip(opened.what.values, channel.groups(plan), strict=True):
        assert torch.equal(row, quantised(channel, plan, sent, group))


# a lying server


def against(channel, friends_in_group, number=0, n=9):
    """The single updates that a server opens that says of all others of a group but one that they
    dropped out, with so many friends in the group.
    """
    sent = updates(n)
    session = Session(channel)
    session.enrol(sent)
    plan = plan_for(sent, number=number)
    victim, *others = channel.groups(plan)[0]
    friends = others[:friends_in_group]
    heard = {client_party(c) for c in (victim, *friends)}
    parties = {
        client_party(c): session.members[client_party(c)].enter(plan, u) for c, u in sent.items()
    }
    server = session.members["server"].enter(plan)
    drive(
        server,
        parties,
        Faults(byzantine={"server": lambda party: lies.Hears(party, heard.__contains__)}),
    )
    if server.result is None:
        return None
    (mean,) = server.result.what.values
    single = mean * (1 + len(friends)) - sum(sent[c].delta for c in friends)
    return float((single - sent[victim].delta).norm()) < 1e-2


@pytest.mark.parametrize("mode", ["semi_honest", "active"])
def test_a_server_that_claims_drop_outs_needs_all_others_of_a_group(mode):
    """It needed one friend in a group of three, where two were documented."""
    channel = BucketedSecAgg(size=3, mode=mode)
    assert against(channel, 1) is None
    assert against(channel, 2)


def test_a_lower_threshold_says_how_many_friends_a_lying_server_needs():
    channel = BucketedSecAgg(size=3, threshold=0.6)
    assert against(channel, 1)
    (lie,) = [lie for lie in channel.guarantee.lies if "dropped out" in lie.does]
    assert (lie.can, "1 in a group of 3" in lie.who.describe()) == ("read", True)
    assert not [lie for lie in BucketedSecAgg().guarantee.lies if "dropped out" in lie.does]


def test_mode_threshold_and_corrupt_are_those_of_the_sum_inside():
    inside = BucketedSecAgg(size=5, mode="active", threshold=0.8, corrupt=0.2).inside()
    assert (inside.mode, inside.threshold, inside.corrupt) == ("active", 0.8, 0.2)
    assert BucketedSecAgg(mode="active").guarantee.liars()["server"] != "read"
    low = BucketedSecAgg(size=3, mode="active", threshold=0.6, corrupt=0.2)
    with pytest.raises(ConfigError, match="raise channel"):
        low.fewest(20)
    sent = updates(20)
    with pytest.raises(ConfigError, match="raise channel"):
        Enrolled.fresh(low, [10]).clients[10].enter(plan_for(sent), sent[10])


@pytest.mark.parametrize(
    ("corrupt", "colluders", "honest"), [(0.0, 0, 3), (0.1, 0, 1), (0.0, 1, 2), (0.0, 7, 1)]
)
def test_noise_is_that_of_the_honest_members_of_a_group(corrupt, colluders, honest):
    """It was accounted as a whole quorum's, corrupt members included."""
    channel = BucketedSecAgg(
        size=3, bits=20, corrupt=corrupt, noise=DistributedSkellam(noise_multiplier=1.0)
    )
    event = channel.noise_event(plan_for(updates(20)), colluders=colluders)
    whole = BucketedSecAgg(size=3, bits=20, corrupt=0.0, noise=channel.noise)
    full = whole.noise_event(plan_for(updates(20)))
    assert event.parameters["variance"] == pytest.approx(
        full.parameters["variance"] * honest / 3, rel=1e-6
    )


# the joint coin


JOINT = BucketedSecAgg(size=3, bucketing_seed=None)


def joint(sent, byzantine=None, faults=Faults(), channel=JOINT):
    session = Session(channel)
    session.enrol(sent)
    plan = plan_for(sent)
    parties = {
        client_party(c): session.members[client_party(c)].enter(plan, u) for c, u in sent.items()
    }
    server = session.members["server"].enter(plan)
    changed = Faults(faults.silent_from, byzantine=byzantine or {}, malformed=faults.malformed)
    return plan, server, parties, drive(server, parties, changed, keep_bodies=True)


@pytest.mark.parametrize("mode", ["semi_honest", "active"])
def test_groups_of_a_joint_coin_open_the_same_exact_means(mode):
    channel, sent = BucketedSecAgg(size=3, mode=mode, bucketing_seed=None), updates(9)
    plan, server, _, outcome = joint(sent, channel=channel)
    assert not outcome.aborts
    assert outcome.opened.survivors == tuple(sorted(sent))
    for row, group in zip(outcome.opened.what.values, server.party.groups, strict=True):
        assert torch.equal(row, quantised(channel, plan, sent, group))


def test_a_cohort_and_a_seed_do_not_tell_the_groups_of_a_joint_coin():
    """Eight cohorts were enough to put a client among a server's friends: groups followed from
    what the server knew and chose.
    """
    sent = updates(9)
    drawn = {joint(sent)[1].party.groups for _ in range(4)}
    assert len(drawn) == 4
    with pytest.raises(ConfigError, match="joint coin"):
        JOINT.groups(plan_for(sent))


class Coined:
    """The server, with what it says of the coin changed."""

    def __init__(self, honest, kind, change):
        self.honest, self.kind, self.change = honest, kind, change

    def step(self, mail):
        out = dict(self.honest.step(mail))
        tag = tag_of(self.honest.settings, self.honest.plan)
        for to, body in out.items():
            head = frame(self.kind, tag, b"")
            if bytes(body[: len(head)]) == head:
                rows, _ = fields.read_table(memoryview(body)[len(head) :], 32, self.honest.plan.n)
                out[to] = head + fields.table(self.change({i: bytes(r) for i, r in rows.items()}))
        return out


@pytest.mark.parametrize(
    ("kind", "change", "why"),
    [
        (LIST, lambda rows: {**rows, 0: bytes(32)}, "changed what this client committed to"),
        (LIST, lambda rows: dict(list(rows.items())[:6]), "groups are drawn among 7 at least"),
        (COINS, lambda rows: {**rows, 0: bytes(32)}, "not of what was committed to"),
        (COINS, lambda rows: dict(list(rows.items())[:8]), "not of what was committed to"),
    ],
)
def test_a_server_that_bends_the_coin_is_left_by_the_clients_that_see_it(kind, change, why):
    sent = updates(9)
    _, _, parties, outcome = joint(
        sent, byzantine={"server": lambda honest: Coined(honest, kind, change)}
    )
    assert outcome.opened is None
    first = outcome.aborts["client/10"]
    assert (why in str(first), first.blamed) == (True, "server")
    assert all(party.party is None for party in parties.values())


def test_a_client_that_does_not_open_its_part_of_the_coin_ends_the_round_unblamed():
    _, server, _, outcome = joint(updates(9), faults=Faults(silent_from={"client/12": 2}))
    assert (outcome.opened, server.party) == (None, None)
    assert outcome.aborts["server"].blamed is None
    assert "client/12 did not open" in str(outcome.aborts["server"])


class SpeaksOutOfTurn:
    """A client that writes to the server in every exchange, and to itself so that it is asked."""

    def __init__(self, party, early):
        self.party, self.early, self.left = party, early, 12

    def step(self, mail):
        heard = {who: body for who, body in mail.items() if who == "server"}
        out = dict(self.party.step(heard)) if heard or self.left == 12 else {}
        self.left -= 1
        if self.left > 0:
            early = frame(REVEAL, self.party._tag, self.party.secret) if self.early else b"early"
            out = {"client/12": b"again", "server": early} | out
        return out


@pytest.mark.parametrize("early", [False, True], ids=["noise", "its own part"])
def test_a_client_that_speaks_out_of_turn_does_not_end_the_drawing_of_groups(early):
    sent = updates(9)
    _, server, _, outcome = joint(
        sent, byzantine={"client/12": lambda party: SpeaksOutOfTurn(party, early)}
    )
    assert server.party is not None, outcome.aborts
    assert outcome.opened is not None
    others = set(sent) - {c for group in server.party.groups if 12 in group for c in group}
    assert others <= set(outcome.opened.survivors)


def test_a_client_that_opens_another_part_than_it_committed_to_is_convicted():
    def other(body):
        body = bytes(body)
        return body[:-1] + bytes([body[-1] ^ 1]) if body[4] == REVEAL else body

    _, _, _, outcome = joint(updates(9), faults=Faults(malformed={"client/12": other}))
    assert outcome.opened is None
    assert outcome.aborts["server"].blamed == "client/12"


def test_a_client_that_commits_to_nothing_is_left_out_by_name():
    _, _, _, outcome = joint(updates(10), faults=Faults(silent_from={"client/12": 0}))
    assert 12 not in outcome.opened.survivors
    assert len(outcome.opened.survivors) == 9
    assert "committed to no part" in outcome.opened.excluded["client/12"]


def test_the_joint_coin_knows_one_part_and_parties_may_rest(restless):
    sent = updates(9)
    with pytest.raises(ConfigError, match="one coin a round"):
        Enrolled.fresh(JOINT, ()).server.enter(plan_for(sent, part="control"))
    _, opened = asleep(JOINT, sent, restless)
    assert opened.survivors == tuple(sorted(sent))
