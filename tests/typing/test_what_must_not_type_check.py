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


def check(tmp_path: Path, text: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "snippet.py").write_text(text)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--cache-dir",
        str(tmp_path / "cache"),
        "snippet.py",
    ]
    environment = {**os.environ, "MYPYPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )


def test_a_rule_that_reads_rows_over_a_channel_that_sums_is_a_type_error(tmp_path):
    legal = check(tmp_path, LEGAL)
    assert legal.returncode == 0, legal.stdout
    illegal = check(tmp_path, ILLEGAL)
    assert illegal.returncode == 1
    assert f"snippet.py:{ILLEGAL.count(chr(10))}" in illegal.stdout
