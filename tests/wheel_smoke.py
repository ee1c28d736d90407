"""What ``make wheels`` runs outside of the repository, with a wheel that is installed in an
environment of its own: the package is the installed one, whole and typed, and its faces work;
first without extras, then, told "he,plots", with these.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import privfl
from privfl import Federation, PrivateAggregation, catalog
from privfl.core import ConfigError
from privfl.crypto import SecAgg
from privfl.dp import Clip

HERE = Path(privfl.__file__).parent
FULL = sys.argv[1:] == ["he,plots"]
"""Whether these extras were installed, too."""
ENCRYPTED = ("bfv", "paillier")


def main() -> None:
    """Raise at the first thing that is wrong."""
    if "site-packages" not in HERE.parts or not (HERE / "py.typed").exists():
        raise SystemExit(f"{HERE} is no installed wheel with py.typed")
    for table in catalog.SEAMS.values():
        for part in table:
            table[part]
    layer = PrivateAggregation(bound=Clip(l2=1.0), channel=SecAgg())
    mean, receipt = layer.aggregate({who: torch.ones(4) for who in ("a", "b", "c", "d", "e")})
    if not (abs(float(mean.norm()) - 1) < 1e-2 and len(receipt.survivors) == 5):
        raise SystemExit(f"a round of five gave {mean}")
    config = {"data": {"name": "digits", "clients": 8}, "rounds": 1}
    for channel in ("plain", "two_server", "one_time_rlwe", *(ENCRYPTED if FULL else ())):
        bound = {"name": "clip", "l2": 1.0}
        run = Federation.from_config({**config, "bound": bound, "channel": channel}).run()
        sys.stdout.write(f"{channel}: {run.accuracy:.3f}\n")
    for channel in () if FULL else ENCRYPTED:
        try:
            Federation.from_config({**config, "channel": channel})
        except ConfigError as error:
            if "pip install 'privfl[he]'" in str(error):
                continue
        raise SystemExit(f"{channel} does not say that it needs the extra he")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exp.yaml"
        path.write_text("rounds: 2\ndata: {name: digits, clients: 5}\n")
        command = [sys.executable, "-m", "privfl.cli", "run", str(path), "--out", f"{folder}/run"]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        if not (Path(folder) / "run" / "report.html").exists():
            raise SystemExit("a run left no report")
        if (Path(folder) / "run" / "learning.svg").exists() != FULL:
            raise SystemExit("figures are drawn where the extra plots is there, and nowhere else")
    where = f"Python {sys.version.split()[0]} works from {HERE}"
    sys.stdout.write(f"privfl {privfl.__version__} on {where}\n")


if __name__ == "__main__":
    main()
