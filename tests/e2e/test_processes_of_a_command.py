"""Processes of a command end with it: by an error, by Ctrl-C, by a kill, and put their things
away.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

AT_WORK = """
import os, signal, sys, time
from tempfile import TemporaryDirectory
from privfl.core.pool import pool_of, put


class Asks(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def endless(folder):
    with TemporaryDirectory(dir=folder):
        print(os.getpid(), flush=True)
        time.sleep(600)


def fails(folder):
    while not os.listdir(folder):
        time.sleep(0.01)
    raise Asks("no such layer", 2)


if __name__ == "__main__":
    folder = sys.argv[1]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    with pool_of(2, at_once=True) as pool:
        asked = [put(pool, endless, folder), put(pool, endless, folder)]
        asked[0].result()
"""
FORKS = """
import os, time
from privfl.crypto.he.workers import isolated


def endless(job):
    print(os.getpid(), flush=True)
    time.sleep(600)


isolated(endless, [0], 1)
"""


SERVER = """
import json, os, runpy, signal, sys
import privfl.core.pool, privfl.crypto.he.workers
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()
        for number, file in enumerate(("/dev/null", asked["out"], asked["err"])):
            os.dup2(os.open(file, os.O_RDWR), number)
        sys.stdin = open(0)
        sys.argv = asked["words"]
        runpy.run_path(asked["words"][0], run_name="__main__")
        sys.exit()
    print(child, flush=True)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(ended, flush=True)
"""


class Command:
    """A script that plays in a process of its own."""

    def __init__(self, server, folder, words):
        out, err = folder / "out", folder / "err"
        for pipe in (out, err):
            os.mkfifo(pipe)
        asked = {"out": str(out), "err": str(err), "words": [str(word) for word in words]}
        print(json.dumps(asked), file=server.stdin, flush=True)
        self.server, self.stdout, self.stderr = server, out.open(), err.open("rb", buffering=0)
        self.pid = int(server.stdout.readline())

    def ended(self):
        """Its exit code, and what it and all that it began said of errors, once they have ended."""
        said = []
        while not said or said[-1]:
            assert select.select([self.stderr], [], [], 60)[0], "somebody still speaks"
            said.append(self.stderr.read(1 << 16))
        return int(self.server.stdout.readline()), b"".join(said).decode()


@pytest.fixture(scope="module")
def server():
    """What scripts are forks of: it has loaded what they need, and that alone."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SERVER], **pipes) as server:
        yield server
        server.stdin.close()


@pytest.fixture
def begun(server, tmp_path):
    """Begin a script with these words, in a session of its own."""
    begun = []

    def begin(*words):
        begun.append(Command(server, tmp_path, words))
        return begun[0]

    yield begin
    for command in begun:
        command.stdout.close()
        command.stderr.close()


def gone(process):
    for _ in range(600):
        if not Path(f"/proc/{process}").exists():
            return True
        time.sleep(0.05)
    return False


def test_processes_that_ctrl_c_ends_put_their_files_away(tmp_path, begun):
    """A terminal's Ctrl-C reaches all of them, and only the command says so."""
    script, folder = tmp_path / "work.py", tmp_path / "held"
    script.write_text(AT_WORK)
    folder.mkdir()
    command = begun(script, folder)
    at_work = [int(command.stdout.readline()) for _ in range(2)]
    os.killpg(command.pid, signal.SIGINT)
    _, said = command.ended()
    assert all(gone(process) for process in at_work)
    assert list(folder.iterdir()) == []
    assert said.count("Traceback") == 1


def test_a_command_that_is_told_to_end_ends_its_processes_and_leaves_no_semaphore(tmp_path, begun):
    script, folder = tmp_path / "work.py", tmp_path / "held"
    script.write_text(AT_WORK)
    folder.mkdir()
    command = begun(script, folder)
    at_work = [int(command.stdout.readline()) for _ in range(2)]
    os.kill(command.pid, signal.SIGTERM)
    code, said = command.ended()
    assert code == 128 + signal.SIGTERM
    assert all(gone(process) for process in at_work)
    assert list(folder.iterdir()) == []
    assert said == ""


def test_an_error_in_one_process_ends_the_others_and_comes_back(tmp_path, begun):
    script, folder = tmp_path / "work.py", tmp_path / "held"
    script.write_text(AT_WORK.replace("[put(pool, endless", "[put(pool, fails"))
    folder.mkdir()
    command = begun(script, folder)
    at_work = int(command.stdout.readline())
    _, said = command.ended()
    assert said.rstrip().endswith("RuntimeError: Asks: no such layer")
    assert gone(at_work)
    assert list(folder.iterdir()) == []


def test_workers_that_encrypt_end_with_a_command_that_is_killed(tmp_path, begun):
    """They waited for work without end once."""
    script = tmp_path / "forks.py"
    script.write_text(FORKS)
    command = begun(script)
    at_work = int(command.stdout.readline())
    os.kill(command.pid, signal.SIGKILL)
    assert command.ended()[0] == -signal.SIGKILL
    assert gone(at_work)
