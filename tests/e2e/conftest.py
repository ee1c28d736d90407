"""Running the commands as a person would, and small runs in this process."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest
import torch

from privfl.cli import main


@pytest.fixture
def privfl(tmp_path, monkeypatch, capsys):
    """Run ``privfl`` with these words in this process; returns its exit code and what it
    printed.
    """

    def run(*words, env=()):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        for name, value in dict(env).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["privfl", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as done:
            code = done.code or 0
        said = capsys.readouterr()
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def command():
    """Run ``privfl`` with these words in a folder, as `privfl` does, for several tests at once."""

    def run(folder, *words):
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        code = 0
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(folder)
            patch.setenv("COLUMNS", "200")
            patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
            patch.setattr(sys, "argv", ["privfl", *map(str, words)])
            try:
                main()
            except SystemExit as done:
                code = done.code or 0
        said = [each.buffer.getvalue().decode() for each in (out, err)]
        return subprocess.CompletedProcess(words, code, *said)

    return run


@pytest.fixture
def config(tmp_path):
    """Write a config file; returns its path."""

    def write(text="", name="exp.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def small():
    """A config mapping that runs in a second."""
    return {
        "data": {"name": "digits", "clients": 8, "partition": {"name": "dirichlet", "alpha": 1.0}},
        "training": {"name": "sgd", "lr": 0.3, "batch_size": 16},
        "rounds": 3,
        "executor": "sequential",
    }


def parameters(folder):
    """The flat model of a run folder."""
    import safetensors.torch

    return safetensors.torch.load_file(folder / "model.safetensors")["parameters"]


@pytest.fixture
def same_model():
    """Whether two run folders hold the same model, bit for bit."""
    return lambda a, b: torch.equal(
        parameters(a).view(torch.int32), parameters(b).view(torch.int32)
    )


@pytest.fixture
def rounds_of():
    """The records of a run folder, without what a clock says."""

    def read(folder):
        rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    return read
