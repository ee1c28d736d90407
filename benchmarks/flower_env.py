"""Flower's own environment, `.venv-flower` at the root of the checkout: it needs pycryptodome < 4,
which ours does not have.

Both sides of a comparison with Flower run in it: theirs installed, ours by PYTHONPATH.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv-flower"
REQUIREMENTS = (
    "flwr[simulation]>=1.41,<1.42",
    "torch==2.13.0",
    "numpy>=1.26",
    "scipy>=1.11",
    "scikit-learn>=1.4",
    "jaxtyping>=0.2.36",
    "safetensors>=0.4.3",
    "pydantic>=2.7",
    "PyYAML>=6.0",
    "rich>=13.7",
    "psutil>=5.9",
    "gmpy2>=2.1.5",
    "tenseal>=0.3.15",
    "zstandard>=0.22",
)
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Must be in the environment before anything of Flower or Ray is imported: no usage statistics
leave this machine.
"""


def python() -> Path:
    """The interpreter of Flower's environment, which is created first if it is not there; progress
    goes to stderr.
    """
    interpreter = HOME / "bin" / "python"
    stamp = HOME / ".installed"
    wanted = "\n".join(REQUIREMENTS)
    if stamp.exists() and stamp.read_text() == wanted:
        return interpreter
    print(f"flower_env: creating {HOME.name} (a few minutes) ...", file=sys.stderr, flush=True)
    venv.create(HOME, with_pip=True)
    pip = [
        str(interpreter),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "-qq",
        *REQUIREMENTS,
    ]
    subprocess.run(pip, check=True, stdout=sys.stderr)
    stamp.write_text(wanted)
    return interpreter


def environment() -> dict[str, str]:
    """The variables to run in it with: this checkout importable, no telemetry, one thread for each
    numerical library.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {
        **os.environ,
        **QUIET,
        **threads,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


if __name__ == "__main__":
    print(python())
