"""A run whose dealer dealt ahead: the command, the same model, a kill in the middle of a round."""

import re

import pytest

from privfl.crypto.mpc.dealt_file import DealtFile
from privfl.hybrid.two_server.ahead.files import FILES

RUN = """
data: {name: digits, clients: 8}
rounds: 2
executor: sequential
bound: {name: clip, l2: 1.0}
channel: {name: two_server, reveal: aggregate, bits: 12, security: semi_honest}
aggregator: {name: krum, f: 1, m: 3}
"""


class Killed(BaseException):
    """What nothing catches."""


def dealt(privfl, config, out, *more):
    done = privfl("deal", config(RUN), "--out", out, *more)
    assert done.returncode == 0, done.stderr
    (settings,) = re.findall(r"(--set channel\S+ --set channel\S+)", " ".join(done.stderr.split()))
    return settings.split()


def test_a_run_that_was_dealt_ahead_ends_with_the_bits_of_one_whose_dealer_is_online(
    privfl, config, tmp_path, same_model
):
    settings = dealt(privfl, config, tmp_path / "dealt")
    assert {path.name for path in (tmp_path / "dealt").iterdir()} == set(FILES.values())
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "dealt").iterdir())
    for out, more in (("online", ()), ("ahead", settings)):
        done = privfl("run", config(RUN), "--out", tmp_path / out, *more)
        assert done.returncode == 0, done.stderr
    assert same_model(tmp_path / "online", tmp_path / "ahead")


def test_a_run_killed_between_its_servers_takes_none_twice_and_ends_with_the_same_bits(
    privfl, config, tmp_path, same_model, monkeypatch
):
    settings, takes, real = dealt(privfl, config, tmp_path / "dealt"), [], DealtFile.take

    def take(self, *rest):
        if len(takes) == 3:  # one server took its dealing of the second round
            raise Killed
        takes.append((self.party, real(self, *rest)))
        return takes[-1][1]

    with monkeypatch.context() as killed:
        killed.setattr(DealtFile, "take", take)
        with pytest.raises(Killed):
            privfl("run", config(RUN), "--out", tmp_path / "run", *settings)

    def more(self, *rest):
        takes.append((self.party, real(self, *rest)))
        return takes[-1][1]

    with monkeypatch.context() as watched:
        watched.setattr(DealtFile, "take", more)
        resumed = privfl("run", "--resume", tmp_path / "run")
    assert resumed.returncode == 0, resumed.stderr
    assert [(who, taken.number) for who, taken in takes] == [
        *(("server/1", 0), ("server", 0), ("server/1", 1)),
        *(("server/1", 2), ("server", 2)),
    ]
    assert privfl("run", config(RUN), "--out", tmp_path / "online").returncode == 0
    assert same_model(tmp_path / "online", tmp_path / "run")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--set", "channel.security=malicious"], "no dealer that can deal ahead"),
        (["--set", "sampler={name: poisson, rate: 0.5}"], "sample a fixed number"),
        (
            ["--set", "training.name=scaffold", "--set", "bound.parts={control: 1.0}"],
            "several vectors",
        ),
        (["--count", "0"], "deal for 1 at least"),
    ],
)
def test_what_cannot_be_dealt_ahead_is_refused_in_a_sentence(privfl, config, tmp_path, more, said):
    if "malicious" in str(more):
        more = [*more, "--set", "channel.reveal=scores"]
    done = privfl("deal", config(RUN), "--out", tmp_path / "dealt", *more)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split()), done.stderr
