"""Bytes that SEAL must never be handed: each in a whole round, sent and signed by a real client."""

import itertools
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from benchmarks.he.foreign_bytes import (
    CHANNELS,
    LIAR,
    Session,
    bombs,
    framed,
    fuzz,
    grown_by,
    members,
    objects,
    sums,
)
from privfl.crypto import BFV, CKKS
from privfl.crypto.he import workers
from privfl.crypto.he.lattice import frames
from privfl.crypto.he.lattice.residues import chunks_of
from privfl.crypto.he.lattice.seal import passage
from privfl.crypto.he.wire import Refused, pack

every_channel = pytest.mark.parametrize("name", CHANNELS)


@pytest.fixture(scope="module")
def sessions():
    return {name: Session(channel) for name, channel in CHANNELS.items()}


def refused(session, body):
    """Whether the liar alone is left out for this body, by name, and the sum of the rest exact."""
    opened = session.play({LIAR: (body,)}, session.plan()).opened
    assert opened.survivors == tuple(i for i in range(session.n) if i != LIAR)
    assert list(opened.excluded) == [f"client/{LIAR}"]
    assert session.off(opened) < 3e-4
    return True


@pytest.mark.parametrize("channel", [BFV(min_clients=3), CKKS(min_clients=3)], ids=["bfv", "ckks"])
def test_empty_chunks_do_not_stand_for_those_of_the_client_before(channel):
    """Three of six send one ciphertext of their own and nothing behind it: read into the memory in
    which the victim's lay, each would be the victim's.
    """
    session = Session(channel, n=6, d=20_000)
    plan = session.plan()
    lattice = channel.scheme.lattice
    evil = {}
    for client in (3, 4, 5):
        body = session.body(client, plan)
        size = frames.sizes(lattice)["whole"]
        _, chunks = chunks_of((body,), frames.sizes(lattice), (len(body) - 8) // size)
        with passage() as file:
            own = file.out(frames.load(file, lattice, chunks[0]))
        evil[client] = (pack([own] + [b""] * (len(chunks) - 1)),)
    evil[5] = (body[: 8 + size],)
    opened = session.play(evil, plan).opened
    assert opened.survivors == (0, 1, 2)
    assert set(opened.excluded) == {"client/3", "client/4", "client/5"}
    victim = session.rows[0]
    cosine = torch.nn.functional.cosine_similarity(opened.what.value, victim, dim=0)
    honest = torch.nn.functional.cosine_similarity(session.rows[:3].sum(dim=0), victim, dim=0)
    assert cosine == pytest.approx(float(honest), abs=1e-3)


@every_channel
def test_every_form_that_seal_itself_would_load_is_refused_by_name(sessions, name):
    session = sessions[name]
    lattice, head = session.channel.scheme.lattice, session.body(LIAR, session.plan())[:8]
    for _, body in [*objects(lattice)][:6]:
        assert refused(session, pack([body] * 2))
        assert refused(session, head + 2 * body)


@every_channel
def test_objects_that_say_they_are_huge_are_refused_without_the_memory_being_touched(
    sessions, name
):
    session = sessions[name]
    for _, body in itertools.islice(bombs(session.channel.scheme.lattice), 2):
        head = session.body(LIAR, session.plan())[:8]
        for hostile in (pack([body] * 2), head + 2 * body):
            left_out, grown = grown_by(partial(refused, session, hostile))
            assert left_out
            assert grown < 64


@every_channel
def test_hostile_bodies_end_in_an_exclusion_or_in_an_exact_sum(name):
    tally, faults = fuzz(name, every=23)
    assert faults == []
    assert tally.named > 20
    assert tally.grown < 64
    assert sums(name, 5) == 5


def test_a_public_key_that_is_none_is_refused_before_seal_sees_it():
    scheme = BFV().scheme
    body = scheme.generate()[0].to_bytes()
    width = 5
    for junk in (
        body[:-1],
        body + b"x",
        body[: -2 * width] + b"\xff" * (2 * width),
        pack([scheme.lattice.to_bytes(), framed(members(scheme.lattice, b"", 1 << 25, size=0))]),
    ):
        with pytest.raises(Refused):
            scheme.public(junk)


def test_seal_reads_what_was_framed_and_nothing_that_lay_there_before():
    lattice = BFV().scheme.lattice
    words = np.random.default_rng(2).integers(1, 1 << 39, (2, 1, 4096), dtype=np.uint64)
    with passage() as file:
        sealed = frames.ciphertext(file, lattice, words)
        assert (frames.words_of(file, lattice, sealed) == words).all()
        for rest in (b"", framed(b"")[:9]):
            frames.ciphertext(file, lattice, words)
            with pytest.raises(Refused):
                file.into(type(sealed)(), frames.context(lattice), rest)


class TestWorkers:
    """Workers that die: the pool works again, and the job that kills is found."""

    limits = workers.Limits(memory=1 << 30, seconds=2)

    def test_a_worker_that_is_killed_between_two_rounds_breaks_none_after_it(self):
        channel = BFV(keys="shared", encryption="seeded", workers=2)
        session = Session(channel)
        assert session.play({}, session.plan()).opened.survivors == (0, 1, 2, 3)
        for process in workers._pool(2, workers.LIMITS)._processes.values():
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.2)
        opened = session.play({}, session.plan()).opened
        assert opened.survivors == (0, 1, 2, 3)
        assert session.off(opened) < 3e-4

    @pytest.mark.parametrize(("how", "places"), [("dies", (0, 3, 4)), ("hangs", (3,))])
    def test_the_job_that_kills_its_worker_is_found_and_the_others_are_done(self, how, places):
        limits = replace(self.limits, seconds=1)  # each try waits for a job that hangs
        jobs = ["fine"] * 5
        assert workers.isolated(_job, jobs, 2, limits) == jobs
        for place in places:
            with pytest.raises(workers.Killer) as killer:
                workers.isolated(_job, [*jobs[:place], how, *jobs[place:]], 2, limits)
            assert killer.value.job == place
        assert workers.isolated(_job, jobs, 2, limits) == jobs

    def test_a_run_whose_jobs_kill_workers_does_not_cost_another_run_its_own(self):
        """Two runs in threads of one process share a pool."""
        with ThreadPoolExecutor(2) as threads:
            honest = threads.submit(workers.isolated, _job, ["slow"], 2, self.limits)
            killer = threads.submit(workers.isolated, _job, ["dies later"], 2, self.limits)
            assert honest.result() == ["slow"]
            with pytest.raises(workers.Killer):
                killer.result()

    def test_a_job_that_takes_too_much_memory_is_refused(self):
        with pytest.raises(Refused, match="more memory"):
            workers.isolated(_job, ["fine", "swells"], 2, self.limits)
        assert workers.isolated(_job, ["fine"] * 3, 2, self.limits) == ["fine"] * 3


def _job(what):
    if what == "slow":
        time.sleep(0.5)
    if what == "dies later":
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hangs":
        time.sleep(60)
    if what == "swells":
        np.ones(1 << 28)
    return what
