"""Run every benchmark: ``python -m benchmarks [--quick] [--json]``."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import benchmarks

SHARED = (
    "__main__",
    "beside",
    "breaching_env",
    "by_writer",
    "dp_lies",
    "dp_lies_correlated",
    "dp_lies_narrow",
    "dp_lies_rules",
    "dp_nets",
    "flower_env",
    "harness",
    "meter_env",
    "peers",
    "pfl_peer",
    "recipes",
    "scattering",
    "secagg_kernels",
    "tradeoff_figure",
)


def main() -> None:
    """Each benchmark in a process of its own; exit 1 if one of them broke."""
    names = sorted(
        m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in SHARED
    )
    failed = [
        name
        for name in names
        if subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], check=False
        ).returncode
    ]
    if failed:
        print("broken:", ", ".join(failed), file=sys.stderr)
        sys.exit(1)


main()
