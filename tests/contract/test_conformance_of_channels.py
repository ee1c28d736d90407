"""The checks of channels find what was planted."""

import re
from dataclasses import dataclass, replace

import pytest
import torch

from privfl.core import Able, Bounded, ChannelKind, Rows, Silent
from privfl.crypto import AdditiveSharing, Plain, SecAgg
from privfl.hybrid import BucketedSecAgg
from privfl.testing import ConformanceError, channel_checks


class SaysTotal(Plain):
    kind = ChannelKind("total")


class Anonymous(Plain):
    kind = ChannelKind("rows", named=False)


class Terse(Plain):
    def describe(self):
        return "Plain"


class TellsNobody(Plain):
    @property
    def able(self):
        return Able(told=("oracle",))


class Blind(Plain):
    def decode(self, received, members):
        return None


class Doubles(Plain):
    def client(self, who, identity, directory):
        return _Doubling(super().client(who, identity, directory))


@dataclass
class _Doubling:
    honest: object

    def set_up(self):
        return Silent()

    def enter(self, plan, update):
        return self.honest.enter(plan, Bounded(update.client, update.delta / 2, update.l2))


class Forgets(Plain):
    """A server that says that everybody is in its sum."""

    def server(self, identity, directory):
        return _Forgetful(super().server(identity, directory))


@dataclass
class _Forgetful:
    honest: object

    def set_up(self):
        return Silent()

    def enter(self, plan):
        return _Padded(plan, self.honest.enter(plan))


@dataclass
class _Padded:
    plan: object
    honest: object

    def step(self, mail):
        return self.honest.step(mail)

    @property
    def result(self):
        opened = self.honest.result
        if opened is None:
            return None
        n = self.plan.n
        return replace(
            opened,
            what=Rows(torch.zeros(n, self.plan.d), torch.ones(n), tuple(range(n))),
            survivors=tuple(range(n)),
        )


@dataclass(frozen=True)
class LeaksRows(SecAgg):
    """Secure aggregation whose decode makes up rows for whoever asks."""

    def decode(self, received, members):
        return Rows(torch.zeros(2, 40), torch.ones(2), (0, 1))


@dataclass(frozen=True)
class OneOff(SecAgg):
    """Secure aggregation whose encoding says that rows arrive as they are."""

    bits: int = 8

    @property
    def able(self):
        return replace(super().able, encodes=_Exactly(super().able.encodes))


@dataclass(frozen=True)
class _Exactly:
    real: object

    def arrives(self, row, plan):
        self.real.arrives(row, plan)
        return row

    def stage(self, d):
        return self.real.stage(d)


@dataclass(frozen=True)
class Overproves(SecAgg):
    """Secure aggregation whose rounding proves too little."""

    bits: int = 4

    @property
    def able(self):
        return replace(super().able, encodes=_Proves(super().able.encodes))


@dataclass(frozen=True)
class _Proves:
    real: object

    def arrives(self, row, plan):
        return self.real.arrives(row, plan)

    def stage(self, d):
        return _Same()


class _Same:
    def stability(self, moves, neighbours):
        return replace(moves, total=moves.total * 0.99)


@dataclass(frozen=True)
class Groupless(BucketedSecAgg):
    kind = ChannelKind("rows", named=False, takes_noise=True)


@dataclass(frozen=True)
class Quiet(AdditiveSharing):
    """It says that it takes noise, and adds none."""

    @property
    def able(self):
        return replace(super().able, noise=None)


PLANTED = {
    SaysTotal: "declare what it opens",
    Anonymous: "declare named as it is",
    Terse: "say in sentences",
    TellsNobody: "name parties",
    Blind: "decode",
    Doubles: "rows that differ from what arrives",
    Forgets: "a silent client is left out",
    LeaksRows: "reads single updates",
    Overproves: "encodes.stage proves",
    OneOff: "open exactly what arrives",
    Groupless: "declare both alike",
    Quiet: "able.noise is None",
}


@pytest.mark.parametrize("kind", PLANTED, ids=lambda kind: kind.__name__)
def test_a_planted_fault_of_a_channel_is_found_and_the_way_out_is_named(kind):
    errors = (str(error) for check in channel_checks(kind) if (error := raised(check)))
    assert any(re.search(PLANTED[kind], error) for error in errors)  # no check after that is played


def raised(check):
    try:
        check()
    except ConformanceError as error:
        return error


def test_a_sum_is_looked_at_as_a_sum():
    assert not [error for check in channel_checks(SecAgg(bits=12)) if (error := raised(check))]
