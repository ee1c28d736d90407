"""Files of what a dealer made ahead: every record once, whatever happens to the file."""

import os
import random
import shutil
import signal
from contextlib import suppress

import pytest

from privfl.core import ConfigError
from privfl.crypto.mpc import UsedUp
from privfl.crypto.mpc.dealt_file import DealtFile, DealtFileWriter, fresh_id, used_by
from privfl.crypto.primitives import Identity

DEALER, BOUND, SIZE, COUNT = Identity.fresh("dealer"), bytes(range(32)), 40, 5
RECORDS = [bytes([i + 1]) * SIZE for i in range(COUNT)]


def written(path, party="server", of=None):
    writer = DealtFileWriter(path, party, of or fresh_id(), BOUND, COUNT, SIZE)
    for record in RECORDS:
        writer.add(record)
    writer.close(DEALER)
    return DealtFile(path, party, DEALER.public.signing)


@pytest.fixture
def stock(tmp_path):
    return written(tmp_path / "dealing")


def test_every_record_is_handed_out_once_and_in_order(stock):
    assert [stock.take(BOUND).content for _ in RECORDS] == RECORDS
    with pytest.raises(UsedUp, match="all 5 dealings"):
        stock.take(BOUND)


def test_numbers_only_go_up_and_what_was_passed_by_is_never_taken(stock):
    assert stock.take(BOUND, 2).number == 2
    assert stock.take(BOUND).number == 3
    assert stock.take(BOUND, 1).number == 4


def test_what_was_taken_is_on_the_disk_no_more_and_is_not_taken_again_without_its_list(stock):
    taken = stock.take(BOUND)
    assert taken.content not in stock.path.read_bytes()
    assert RECORDS[1] in stock.path.read_bytes()
    used_by(stock.path).unlink()
    with pytest.raises(ConfigError, match="dealing 0 was used before"):
        stock.take(BOUND)


@pytest.mark.parametrize("lost", ["copied without its list", "list deleted", "list put back"])
def test_a_used_dealing_whose_list_does_not_know_it_is_refused_however_often_one_tries(
    stock, lost, tmp_path
):
    stock.take(BOUND)
    before = used_by(stock.path).read_bytes()
    stock.take(BOUND)
    tried = stock
    if lost == "copied without its list":
        tried = DealtFile(tmp_path / "copy", "server", DEALER.public.signing)
        shutil.copy(stock.path, tried.path)
    elif lost == "list deleted":
        used_by(stock.path).unlink()
    else:
        used_by(stock.path).write_bytes(before)
    for _ in range(COUNT + 1):
        with pytest.raises(ConfigError, match="was used before"):
            tried.take(BOUND)


@pytest.mark.parametrize("copied", ["folder", "dealing", "list"])
def test_a_copy_of_what_was_used_is_refused(stock, copied, tmp_path):
    stock.take(BOUND)
    other = tmp_path / "other"
    if copied == "folder":
        other.mkdir()
        for path in (stock.path, used_by(stock.path)):
            shutil.copy2(path, other / path.name)
        stock = DealtFile(other / stock.path.name, "server", stock.dealer)
    else:
        path = stock.path if copied == "dealing" else used_by(stock.path)
        shutil.copy2(path, other)
        other.replace(path)
    with pytest.raises(ConfigError, match="is a copy"):
        stock.take(BOUND)


