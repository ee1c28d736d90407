"""Experiments whose runs are dealt out to processes: `benchmarks.robustness.workers`."""

from __future__ import annotations

import json
import multiprocessing
import operator
import os
import signal
import time

import numpy
import pytest
import scipy.linalg
from threadpoolctl import threadpool_info

from benchmarks.harness import gain
from benchmarks.robustness.workers import Experiment, main


def quotients(case, *jobs):
    """An experiment that divides; a row a run."""
    return Experiment(
        operator.truediv,
        lambda seeds: jobs,
        lambda played: [
            gain(case, "itself", f"{a} / {b}", found, found) for (a, b), found in played.runs
        ],
    )


def test_rows_come_in_order_and_alone_and_a_failed_run_is_named(capfd):
    """What a run prints is no row."""
    experiments = {
        "slow": Experiment(
            time.sleep, lambda seeds: [(0.3,)], lambda played: [gain("slow", "", "", 1.0, 1.0)]
        ),
        "broken": quotients("broken", (5, 4), (1, 0)),
        "fine": quotients("fine", (9, 2), (3, 2), (1, 8)),
        "loud": Experiment(
            print, lambda seeds: [("words",)], lambda played: [gain("loud", "", "", 1.0, 1.0)]
        ),
    }
    with pytest.raises(SystemExit) as ended:
        main(experiments, ["--json", "--jobs", "2"])
    out, err = capfd.readouterr()
    assert [(row["case"], row["ours"]) for row in map(json.loads, out.splitlines())] == [
        ("slow", 1.0),
        ("fine", 4.5),
        ("fine", 1.5),
        ("fine", 0.125),
        ("loud", 1.0),
    ]
    assert "words\n" in err
    assert ended.value.code == 1
    assert "in the run (1, 0)" in err
    assert err.endswith("robustness: failed: broken\n")
    assert multiprocessing.active_children() == []


def threads_of_libraries():
    """How many threads each library computes with, of those that products of this process's numpy
    and scipy loaded.
    """
    rows = numpy.ones((64, 512), dtype=numpy.float32)
    scipy.linalg.eigvalsh(rows @ rows.T)
    return [library["num_threads"] for library in threadpool_info()]


def test_processes_have_one_thread_also_in_numpy(capsys, monkeypatch):
    """Each had a second one once, which waited busily for the next product of a round's rows."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    told = Experiment(
        threads_of_libraries,
        lambda seeds: [()],
        lambda played: [gain("told", "", "", count, 1.0) for count in played.each[0]],
    )
    main({"told": told}, ["--json", "--jobs", "1"])
    counts = [json.loads(line)["ours"] for line in capsys.readouterr().out.splitlines()]
    assert len(counts) >= 2
    assert set(counts) == {1.0}
    assert os.environ["OPENBLAS_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_leaves_no_process_behind(number, how, capsys):
    at_work = []

    def stopped(played):
        at_work.extend(multiprocessing.active_children())
        signal.raise_signal(number)
        return []

    experiments = {
        "first": Experiment(operator.neg, lambda seeds: [(1,)], stopped),
        "endless": Experiment(time.sleep, lambda seeds: [(60,)], lambda played: []),
    }
    with pytest.raises(how):
        main(experiments, ["--jobs", "1"])
    assert [one.exitcode for one in at_work] == [-signal.SIGKILL]  # amid its sleep
    assert multiprocessing.active_children() == []
    assert "endless ..." not in capsys.readouterr().err
