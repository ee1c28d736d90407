"""Processes of a command end with it: by an error, by Ctrl-C, by a kill, and put their things
away.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def begun(script, *words):
    return subprocess.Popen(
        [sys.executable, script, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def gone(process):
    for _ in range(600):
        if not Path(f"/proc/{process}").exists():
            return True
        time.sleep(0.05)
    return False


def test_processes_that_ctrl_c_ends_put_their_files_away(tmp_path):
    """A terminal's Ctrl-C reaches all of them, and only the command says so."""
    script, folder = tmp_path / "work.py", tmp_path / "held"
    script.write_text(AT_WORK)
    folder.mkdir()
    with begun(script, folder) as command:
        at_work = [int(command.stdout.readline()) for _ in range(2)]
        os.killpg(command.pid, signal.SIGINT)
        _, said = command.communicate(timeout=60)
    assert all(gone(process) for process in at_work)
    assert list(folder.iterdir()) == []
    assert said.count("Traceback") == 1


def test_a_command_that_is_told_to_end_ends_its_processes_and_leaves_no_semaphore(tmp_path):
    script, folder = tmp_path / "work.py", tmp_path / "held"
    script.write_text(AT_WORK)
    folder.mkdir()
    with begun(script, folder) as command:
        at_work = [int(command.stdout.readline()) for _ in range(2)]
        os.kill(command.pid, signal.SIGTERM)
        _, said = command.communicate(timeout=60)
    assert command.returncode == 128 + signal.SIGTERM
    assert all(gone(process) for process in at_work)
    assert list(folder.iterdir()) == []
    assert said == ""


def test_an_error_in_one_process_ends_the_others_and_comes_back(tmp_path):
    script, folder = tmp_path / "work.py", tmp_path / "held"
    script.write_text(AT_WORK.replace("[put(pool, endless", "[put(pool, fails"))
    folder.mkdir()
    with begun(script, folder) as command:
        at_work = int(command.stdout.readline())
        _, said = command.communicate(timeout=60)
    assert said.rstrip().endswith("RuntimeError: Asks: no such layer")
    assert gone(at_work)
    assert list(folder.iterdir()) == []


def test_workers_that_encrypt_end_with_a_command_that_is_killed(tmp_path):
    """They waited for work without end once."""
    script = tmp_path / "forks.py"
    script.write_text(FORKS)
    with begun(script) as command:
        at_work = int(command.stdout.readline())
        command.kill()
    assert gone(at_work)