def killed_at(stock, at):
    """Numbers that another process was handed before it was killed, at this write to the disk."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        writes = [0]

        def counted(do):
            def step(*rest):
                if writes[0] == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                writes[0] += 1
                return do(*rest)

            return step

        os.pwrite, os.fsync = counted(os.pwrite), counted(os.fsync)
        for _ in range(2):
            os.write(tell, bytes([stock.take(BOUND).number]))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(tell)
    with os.fdopen(told, "rb") as handed:
        return set(handed.read())


@pytest.mark.parametrize("at", range(7))
def test_a_process_that_is_killed_at_any_write_leaves_nothing_that_is_handed_out_twice(stock, at):
    before, left = killed_at(stock, at), []
    with suppress(UsedUp):
        while True:
            left.append(stock.take(BOUND).number)
    assert left == sorted(set(left))
    assert not before & set(left)
    assert len(before) + len(left) >= COUNT - 1, "a crash loses one record at most"


def test_a_list_whose_last_entry_a_crash_tore_counts_it_as_used(stock):
    stock.take(BOUND)
    stock.take(BOUND)
    path = used_by(stock.path)
    path.write_bytes(path.read_bytes()[:-3])
    assert stock.take(BOUND).number == 2
    assert stock.take(BOUND).number == 3


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda raw: raw[:-1], "cut off"),
        (lambda raw: raw[:30], "no dealing of this version"),
        (lambda raw: raw + b"x", "longer than it says"),
        (lambda raw: b"", "no dealing of this version"),
        (lambda raw: b"privfl-dealing-2" + raw[16:], "no dealing of this version"),
        (lambda raw: raw[:40] + b"\xff" + raw[41:], "was not signed by"),
        (lambda raw: raw.replace(RECORDS[0], RECORDS[1]), "is not what the dealer signed"),
    ],
)
def test_a_damaged_file_is_refused(stock, damage, said):
    raw = stock.path.read_bytes()
    with stock.path.open("r+b") as file:
        file.truncate(0)
        file.write(damage(raw))
    with pytest.raises(ConfigError, match=said):
        stock.take(BOUND)


def test_another_party_other_parameters_and_another_dealer_are_refused(stock):
    with pytest.raises(ConfigError, match="the files are swapped"):
        DealtFile(stock.path, "server/1", stock.dealer).take(BOUND)
    with pytest.raises(ConfigError, match="other parameters"):
        stock.take(bytes(32))
    stranger = Identity.fresh("dealer").public.signing
    with pytest.raises(ConfigError, match="was not signed by"):
        DealtFile(stock.path, "server", stranger).take(BOUND)
    assert stock.take(BOUND).number == 0, "what is refused uses nothing up"


def test_a_file_that_others_may_read_and_a_link_are_refused(stock, tmp_path):
    stock.path.chmod(0o640)
    with pytest.raises(ConfigError, match="open to others"):
        stock.take(BOUND)
    stock.path.chmod(0o600)
    (tmp_path / "link").symlink_to(stock.path)
    with pytest.raises(ConfigError, match="cannot open"):
        DealtFile(tmp_path / "link", "server", stock.dealer).take(BOUND)
    with pytest.raises(ConfigError, match="cannot open"):
        DealtFile(tmp_path / "nothing", "server", stock.dealer).take(BOUND)


def test_a_file_is_its_owners_alone_whole_or_not_there_and_never_overwritten(tmp_path):
    before = os.umask(0)
    try:
        stock = written(tmp_path / "dealing")
        stock.take(BOUND)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    with pytest.raises(ConfigError, match="exists"):
        written(stock.path)
    unfinished = DealtFileWriter(tmp_path / "other", "server", fresh_id(), BOUND, COUNT, SIZE)
    unfinished.add(RECORDS[0])
    assert not (tmp_path / "other").exists()
    unfinished.drop()
    assert {path.name for path in tmp_path.iterdir()} == {"dealing", "dealing.used"}


def test_nothing_of_a_record_is_in_what_is_printed_or_raised(stock):
    taken = stock.take(BOUND)
    assert repr(taken) == "<Taken: holds secrets>"
    with stock.path.open("r+b") as file:
        file.seek(-SIZE * 4, os.SEEK_END)
        file.write(b"secret" * 6)
    with pytest.raises(ConfigError) as told:
        stock.take(BOUND)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("which", ["dealing", "list"])
def test_hostile_bytes_end_in_a_sentence_and_never_in_a_record_that_is_another(
    which, stock, tmp_path
):
    stock.take(BOUND)
    path = stock.path if which == "dealing" else used_by(stock.path)
    raw, listed = stock.path.read_bytes(), used_by(stock.path).read_bytes()
    dice, refused = random.Random(5), 0
    for _ in range(200):
        changed = bytearray(path.read_bytes())
        for _ in range(dice.choice((1, 1, 3))):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        if dice.random() < 0.2:
            del changed[dice.randrange(len(changed)) :]
        with path.open("r+b") as file:
            file.truncate(0)
            file.write(changed)
        try:
            taken = stock.take(BOUND)
        except (ConfigError, UsedUp):
            refused += 1
        else:
            assert taken.content == RECORDS[taken.number]
            assert which == "dealing" or taken.number > 0
        for file, content in ((stock.path, raw), (used_by(stock.path), listed)):
            with file.open("r+b") as again:  # in place: another inode would be a copy
                again.truncate(0)
                again.write(content)
    assert refused > 50
