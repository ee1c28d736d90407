"""Illegal pairs are type errors, and the legal ones beside them are not."""

import os
import subprocess
import sys
from pathlib import Path

LEGAL = """
from privfl import PrivateAggregation
from privfl.aggregators import Krum, Mean
from privfl.crypto import Plain, SecAgg
from privfl.dp import Clip

PrivateAggregation()
PrivateAggregation(rule=Krum(f=1))
PrivateAggregation(channel=Plain(), rule=Krum(f=1))
PrivateAggregation(bound=Clip(l2=1.0), channel=SecAgg(), rule=Mean())
"""
ILLEGAL = LEGAL + "PrivateAggregation(bound=Clip(l2=1.0), channel=SecAgg(), rule=Krum(f=1))\n"


def check(tmp_path: Path, **texts: str) -> list[str]:
    """The errors that mypy finds in these files, in one go."""
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--cache-dir",
        str(tmp_path / "cache"),
        "--no-error-summary",
        *(f"{name}.py" for name in texts),
    ]
    environment = {**os.environ, "MYPYPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if ": error: " in line]


def test_a_rule_that_reads_rows_over_a_channel_that_sums_is_a_type_error(tmp_path):
    (found,) = check(tmp_path, legal=LEGAL, illegal=ILLEGAL)
    assert found.startswith(f"illegal.py:{len(ILLEGAL.splitlines())}: error: ")
