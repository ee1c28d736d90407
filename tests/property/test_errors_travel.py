"""An error that a worker process raised says in the parent what it said there."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from privfl.core import Abort, BadUpdate, ConfigError
from privfl.crypto.abort import StageAbort

ERRORS = [
    ConfigError("rounds must be 1 or more."),
    BadUpdate("not finite"),
    Abort("no letter of its own", blamed="client/2"),
    Abort("a letter in the name of dealer is none", letter_of="dealer"),
    StageAbort("share", "only 2 of 3 are left", who=["client/1", "client/4"]),
    StageAbort("unmask", "an answer of another round", blamed="client/3"),
]


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_an_error_is_the_same_after_a_journey(error):
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def gives_up():
    raise StageAbort("share", "only 2 of 3 are left", who=["client/1"])


def test_who_was_missing_is_told_across_processes():
    with ProcessPoolExecutor(1, get_context("fork")) as pool, pytest.raises(StageAbort) as told:
        pool.submit(gives_up).result()
    assert told.value.who == ("client/1",)
    assert told.value.stage == "share"
    assert str(told.value) == "stage share: only 2 of 3 are left"
