"""The compiled selection network gives the bits of the sort, and is only loaded where nobody but
its user can have put it.
"""

import os
import shutil

import pytest
import torch

from privfl.aggregators import Median, TrimmedMean
from privfl.aggregators.network import (
    MOST,
    agrees_with_the_sort,
    median_by_network,
    merge_exchange,
    pruned,
    same_bits,
    trimmed_by_network,
)
from privfl.cli.native import native
from privfl.core import BadUpdate, ConfigError, Rows
from privfl.core import native as built


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler here")
    place = tmp_path_factory.mktemp("kernels")
    built.build_kernels(agrees_with_the_sort, place)
    return place


@pytest.fixture
def library(folder):
    return built.kernels(folder)


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No kernels: what the rules do then is the oracle."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def shapes():
    """Rows of many shapes: ties, zeros of both signs, subnormal and huge values, room between."""
    rng = torch.Generator().manual_seed(0)
    for case in range(200):
        n = (1, 2, 3, 8, 9, 10, 127, 300)[case] if case < 8 else 1 + int(case**2 * 0.0025)
        d = (1, 7, 63, 64, 65, 130)[case % 6]
        dtype = (torch.float32, torch.float64)[case % 3 == 0]
        wide = torch.empty(n, d + 10, dtype=dtype).normal_(generator=rng)
        values = wide[:, 10:] if case % 2 else wide[:, :d].clone()
        if case % 5 == 0:
            values.round_()
        if case % 5 == 1:
            values *= 1e-40
        if case % 5 == 2:
            values *= 3e37
        if case % 7 == 0:
            values[::2] = -0.0
        yield (0, (n - 1) // 2, (n - 1) // 5)[case % 3], values


@pytest.mark.usefixtures("nowhere")
def test_the_network_gives_the_bits_of_the_sort(library):
    served = 0
    for f, values in shapes():
        rows, kept = Rows.of(values), values.clone()
        trimmed = trimmed_by_network(values, f, library)
        if trimmed is not None:
            served += 1
            assert same_bits(trimmed, TrimmedMean(f)(rows)), (values.shape, f)
        assert same_bits(median_by_network(values, library), Median()(rows)), values.shape
        assert torch.equal(values, kept)
    assert served >= 195  # of few shapes torch's order of addition is another one


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("n", range(1, 13))
def test_it_orders_all_columns_of_zeros_and_ones_and_so_all_columns(n, library):
    values = (torch.arange(2**n) >> torch.arange(n)[:, None] & 1).float().contiguous()
    assert same_bits(median_by_network(values, library), Median()(Rows.of(values)))
    for f in range((n + 1) // 2):
        found = trimmed_by_network(values, f, library)
        assert same_bits(found, TrimmedMean(f)(Rows.of(values)))


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("odd", [torch.nan, -torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_not_finite_is_left_to_the_sort(odd, dtype, library):
    values = torch.randn(9, 300, dtype=dtype, generator=torch.Generator().manual_seed(1))
    for row, column in ((0, 0), (4, 255), (8, 299)):
        broken = values.clone()
        broken[row, column] = odd
        assert trimmed_by_network(broken, 2, library) is None
        assert median_by_network(broken, library) is None
    largest = torch.finfo(dtype).max
    values[3], values[4] = largest, -largest
    assert same_bits(trimmed_by_network(values, 2, library), TrimmedMean(2)(Rows.of(values)))


@pytest.mark.usefixtures("nowhere")
def test_doubles_are_added_up_in_torchs_order_and_not_in_one_that_singles_cannot_tell_from_it(
    library,
):
    rng = torch.Generator().manual_seed(4)
    for n, f in ((9, 1), (10, 2), (12, 3), (13, 3), (14, 4), (16, 5), (18, 6), (7, 0)):
        values = torch.empty(n, 300, dtype=torch.float64).normal_(generator=rng)
        values[:, 250:] = values[:, 250:].sign() * torch.finfo(torch.float64).max
        found = trimmed_by_network(values, f, library)
        assert found is None or same_bits(found, TrimmedMean(f)(Rows.of(values))), (n, f)


def test_rules_with_kernels_say_what_they_say_without(folder, monkeypatch):
    values = torch.randn(7, 200, generator=torch.Generator().manual_seed(2))
    bad = values.clone()
    bad[3, 5] = torch.nan
    cases = [(TrimmedMean(0), values), (TrimmedMean(2), values), (Median(), values)]
    cases += [(TrimmedMean(2), bad), (Median(), bad)]
    monkeypatch.setattr(built, "kernel_folder", lambda: folder)
    assert trimmed_by_network(values, 2) is not None
    with_kernels = [rule.judge(Rows.of(rows)) for rule, rows in cases]
    monkeypatch.setenv("PRIVFL_NATIVE", "off")
    assert trimmed_by_network(values, 2) is None
    for found, (rule, rows) in zip(with_kernels, cases, strict=True):
        wanted = rule.judge(Rows.of(rows))
        assert same_bits(found.out, wanted.out)
        assert (found.touched, found.dropped) == (wanted.touched, wanted.dropped)
    with pytest.raises(BadUpdate, match="no rows"):
        Median()(Rows(torch.empty(0, 3), torch.empty(0)))


def test_shapes_without_a_kernel_are_left_to_the_sort(library):
    values = torch.randn(5, 40, generator=torch.Generator().manual_seed(3))
    for other in (values.half(), values.T, values[:, :0], values[:0]):
        assert median_by_network(other, library) is None
        assert trimmed_by_network(other, 1, library) is None
    assert median_by_network(torch.zeros(MOST + 1, 4), library) is None
    assert trimmed_by_network(values, 3, library) is None
    assert trimmed_by_network(values.clone().requires_grad_(), 1, library) is not None


def test_without_a_compiler_the_sort_is_used_and_the_command_says_so(nowhere, monkeypatch, capsys):
    monkeypatch.setenv("CC", "no-such-compiler")
    native()
    assert "everything works without" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no C compiler 'no-such-compiler'"):
        native(build=True)
    assert TrimmedMean(1)(Rows.of([[0.0], [1.0], [5.0]])).tolist() == [1.0]


def test_the_command_builds_and_then_says_where(library, nowhere, monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("CC", raising=False)
    native(build=True)
    assert f"in use: {tmp_path}" in capsys.readouterr().err
    assert trimmed_by_network(torch.zeros(3, 1), 1) is not None


def test_a_kernel_with_other_bits_or_from_a_broken_compiler_is_not_put_in_place(library, tmp_path):
    with pytest.raises(ConfigError, match="not used"):
        built.build_kernels(lambda _: False, tmp_path)
    with pytest.raises(ConfigError, match="did not compile"):
        built.build_kernels(agrees_with_the_sort, tmp_path, "false")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_kernels_that_others_could_have_written_are_not_loaded(mode, folder, tmp_path):
    above = tmp_path / "above"
    place = above / "native"
    place.mkdir(parents=True, mode=0o700)
    copied = shutil.copy2(built.kernel_file(folder), place)
    assert built.kernels(place) is not None
    for one in (place, above, copied):
        before = os.stat(one).st_mode
        os.chmod(one, mode)
        built._loaded.cache_clear()
        assert built.kernels(place) is None
        if one != copied:
            with pytest.raises(ConfigError, match="can be written by others"):
                built.build_kernels(agrees_with_the_sort, place)
        os.chmod(one, before)
    built._loaded.cache_clear()
    assert built.kernels(place) is not None


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give")
def test_a_kernel_of_another_user_is_not_loaded(folder, tmp_path):
    copied = shutil.copy2(built.kernel_file(folder), tmp_path)
    os.chown(copied, 65534, 65534)
    assert "belongs to another user" in built.open_to_others(tmp_path / copied)
    assert built.kernels(tmp_path) is None


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_kernels_that_were_cut_short_are_not_loaded(share, folder, tmp_path):
    whole = built.kernel_file(folder).read_bytes()
    cut = built.kernel_file(tmp_path)
    cut.write_bytes(whole[: int(share * len(whole))])
    cut.chmod(0o700)
    assert built.kernels(tmp_path) is None


def test_what_was_checked_is_loaded_and_not_what_a_link_may_lead_to_later(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    library = built.kernels(tmp_path / "link")
    assert library is not None
    assert library._name == os.path.realpath(built.kernel_file(folder))


def test_folders_are_made_for_the_user_alone_whatever_the_umask(tmp_path):
    before = os.umask(0o002)
    try:
        place = built.build_kernels(lambda _: True, tmp_path / "new" / "privfl" / "native")
    finally:
        os.umask(before)
    assert built.kernels(place.parent) is not None


@pytest.mark.parametrize("options", ["cc -O1", "  cc  '-DUNUSED=a b' "])
def test_a_compiler_may_come_with_options(options, monkeypatch, tmp_path):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler here")
    monkeypatch.setenv("CC", options)
    assert built.build_kernels(lambda _: True, tmp_path).is_file()


@pytest.mark.parametrize("compiler", ["  ", "cc '", "no such", "-O3"])
def test_what_is_no_compiler_is_refused_in_words(compiler, tmp_path):
    with pytest.raises(ConfigError, match="there is no C compiler"):
        built.build_kernels(lambda _: True, tmp_path, compiler)


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_place_of_a_folder_is_refused_in_words(below, folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="no kernels can be put into"):
        built.build_kernels(lambda _: True, tmp_path / "file" / below)
    assert built.kernels(tmp_path / "file" / below) is None


@pytest.mark.parametrize("home", [{"XDG_CACHE_HOME": "~nobody-has-this-name/x"}, {}])
def test_who_has_no_home_has_no_kernels_and_the_rules_work(home, monkeypatch):
    def unknown(_):
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("PRIVFL_NATIVE", raising=False)
    for name, told in home.items():
        monkeypatch.setenv(name, told)
    assert built.kernels() is None
    assert TrimmedMean(1)(Rows.of([[0.0], [1.0], [5.0]])).tolist() == [1.0]
    with pytest.raises(ConfigError, match="Set XDG_CACHE_HOME to an absolute path"):
        built.kernel_folder()


@pytest.mark.parametrize("relative", ["cache", "../cache", "."])
def test_a_relative_cache_is_not_that_of_whatever_folder_one_works_in(relative, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", relative)
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(built.kernel_folder()) == "/somewhere/.cache/privfl/native"


def test_another_processor_or_source_has_kernels_of_its_own(monkeypatch, tmp_path):
    here = built.kernel_file(tmp_path)
    monkeypatch.setattr(built, "_features", lambda: "flags : less")
    other = built.kernel_file(tmp_path)
    (tmp_path / "network.c").write_text("int x;")
    monkeypatch.setattr(built, "SOURCES", (tmp_path / "network.c",))
    assert len({here, other, built.kernel_file(tmp_path)}) == 3


def test_pruning_keeps_what_the_kept_ranks_depend_on():
    step, pairs = merge_exchange(50)
    assert step == 8
    assert len(pruned(pairs, range(10, 40))) < len(pruned(pairs, range(50))) == len(pairs)
    assert len(pruned(pairs, [24, 25])) < len(pruned(pairs, range(10, 40)))
