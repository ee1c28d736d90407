"""The checks of rules find what was planted, and say what to change."""

import re
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from privfl.aggregators import Median, RowRule, TrimmedMean, Verdict
from privfl.core import BadUpdate, Examples, Oracle, Rows, Vector
from privfl.testing import ConformanceError, check_rule, rule_checks


class WritesRows(Median):
    def __call__(self, opened: Rows) -> Vector:
        opened.values.mul_(2)
        return super().__call__(opened)


class Remembers(Median):
    def __call__(self, opened: Rows) -> Vector:
        SEEN.append(opened.values.mean(dim=0))
        return torch.stack(SEEN).mean(dim=0)


SEEN: list[Vector] = []


class Names(Median):
    def __call__(self, opened: Rows) -> Vector:
        if opened.ids is None:
            raise BadUpdate("Names wants names.")
        return super().__call__(opened)


@dataclass(frozen=True, slots=True)
class Average(RowRule):
    """A mean that says that it stands half of the rows."""

    def max_byzantine(self, n):
        return (n - 1) // 2

    def _decide(self, rows, lost):
        return Verdict(rows.values.mean(dim=0))


class Overproud(Average):
    @property
    def breaks(self):
        return "it says so"

    def _decide(self, rows, lost):
        return Verdict(rows.values.median(dim=0).values)


class Insensitive(Median):
    def sensitivity(self, *given):
        return 0.0


class Half(TrimmedMean):
    def sensitivity(self, *given):
        return super().sensitivity(*given) / 2


class Turned(Average):
    def _decide(self, rows, lost):
        return Verdict(rows.values.median(dim=0).values)


class FirstRow(Turned):
    symmetries: ClassVar[str] = "PTSR"

    def _decide(self, rows, lost):
        return Verdict(rows.values[0])


class Modest(Turned):
    symmetries: ClassVar[str] = "P"


class LetsNaNThrough(Median):
    def __call__(self, opened: Rows) -> Vector:
        return opened.values.mean(dim=0)


class Silent(Turned):
    def judge(self, opened: Rows):
        return Verdict(super().judge(opened).out + 1)


class Backwards(Average):
    """It suspects the rows that it keeps."""

    accuses: ClassVar[bool] = True
    suspects: ClassVar[bool] = True

    def _decide(self, rows, lost):
        middle = rows.values.median(dim=0).values
        away = (rows.values - middle).norm(dim=1)
        kept = away <= away.median()
        return Verdict(rows.values[kept].mean(dim=0), kept=kept, suspicion=-away)


class KeepsItToItself(Turned):
    suspects: ClassVar[bool] = True


class AccusesNobodyByName(Turned):
    accuses: ClassVar[bool] = True


class ReadsTotals(Median):
    reads = "total"


class NeedsNothingOfTheKind(Median):
    needs: ClassVar = {"scorer": Oracle.LOSS}


@dataclass(frozen=True, slots=True)
class Wants(Turned):
    power: int


class Refused(Wants):
    examples: ClassVar[Examples] = {"": {"might": 3}}


PLANTED = {
    WritesRows: "stay as they were",
    Remembers: "same of the same rows",
    Names: "does not look at names",
    Average: "lowe?r max_byzantine, or say in breaks",
    Overproud: "take breaks out",
    Insensitive: "prove a larger bound",
    Half: "under replace_one.*prove a larger bound",
    FirstRow: "another order of rows",
    Modest: 'add "[TS]" to symmetries',
    LetsNaNThrough: "not finite",
    Silent: "read beside the result",
    Backwards: "turn it around",
    KeepsItToItself: "declare suspects as it is",
    AccusesNobodyByName: "declare accuses = False",
    ReadsTotals: "make the two equal",
    NeedsNothingOfTheKind: "cannot be built|refuses its example",
    Wants: 'nothing is known of power; declare examples: ClassVar.Examples. = .*"power"',
    Refused: "cannot be built",
}


@pytest.mark.parametrize("kind", PLANTED, ids=lambda kind: kind.__name__)
def test_a_planted_fault_of_a_rule_is_found_and_the_way_out_is_named(kind):
    errors = [error for check in rule_checks(kind) if (error := raised(check))]
    assert any(re.search(PLANTED[kind], str(error)) for error in errors), errors
    assert all(error.subject.startswith(kind.__name__) and error.change for error in errors)


def raised(check):
    SEEN.clear()
    try:
        check()
    except ConformanceError as error:
        return error


def test_an_object_a_class_and_a_function_are_checked_alike():
    for part in (TrimmedMean(2), TrimmedMean, lambda: TrimmedMean(1)):
        check_rule(part)
    with pytest.raises(ConformanceError, match="Half"):
        check_rule(Half(2))


def test_checks_can_be_run_one_by_one():
    checks = list(rule_checks(TrimmedMean(2)))
    assert len({str(check) for check in checks}) == len(checks) > 10
    checks[0]()
