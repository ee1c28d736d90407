"""What ``pip install privfl`` brings is enough for all but what extras are for, and whatever needs
an extra says which.
"""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from sklearn.datasets import load_digits

from privfl.core import ConfigError, Library
from privfl.data import load

ABSENT = (
    *("tenseal", "zstandard", "gmpy2", "phe", "matplotlib", "sklearn", "pyarrow", "datasets"),
    *("pandas", "psutil", "tensorboard", "mlflow", "flwr", "ray", "transformers"),
)
SCRIPT = f"""
    import contextlib, io, json, sys
    for name in {ABSENT}:
        sys.modules[name] = None  # as if it were not installed
    from privfl.cli import main
    said = []
    open("exp.yaml", "w").write("rounds: 2\\ndata: {{name: digits, clients: 5}}\\n")
    for words in (
        "list",
        "list --compat",
        "run exp.yaml --out a",
        "run exp.yaml --out b --set seed=1",
        "compare a b",
        "sweep exp.yaml --over seed=0,1 --out s",
        "run exp.yaml --out c --set bound.name=clip --set bound.l2=1 --set channel.name=bfv",
        "run exp.yaml --out c --set bound.name=clip --set bound.l2=1 --set channel.name=paillier",
        "compare a b --out d",
        "inspect a",
    ):
        sys.argv, heard, code = ["privfl", *words.split()], io.StringIO(), 0
        with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(io.StringIO()):
            try:
                main()
            except SystemExit as done:
                code = done.code or 0
        said.append((words, code, heard.getvalue()))
    from privfl import Federation
    for channel in ("secagg", "two_server", "one_time_rlwe", "mp_rlwe"):
        bound = {{"name": "clip", "l2": 1.0}}
        config = {{"rounds": 1, "bound": bound, "channel": channel}}
        Federation.from_config({{**config, "data": {{"name": "digits", "clients": 5}}}}).run()
    print(json.dumps(said))
"""


def test_a_lean_install_runs_reports_and_says_what_the_rest_needs(tmp_path):
    import json

    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    *worked, bfv, paillier, curves, inspected = said
    assert [code for _, code, _ in worked] == [0] * len(worked), worked
    for (_, code, words), needed in (
        (bfv, "tenseal is not installed: pip install 'privfl[he]'."),
        (paillier, "gmpy2 is not installed: pip install 'privfl[he]'."),
        (curves, "matplotlib is not installed: pip install 'privfl[plots]'."),
        (inspected, "matplotlib is not installed: pip install 'privfl[plots]'."),
    ):
        assert code == 2
        assert needed in words
        assert words.count("\n") == 1, "one sentence"
    page = (tmp_path / "a" / "report.html").read_text()
    assert "No figures: matplotlib is not installed" in page
    assert "The server reads" in page, "its card stands"


def test_the_embedded_digits_are_those_of_scikit_learn():
    split = load("digits")
    theirs, ours = load_digits(), (split.train, split.test)
    pixels = np.concatenate([split.original(side.x).numpy() for side in ours])[:, 0] * 16
    labels = np.concatenate([side.y.numpy() for side in ours])

    def sorted_rows(images, target):
        return np.unique(np.column_stack([images.reshape(len(images), -1), target]), axis=0)

    assert len(labels) == len(theirs.target)
    found = sorted_rows(np.rint(pixels), labels)
    assert np.array_equal(found, sorted_rows(theirs.images, theirs.target))


def test_a_library_that_is_not_there_is_one_sentence_wherever_it_is_used():
    absent = Library("no_such_library.part", "plots")
    for use in (absent.require, lambda: absent.Figure):
        with pytest.raises(ConfigError, match=r"no_such_library is not .*'privfl\[plots\]'"):
            use()
