"""Illegal pairs are type errors, and the legal ones beside them are not, nor are the README's
examples, each by itself, for somebody who has the package installed.
"""

import os
import re
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


ROOT = Path(__file__).parents[2]
CONFIG = f"""
[mypy]
strict = true
cache_dir = {ROOT / ".mypy_cache" / "of_tests"}
follow_imports = silent
[mypy-torch.*]
follow_imports = skip
"""
"""As strict as can be; torch's own sources, which take the most time, are not read. What mypy found
out of files that are as they were is kept beside its other caches.
"""


def check(tmp_path: Path, **texts: str) -> list[str]:
    """The errors that mypy finds in these files, in one go."""
    (tmp_path / "mypy.ini").write_text(CONFIG)
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        "mypy.ini",
        "--no-error-summary",
        *(f"{name}.py" for name in texts),
    ]
    # nothing says where the package is: it is installed, and its py.typed has to be seen
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if ": error: " in line]


def examples(page: str) -> dict[str, str]:
    """A page's blocks of Python, each as a file."""
    text = (ROOT / page).read_text()
    found = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    return {f"{Path(page).stem.lower()}_{number}": block for number, block in enumerate(found)}


def test_a_rule_that_reads_rows_over_a_channel_that_sums_is_a_type_error(tmp_path):
    readme = examples("README.md")
    assert len(readme) >= 4
    (found,) = check(tmp_path, legal=LEGAL, illegal=ILLEGAL, **readme)
    assert found.startswith(f"illegal.py:{len(ILLEGAL.splitlines())}: error: ")
