"""A sample of the runs that `python -m benchmarks.killed` kills and resumes."""

from benchmarks.killed import killed


def test_killed_runs_end_as_if_nobody_had_killed_them():
    equal, kills = killed(2, seed=4)
    assert equal == 2
    assert kills > 0
