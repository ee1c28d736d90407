"""The library of lies in single frames does what each of its lies says."""

import numpy as np
import pytest

from benchmarks.hybrid.lying_servers import CHANNELS, ENFORCED, Told, frames, held
from privfl.crypto.mpc.authentication import OpenChecked
from privfl.crypto.mpc.operations import Open
from privfl.hybrid.two_server.frame_lies import KINDS, FrameLie, library
from privfl.hybrid.two_server.rules.krum import GRAM

SERVERS = pytest.mark.parametrize("who", ["server", "server/1"])
KRUM = CHANNELS["krum, scores"]


def number_of(channel, who, register):
    steps = [step for step, _ in frames(channel, who)]
    return next(i for i, s in enumerate(steps) if isinstance(s, Open) and s.what == register)


def told(channel, who, lie):
    return Told(channel, who, lie.forge(), held())


@SERVERS
def test_who_rushes_opens_what_it_likes_at_both_servers(who):
    lie = FrameLie(number_of(KRUM, who, GRAM), "rushes", 1 << 20)
    round_ = told(KRUM, who, lie)
    honest = round_.machines["server/1" if who == "server" else "server"].machine
    assert set(honest.public[GRAM].reshape(-1).tolist()) == {1 << 20}


@SERVERS
def test_who_adds_moves_one_word_of_what_opens_and_who_selects_two_against_each_other(who):
    number = number_of(KRUM, who, GRAM)
    other = "server/1" if who == "server" else "server"
    opened = {}
    for kind in ("honest", "adds", "selects"):
        place = 10_000 if kind == "honest" else number
        lie = FrameLie(place, "adds" if kind == "honest" else kind, 1, at=0.1)
        machine = told(KRUM, who, lie).machines[other].machine
        opened[kind] = machine.public[GRAM].reshape(-1).astype(np.int64)
    ring = 1 << KRUM.ring
    moved = (opened["adds"] - opened["honest"]) % ring
    assert sorted(moved[moved != 0].tolist()) == [1]
    against = (opened["selects"] - opened["honest"]) % ring
    assert sorted(against[against != 0].tolist()) == [1, ring - 1]


@SERVERS
def test_a_library_spreads_over_the_frames_and_the_kinds_and_each_lie_is_told_anew(who):
    sent = frames(CHANNELS["krum, selection"], who)
    lies = list(library(who, "choose", sent, 12))
    assert {kind for _, kind in lies} == set(KINDS)
    said = [lie.does for lie, _ in lies]
    assert len(set(said)) == 12
    assert f"of {len(sent)} (" in said[0]
    few = list(library(who, "choose", frames(ENFORCED["mean, scores, malicious"], who), 1000))
    assert len(few) == 3 * len(frames(ENFORCED["mean, scores, malicious"], who))


@SERVERS
def test_who_moves_the_only_word_of_a_frame_against_itself_changes_nothing(who):
    channel = ENFORCED["fltrust, aggregate, malicious"]
    sizes = [(size, isinstance(step, OpenChecked)) for step, size in frames(channel, who)]
    lie = FrameLie(sizes.index((8, True)), "selects")
    assert told(channel, who, lie).passed
