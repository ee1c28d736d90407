"""A sample of the runs that `python -m benchmarks.killed` kills and resumes."""

from benchmarks.killed import killed


def test_killed_runs_end_as_if_nobody_had_killed_them():
    equal, kills = killed(2, seed=4)
    assert equal == 2
    assert kills > 0


def test_asynchronous_runs_that_were_killed_in_flight_end_as_if_nobody_had_killed_them():
    equal, kills = killed(1, seed=2, in_flight=True)
    assert equal == 1
    assert kills > 0
