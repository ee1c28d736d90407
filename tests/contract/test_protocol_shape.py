"""Protocol packages have one shape: parameters, client, server, members, view."""

import inspect
from pathlib import Path

import pytest
import torch

import privfl
from privfl import catalog
from privfl.core import Bounded, Context, RoundPlan, client_of
from privfl.crypto.enrolled import Enrolled
from privfl.testing.building import subjects

N, D = 6, 8
SHAPE = {"channel", "parameters", "client", "server", "members", "view"}
ONE_FILE = 300
"""Lines up to which a whole protocol may be one file."""
PACKAGES = sorted(
    path.parent
    for pillar in ("crypto", "hybrid")
    for path in (Path(privfl.__file__).parent / pillar).glob("*/channel.py")
)
CHANNELS = [subject for kind in catalog.CHANNELS.values() for subject in subjects(kind)]


def file_of(thing):
    return type(thing).__module__.rpartition(".")[2]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_protocol_package_has_the_files_of_the_shape(package):
    """A protocol inside of another one may have that one's client, and the next test sees it."""
    assert len(PACKAGES) > 4, "channels are elsewhere by now"
    assert SHAPE - {path.stem for path in package.glob("*.py")} <= {"client"}


@pytest.mark.parametrize("subject", CHANNELS, ids=lambda subject: subject.name)
def test_members_and_parties_are_in_the_files_that_the_shape_says(subject):
    channel = subject.made
    members = Enrolled.fresh(channel, range(N)).members
    if type(members["server"]).__module__ == type(channel).__module__:
        source = Path(inspect.getfile(type(channel))).read_text(encoding="utf-8")
        assert len(source.splitlines()) <= ONE_FILE, "part it as the other protocols are"
        return
    plan = RoundPlan(1, tuple(range(N)), D, 1.0, session=b"shape")
    if channel.able.informed:
        members["server"].inform(Context(plan, torch.ones(D), torch.Generator().manual_seed(0)))
    for who, member in members.items():
        client = client_of(who)
        update = () if client is None else (Bounded(client, torch.full((D,), 0.1), 1.0),)
        party = member.enter(plan, *update)
        assert file_of(member) == "members", who
        if client is not None:
            assert file_of(party) == "client"
        elif who == "server":
            assert file_of(party) == "server"
        else:
            assert file_of(party) not in SHAPE - {"server"}, who
