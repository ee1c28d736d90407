"""Flower's own environment, `.venv-flower` at the root of the checkout: Flower 1.41 needs
pycryptodome < 4, typer < 0.21, rich < 15 and packaging < 26, which ours does not have.

`make test` runs tests/flower in it, and both sides of a comparison with Flower. What it holds is
what privfl needs, the extras flower and ray, and what tests need, in the versions of
constraints-flower.txt.

    python -m benchmarks.flower_env                     its interpreter, made first if need be
    python -m benchmarks.flower_env -m pytest ...       runs that with these arguments
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv-flower"
CONSTRAINTS = ROOT / "constraints-flower.txt"
REQUIREMENTS = (
    ("torch",),  # first, so that nothing else chooses its build
    ("--editable", f"{ROOT}[flower,ray,he,plots]", "pytest", "beartype", "sybil", "psutil"),
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
    """The interpreter of Flower's environment, which is created first if it is not there, or not
    what pyproject.toml and the constraints say; progress goes to stderr.
    """
    interpreter = HOME / "bin" / "python"
    stamp = HOME / ".installed"
    files = (Path(__file__), CONSTRAINTS, ROOT / "pyproject.toml")
    wanted = "\n".join(file.read_text(encoding="utf-8") for file in files)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return interpreter
    print(f"flower_env: creating {HOME.name} (a few minutes) ...", file=sys.stderr, flush=True)
    if not interpreter.exists():
        venv.create(HOME, with_pip=True, symlinks=True)
    pip = [str(interpreter), "-m", "pip", "install", "--disable-pip-version-check", "-qq"]
    for some in REQUIREMENTS:
        command = [*pip, "--constraint", str(CONSTRAINTS), *some]
        subprocess.run(command, check=True, stdout=sys.stderr, cwd=ROOT)
    stamp.write_text(wanted, encoding="utf-8")
    return interpreter


def environment() -> dict[str, str]:
    """The variables to run in it with: this checkout importable, no telemetry, one thread for each
    numerical library. Bytecode is kept, in the environment itself: a federation starts a dozen
    processes, each of which would compile for as long as it imports.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    found = {
        **os.environ,
        **QUIET,
        **threads,
        "PYTHONPATH": str(ROOT),
        "PYTHONPYCACHEPREFIX": str(HOME / "bytecode"),
    }
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


if __name__ == "__main__":
    if sys.argv[1:]:
        command = [str(python()), *sys.argv[1:]]
        sys.exit(subprocess.run(command, env=environment(), cwd=ROOT, check=False).returncode)
    print(python())
