"""Packages that cannot share this environment's pins, each with what it needs in a folder of its
own at the root of the checkout, laid over this environment when it is asked for.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def lay_over(folder: str, requirements: Sequence[str]) -> None:
    """Make the packages of ``folder`` importable, behind all that is installed; install them first,
    without what they depend on, where they are not there.

    Raises:
        ImportError: they cannot be installed.
    """
    home = ROOT / folder
    stamp, wanted = home / ".installed", "\n".join(requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"creating {folder} ...", file=sys.stderr, flush=True)
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-qq"]
        command = [*pip, "--upgrade", "--no-deps", "--target", str(home), *requirements]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
            raise ImportError(f"{requirements[0]} could not be installed.")
        stamp.write_text(wanted)
    if str(home) not in sys.path:
        sys.path.append(str(home))
